"""The memory of large results is recycled.

The system clears the pages of a new large array as they are touched, which takes longer than
dropout itself.  So the block of such a result is kept when its last view is gone, for the next
result of its size.
"""

from __future__ import annotations

import math
from typing import Any, Final

import numpy as np

from dropwise._backends.protocol import Array

LARGE: Final = 1 << 22  # bytes; malloc itself recycles smaller blocks
KEPT: Final = 1 << 28  # bytes kept at most, over all blocks

# The kept blocks by `id`, the oldest first.  Every access is one operation of a dict, which is
# atomic: threads may use it at once, and one __del__ may interrupt another.
_spare: dict[int, Array] = {}


class _Lease:
    """The base of a result and of all its views: when they are gone, it returns the block."""

    __slots__ = ("__array_interface__", "_memory")

    def __init__(self, memory: Array) -> None:
        self._memory = memory
        self.__array_interface__ = memory.__array_interface__

    def __del__(self, spare: dict[int, Array] = _spare) -> None:
        spare[id(self._memory)] = self._memory
        total = 0
        for key, memory in reversed(list(spare.items())):
            total += memory.nbytes
            if total > KEPT:
                spare.pop(key, None)


def empty(shape: tuple[int, ...], dtype: np.dtype[Any]) -> Array:
    """``np.empty(shape, dtype)``, in the memory of an earlier result if one is kept."""
    size = math.prod(shape) * dtype.itemsize
    if not LARGE <= size <= KEPT:
        return np.empty(shape, dtype)
    for key, memory in list(_spare.items()):
        if memory.nbytes == size and _spare.pop(key, None) is not None:
            break
    else:
        memory = np.empty(size, np.uint8)
    return np.asarray(_Lease(memory)).view(dtype).reshape(shape)
