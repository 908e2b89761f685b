"""What an argument may be: every check and every message, in one place.

A check returns the normalised value, or raises with what was expected and what was given.
"""

from __future__ import annotations

import math
import operator
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, TypeGuard

import numpy as np
from numpy.typing import ArrayLike, DTypeLike

from dropwise._backends.protocol import Array
from dropwise._dtypes import F64, STANDARD, native
from dropwise.random import KEY_END, MASK_CONTRACT, STREAM_END, MaskStreams

_SCALINGS = ("inverted", "vanilla")
_DATA_FORMATS = ("channels_last", "channels_first")
_INT64 = np.dtype(np.int64)


def check_rate(rate: float) -> float:
    """`rate` as a float in [0, 1]."""
    if isinstance(rate, (bool, np.bool_, str, bytes)):
        raise TypeError(f"rate must be a number in [0, 1], got {rate!r}")
    try:
        value = float(rate)
    except OverflowError:  # of an integer
        value = math.inf
    except TypeError:
        raise TypeError(f"rate must be a number in [0, 1], got {rate!r}") from None
    if not 0.0 <= value <= 1.0:
        raise ValueError(f"rate must be in [0, 1], got {rate!r}")
    return value


def check_scaling(scaling: str) -> str:
    """`scaling`, if it is "inverted" or "vanilla"."""
    if scaling not in _SCALINGS:
        raise ValueError(f"scaling must be 'inverted' or 'vanilla', got {scaling!r}")
    return scaling


def check_data_format(data_format: str) -> str:
    """`data_format`, if it is "channels_last" or "channels_first"."""
    if data_format not in _DATA_FORMATS:
        raise ValueError(
            f"data_format must be 'channels_last' or 'channels_first', got {data_format!r}"
        )
    return data_format


def as_key(key: int) -> int:
    """A key of the mask contract."""
    return _as_unsigned(key, "key", KEY_END)


def as_stream(stream: int) -> int:
    """A stream of the mask contract."""
    return _as_unsigned(stream, "stream", STREAM_END)


def as_offset(offset: int, size: int) -> int:
    """An offset at which elements ``offset`` to ``offset + size`` have 64-bit indices."""
    return _as_unsigned(offset, "offset", KEY_END - size + 1, f"2**64 - {size}]")


def as_within(within: Any, shape: tuple[int, ...]) -> tuple[tuple[int, ...], tuple[int, ...]]:
    """Where a part of this shape begins in a global array, and the shape of that."""
    try:
        start, whole = within
        start, whole = as_shape(start), as_shape(whole)
    except (TypeError, ValueError) as error:
        wanted = f"within must be (start, global_shape), got {within!r}"
        raise type(error)(f"{wanted}: {error}") from None
    ends = [s + n for s, n in zip(start, shape, strict=False)]
    if not len(start) == len(whole) == len(shape) or any(
        end > g for end, g in zip(ends, whole, strict=True)
    ):
        raise ValueError(
            f"within must be (start, global_shape) of an array that a part of shape {shape} fits "
            f"into, got {within!r}"
        )
    if math.prod(whole) > KEY_END:
        raise ValueError(f"within: a global array has at most 2**64 elements, got {whole}")
    return start, whole


def _as_unsigned(value: int, name: str, end: int, limit: str | None = None) -> int:
    number = as_integer(value, name)
    if not 0 <= number < end:
        upper = f"2**{end.bit_length() - 1})" if limit is None else limit
        raise ValueError(f"{name} must be in [0, {upper}, got {value!r}")
    return number


def as_noise_shape(noise_shape: Sequence[int | None] | None) -> tuple[int | None, ...] | None:
    """`noise_shape` as a tuple of None and integers from 1; `fit_noise_shape` sees if it fits."""
    if noise_shape is None:
        return None
    if not _is_sequence(noise_shape):
        raise TypeError(f"noise_shape must be a sequence of int or None, got {noise_shape!r}")
    return tuple(
        None if n is None else as_integer(n, "an entry of noise_shape", least=1)
        for n in noise_shape
    )


