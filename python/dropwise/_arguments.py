"""What an argument may be: every check and every message, in one place.

A check returns the normalised value, or raises with what was expected and what was given.
"""

from __future__ import annotations

import operator
from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, DTypeLike

from dropwise._backends.protocol import Array
from dropwise._dtypes import F64, STANDARD, native
from dropwise.random import KEY_END, STREAM_END

_SCALINGS = ("inverted", "vanilla")


def check_rate(rate: float) -> float:
    """`rate` as a float in [0, 1]."""
    if isinstance(rate, (bool, np.bool_, str, bytes)):
        raise TypeError(f"rate must be a number in [0, 1], got {rate!r}")
    try:
        value = float(rate)
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


def check_key(key: int, stream: int) -> None:
    """Raise unless both are integers in the contract's range."""
    if not 0 <= operator.index(key) < KEY_END:
        raise ValueError(f"key must be in [0, 2**64), got {key!r}")
    if not 0 <= operator.index(stream) < STREAM_END:
        raise ValueError(f"stream must be in [0, 2**56), got {stream!r}")


def check_offset(offset: int, size: int) -> None:
    """Raise unless elements ``offset`` to ``offset + size`` have 64-bit indices."""
    if not 0 <= operator.index(offset) <= KEY_END - size:
        raise ValueError(f"offset must be in [0, 2**64 - {size}], got {offset!r}")


def check_noise_shape(
    noise_shape: Sequence[int | None] | None, shape: tuple[int, ...]
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
            f"got {tuple(noise_shape)}"
        )
    return None if noise == shape else noise


def check_out(out: Array, shape: tuple[int, ...], dtype: np.dtype[Any]) -> None:
    """Raise unless `out` can take a result of this shape and dtype."""
    if not isinstance(out, np.ndarray):
        raise TypeError(f"out must be an ndarray, got {type(out).__name__}")
    same = out.dtype == dtype or out.dtype.newbyteorder("=") == dtype
    if out.shape != shape or not same:
        raise ValueError(f"out must be {dtype} of shape {shape}, got {out.dtype} of {out.shape}")
    if not out.flags.writeable:
        raise ValueError("out must be writeable")


def as_input(x: ArrayLike, *, keep_integers: bool) -> Array:
    """`x` as an array in native byte order of a dtype that the operations work in."""
    if type(x) is np.ndarray and x.dtype in STANDARD:
        return x
    x = np.asarray(x)
    dtype = x.dtype
    if dtype.kind in "biu" and not keep_integers:
        return x.astype(F64)
    if dtype.kind in "biufc" or dtype.name == "bfloat16":
        return x if dtype.isnative else x.astype(native(dtype))
    raise TypeError(f"x must be an array of numbers, got dtype {dtype}")


def as_operand(x: Array, dtype: np.dtype[Any]) -> Array:
    """`x` in this dtype, aligned and in native byte order; not copied where it is so already."""
    if x.dtype != dtype or not x.flags.aligned:
        return np.array(x, dtype, order="K")
    return x


def as_rows(
    x: ArrayLike, dtype: DTypeLike, features: int, who: object
) -> tuple[Array, tuple[int, ...]]:
    """`x` as a matrix [B, features] of `dtype`, and its leading dimensions."""
    x = np.asarray(x)
    if x.ndim < 1 or x.shape[-1] != features:
        columns = x.shape[-1] if x.ndim else "no"
        raise ValueError(f"{who} got x with {columns} columns; it was built for {features}")
    if x.dtype.kind not in "biuf" and x.dtype.name != "bfloat16":
        raise TypeError(f"{who} needs real numbers, got dtype {x.dtype}")
    lead = x.shape[:-1]
    return as_operand(x, np.dtype(dtype)).reshape(-1, features), lead


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


def as_real_array(x: Any, name: str) -> Array:
    """`x` as an array of real numbers in native byte order."""
    if type(x) is np.ndarray and x.dtype in STANDARD:
        return x
    if isinstance(x, np.ma.MaskedArray):
        raise TypeError(f"{name} must be a plain array, got a masked one; use .filled(...)")
    if hasattr(x, "toarray"):
        raise TypeError(f"{name} must be dense, got {type(x).__name__}; use .toarray()")
    array: Array = np.asarray(x)
    if array.dtype.kind not in "biuf" and array.dtype.name != "bfloat16":
        raise TypeError(f"{name} must hold real numbers, got dtype {array.dtype}")
    return array if array.dtype.isnative else array.astype(native(array.dtype))


def check_finite(x: Array, name: str) -> None:
    """Raise if `x`, of at least one dimension, holds a NaN or an infinity; name its row."""
    good = np.isfinite(x)
    if not good.all():
        where = np.unravel_index(int(good.argmin()), x.shape)
        raise ValueError(f"{name} must be finite, got {x[where]} in row {where[0]}")


def as_row_shares(sample_weight: Any, rows: int) -> Array | None:
    """What share of a mean each row has, float64 [rows]; None for no weights: equal shares."""
    if sample_weight is None:
        return None
    weight = as_real_array(sample_weight, "sample_weight")
    if weight.shape != (rows,):
        raise ValueError(f"sample_weight must have shape ({rows},), got {weight.shape}")
    weight = weight.astype(np.float64, copy=False)
    check_finite(weight, "sample_weight")
    if weight.min() < 0.0:
        row = int(weight.argmin())
        raise ValueError(f"sample_weight must not be negative, got {weight[row]} in row {row}")
    with np.errstate(over="ignore"):
        total = float(weight.sum())
    if not 0.0 < total < float("inf"):
        raise ValueError(f"sample_weight must have a positive and finite sum, got {total}")
    shares: Array = weight / total
    return shares
