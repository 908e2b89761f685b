"""Which backend computes: the default of the process, or that of a ``with`` block."""

from __future__ import annotations

import contextlib
import importlib
import operator
import os
import threading
from collections.abc import Iterator
from contextlib import ContextDecorator
from contextvars import ContextVar

import numpy as np

from dropwise._backends.protocol import Backend

# Best first: the first one that can be loaded is the default.
_CLASSES = {"native": "NativeBackend", "numba": "NumbaBackend"}
NAMES = tuple(_CLASSES)

_loaded: dict[str, Backend] = {}
_process_default: Backend | None = None
_default_lock = threading.Lock()
# The backends of the `with` blocks around the caller, the innermost one last.
_blocks: ContextVar[tuple[Backend, ...]] = ContextVar("dropwise_backends", default=())


def _load(name: str) -> Backend:
    """The backend of that name, or the ImportError that says why there is none."""
    loaded = _loaded.get(name)
    if loaded is None:
        module = importlib.import_module(f"dropwise._backends.{name}")
        loaded = _loaded.setdefault(name, getattr(module, _CLASSES[name])())
    return loaded


def why_unavailable(name: str) -> str | None:
    """Why the backend `name` cannot be had, or None if it can."""
    try:
        _load(name)
    except ImportError as error:
        return f"{type(error).__name__}: {error}"
    return None


def available_backends() -> tuple[str, ...]:
    """Names of the backends that work here, best first.

    Examples
    --------
    >>> import dropwise as dw
    >>> "numba" in dw.available_backends()
    True
    """
    return tuple(name for name in _CLASSES if why_unavailable(name) is None)


def _get(name: str) -> Backend:
    if name not in _CLASSES:
        raise ValueError(
            f"unknown backend {name!r}; available: {', '.join(available_backends()) or 'none'}"
        )
    reason = why_unavailable(name)
    if reason is not None:
        available = ", ".join(available_backends()) or "none"
        raise ImportError(f"backend {name!r} is not available ({reason}); available: {available}")
    return _load(name)


def _best() -> Backend:
    """The backend that ``DROPWISE_BACKEND`` names, else the best one that can be loaded."""
    forced = os.environ.get("DROPWISE_BACKEND")
    if forced:
        return _get(forced)
    for name in _CLASSES:
        if why_unavailable(name) is None:
            return _load(name)
    reasons = "; ".join(f"{name}: {why_unavailable(name)}" for name in _CLASSES)
    raise ImportError(f"no backend is available ({reasons})")


def _choose_default() -> Backend:
    global _process_default
    best = _best()
    with _default_lock:
        if _process_default is None:  # no other thread has set one meanwhile
            _process_default = best
        return _process_default


def active() -> Backend:
    """The backend that computes for the caller."""
    blocks = _blocks.get()
    if blocks:
        return blocks[-1]
    return _process_default or _choose_default()


def is_in_block() -> bool:
    """Whether a ``with backend(...)`` block decides which backend computes for the caller."""
    return bool(_blocks.get())


def set_backend(name: str) -> None:
    """Make the backend `name` the default of the process, for all its threads.

    Parameters
    ----------
    name : {"native", "numba"}

    Raises
    ------
    ValueError
        If there is no backend of that name.
    ImportError
        If there is one, but it cannot be loaded here; the message says why.

    See Also
    --------
    backend : Choose the backend of one ``with`` block.

    Notes
    -----
    A ``with backend(...)`` block that is open keeps its backend until it ends.  Without a call,
    the environment variable ``DROPWISE_BACKEND`` names the default, else it is the first of
    `available_backends`.  All backends give the same masks.

    Examples
    --------
    >>> import dropwise as dw
    >>> dw.set_backend(dw.available_backends()[0])
    """
    global _process_default
    chosen = _get(name)
    with _default_lock:
        _process_default = chosen


class _Block(ContextDecorator):
    """Keeps nothing of its own between entering and leaving, so that it may be entered again."""

    def __init__(self, chosen: Backend) -> None:
        self._backend = chosen

    def __enter__(self) -> Backend:
        _blocks.set((*_blocks.get(), self._backend))
        return self._backend

    def __exit__(self, *_: object) -> None:
        _blocks.set(_blocks.get()[:-1])


def backend(name: str) -> _Block:
    """Compute with the backend `name` in one ``with`` block, or in one decorated function.

    Parameters
    ----------
    name : {"native", "numba"}

    Raises
    ------
    ValueError
        If there is no backend of that name.
    ImportError
        If there is one, but it cannot be loaded here; the message says why.

    See Also
    --------
    set_backend : Choose the default of the process.

    Notes
    -----
    A block holds for its own context: other threads, and tasks that were started before it, go on
    with theirs.  Blocks may be nested; the innermost one decides.

    Examples
    --------
    >>> import dropwise as dw
    >>> with dw.backend("numba"):
    ...     kept = dw.functional.dropout_mask((2, 3), 0.0, key=1)
    >>> kept
    array([[ True,  True,  True],
           [ True,  True,  True]])
    """
    return _Block(_get(name))


def get_num_threads() -> int:
    """Number of threads that the active backend may use for one call."""
    return active().num_threads()


def set_num_threads(n: int) -> None:
    """Let the active backend use `n` threads for one call.  No result depends on it.

    Parameters
    ----------
    n : int, at least 1
    """
    # Not by the checks of `_arguments`, which import this package.
    try:
        if isinstance(n, (bool, np.bool_)):
            raise TypeError
        count = operator.index(n)
    except TypeError:
        raise TypeError(f"number of threads must be an integer, got {n!r}") from None
    if count < 1:
        raise ValueError(f"number of threads must be at least 1, got {n!r}")
    active().set_num_threads(count)


@contextlib.contextmanager
def serial() -> Iterator[None]:
    """Compute in the calling thread alone: for code that has a thread on every CPU already."""
    computing = active()
    before = computing.set_serial(True)
    try:
        yield
    finally:
        computing.set_serial(before)
