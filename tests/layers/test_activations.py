"""The activation layers."""

from __future__ import annotations

import ml_dtypes
import numpy as np
import pytest

import dropwise as dw

pytestmark = pytest.mark.usefixtures("backend")


def sample():
    return np.random.default_rng(0).standard_normal((11, 6))


@pytest.mark.parametrize("dtype", [np.float32, np.float64, np.float16, ml_dtypes.bfloat16])
def test_relu_passes_the_gradient_where_x_is_positive_or_nan(dtype):
    relu = dw.ReLU()
    x = np.array([1, 0, -0.0, -1, np.nan, np.inf, -np.inf, 2]).astype(dtype)
    dy = np.arange(1, 9).astype(dtype)
    y = relu.forward(x)
    assert y.dtype == dtype
    np.testing.assert_array_equal(y.astype(float), [1, 0, 0, 0, np.nan, np.inf, 0, 2])
    np.testing.assert_array_equal(relu.backward(dy).astype(float), [1, 0, 0, 0, 5, 6, 0, 8])


def test_relu_works_in_place():
    relu = dw.ReLU()
    x = np.array([1.0, -1.0])
    assert relu.forward(x, out=x) is x
    np.testing.assert_array_equal(x, [1, 0])
    dy = np.array([3.0, 4.0])
    assert relu.backward(dy, out=dy) is dy
    np.testing.assert_array_equal(dy, [3, 0])


@pytest.mark.parametrize("make", [np.asfortranarray, lambda x: x[::-1, ::-1], lambda x: x.T])
def test_relu_takes_any_layout(make):
    relu = dw.ReLU()
    x = make(sample())
    y = relu.forward(x)
    np.testing.assert_array_equal(y, np.maximum(x, 0))
    np.testing.assert_array_equal(relu.backward(make(sample() + 5)), (make(sample() + 5)) * (x > 0))


def test_relu_keeps_a_bit_per_element():
    relu = dw.ReLU()
    relu.forward(np.ones(1000))
    assert relu._pass[2].nbytes == 125


@pytest.mark.parametrize("make", [dw.Tanh, dw.Sigmoid])
def test_a_single_number_gives_an_array(make):
    layer = make()
    for y in (layer.forward(0.5), layer.backward(1.0), layer.predict(0.5)):
        assert isinstance(y, np.ndarray)
        assert y.shape == ()
