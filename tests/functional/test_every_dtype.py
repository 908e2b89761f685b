"""Dropout and ReLU, layers and functions: every dtype and layout, forward and backward.

The model is NumPy on the masks of the oracle.
"""

from __future__ import annotations

import itertools

import ml_dtypes
import numpy as np
import pytest

import dropwise as dw
from dropwise import functional as F
from dropwise.random import key_from_seed
from kinds import (
    ARRAYS,
    COMPLEX,
    DTYPES,
    REAL,
    dropped,
    dtype_of,
    factor,
    kept,
    native,
    result_dtype,
    values,
)
from samples import assert_same_bits

pytestmark = pytest.mark.usefixtures("backend")

SEED, KEY, ROWS, COLUMNS = 3, key_from_seed(3), 12, 11

# scaling, rate, noise_shape, save_mask, training: each value beside each other one somewhere
SETTINGS = [
    ("inverted", 0.5, None, True, True),
    ("inverted", 0.3, None, False, True),
    ("inverted", 0.75, (1, None), True, True),
    ("inverted", 1.0, (None, 1), False, True),
    ("inverted", 0.3, None, True, False),
    ("vanilla", 0.5, (None, 1), True, True),
    ("vanilla", 0.3, None, True, True),
    ("vanilla", 0.0, None, False, True),
    ("vanilla", 1.0, None, True, True),
    ("vanilla", 0.25, (1, 1), False, True),
    ("vanilla", 0.25, None, True, False),
    ("vanilla", 0.9, None, False, True),
]


@pytest.fixture(params=DTYPES)
def dtype(request):
    return dtype_of(request.param)


def arrays(dtype, seed=0):
    matrix = values((ROWS, COLUMNS), dtype.name, seed)
    return {name: make(matrix) for name, make in ARRAYS.items()}


def fitted(noise_shape, ndim):
    """The same kind of noise shape for an array of so many dimensions."""
    if noise_shape is None or ndim == 2:
        return noise_shape
    return (noise_shape * 2)[:ndim]


def gradient_model(dy, dtype, mask, scale):
    """What backward gives after a forward whose result had this dtype."""
    target = dy.dtype if dtype.kind in "biu" else dtype
    return dropped(native(dy).astype(target.newbyteorder("=")), mask, scale)


def test_the_dropout_layer_is_numpy_on_the_oracles_mask(dtype):
    for setting, (name, x) in itertools.product(SETTINGS, arrays(dtype).items()):
        scaling, rate, noise_shape, save_mask, training = setting
        scale = factor(rate, scaling, training)
        noise = fitted(noise_shape, x.ndim)
        drop = dw.Dropout(rate, scaling=scaling, noise_shape=noise, save_mask=save_mask, seed=SEED)
        want = native(x).astype(result_dtype(x.dtype, scaling, training))
        for stream in range(2):  # the second forward may take another path
            random = {"key": KEY, "stream": stream, "noise_shape": noise}
            mask = kept(x.shape, rate if training else 0.0, **random)
            y = drop.forward(x, training)
            assert type(y) is np.ndarray, (setting, name)
            assert_same_bits(y, dropped(want, mask, scale))
            for dy in (y, values(x.shape, "float64", 1), values(x.shape, "float32", 2)):
                assert_same_bits(drop.backward(dy), gradient_model(dy, y.dtype, mask, scale))


@pytest.mark.parametrize("scaling", ["inverted", "vanilla"])
def test_a_gradient_of_any_real_dtype_is_cast_to_that_of_the_result(dtype, scaling):
    x = values((ROWS, COLUMNS), dtype.name)
    layers = [
        dw.Dropout(0.3, scaling=scaling, seed=SEED),
        dw.Dropout(0.3, scaling=scaling, seed=SEED, save_mask=False),
    ]
    if dtype.kind != "c":
        layers.append(dw.ReLU())
    for layer in layers:
        y = layer.forward(x)
        mask = ~(x <= 0) if isinstance(layer, dw.ReLU) else layer.mask
        scale = factor(0.3, scaling, True) if isinstance(layer, dw.Dropout) else 1.0
        for gradient in map(dtype_of, REAL):
            for name, dy in arrays(gradient, 4).items():
                if dy.shape == y.shape:
                    got = layer.backward(dy)
                    assert got.dtype == (gradient if y.dtype.kind in "biu" else y.dtype), name
                    assert_same_bits(got, gradient_model(dy, y.dtype, mask, scale))


def test_a_complex_gradient_of_a_real_result_is_refused(dtype):
    x = values((3, 4), dtype.name)
    layers = [dw.Dropout(0.5), dw.Dropout(0.5, save_mask=False), dw.Dropout(scaling="vanilla")]
    if dtype.kind != "c":
        layers += [dw.ReLU(), dw.Sigmoid(), dw.Tanh()]
    for layer in layers:
        y = layer.forward(x)
        for gradient in COMPLEX:
            dy = values((3, 4), gradient)
            if y.dtype.kind == "c":
                assert layer.backward(dy).dtype == y.dtype
                continue
            with pytest.raises(TypeError, match=f"returned {y.dtype}, got dy of dtype"):
                layer.backward(dy)


