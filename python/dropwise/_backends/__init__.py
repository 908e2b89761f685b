"""Which backend computes: chosen at the first use, switched by `use_backend`."""

from __future__ import annotations

import importlib
import os
from contextvars import ContextVar, Token

from dropwise._backends.protocol import Backend

# Best first: the first one that can be loaded is the default.
_CLASSES = {"native": "NativeBackend", "numba": "NumbaBackend"}
NAMES = tuple(_CLASSES)

_loaded: dict[str, Backend] = {}
_in_context: ContextVar[Backend | None] = ContextVar("dropwise_backend", default=None)
_process_default: Backend | None = None


def _load(name: str) -> Backend:
    """The backend of that name, or the ImportError that says why there is none."""
    backend = _loaded.get(name)
    if backend is None:
        module = importlib.import_module(f"dropwise._backends.{name}")
        backend = _loaded[name] = getattr(module, _CLASSES[name])()
    return backend


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


def _choose_default() -> Backend:
    global _process_default
    if _process_default is None:
        forced = os.environ.get("DROPWISE_BACKEND")
        if forced:
            _process_default = _get(forced)
        else:
            for name in _CLASSES:
                if why_unavailable(name) is None:
                    _process_default = _load(name)
                    break
            else:
                reasons = "; ".join(f"{name}: {why_unavailable(name)}" for name in _CLASSES)
                raise ImportError(f"no backend is available ({reasons})")
    return _process_default


def active() -> Backend:
    """The backend that computes, for the caller's context."""
    return _in_context.get() or _process_default or _choose_default()


class use_backend:
    """Compute with the backend `name` from now on, or for one ``with`` block.

    Parameters
    ----------
    name : {"native", "numba"}

    Raises
    ------
    ValueError
        If there is no backend of that name.
    ImportError
        If there is one, but it cannot be loaded here; the message says why.

    Notes
    -----
    Called as a function it switches the process.  In a ``with`` block it switches the block's
    context only (other threads go on with theirs) and restores what was active before.  The
    environment variable ``DROPWISE_BACKEND`` sets the default.  All backends give the same masks.

    Examples
    --------
    >>> import dropwise as dw
    >>> with dw.use_backend("numba"):
    ...     kept = dw.functional.dropout_mask((2, 3), 0.0, key=1)
    >>> kept
    array([[ True,  True,  True],
           [ True,  True,  True]])
    """

    def __init__(self, name: str) -> None:
        global _process_default
        self._backend = _get(name)
        self._default_before = _process_default
        self._token: Token[Backend | None] | None = _in_context.set(self._backend)
        _process_default = self._backend

    def __enter__(self) -> Backend:
        global _process_default
        _process_default = self._default_before  # a block switches its own context only
        return self._backend

    def __exit__(self, *_: object) -> None:
        if self._token is not None:
            _in_context.reset(self._token)
            self._token = None


def get_num_threads() -> int:
    """Number of threads that the active backend may use for one call."""
    return active().num_threads()


def set_num_threads(n: int) -> None:
    """Let the active backend use `n` threads for one call.  No result depends on it.

    Parameters
    ----------
    n : int, at least 1
    """
    if n < 1:
        raise ValueError(f"number of threads must be at least 1, got {n!r}")
    active().set_num_threads(int(n))
