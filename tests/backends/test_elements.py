"""Dropout, ReLU and nonzero bits: every instruction set and backend gives the same bits."""

from __future__ import annotations

import ml_dtypes
import numpy as np
import pytest

import mask_contract
from samples import CHUNK, pack, unpack
from support import require

STREAM_BYTES = 24 << 20  # input and output beyond this bypass the cache


def values(rng, n, dtype):
    """All kinds of floats: of any size and either sign, zeros, infinities, NaN."""
    x = rng.standard_normal(n) * 10.0 ** rng.integers(-9, 9, n)
    special = [0.0, -0.0, np.inf, -np.inf, np.nan, 1.0, -1.0, 5e-324, -1e-40, 6e-8, 65504.0]
    pick = rng.random(n) < 0.2
    x[pick] = rng.choice(special, np.count_nonzero(pick))
    with np.errstate(all="ignore"):
        return x.astype(dtype)


def bit_view(x):
    return x.view(f"u{x.itemsize}")


def assert_same(got, want):
    """The same bits; a NaN equals any NaN."""
    assert got.dtype == want.dtype
    with np.errstate(invalid="ignore"):  # signalling NaN
        nan = np.isnan(got.astype(np.float64))
        np.testing.assert_array_equal(nan, np.isnan(want.astype(np.float64)))
    np.testing.assert_array_equal(bit_view(got)[~nan], bit_view(want)[~nan])


class Guarded:
    """An array of some misalignment inside memory that must not change."""

    def __init__(self, n, dtype, shift):
        self._memory = np.full(n + 96, 77, dtype)
        self._inside = slice(40 + shift, 40 + shift + n)
        self.array = self._memory[self._inside]

    def check(self):
        assert (np.delete(self._memory, np.arange(len(self._memory))[self._inside]) == 77).all()


def scaled(x, kept, scale):
    with np.errstate(all="ignore"):
        product = (x * np.asarray(scale, x.dtype)).astype(x.dtype)
    return np.where(kept, product, np.zeros((), x.dtype))


def positive(x):
    with np.errstate(invalid="ignore"):  # ml_dtypes minds NaN
        return ~(x <= 0)


def nonzero(x):
    with np.errstate(invalid="ignore"):
        return x != 0


SHAPES = [(n, n % 5, n % 7) for n in range(70)] + [
    *((n, sx, so) for n in (127, 129, 1023, 1025) for sx in (0, 1, 3) for so in (0, 1, 2, 15)),
    *((n, 1, 3) for n in (CHUNK - 1, CHUNK, CHUNK + 1, 3 * CHUNK + 5, 10 * CHUNK + 77)),
]


def cases(dtype, seed):
    """x and a guarded output at every edge of length and alignment."""
    rng = np.random.default_rng(seed)
    for n, shift_x, shift_out in SHAPES:
        x = values(rng, n + 8, dtype)[shift_x : shift_x + n]
        yield x, Guarded(n, dtype, shift_out)


