"""What an optimizer keeps beside each parameter, and how a dict of it is read.

A state is a flat dict of strings, ints and arrays.  Reading checks all of it before any of it is
used: a state comes from a file.
"""

from __future__ import annotations

import operator
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from dropwise._backends.protocol import Array
from dropwise._dtypes import F32, native, wide_dtype

_SHORT = ("float16", "bfloat16")
_DTYPES = (*_SHORT, "float32", "float64", np.dtype(np.longdouble).name)
_DESCRIPTION = re.compile(r"([a-z0-9]+) \(([0-9, ]*)\)")
_INDEX = re.compile(r"[a-z]+\.(0|[1-9][0-9]{0,8})")


@dataclass
class Companions:
    """What is kept beside one parameter."""

    dtype: str  # of the parameter
    shape: tuple[int, ...]
    arrays: dict[str, Array]  # flat, in the order of the elements: the moments, a master copy

    @property
    def description(self) -> str:
        """Like ``"float32 (3, 4)"``."""
        return f"{self.dtype} {self.shape}"

    def copy(self) -> Companions:
        """With arrays of its own."""
        arrays = {name: array.copy() for name, array in self.arrays.items()}
        return Companions(self.dtype, self.shape, arrays)

    def named(self, names: tuple[str, ...], p: Array) -> Companions:
        """The same with these arrays: new ones start at zero, a master copy at `p`."""
        if (*self.arrays,) == names:
            return self
        arrays = {}
        for name in names:
            if name in self.arrays:
                arrays[name] = self.arrays[name]
            elif name == "master":
                arrays[name] = p.astype(F32, order="C").reshape(-1)
            else:
                arrays[name] = np.zeros(p.size, wide_dtype(p.dtype))
        return Companions(self.dtype, self.shape, arrays)


def with_master(slots: tuple[str, ...], dtype: str) -> tuple[str, ...]:
    """The names of the arrays beside a parameter of this dtype; 16 bits have a master copy."""
    return (*slots, "master") if dtype in _SHORT else slots


def read_state(
    state: Mapping[str, Any], slots: tuple[str, ...], name: str
) -> tuple[int, list[Companions]]:
    """The iterations and copies of the arrays in a state of the optimizer class `name`."""
    if not isinstance(state, Mapping):
        raise TypeError(f"state must be a mapping, got {type(state).__name__}")
    whose = state.get("class", name)
    if not isinstance(whose, str) or whose != name:
        raise ValueError(f"state must be that of an optimizer {name!r}, got {whose!r}")
    _check_names(state, slots)
    iterations = _as_count(state["iterations"], "iterations")
    companions = []
    for i in range(_count(state)):
        dtype, shape = _as_description(state[f"parameter.{i}"], f"parameter.{i}")
        moving = F32 if dtype in _SHORT else np.dtype(dtype)
        arrays = {
            slot: _as_state(state[f"{slot}.{i}"], f"{slot}.{i}", shape, moving)
            for slot in with_master(slots, dtype)
        }
        companions.append(Companions(dtype, shape, arrays))
    return iterations, companions


def _count(state: Mapping[str, Any]) -> int:
    """How many parameters there are names for."""
    matches = [_INDEX.fullmatch(key) for key in state if isinstance(key, str)]
    return len({match[1] for match in matches if match})


def _check_names(state: Mapping[str, Any], slots: tuple[str, ...]) -> None:
    """Raise unless the state has all names that it must have, and no others."""
    names = ["class", "iterations"]
    for i in range(_count(state)):
        key = f"parameter.{i}"
        dtype = _as_description(state[key], key)[0] if key in state else ""
        names += [key, *(f"{slot}.{i}" for slot in with_master(slots, dtype))]
    missing = [name for name in names if name not in state]
    unexpected = [str(key) for key in state if key not in set(names)]
    if missing or unexpected:
        raise ValueError(
            "state must have the names that state_dict() gives; "
            f"missing: {_listed(missing)}; unexpected: {_listed(unexpected)}"
        )


def _listed(names: Iterable[str]) -> str:
    names = list(names)
    more = f" and {len(names) - 8} more" if len(names) > 8 else ""
    return ", ".join(names[:8]) + more or "none"


def _as_count(value: Any, name: str) -> int:
    try:
        count = -1 if isinstance(value, (bool, np.bool_)) else operator.index(value)
    except TypeError:
        count = -1
    if count < 0:
        raise ValueError(f"{name} must be an integer of at least 0, got {value!r}")
    return count


def _as_description(value: Any, name: str) -> tuple[str, tuple[int, ...]]:
    match = _DESCRIPTION.fullmatch(value) if isinstance(value, str) else None
    if match and match[1] in _DTYPES:
        shape = tuple(int(n) for n in re.findall("[0-9]{1,18}", match[2]))
        if value == f"{match[1]} {shape}":
            return match[1], shape
    raise ValueError(f"{name} must be a dtype and a shape like 'float32 (3, 4)', got {value!r}")


def _as_state(value: Any, name: str, shape: tuple[int, ...], dtype: np.dtype[Any]) -> Array:
    """A flat copy of an array of a state."""
    is_array = isinstance(value, np.ndarray)
    if not is_array or native(value.dtype) != dtype or value.shape != shape:
        got = f"{value.dtype} of shape {value.shape}" if is_array else type(value).__name__
        raise ValueError(f"{name} must be {dtype} of shape {shape}, got {got}")
    if name.startswith("square") and (value < 0).any():
        raise ValueError(f"{name} must not be negative, got {value.min()}")
    return np.array(value, dtype, order="C").reshape(-1)
