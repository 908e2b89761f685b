"""Arrays that are kept between calls."""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from dropwise._backends.protocol import Array


class Workspace:
    """Arrays by name, kept between calls: page faults of new memory cost more than filling it."""

    def __init__(self) -> None:
        self._arrays: dict[str, Array] = {}

    def array(self, name: str, shape: tuple[int, ...], dtype: Any) -> Array:
        """An array with undefined values.  It may share the memory of the last one of that name."""
        size = math.prod(shape)
        flat = self._arrays.get(name)
        if flat is None or flat.size < size or flat.dtype != dtype:
            flat = self._arrays[name] = np.empty(size, dtype)
        return flat[:size].reshape(shape)

    def __reduce__(self) -> tuple[type[Workspace], tuple[()]]:
        return Workspace, ()  # copies and pickles start empty