def fit_noise_shape(
    noise_shape: tuple[int | None, ...] | None, shape: tuple[int, ...]
) -> tuple[int, ...] | None:
    """The shape of the noise array, or None if it is `shape` itself."""
    if noise_shape is None:
        return None
    noise = tuple(n if m is None else m for m, n in zip(noise_shape, shape, strict=False))
    if len(noise_shape) != len(shape) or any(
        m not in (1, n) for m, n in zip(noise, shape, strict=True)
    ):
        raise ValueError(
            f"noise_shape must have 1, None or x's size for each dimension of x {shape}, "
            f"got {noise_shape}"
        )
    return None if noise == shape else noise


def check_out(out: Array, shape: tuple[int, ...], dtype: np.dtype[Any]) -> None:
    """Raise unless `out` can take a result of this shape and dtype."""
    if not isinstance(out, np.ndarray):
        raise TypeError(f"out must be an ndarray, got {type(out).__name__}")
    if isinstance(out, np.ma.MaskedArray):
        raise TypeError("out must be a plain array, got a masked one")
    same = out.dtype == dtype or out.dtype.newbyteorder("=") == dtype
    if out.shape != shape or not same:
        raise ValueError(f"out must be {dtype} of shape {shape}, got {out.dtype} of {out.shape}")
    if not out.flags.writeable:
        raise ValueError("out must be writeable")


def as_input(x: ArrayLike, *, keep_integers: bool) -> Array:
    """`x` as an array in native byte order of a dtype that the operations work in."""
    if type(x) is np.ndarray and x.dtype in STANDARD:
        return x
    x = as_plain_array(x, "x")
    dtype = x.dtype
    if dtype.kind in "biu" and not keep_integers:
        return x.astype(F64)
    check_numbers(dtype, "x")
    return x if dtype.isnative else x.astype(native(dtype))


def check_numbers(dtype: np.dtype[Any], name: str) -> None:
    if not (is_real(dtype) or dtype.kind == "c"):
        raise TypeError(f"{name} must be an array of numbers, got dtype {dtype}")


def as_operand(x: Array, dtype: np.dtype[Any]) -> Array:
    """`x` in this dtype, aligned and in native byte order; not copied where it is so already."""
    if x.dtype != dtype or not x.flags.aligned:
        return np.array(x, dtype, order="K")
    return x


def as_rows(
    x: ArrayLike, dtype: DTypeLike, features: int, who: object
) -> tuple[Array, tuple[int, ...]]:
    """`x` as a matrix [B, features] of `dtype`, and its leading dimensions."""
    rows = as_real_array(x, "x")
    check_columns(rows, features, who)
    lead = rows.shape[:-1]
    return as_operand(rows, np.dtype(dtype)).reshape(math.prod(lead), features), lead


def check_number(
    value: Any, name: str, *, least: float = 0.0, below: float = float("inf")
) -> float:
    """`value` as a plain float in [least, below)."""
    wrong = (bool, np.bool_, str, bytes, complex, np.complexfloating)
    try:
        if isinstance(value, wrong) or np.ndim(value) != 0:
            raise TypeError
        number = float(value)
    except (TypeError, ValueError):
        raise TypeError(f"{name} must be a number, got {value!r}") from None
    except OverflowError:
        number = float("inf")
    if not least <= number < below:
        finite = below == float("inf")
        wanted = f"finite and at least {least:g}" if finite else f"in [{least:g}, {below:g})"
        raise ValueError(f"{name} must be {wanted}, got {value!r}")
    return number


def as_plain_array(x: Any, name: str) -> Array:
    """`x` as an array, where that loses nothing."""
    if type(x) is np.ndarray:
        return x
    if isinstance(x, np.ma.MaskedArray):
        raise TypeError(f"{name} must be a plain array, got a masked one; use .filled(...)")
    if hasattr(x, "toarray"):
        raise TypeError(f"{name} must be dense, got {type(x).__name__}; use .toarray()")
    check_in_memory(x, name)
    try:
        array: Array = np.asarray(x)
    except ValueError as error:  # a list of lists that are not all as long
        raise ValueError(f"{name} must be an array of one shape: {error}") from None
    return array