@pytest.mark.parametrize("scaling", ["inverted", "vanilla"])
def test_the_functions_are_numpy_on_the_oracles_mask(dtype, scaling):
    for name, x in arrays(dtype).items():
        for noise_shape, training in itertools.product([None, (1, None)], [True, False]):
            noise = fitted(noise_shape, x.ndim)
            options = {"scaling": scaling, "noise_shape": noise, "training": training}
            random = {"key": KEY, "stream": 7, "offset": 130}
            mask = kept(x.shape, 0.3 if training else 0.0, noise_shape=noise, **random)
            plain = native(x).astype(result_dtype(x.dtype, scaling, training))
            want = dropped(plain, mask, factor(0.3, scaling, training))
            assert_same_bits(F.dropout(x, 0.3, **options, **random), want)
            assert_same_bits(F.dropout_backward(x, 0.3, **options, **random), want)
            shape = x.shape
            if noise is not None:
                shape = tuple(m or n for m, n in zip(noise, x.shape, strict=True))
            given = F.dropout_mask(shape, 0.3, **random)
            np.testing.assert_array_equal(given, kept(shape, 0.3, **random), err_msg=name)
            assert_same_bits(F.dropout_backward(x, 0.3, mask=given, **options), want)
            for order in "CF":  # of the mask, which has a layout as well
                assert_same_bits(
                    F.dropout_backward(x, 0.3, mask=np.array(given, order=order), **options), want
                )


def test_relu_is_numpys_maximum_with_zero(dtype):
    for x in arrays(dtype).values():
        if dtype.kind == "c":
            for call in (F.relu, dw.ReLU().forward, dw.ReLU().predict):
                with pytest.raises(TypeError, match=f"relu needs real numbers, got dtype {dtype}"):
                    call(x)
            continue
        plain = native(x)
        want = dropped(plain, ~(plain <= 0), 1.0)
        layer = dw.ReLU()
        for call in (F.relu, layer.forward, layer.predict):
            assert_same_bits(call(x), want)
        assert_same_bits(layer.backward(x), want)


@pytest.mark.parametrize("make", [dw.Sigmoid, dw.Tanh], ids=lambda m: m.__name__)
def test_smooth_activations_take_every_real_dtype(backend, dtype, make):
    function = {dw.Sigmoid: lambda x: 1 / (1 + np.exp(-x)), dw.Tanh: np.tanh}[make]
    slope = {dw.Sigmoid: lambda y: y * (1 - y), dw.Tanh: lambda y: 1 - y * y}[make]
    for x in arrays(dtype).values():
        layer = make()
        if dtype.kind == "c":
            for call in (layer.forward, layer.predict):
                with pytest.raises(TypeError, match="x must hold real numbers, got dtype"):
                    call(x)
            continue
        result = np.dtype(float) if dtype.kind in "biu" else dtype
        exact = function(native(x).astype(float))
        digits = {2: 8e-3, 4: 1e-6}.get(result.itemsize, 1e-14)
        y = layer.forward(x)
        assert (y.dtype, y.shape) == (result, x.shape)
        np.testing.assert_allclose(y.astype(float), exact, rtol=digits, atol=digits)
        dx = layer.backward(np.ones(x.shape))
        assert (dx.dtype, dx.shape) == (result, x.shape)
        np.testing.assert_allclose(dx.astype(float), slope(exact), rtol=digits, atol=2 * digits)


@pytest.mark.parametrize("weights", ["float16", "bfloat16", "float32", "float64"])
def test_dense_takes_every_real_dtype_and_layout_in_both_directions(dtype, weights):
    weights = dtype_of(weights)
    dense = dw.Dense(COLUMNS, 5, dtype=weights, seed=0)
    dense.weight, dense.bias = values((COLUMNS, 5), weights.name, 5), values(5, weights.name, 6)
    w, b = dense.weight.astype(float), dense.bias.astype(float)
    rounding = {2: 8e-3, 4: 1e-6}.get(weights.itemsize, 1e-14)
    for x in arrays(dtype).values():
        if dtype.kind == "c":
            with pytest.raises(TypeError, match="x must hold real numbers, got dtype"):
                dense.forward(x)
            continue
        if not x.ndim or x.shape[-1] != COLUMNS:
            continue
        exact = native(x).astype(float)
        y = dense.forward(x)
        assert y.dtype == weights
        np.testing.assert_allclose(y.astype(float), exact @ w + b, rtol=rounding, atol=rounding)
        dy = values(y.shape, "int8", 8)
        dx = dense.backward(dy)
        assert dx.dtype == weights
        np.testing.assert_allclose(dx.astype(float), dy @ w.T, rtol=rounding, atol=rounding)
        np.testing.assert_allclose(
            dense.grad_weight.astype(float), exact.T @ dy, rtol=rounding, atol=rounding
        )
        np.testing.assert_allclose(
            dense.grad_bias.astype(float), dy.sum(axis=0), rtol=rounding, atol=rounding
        )


@pytest.mark.parametrize("value", [np.inf, -np.inf, np.nan])
def test_what_is_not_finite_is_dropped_to_zero_and_kept_as_it_is(dtype, value):
    if dtype.kind in "biu":
        return
    x = np.full((ROWS, COLUMNS), value).astype(dtype)
    mask = kept(x.shape, 0.5, key=KEY)
    drop = dw.Dropout(0.5, seed=SEED)
    for y in (drop.forward(x), F.dropout(x, 0.5, key=KEY), drop.backward(x)):
        assert_same_bits(y[~mask], np.zeros_like(y[~mask]))
        np.testing.assert_array_equal(y.real[mask].astype(float), x.real[mask].astype(float))


@pytest.mark.parametrize("name", ["float8_e4m3fn", "int4", "float8_e5m2"])
def test_tiny_dtypes_are_refused_by_name(name):
    x = np.ones((2, 3), getattr(ml_dtypes, name))
    for call in (
        dw.Dropout().forward,
        dw.ReLU().forward,
        dw.Tanh().forward,
        dw.Dense(3, 1).forward,
    ):
        with pytest.raises(TypeError, match=f"got dtype {name}"):
            call(x)