def test_forward_scales_what_the_mask_keeps_and_zeroes_the_rest(kernels, dtype):
    scale = float(np.asarray(1 / 0.7).astype(dtype))
    for x, out in cases(dtype, seed=1):
        before, n = x.copy(), x.size
        bits = Guarded((n + 7) // 8, np.uint8, 0)
        kernels.dropout_forward(x, out.array, bits.array, 0.3, scale, 5, 6, 7)
        kept = mask_contract.mask_array(5, 6, 7, n, 0.3)
        assert bits.array.tobytes() == pack(kept).tobytes()
        assert_same(out.array, scaled(x, kept, scale))
        assert_same(x, before)
        out.check()
        bits.check()


def test_forward_without_saved_bits_gives_the_same_values(kernels, dtype):
    x = values(np.random.default_rng(2), 40_000, dtype)
    with_bits, without, bits = np.empty_like(x), np.empty_like(x), np.empty(5000, np.uint8)
    kernels.dropout_forward(x, with_bits, bits, 0.1, 1.0, 1, 2, 3)
    kernels.dropout_forward(x, without, None, 0.1, 1.0, 1, 2, 3)
    assert_same(without, with_bits)


def test_apply_bits_scales_where_the_bit_is_set(kernels, dtype):
    rng = np.random.default_rng(3)
    for x, out in cases(dtype, seed=3):
        bits = rng.integers(0, 256, (x.size + 7) // 8, dtype=np.uint8)
        kernels.apply_bits(x, out.array, bits, 2.5)
        assert_same(out.array, scaled(x, unpack(bits, x.size), 2.5))
        out.check()


def test_relu_keeps_what_is_not_below_or_at_zero(kernels, dtype):
    for x, out in cases(dtype, seed=4):
        bits = Guarded((x.size + 7) // 8, np.uint8, 0)
        kernels.relu(x, out.array, bits.array)
        kept = positive(x)
        assert_same(out.array, np.where(kept, x, np.zeros((), dtype)))
        assert bits.array.tobytes() == pack(kept).tobytes()
        out.check()
        bits.check()


def test_nonzero_bits_count_nan_and_not_negative_zero(kernels, dtype):
    for x, _ in cases(dtype, seed=5):
        bits = Guarded((x.size + 7) // 8, np.uint8, 0)
        kernels.nonzero_bits(x, bits.array)
        assert bits.array.tobytes() == pack(nonzero(x)).tobytes()
        bits.check()


def test_a_dropped_value_becomes_positive_zero_whatever_it_was(kernels, dtype):
    x = np.array([np.nan, np.inf, -np.inf, -0.0, -1.0, 1.0, 0.0, -2.0] * 20, dtype)
    out = np.full_like(x, 7)
    kernels.apply_bits(x, out, np.zeros(20, np.uint8), 3.0)
    assert not bit_view(out).any()
    kernels.dropout_forward(x, out, None, 1.0, 0.0, 1, 2, 3)
    assert not bit_view(out).any()


def test_rate_zero_keeps_every_bit(kernels, dtype):
    x = values(np.random.default_rng(6), 1000, dtype)
    out, bits = np.empty_like(x), np.empty(125, np.uint8)
    kernels.dropout_forward(x, out, bits, 0.0, 1.0, 1, 2, 3)
    assert_same(out, x)
    assert (bits == 255).all()


def test_in_place_gives_the_same_values(kernels, dtype):
    x = values(np.random.default_rng(7), 3 * CHUNK + 5, dtype)
    bits, want = np.empty((x.size + 7) // 8, np.uint8), np.empty_like(x)
    kernels.dropout_forward(x, want, bits, 0.3, 1.5, 1, 2, 3)
    there = x.copy()
    kernels.dropout_forward(there, there, bits, 0.3, 1.5, 1, 2, 3)
    assert_same(there, want)
    kernels.apply_bits(there, there, bits, 1.0)
    assert_same(there, want)
    kernels.relu(there, there, bits)
    assert_same(there, np.where(positive(want), want, np.zeros((), dtype)))


def test_arrays_beyond_the_cache_are_written_whole(kernels, threads, dtype):
    n = STREAM_BYTES // (2 * dtype.itemsize) + CHUNK + 77
    x = np.resize(values(np.random.default_rng(8), 100_003, dtype), n)
    out, bits = Guarded(n, dtype, 3), np.empty((n + 7) // 8, np.uint8)
    kernels.dropout_forward(x, out.array, bits, 0.1, 1.5, 1, 2, 3)
    kept = mask_contract.mask_array(1, 2, 3, n, 0.1)
    want = scaled(x, kept, 1.5)
    assert_same(out.array, want)
    out.check()
    out.array[...] = 1
    kernels.apply_bits(x, out.array, bits, 1.5)
    assert_same(out.array, want)
    out.check()


@pytest.mark.parametrize("scale", [1.0, 1 / 0.7, 1 / 3, 1e-5, 1e4, 0.1])
@pytest.mark.parametrize("dtype", [np.float16, ml_dtypes.bfloat16])
def test_every_16_bit_number_is_scaled_as_numpy_does(kernels, dtype, scale):
    scale = float(np.asarray(scale).astype(dtype))
    x = np.arange(1 << 16, dtype=np.uint16).view(dtype)
    out, bits = np.empty_like(x), np.full(1 << 13, 255, np.uint8)
    kernels.apply_bits(x, out, bits, scale)
    assert_same(out, scaled(x, True, scale))


@pytest.mark.parametrize("dtype", [np.float16, ml_dtypes.bfloat16])
def test_every_16_bit_number_has_its_relu_and_nonzero_bit(kernels, dtype):
    x = np.arange(1 << 16, dtype=np.uint16).view(dtype)
    out, bits = np.empty_like(x), np.empty(1 << 13, np.uint8)
    kernels.relu(x, out, bits)
    assert bits.tobytes() == pack(positive(x)).tobytes()
    assert_same(out, np.where(positive(x), x, np.zeros((), dtype)))
    kernels.nonzero_bits(x, bits)
    assert bits.tobytes() == pack(nonzero(x)).tobytes()


def test_the_native_functions_refuse_what_would_corrupt_memory():
    native = require("dropwise._native")
    x, bits = np.ones(100, np.float32), np.zeros(13, np.uint8)
    out = np.empty_like(x)
    read_only = np.empty_like(x)
    read_only.flags.writeable = False
    for bad_out in (out[:99], out.astype(np.float64), np.empty(200, np.float32)[::2], read_only):
        with pytest.raises(ValueError, match=r"out|contiguous|writ"):
            native.dropout_forward(x, bad_out, None, 0.5, 2.0, 1, 2, 3)
        with pytest.raises(ValueError, match=r"out|contiguous|writ"):
            native.apply_bits(x, bad_out, bits, 2.0)
        with pytest.raises(ValueError, match=r"out|contiguous|writ"):
            native.relu(x, bad_out, bits)
    for bad_bits in (bits[:12], np.zeros(26, np.uint8)[::2], np.zeros(13, np.uint16)):
        with pytest.raises(ValueError, match=r"bits|contiguous"):
            native.dropout_forward(x, out, bad_bits, 0.5, 2.0, 1, 2, 3)
        with pytest.raises(ValueError, match=r"bits|contiguous"):
            native.apply_bits(x, out, bad_bits, 2.0)
        with pytest.raises(ValueError, match=r"bits|contiguous"):
            native.mask_bits(bad_bits, 100, 0.5, 1, 2, 3)
        with pytest.raises(ValueError, match=r"bits|contiguous"):
            native.nonzero_bits(x, bad_bits)
    for other in (np.int32, np.uint16, np.complex64):
        with pytest.raises(TypeError, match="dtype"):
            native.relu(x.astype(other), out, bits)
