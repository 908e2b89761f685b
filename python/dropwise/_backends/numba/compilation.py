"""How the kernels are compiled: on the first call, and kept on disk."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any, Literal

from numba import njit

# Part of the kernel that calls it, instead of being compiled by itself first.
inlined = njit(nogil=True, inline="always")


def kernel(function: Callable[..., Any], error_model: Literal["python", "numpy"] = "python") -> Any:
    """Compile on first use, kept on disk unless neither the package nor the user has a place."""
    try:
        compiled: Any = njit(nogil=True, cache=True, error_model=error_model)(function)
    except RuntimeError:  # "no locator available"
        return njit(nogil=True, error_model=error_model)(function)
    # What is on disk contains the kernels that `function` calls.  Numba takes it as current until
    # the file of `function` changes; here, until any file of this folder does.
    cache_file = getattr(compiled._cache, "_cache_file", None)
    if cache_file is not None:
        cache_file._source_stamp = (cache_file._source_stamp, _folder_stamp())
    return compiled


def ieee_kernel(function: Callable[..., Any]) -> Any:
    """The same, with the division of IEEE 754: by zero it gives an infinity and no error."""
    return kernel(function, error_model="numpy")


def _folder_stamp() -> tuple[tuple[str, float, int], ...]:
    """Name, time of the last change and size of each file of this folder."""
    files = sorted(Path(__file__).parent.glob("*.py"))
    return tuple((f.name, f.stat().st_mtime, f.stat().st_size) for f in files)
