"""Arrays that are kept between calls."""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from dropwise._backends.protocol import Array


class Workspace:
    """Arrays by name, kept between calls: fresh memory costs more in page faults than to fill."""

    def __init__(self) -> None:
        self._arrays: dict[str, Array] = {}

    def array(self, name: str, shape: tuple[int, ...], dtype: Any) -> Array:
        """An array with whatever was in it; the last one of that name is void."""
        size = math.prod(shape)
        flat = self._arrays.get(name)
        if flat is None or flat.size < size or flat.dtype != dtype:
            flat = self._arrays[name] = np.empty(size, dtype)
        return flat[:size].reshape(shape)

    def __reduce__(self) -> tuple[type[Workspace], tuple[()]]:
        return Workspace, ()  # copies and pickles start empty