def check_in_memory(x: Any, name: str) -> None:
    """Raise if `x` is a collection of Dask, which NumPy would load without a word."""
    if hasattr(x, "__dask_graph__") and x.__dask_graph__() is not None:
        raise TypeError(
            f"{name} must be in memory, got a collection of Dask ({type(x).__name__}); "
            "dropwise.dask computes it chunk by chunk, and .compute() loads it"
        )


def is_real(dtype: np.dtype[Any]) -> bool:
    """Whether numbers of this dtype are real; bool counts as such, floats of 8 bits do not."""
    if dtype.kind == "f":
        return dtype.itemsize > 1
    return dtype.kind in "biu" or dtype.name == "bfloat16"


def as_real_array(x: Any, name: str) -> Array:
    """`x` as an array of real numbers in native byte order."""
    if type(x) is np.ndarray and (x.dtype in STANDARD or x.dtype is _INT64):
        return x
    array = as_plain_array(x, name)
    if not is_real(array.dtype):
        raise TypeError(f"{name} must hold real numbers, got dtype {array.dtype}")
    return array if array.dtype.isnative else array.astype(native(array.dtype))


def check_finite(x: Array, name: str) -> None:
    """Raise if `x`, of at least one dimension, holds a NaN or an infinity; name its row."""
    good = np.isfinite(x)
    if not good.all():
        where = np.unravel_index(int(good.argmin()), x.shape)
        raise ValueError(f"{name} must be finite, got {x[where]} in row {where[0]}")


def as_weights(sample_weight: Any, rows: int) -> Array:
    """The weights of the rows, float64 [rows]."""
    weight = as_real_array(sample_weight, "sample_weight")
    if weight.shape != (rows,):
        raise ValueError(f"sample_weight must have shape ({rows},), got {weight.shape}")
    weight = weight.astype(np.float64, copy=False)
    check_finite(weight, "sample_weight")
    if weight.size and weight.min() < 0.0:
        row = int(weight.argmin())
        raise ValueError(f"sample_weight must not be negative, got {weight[row]} in row {row}")
    with np.errstate(over="ignore"):
        total = float(weight.sum())
    if not 0.0 < total < float("inf"):
        raise ValueError(f"sample_weight must have a positive and finite sum, got {total}")
    return weight


def as_row_shares(sample_weight: Any, rows: int) -> Array | None:
    """What share of a mean each row has, float64 [rows]; None for no weights: equal shares."""
    if sample_weight is None:
        return None
    weight = as_weights(sample_weight, rows)
    shares: Array = weight / weight.sum()
    return shares


def as_integer(value: Any, name: str, *, least: int | None = None) -> int:
    """`value` as an int; any integer-like number will do, but not a bool."""
    if isinstance(value, (bool, np.bool_)):
        raise TypeError(f"{name} must be an integer, got {value!r}")
    try:
        number = operator.index(value)
    except TypeError:
        raise TypeError(f"{name} must be an integer, got {value!r}") from None
    if least is not None and number < least:
        raise ValueError(f"{name} must be at least {least}, got {value!r}")
    return number


def as_shape(shape: int | Sequence[int]) -> tuple[int, ...]:
    """A shape as a tuple of integers from 0."""
    if _is_sequence(shape):
        return tuple(as_integer(n, "an entry of shape", least=0) for n in shape)
    return (as_integer(shape, "shape", least=0),)


def _is_sequence(value: Any) -> TypeGuard[Iterable[Any]]:
    """Whether there are entries in it; a string or an array of no dimension is one value."""
    if isinstance(value, (str, bytes)) or (isinstance(value, np.ndarray) and value.ndim == 0):
        return False
    return isinstance(value, Iterable)


