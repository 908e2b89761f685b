"""Arrays that are kept between calls."""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from dropwise._backends.protocol import Array


class Workspace:
    """Arrays by name, kept between calls: page faults of new memory cost more than filling it."""

    def __init__(self) -> None:
        self._arrays: dict[str, Array] = {}  # in one dimension
        self._last: dict[str, Array] = {}  # what was asked for last: a view of them

    def array(self, name: str, shape: tuple[int, ...], dtype: Any) -> Array:
        """An array with undefined values.  It may share the memory of the last one of that name."""
        last = self._last.get(name)
        if last is not None and last.shape == shape and last.dtype == dtype:
            return last
        size = math.prod(shape)
        flat = self._arrays.get(name)
        if flat is None or flat.size < size or flat.dtype != dtype:
            flat = self._arrays[name] = np.empty(size, dtype)
        array = self._last[name] = flat[:size].reshape(shape)
        return array

    def __reduce__(self) -> tuple[type[Workspace], tuple[()]]:
        return Workspace, ()  # copies and pickles start empty
