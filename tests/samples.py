"""Arrays that tests of several subjects compute with, and how they compare results."""

from __future__ import annotations

import ml_dtypes
import numpy as np

FLOATS = [np.float32, np.float64, np.float16, ml_dtypes.bfloat16]
KEY = 0x0123456789ABCDEF
CHUNK = 32768  # elements that a native kernel takes at a time


def sample(shape, dtype=np.float32):
    return np.random.default_rng(1).standard_normal(shape).astype(dtype)


def assert_same_bits(a, b):
    assert a.dtype == b.dtype
    assert a.shape == b.shape
    if a.dtype.char in "gG":  # long double has padding
        for part in (np.real, np.imag):
            np.testing.assert_array_equal(part(a), part(b))
            np.testing.assert_array_equal(np.signbit(part(a)), np.signbit(part(b)))
        return
    np.testing.assert_array_equal(
        np.ascontiguousarray(a).view(np.uint8), np.ascontiguousarray(b).view(np.uint8)
    )


def pack(kept):
    """A mask as the backends keep it."""
    return np.packbits(kept, bitorder="little")


def unpack(bits, n):
    return np.unpackbits(bits, count=n, bitorder="little").astype(bool)


def numbers(*shape, dtype=np.float64, seed=0):
    return np.random.default_rng(seed).standard_normal(shape).astype(dtype)


def assert_close(actual, expected, tolerance=1e-12):
    np.testing.assert_allclose(actual, expected, rtol=tolerance, atol=tolerance)