def as_gradient(dy: Any, shape: tuple[int, ...], dtype: np.dtype[Any], who: object) -> Array:
    """`dy` for a result of this shape and dtype, cast to that dtype.

    After a result of integers or bools, which gradients are not, it keeps its own dtype.
    """
    if type(dy) is np.ndarray and dy.dtype is dtype:
        if dy.shape == shape:
            return dy
    else:
        dy = as_plain_array(dy, "dy")
        if not (is_real(dy.dtype) or (dy.dtype.kind == "c" and dtype.kind == "c")):
            raise TypeError(f"{who} returned {dtype}, got dy of dtype {dy.dtype}")
        dy = dy.astype(native(dy.dtype if dtype.kind in "biu" else dtype), copy=False)
    if dy.shape != shape:
        raise ValueError(f"{who} returned an array of shape {shape}, got dy of shape {dy.shape}")
    gradient: Array = dy
    return gradient


def as_values(value: Any, shape: tuple[int, ...], name: str) -> Array:
    """`value` as an array of real numbers of this shape, to be copied to what it is for."""
    array = as_real_array(value, name)
    if array.shape != shape:
        raise ValueError(f"{name} must have shape {shape}, got {array.shape}")
    return array


class NamesError(ValueError):
    """Names of a state that are missing, and names that nothing has use for."""

    def __init__(self, what: str, missing: Iterable[str], unexpected: Iterable[Any]) -> None:
        self.missing = sorted(missing, key=str)
        self.unexpected = sorted(unexpected, key=str)
        parts = {"missing": self.missing, "unexpected": self.unexpected}
        text = "; ".join(f"{k}: {', '.join(map(repr, v))}" for k, v in parts.items() if v)
        super().__init__(f"{what} does not fit: {text}")


def check_names(state: Mapping[str, Any], names: Iterable[str], what: str) -> None:
    """Raise unless the keys of `state` are just these names."""
    if not isinstance(state, Mapping):
        raise TypeError(f"{what} must be a mapping, got {type(state).__name__}")
    wanted, given = set(names), set(state)
    if wanted != given:
        raise NamesError(what, wanted - given, given - wanted)


def as_hex(value: Any, name: str) -> int:
    """A 64-bit word that `state_dict` wrote as a hexadecimal string."""
    if not isinstance(value, str):
        raise TypeError(f"{name} must be a string like '0x1f', got {value!r}")
    try:
        return _as_unsigned(int(value, 16), name, KEY_END)
    except ValueError:
        raise ValueError(f"{name} must be a 64-bit number in hexadecimal, got {value!r}") from None


def as_mask_streams(state: Mapping[str, Any], what: str) -> MaskStreams:
    """The key and the next stream in a state that `MaskStreams.state_dict` wrote."""
    check_names(state, ("mask_contract", "key", "next_stream"), what)
    version = state["mask_contract"]
    if version != MASK_CONTRACT:
        raise ValueError(
            f"{what} is of mask contract version {version!r}; this release makes the masks of "
            f"version {MASK_CONTRACT}"
        )
    stream = _as_unsigned(state["next_stream"], f"{what}: next_stream", STREAM_END + 1)
    return MaskStreams(as_hex(state["key"], f"{what}: key"), stream)


def check_columns(x: Array, features: int, who: object) -> None:
    """Raise unless `x` has so many columns."""
    if x.ndim < 1 or x.shape[-1] != features:
        columns = x.shape[-1] if x.ndim else "no"
        raise ValueError(f"{who} got x with {columns} columns; it was built for {features}")


def as_network_input(x: Any, who: str) -> Array:
    """`x` as what a network takes: real numbers of shape (B, ..., features)."""
    array = as_real_array(x, "x")
    if array.ndim < 2:
        hint = "; for one sample write x[None]" if array.ndim else ""
        raise ValueError(f"{who} needs x of shape (B, ..., features), got {array.shape}{hint}")
    return array
