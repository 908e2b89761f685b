"""Dropout and its gradient: rates, values, scalings, noise shapes."""

from __future__ import annotations

import ml_dtypes
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

import dropwise as dw
from dropwise import functional as F
from samples import FLOATS, KEY, assert_same_bits, sample
from support import require

pytestmark = pytest.mark.usefixtures("backend")


def test_vanilla_training_keeps_values_where_the_mask_is_true():
    mask = np.array([False, False, True, False, True])
    x = np.array([0, 1, 2, 3, 4])
    y = F.dropout_backward(x, 0.5, scaling="vanilla", mask=mask)
    np.testing.assert_array_equal(y, [0, 0, 2, 0, 4])
    assert y.dtype == x.dtype


def test_vanilla_inference_multiplies_by_the_keep_probability():
    y = F.dropout(np.array([0, 1, 2, 3, 4]), 0.5, key=1, scaling="vanilla", training=False)
    np.testing.assert_array_equal(y, [0, 0.5, 1, 1.5, 2])


def test_the_gradient_passes_where_the_mask_is_true():
    mask = np.array([False, False, True, False, True])
    dy = np.array([0, 0.1, 0.2, 0.3, 0.4])
    dx = F.dropout_backward(dy, 0.5, scaling="vanilla", mask=mask)
    np.testing.assert_array_equal(dx, [0, 0, 0.2, 0, 0.4])


@pytest.mark.parametrize("rate", [0.1, 0.25, 0.5, 0.9])
def test_inverted_dropout_divides_by_the_keep_probability_in_both_directions(rate):
    z = np.linspace(1.0, 2.0, 1000)
    y = F.dropout(z, rate, key=KEY)
    kept = F.dropout_mask(z.shape, rate, key=KEY)
    np.testing.assert_allclose(y[kept], z[kept] / (1 - rate), rtol=1e-15)
    assert not y[~kept].any()
    np.testing.assert_array_equal(F.dropout_backward(z, rate, key=KEY), y)


@pytest.mark.parametrize("rate", [-0.1, 1.1, np.nan, np.inf, -1e-300, 10**400])
@pytest.mark.parametrize("function", [F.dropout, F.dropout_backward])
def test_a_rate_outside_0_to_1_is_an_error_that_names_it(function, rate):
    with pytest.raises(ValueError, match=rf"rate must be in \[0, 1\], got {rate!r}"):
        function(np.ones(3), rate, key=1)


@pytest.mark.parametrize("rate", ["0.5", None, 1j, True, [0.5]])
def test_a_rate_that_is_no_number_is_an_error_that_names_it(rate):
    with pytest.raises(TypeError, match="rate must be a number in"):
        F.dropout_mask(3, rate, key=1)


@pytest.mark.parametrize("dtype", FLOATS)
def test_rate_0_gives_the_values_in_memory_of_their_own(dtype):
    x = sample(100, dtype)
    x[3] = np.nan
    y = F.dropout(x, 0.0, key=KEY)
    assert_same_bits(y, x)
    assert not np.shares_memory(x, y)


@pytest.mark.parametrize("dtype", FLOATS)
def test_inference_gives_the_values_in_memory_of_their_own(dtype):
    x = sample(100, dtype)
    y = F.dropout(x, 0.7, key=KEY, training=False)
    assert_same_bits(y, x)
    assert not np.shares_memory(x, y)


def test_inference_passes_the_gradient_through():
    dy = sample(100)
    np.testing.assert_array_equal(F.dropout_backward(dy, 0.7, key=KEY, training=False), dy)


@pytest.mark.parametrize("scaling", ["inverted", "vanilla"])
@pytest.mark.parametrize("dtype", FLOATS)
def test_rate_1_gives_positive_zeros_both_ways(dtype, scaling):
    x = -abs(sample(100, dtype))
    x[:3] = [np.nan, np.inf, -np.inf]
    zeros = np.zeros_like(x)
    assert_same_bits(F.dropout(x, 1.0, key=KEY, scaling=scaling), zeros)
    assert_same_bits(F.dropout_backward(x, 1.0, key=KEY, scaling=scaling), zeros)


def test_an_unknown_scaling_is_an_error():
    with pytest.raises(ValueError, match="scaling must be 'inverted' or 'vanilla', got 'other'"):
        F.dropout(np.ones(3), 0.5, key=1, scaling="other")


