"""What this installation has and uses: `show_config`."""

from __future__ import annotations

import os
import platform
import sys
from typing import Any, Literal, overload

import numpy as np

import dropwise
from dropwise import _backends, _memory
from dropwise.random import MASK_CONTRACT


@overload
def show_config(mode: Literal["stdout"] = "stdout") -> None: ...
@overload
def show_config(mode: Literal["dicts"]) -> dict[str, Any]: ...
def show_config(mode: str = "stdout") -> dict[str, Any] | None:
    """Show which backend, instruction set and threads are used and why, and how they were built.

    Parameters
    ----------
    mode : {"stdout", "dicts"}
        Print it, or return it as nested dictionaries.

    Returns
    -------
    dict or None
        None if it was printed.

    Raises
    ------
    ValueError
        If `mode` is neither, or an environment variable of dropwise asks for what there is not.

    Examples
    --------
    >>> import dropwise as dw
    >>> dw.show_config("dicts")["mask contract"]
    1
    """
    if mode not in ("stdout", "dicts"):
        raise ValueError(f"mode must be 'stdout' or 'dicts', got {mode!r}")
    config = _config()
    if mode == "dicts":
        return config
    for title, value in config.items():
        print(f"{title:18}{_text(value)}")
    return None


def _text(value: Any) -> str:
    if isinstance(value, dict):
        return "\n".join(
            f"{'' if i == 0 else ' ' * 18}{key}: {_text(item)}"
            for i, (key, item) in enumerate(value.items())
        )
    if isinstance(value, list):
        return ", ".join(value) or "none"
    return str(value)


def _config() -> dict[str, Any]:
    active = _backends.active()
    available = list(_backends.available_backends())
    config: dict[str, Any] = {
        "dropwise": dropwise.__version__,
        "mask contract": MASK_CONTRACT,
        "backend": {
            "active": active.name,
            "why": _why(active.name, available[0], "DROPWISE_BACKEND", "use_backend"),
            "available": available,
        },
        "threads": {"count": active.num_threads()},
    }
    limit, kept = _memory.usage()
    config["memory"] = {"limit": limit, "kept": kept}
    for name in _backends.NAMES:
        reason = _backends.why_unavailable(name)
        if reason is not None:
            config["backend"][f"no {name}"] = reason
    if "native" in available:
        from dropwise import _native

        usable = _native.available_isas()
        isa = _native.active_isa()
        config["instruction sets"] = {
            "active": isa,
            "why": _why(isa, usable[0], "DROPWISE_ISA", "set_isa"),
            "usable": usable,
            "built": _native.built_isas(),
        }
        config["native build"] = {key: text or "none" for key, text in _native.build_info().items()}
        if active.name == "native":
            config["threads"]["why"] = _native.num_threads_source()
    config["versions"] = {
        "python": f"{platform.python_version()} ({sys.implementation.name})",
        "numpy": np.__version__,
        "numba": _version("numba"),
        "platform": platform.platform(),
    }
    return config


def _why(chosen: str, best: str, variable: str, function: str) -> str:
    """Why `chosen`, when `best` is the default, `variable` may force one and `function` any."""
    forced = os.environ.get(variable)
    if chosen == (forced or best):
        return variable if forced else "the best there is"
    return function


def _version(distribution: str) -> str:
    from importlib import metadata  # half the time of `import dropwise`

    try:
        return metadata.version(distribution)
    except metadata.PackageNotFoundError:
        return "not installed"
