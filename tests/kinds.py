"""Every dtype that a forward takes, every layout of memory, and dropout in plain NumPy."""

from __future__ import annotations

import functools
import math

import ml_dtypes
import numpy as np

from mask_contract import mask_array

FLOATS = ["float16", "bfloat16", "float32", "float64", "longdouble"]
COMPLEX = ["complex64", "complex128", "clongdouble"]
INTEGERS = ["bool", *(f"{sign}int{bits}" for sign in ("", "u") for bits in (8, 16, 32, 64))]
REAL = [*FLOATS, *INTEGERS]
DTYPES = [*REAL, *COMPLEX]


def dtype_of(name):
    return np.dtype(ml_dtypes.bfloat16 if name == "bfloat16" else name)


def values(shape, dtype, seed=0):
    """Small numbers of both signs with a few zeros, all of them exact in every dtype."""
    rng = np.random.default_rng(seed)
    dtype = dtype_of(dtype)
    low = 0 if dtype.kind in "bu" else -8
    x = np.asarray(rng.integers(low, 9, shape))
    if dtype.kind in "fcV":
        x = x / 4
    if dtype.kind == "c":
        x = x + 1j * rng.integers(-8, 9, shape)
    return x.astype(dtype)


def _spread(x, index, shape):
    """The values of `x` in a part of a larger array."""
    part = np.zeros(shape, x.dtype)[index]
    part[...] = x
    return part


def _unaligned(x):
    memory = np.zeros(x.nbytes + 1, np.uint8)[1:].view(x.dtype).reshape(x.shape)
    memory[...] = x
    return memory


def _readonly(x):
    x = x.copy()
    x.flags.writeable = False
    return x


# Each keeps the values and the shape of a matrix.
LAYOUTS = {
    "C": np.ascontiguousarray,
    "Fortran": np.asfortranarray,
    "strided": lambda x: _spread(x, np.s_[::2, 1::3], (2 * x.shape[0], 3 * x.shape[1] + 1)),
    "reversed": lambda x: x[::-1, ::-1].copy()[::-1, ::-1],
    "swapped bytes": lambda x: x.astype(x.dtype.newbyteorder("S")),
    "unaligned": _unaligned,
    "read-only": _readonly,
}
# These come from one matrix, and have other shapes.
SHAPES = {
    "broadcast": lambda x: np.broadcast_to(x[:1], x.shape),
    "0-d": lambda x: x[0, 0].reshape(()),
    "empty": lambda x: x[:0],
    "1-d": lambda x: x[:, 0],
    "4-d": lambda x: x.reshape(2, -1, 1, x.shape[1]).transpose(0, 3, 2, 1),
}
ARRAYS = LAYOUTS | SHAPES


def native(x):
    """A plain C-contiguous copy in native byte order."""
    return np.array(x, x.dtype.newbyteorder("="), order="C")


_mask = functools.lru_cache(mask_array)


def kept(shape, rate, *, key, stream=0, offset=0, noise_shape=None):
    """The oracle's mask of an array of this shape."""
    noise = shape
    if noise_shape is not None:
        noise = tuple(n if m is None else m for m, n in zip(noise_shape, shape, strict=True))
    mask = _mask(key, stream, offset, math.prod(noise), rate).reshape(noise)
    return np.broadcast_to(mask, shape)


def factor(rate, scaling, training):
    """What kept elements are multiplied by."""
    if scaling == "inverted":
        return 1.0 / (1.0 - rate) if training and rate < 1 else 1.0
    return 1.0 if training else 1.0 - rate


def result_dtype(dtype, scaling, training):
    whole = dtype.kind in "biu" and not (scaling == "vanilla" and training)
    return np.dtype(float) if whole else dtype.newbyteorder("=")


def dropped(x, mask, scale):
    """``scale * x`` where the mask keeps, rounded once; +0.0 elsewhere."""
    y = np.zeros(x.shape, x.dtype)
    y[mask] = x[mask] * x.dtype.type(scale)
    return y