@pytest.mark.parametrize("dtype", [*FLOATS, np.longdouble])
def test_dropped_values_are_positive_zero_and_kept_nan_stays(dtype):
    x = np.full(1000, -1.0).astype(dtype)
    x[::3], x[1::3] = np.nan, -np.inf
    mask = F.dropout_mask(x.shape, 0.5, key=KEY)
    for y in (F.dropout(x, 0.5, key=KEY), F.dropout_backward(x, 0.5, mask=mask)):
        dropped = y[~mask].astype(np.float64)
        assert (dropped == 0).all()
        assert not np.signbit(dropped).any()
        np.testing.assert_array_equal(
            np.isnan(y.astype(np.float64)), mask & np.isnan(x.astype(np.float64))
        )
        np.testing.assert_array_equal(
            np.isinf(y.astype(np.float64)), mask & np.isinf(x.astype(np.float64))
        )


def test_the_input_is_not_changed():
    x = sample(1000)
    before = x.copy()
    F.dropout(x, 0.5, key=1)
    F.dropout_backward(x, 0.5, key=1)
    F.relu(x)
    np.testing.assert_array_equal(x, before)


@pytest.mark.parametrize(
    "noise", [(1, None, None), (None, 1, None), (4, None, 1), (1, 1, 1), [4, 1, 1], (1, None, 1)]
)
@pytest.mark.parametrize("dtype", [np.float32, ml_dtypes.bfloat16, np.longdouble])
@pytest.mark.parametrize("columns", [5, 8, 0])
def test_a_noise_shape_is_a_mask_of_its_own_broadcast(noise, dtype, columns):
    x = sample((4, 3, columns), dtype)
    shape = tuple(n or m for n, m in zip(noise, x.shape, strict=True))
    mask = np.broadcast_to(F.dropout_mask(shape, 0.5, key=3, offset=77), x.shape)
    options = {"key": 3, "offset": 77, "noise_shape": noise}
    y = F.dropout(x, 0.5, **options)
    np.testing.assert_array_equal(y, np.where(mask, x * dtype(2), dtype(0)))
    assert_same_bits(F.dropout_backward(x, 0.5, **options), y)
    mask = F.dropout_mask(shape, 0.5, key=3, offset=77)
    assert_same_bits(F.dropout_backward(x, 0.5, noise_shape=noise, mask=mask), y)


def test_a_full_noise_shape_is_none():
    x = sample((4, 5))
    for noise in [(None, None), (4, 5), (4, None)]:
        assert_same_bits(F.dropout(x, 0.5, key=1, noise_shape=noise), F.dropout(x, 0.5, key=1))


@pytest.mark.parametrize("noise", [(1,), (2, 5), (1, 1, 1)])
def test_an_unfit_noise_shape_is_an_error(noise):
    with pytest.raises(ValueError, match="noise_shape must have"):
        F.dropout(np.ones((4, 5)), 0.5, key=1, noise_shape=noise)


@given(rate=st.floats(0, 0.99), n=st.integers(0, 300), dtype=st.sampled_from(FLOATS))
def test_backward_from_the_mask_is_backward_from_the_key(rate, n, dtype):
    dy = sample(n, dtype)
    mask = F.dropout_mask(n, rate, key=KEY)
    assert_same_bits(F.dropout_backward(dy, rate, mask=mask), F.dropout_backward(dy, rate, key=KEY))


def test_backward_needs_a_key_or_a_mask():
    with pytest.raises(TypeError, match="key of the forward call, or its mask"):
        F.dropout_backward(np.ones(3), 0.5)


def test_a_mask_of_another_shape_or_dtype_is_an_error():
    with pytest.raises(ValueError, match="noise_shape must have"):
        F.dropout_backward(np.ones(3), 0.5, mask=np.ones(4, bool))
    with pytest.raises(ValueError, match=r"mask must have shape \(3,\), got \(1,\)"):
        F.dropout_backward(np.ones(3), 0.5, noise_shape=(3,), mask=np.ones(1, bool))
    with pytest.raises(TypeError, match="mask must be an array of bool, got dtype float64"):
        F.dropout_backward(np.ones(3), 0.5, mask=np.ones(3))


def test_backward_at_inference_ignores_the_mask():
    mask = np.zeros(3, bool)
    dx = F.dropout_backward(np.ones(3), 0.25, mask=mask, training=False, scaling="vanilla")
    np.testing.assert_array_equal(dx, [0.75, 0.75, 0.75])


def test_both_backends_give_the_same_dropout(backend):
    require("numba")
    x = sample(5000)
    with dw.backend("numba"):
        reference = F.dropout(x, 0.37, key=KEY, stream=9, offset=12345)
    assert_same_bits(F.dropout(x, 0.37, key=KEY, stream=9, offset=12345), reference)
