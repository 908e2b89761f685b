"""The memory of large results is recycled.

The system clears the pages of a new large array as they are touched, which takes longer than
dropout itself.  So the block of such a result is kept when its last view is gone, for a later
result.  The native module does this (``cpp/core/memory.cpp``), whichever backend computes; without
it, blocks from 4 MiB on are kept here.
"""

from __future__ import annotations

import math
import os
import re
from typing import Any, Final, Protocol

import numpy as np

from dropwise._backends.protocol import Array, Bits

LARGE: Final = 1 << 17  # bytes; malloc itself recycles smaller blocks
DEFAULT_LIMIT: Final = 1 << 28  # bytes kept at most, over all blocks

_U8 = np.dtype(np.uint8)


class _Store(Protocol):
    """Where blocks are kept."""

    def empty(self, shape: tuple[int, ...], dtype: np.dtype[Any]) -> Array:
        """An uninitialised array of LARGE bytes or more."""

    def kept_bytes(self) -> int:
        """What is kept now."""

    def clear_memory(self) -> None:
        """Drop it."""


def _environment_limit() -> int:
    text = os.environ.get("DROPWISE_MEMORY_LIMIT")
    if not text:
        return DEFAULT_LIMIT
    match = re.fullmatch(r"\s*(\d{1,15})\s*([KMG]?)\s*", text, re.ASCII | re.IGNORECASE)
    if match is None:
        raise ValueError(
            "DROPWISE_MEMORY_LIMIT must be a number of bytes, such as 0, 67108864, 64M or 2G, "
            f"got {text!r}"
        )
    return int(match[1]) << {"": 0, "K": 10, "M": 20, "G": 30}[match[2].upper()]


class _Lease:
    """The base of a result and of all its views: when they are gone, it returns the block."""

    __slots__ = ("__array_interface__", "_leases", "_memory")

    def __init__(self, leases: Leases, memory: Array) -> None:
        self._leases = leases
        self._memory = memory
        self.__array_interface__ = memory.__array_interface__

    def __del__(self) -> None:
        self._leases.give_back(self._memory)


class Leases:
    """Blocks kept without the native module: of one size each, found by a search."""

    LARGE: Final = 1 << 22  # bytes; a search costs more than it saves for smaller blocks

    def __init__(self, limit: int) -> None:
        self._limit = limit
        # The kept blocks by `id`, the oldest first.  Every access is one operation of a dict, which
        # is atomic: threads may use it at once, and one __del__ may interrupt another.
        self._spare: dict[int, Array] = {}

    def empty(self, shape: tuple[int, ...], dtype: np.dtype[Any]) -> Array:
        size = math.prod(shape) * dtype.itemsize
        if not self.LARGE <= size <= self._limit:
            return np.empty(shape, dtype)
        for key, memory in list(self._spare.items()):
            if memory.nbytes == size and self._spare.pop(key, None) is not None:
                break
        else:
            memory = np.empty(size, np.uint8)
        return np.asarray(_Lease(self, memory)).view(dtype).reshape(shape)

    def give_back(self, memory: Array) -> None:
        self._spare[id(memory)] = memory
        total = 0
        for key, kept in reversed(list(self._spare.items())):
            total += kept.nbytes
            if total > self._limit:
                self._spare.pop(key, None)

    def kept_bytes(self) -> int:
        return sum(memory.nbytes for memory in list(self._spare.values()))

    def clear_memory(self) -> None:
        self._spare.clear()


_store: _Store | None = None
_limit = DEFAULT_LIMIT


def _chosen_store() -> _Store:
    """Where blocks are kept, from the first use on.  ValueError if the limit is no number."""
    global _store, _limit
    if _store is None:
        _limit = _environment_limit()
        try:
            from dropwise import _native
        except ImportError:
            _store = Leases(_limit)
        else:
            _native.set_memory_limit(_limit)
            _store = _native
    return _store


def empty(shape: tuple[int, ...], dtype: np.dtype[Any]) -> Array:
    """``np.empty(shape, dtype)``, in the memory of a former result if it is large."""
    is_small = math.prod(shape) * dtype.itemsize < LARGE
    return np.empty(shape, dtype) if is_small else _large(shape, dtype)


def empty_like(x: Array) -> Array:
    """`empty` with the shape and the dtype of `x`, in less time."""
    return np.empty(x.shape, x.dtype) if x.nbytes < LARGE else _large(x.shape, x.dtype)


def _large(shape: tuple[int, ...], dtype: np.dtype[Any]) -> Array:
    store = _store or _chosen_store()
    return store.empty(shape, dtype) if _limit else np.empty(shape, dtype)


def empty_bits(n: int) -> Bits:
    """Memory for the packed mask of `n` elements."""
    return empty(((n + 7) >> 3,), _U8)


def usage() -> tuple[int, int]:
    """The bytes that may be kept, and those that are."""
    store = _chosen_store()
    return _limit, store.kept_bytes()


def clear_memory() -> None:
    """Return the memory that is kept for future results to the system.

    Notes
    -----
    Memory of results from 128 KiB on is kept when they are gone, and used for later ones, because
    new memory takes longer to get than dropout takes to compute.  At most 256 MiB are kept, or what
    the environment variable ``DROPWISE_MEMORY_LIMIT`` says: a number of bytes, perhaps with K, M or
    G after it; 0 keeps none.  No array that exists is ever touched.

    Examples
    --------
    >>> import dropwise as dw
    >>> dw.clear_memory()
    >>> dw.show_config("dicts")["memory"]["kept"]
    0
    """
    _chosen_store().clear_memory()
