"""The dtypes that backends compute in, and the numbers that are rounded to them."""

from __future__ import annotations

import functools
import math
from typing import Any

import numpy as np
from numpy.typing import DTypeLike

F32 = np.dtype(np.float32)
F64 = np.dtype(np.float64)
STANDARD = frozenset((F32, F64, np.dtype(np.float16)))  # native byte order

# What SELU tends to for large negative inputs: -lambda * alpha of Klambauer et al. (2017).
_SELU_LIMIT = -1.7580993408473766


def float_dtype(dtype: DTypeLike) -> np.dtype[Any]:
    """A dtype that layers may have, in native byte order."""
    if isinstance(dtype, str) and dtype == "bfloat16":
        import ml_dtypes

        bfloat16: np.dtype[Any] = np.dtype(ml_dtypes.bfloat16)
        return bfloat16
    wanted = np.dtype(dtype)
    if not has_kernel(native(wanted)):
        raise TypeError(f"dtype must be float32, float64, float16 or bfloat16, got {wanted}")
    return native(wanted)


def has_kernel(dtype: np.dtype[Any]) -> bool:
    """Whether the backends compute elementwise in this dtype (in native byte order)."""
    return dtype in STANDARD or dtype.name == "bfloat16"


def wide_dtype(dtype: np.dtype[Any]) -> np.dtype[Any]:
    """The dtype to compute in: sums and squares of 16-bit numbers need more digits."""
    return F32 if dtype.itemsize == 2 else native(dtype)


def native(dtype: np.dtype[Any]) -> np.dtype[Any]:
    """`dtype` in native byte order."""
    # The very object where possible: `is` then tells most dtypes apart.
    return dtype if dtype.isnative else dtype.newbyteorder("=")


@functools.lru_cache(maxsize=1024)
def round_to(value: float, dtype: np.dtype[Any]) -> float:
    """`value` rounded once, to nearest even, to a number of `dtype`."""
    if dtype.name == "bfloat16":  # NumPy rounds to float32 on the way, hence twice
        mantissa, exponent = math.frexp(value)
        return math.ldexp(round(mantissa * 256), exponent - 8)
    if dtype.kind == "f" and dtype.itemsize < 8:
        with np.errstate(over="ignore"):
            return float(dtype.type(value))
    return value


@functools.lru_cache(maxsize=1024)
def rate_and_scale(
    rate: float, scaling: str, training: bool, dtype: np.dtype[Any]
) -> tuple[float, float]:
    """The rate of the mask, and the factor of kept elements, rounded to `dtype`."""
    if training:
        inverted = scaling == "inverted" and rate < 1.0
        return rate, round_to(1.0 / (1.0 - rate), dtype) if inverted else 1.0
    return 0.0, 1.0 if scaling == "inverted" else round_to(1.0 - rate, dtype)


@functools.lru_cache(maxsize=1024)
def alpha_constants(
    rate: float, training: bool, dtype: np.dtype[Any]
) -> tuple[float, float, float, float]:
    """For alpha dropout: the rate of the mask, scale and shift of kept elements, and dropped ones.

    With a' = SELU's limit and q = 1 - rate, mean 0 and variance 1 stay if what is dropped becomes
    a' and then everything x becomes ``a * x + b``, a = 1 / sqrt(q + rate * q * a'**2) and
    b = -a * rate * a'.
    """
    if not training or rate in (0.0, 1.0):  # at rate 1 the limit: all are dropped, and become 0
        return rate if training else 0.0, 1.0, 0.0, 0.0
    kept = 1.0 - rate
    scale = 1.0 / math.sqrt(kept * (1.0 + rate * _SELU_LIMIT**2))
    shift = -scale * rate * _SELU_LIMIT
    dropped = scale * kept * _SELU_LIMIT  # a * a' + b, without its cancellation
    return rate, round_to(scale, dtype), round_to(shift, dtype), round_to(dropped, dtype)
