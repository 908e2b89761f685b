"""Alpha dropout of arrays: what the layers, and the doors to other libraries, call."""

from __future__ import annotations

import math

import ml_dtypes
import numpy as np
import pytest

from dropwise import _arrays
from kinds import DTYPES, dtype_of, kept, values
from samples import FLOATS, KEY, assert_same_bits, sample

pytestmark = pytest.mark.usefixtures("backend")

LIMIT = -1.0507009873554804934193349852946 * 1.6732632423543772848170429916717


def constants(rate):
    """Scale, shift and what is dropped, by the paper's formulas."""
    q = 1 - rate
    a = (q + LIMIT**2 * q * (1 - q)) ** -0.5
    b = -a * (1 - q) * LIMIT
    return a, b, a * LIMIT + b


def expected(x, mask, rate):
    """The definition, each step rounded to the dtype of `x`."""
    a, b, dropped = (np.asarray(c, x.dtype) for c in constants(rate))
    with np.errstate(all="ignore"):
        return np.where(mask, (x * a).astype(x.dtype) + b, dropped)


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("rate", [0.1, 0.5, 0.9])
def test_kept_elements_become_a_line_and_dropped_ones_a_constant(dtype, rate):
    dtype = dtype_of(dtype)
    if dtype.kind in "biu":
        return
    x = values((12, 11), dtype.name)
    for noise_shape in (None, (12, 1)):
        noise = _arrays.alpha_noise(rate, dtype, KEY, 3, 130, noise_shape)
        mask = kept(x.shape, rate, key=KEY, stream=3, offset=130, noise_shape=noise_shape)
        y = _arrays.apply_dropout(x, None, None, noise)
        assert y.dtype == dtype
        want = expected(x, mask, rate)
        # Values are below 16.
        tolerance = 32 * max(float(ml_dtypes.finfo(dtype).eps), 2.0**-52)
        assert abs(y.astype(complex) - want.astype(complex)).max() <= tolerance


@pytest.mark.parametrize("dtype", FLOATS)
def test_the_mask_is_that_of_dropout_and_serves_the_gradient(dtype):
    x, dtype = sample((30, 21), dtype), np.dtype(dtype)
    for noise_shape in (None, (30, 1)):
        noise = _arrays.alpha_noise(0.3, dtype, KEY, 5, 0, noise_shape)
        size = math.prod(noise_shape or x.shape)
        bits = np.zeros((size + 7) // 8, np.uint8)
        y = _arrays.apply_dropout(x, None, bits, noise)
        mask = kept(x.shape, 0.3, key=KEY, stream=5, noise_shape=noise_shape)
        np.testing.assert_array_equal(
            np.broadcast_to(_arrays.unpack_bits(bits, noise_shape or x.shape), x.shape), mask
        )
        assert_same_bits(y[~mask], np.full((~mask).sum(), noise.dropped, dtype))
        dx = _arrays.apply_mask(x, None, bits, noise.scale, noise_shape)
        want = np.where(mask, x * dtype.type(noise.scale), dtype.type(0))
        assert_same_bits(dx, want)
        assert_same_bits(_arrays.apply_dropout(x, None, None, noise.of_gradient), want)


def test_results_go_where_they_are_wanted():
    x = sample((30, 21))
    noise = _arrays.alpha_noise(0.3, x.dtype, KEY)
    want = _arrays.apply_dropout(x, None, None, noise)
    for out in (
        np.empty_like(x),
        np.empty((21, 30), x.dtype).T,
        np.empty((60, 42), x.dtype)[::2, 1::2],
        np.empty(x.shape, x.dtype.newbyteorder("S")),
        x.copy(),
    ):
        source = out if out.base is None and out.dtype == x.dtype else x
        source[...] = x
        assert _arrays.apply_dropout(source, out, None, noise) is out
        np.testing.assert_array_equal(out, want)


def test_what_is_not_finite_is_dropped_to_the_constant_and_kept_as_it_is():
    noise = _arrays.alpha_noise(0.5, np.dtype(np.float32), KEY)
    mask = kept((40,), 0.5, key=KEY)
    for value in (np.nan, np.inf, -np.inf):
        y = _arrays.apply_dropout(np.full(40, value, np.float32), None, None, noise)
        np.testing.assert_array_equal(y, np.where(mask, value, np.float32(noise.dropped)))


def test_a_sum_that_float16_cannot_hold_is_infinite_and_no_warning():
    x = np.arange(2048, 16384, 8, dtype=np.float16)
    noise = _arrays.alpha_noise(0.998, x.dtype, KEY)._replace(rate=0.0)  # all are kept
    products = _arrays.apply_dropout(x, None, None, noise.of_gradient)
    sums = _arrays.apply_dropout(x, None, None, noise)
    assert np.isfinite(products).sum() > np.isfinite(sums).sum() > 0


@pytest.mark.parametrize("dtype", FLOATS)
def test_rate_0_and_inference_are_the_identity_and_rate_1_gives_zeros(dtype):
    x, dtype = sample((9, 7), dtype), np.dtype(dtype)
    for noise, want in [
        (_arrays.alpha_noise(0.0, dtype, KEY), x),
        (_arrays.alpha_noise(0.4, dtype, KEY, training=False), x),
        (_arrays.alpha_noise(1.0, dtype, KEY, training=False), x),
        (_arrays.alpha_noise(1.0, dtype, KEY), np.zeros_like(x)),
    ]:
        assert_same_bits(_arrays.apply_dropout(x, None, None, noise), want)
        assert_same_bits(_arrays.apply_dropout(x, None, None, noise.of_gradient), want)


@pytest.mark.parametrize("shape", [(), (0,), (3, 0)])
def test_a_scalar_and_empty_arrays_work(shape):
    noise = _arrays.alpha_noise(0.5, np.dtype(np.float64), KEY)
    y = _arrays.apply_dropout(np.ones(shape), None, None, noise)
    assert y.shape == shape
    a, b, dropped = constants(0.5)
    np.testing.assert_allclose(y, a + b if kept((1,), 0.5, key=KEY)[0] else dropped, rtol=1e-15)
