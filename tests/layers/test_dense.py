"""The Dense layer."""

from __future__ import annotations

import copy
import pickle

import ml_dtypes
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

import dropwise as dw
from dropwise.layers.dense import INITIALIZERS
from gradients import assert_gradients

pytestmark = pytest.mark.usefixtures("backend")


def integers(shape, dtype=np.float32, density=1.0):
    """Integer values, whose products are exact in any order."""
    rng = np.random.default_rng(2)
    return (rng.integers(-8, 9, shape) * (rng.random(shape) < density)).astype(dtype)


@pytest.mark.parametrize("skip_zeros", [True, False])
@pytest.mark.parametrize("density", [0.02, 0.3, 1.0])
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize(("k", "n"), [(1, 1), (3, 70), (64, 64), (130, 9)])
def test_forward_and_backward_are_the_matrix_products(k, n, dtype, density, skip_zeros):
    dense = dw.Dense(k, n, dtype=dtype, skip_zeros=skip_zeros)
    dense.weight, dense.bias = integers((k, n)), integers(n)
    x, dy = integers((33, k), dtype, density), integers((33, n), dtype, density)
    np.testing.assert_array_equal(dense.forward(x), x @ dense.weight + dense.bias)
    np.testing.assert_array_equal(dense.backward(dy), dy @ dense.weight.T)
    np.testing.assert_array_equal(dense.grad_weight, x.T @ dy)
    np.testing.assert_array_equal(dense.grad_bias, dy.sum(axis=0))


def test_the_textbook_example():
    dense = dw.Dense(2, 3, dtype="float64")
    dense.weight = [[1, 2, 3], [4, 5, 6]]
    dense.bias = [1, 0, -1]
    np.testing.assert_array_equal(dense.forward([[1, 1], [0, 2]]), [[6, 7, 8], [9, 10, 11]])
    np.testing.assert_array_equal(dense.backward(np.ones((2, 3))), [[6, 15], [6, 15]])
    np.testing.assert_array_equal(dense.grad_weight, [[1, 1, 1], [3, 3, 3]])
    np.testing.assert_array_equal(dense.grad_bias, [2, 2, 2])


@pytest.mark.parametrize("lead", [(), (0,), (5,), (2, 3), (2, 1, 4)])
def test_leading_dimensions_are_kept(lead):
    dense = dw.Dense(4, 6, seed=0)
    x = integers((*lead, 4))
    y = dense.forward(x)
    assert y.shape == (*lead, 6)
    np.testing.assert_allclose(y, x @ dense.weight + dense.bias, rtol=1e-5)
    assert dense.backward(y).shape == (*lead, 4)
    assert dense.predict(x).shape == (*lead, 6)


@given(st.data())
def test_any_layout_of_the_input_will_do(data):
    dense = dw.Dense(6, 5, seed=0)
    dense.weight = integers((6, 5))
    big = integers((20, 12))
    x = big[:: data.draw(st.sampled_from([1, 2, -1])), :: data.draw(st.sampled_from([2, -2]))]
    if data.draw(st.booleans()):
        x = np.asfortranarray(x)
    np.testing.assert_array_equal(dense.forward(x), dense.forward(np.array(x, order="C")))
    dy = integers((5, len(x))).T
    dx = dense.backward(dy)
    grad = dense.grad_weight.copy()
    np.testing.assert_array_equal(dx, dense.backward(np.array(dy, order="C")))
    np.testing.assert_array_equal(grad, dense.grad_weight)


@pytest.mark.parametrize("dtype", [np.float32, np.float64, np.float16, ml_dtypes.bfloat16])
def test_everything_has_the_dtype_of_the_layer(dtype):
    dense = dw.Dense(3, 2, dtype=dtype, seed=0)
    y = dense.forward([[1, 2, 3]])
    dx = dense.backward(y)
    arrays = [y, dx, dense.weight, dense.bias, dense.grad_weight, dense.grad_bias]
    assert {a.dtype for a in arrays} == {np.dtype(dtype)}


def test_bfloat16_may_be_named():
    assert dw.Dense(1, 1, dtype="bfloat16").dtype == ml_dtypes.bfloat16


@pytest.mark.parametrize("dtype", [np.float16, ml_dtypes.bfloat16])
def test_halves_are_summed_in_float32(dtype):
    dense = dw.Dense(1, 1, dtype=dtype)
    dense.forward(np.ones((4096, 1)))
    dense.backward(np.ones((4096, 1), dtype))
    assert float(dense.grad_bias[0]) == float(dense.grad_weight[0, 0]) == 4096.0


def test_zeros_contribute_nothing_unless_asked_to():
    x, weight = np.zeros((64, 64)), np.full((64, 64), np.nan)
    strict = dw.Dense(64, 64, dtype="float64", skip_zeros=False)
    strict.weight = weight
    assert np.isnan(strict.forward(x)).all()


def test_backward_is_the_gradient_of_the_last_forward():
    dense = dw.Dense(3, 2, seed=0)
    dense.forward(integers((9, 3)))
    x, dy = integers((4, 3)), integers((4, 2))
    dense.forward(x)
    dense.predict(integers((7, 3)))
    dense.backward(dy)
    np.testing.assert_array_equal(dense.grad_weight, x.T @ dy)


@pytest.mark.parametrize(
    "penalties",
    [
        {},
        {"l2": 0.3},
        {"l1": 0.3},
        {"bias_l1": 0.2, "bias_l2": 0.1},
        {"l1": 0.1, "l2": 0.2, "bias_l1": 0.1, "bias_l2": 0.2},
        {"l1": 0.1, "l2": 0.2, "bias_l1": 0.3, "bias_l2": 0.4},
    ],
)
def test_gradients_are_those_of_finite_differences(penalties):
    dense = dw.Dense(5, 4, dtype="float64", seed=1, **penalties)
    dense.bias = [0.5, -0.5, 0.2, -0.1]
    assert_gradients(dense, np.random.default_rng(0).standard_normal((7, 5)))


def test_the_regularization_loss_is_the_sum_of_its_four_parts():
    dense = dw.Dense(2, 2, l1=1, l2=10, bias_l1=100, bias_l2=1000)
    dense.weight, dense.bias = [[1, -2], [0, 3]], [-1, 2]
    assert dense.regularization_loss() == 1 * 6 + 10 * 14 + 100 * 3 + 1000 * 5
    assert dw.Dense(2, 2).regularization_loss() == 0


@pytest.mark.parametrize("init", [*INITIALIZERS, 0.01])
def test_initial_weights_have_the_deviation_that_was_asked_for(init):
    fan_in, fan_out = 300, 200
    weight = dw.Dense(fan_in, fan_out, init=init, seed=0, dtype="float64").weight
    deviation = {
        "glorot": np.sqrt(2 / (fan_in + fan_out)),
        "he": np.sqrt(2 / fan_in),
        "lecun": np.sqrt(1 / fan_in),
    }.get(str(init).split("_")[0], init)
    n = weight.size
    # 5 sigma, 6e-7: the mean's deviation is d / sqrt(n), that of the deviation below d / sqrt(n).
    assert abs(weight.mean()) < 5 * deviation / np.sqrt(n)
    assert abs(weight.std() - deviation) < 5 * deviation / np.sqrt(n)
    if str(init).endswith("uniform"):
        assert abs(weight).max() <= np.sqrt(3) * deviation
    else:
        assert abs(weight).max() > 3.5 * deviation


def test_the_bias_starts_at_zero():
    assert not dw.Dense(3, 4).bias.any()


def test_the_seed_fixes_the_weights():
    weights = [dw.Dense(3, 4, seed=seed).weight.tobytes() for seed in (1, 1, 2, None, None)]
    assert weights[0] == weights[1]
    assert len(set(weights)) == 4


def test_assigned_parameters_are_copied_in():
    dense = dw.Dense(2, 3)
    view, value = dense.weight, np.ones((2, 3))
    dense.weight = value
    value[...] = 7
    np.testing.assert_array_equal(dense.weight, np.ones((2, 3)))
    assert np.shares_memory(dense.weight, view)
    dense.weight += 1
    np.testing.assert_array_equal(view, np.full((2, 3), 2))


def test_parameters_and_gradients_are_views_of_what_optimizers_get():
    dense = dw.Dense(2, 3)
    ((values, gradients),) = dense.parameters()
    values[...] = 5
    gradients[...] = 6
    for array, value in [
        (dense.weight, 5),
        (dense.bias, 5),
        (dense.grad_weight, 6),
        (dense.grad_bias, 6),
    ]:
        assert (array == value).all()


def test_the_wrong_number_of_columns_is_an_error_that_names_both():
    message = r"Dense\(512, 256\) got x with 784 columns; it was built for 512"
    dense = dw.Dense(512, 256)
    for call in (dense.forward, dense.predict):
        with pytest.raises(ValueError, match=message):
            call(np.ones((3, 784), np.float32))


def test_a_scalar_or_complex_input_is_an_error():
    with pytest.raises(ValueError, match="got x with no columns"):
        dw.Dense(1, 1).forward(3.0)
    with pytest.raises(TypeError, match="x must hold real numbers, got dtype complex128"):
        dw.Dense(1, 1).forward(np.ones((1, 1), complex))


def test_backward_before_forward_is_an_error():
    with pytest.raises(RuntimeError, match=r"Dense\(2, 3\): backward was called before forward"):
        dw.Dense(2, 3).backward(np.ones((1, 3)))


def test_a_gradient_of_another_shape_or_dtype_is_an_error_that_names_both():
    dense = dw.Dense(2, 3)
    dense.forward(np.ones((4, 2)))
    with pytest.raises(ValueError, match=r"of shape \(4, 3\), got dy of shape \(4, 2\)"):
        dense.backward(np.ones((4, 2), np.float32))
    with pytest.raises(TypeError, match="returned float32, got dy of dtype complex128"):
        dense.backward(np.ones((4, 3), complex))


def test_parameters_of_another_shape_are_an_error():
    with pytest.raises(
        ValueError, match=r"Dense\(2, 3\): weight must have shape \(2, 3\), got \(3, 2\)"
    ):
        dw.Dense(2, 3).weight = np.ones((3, 2))
    with pytest.raises(
        ValueError, match=r"Dense\(2, 3\): bias must have shape \(3,\), got \(1, 3\)"
    ):
        dw.Dense(2, 3).bias = np.ones((1, 3))


@pytest.mark.parametrize(
    ("arguments", "error", "message"),
    [
        ({"in_features": 0}, ValueError, "in_features must be at least 1, got 0"),
        (
            {"init": "other"},
            ValueError,
            "init must be a standard deviation or one of glorot_uniform",
        ),
        (
            {"dtype": "int32"},
            TypeError,
            "dtype must be float32, float64, float16 or bfloat16, got int32",
        ),
        ({"dtype": "longdouble"}, TypeError, "dtype must be float32"),
    ],
)
def test_bad_arguments_are_errors_at_once(arguments, error, message):
    with pytest.raises(error, match=message):
        dw.Dense(**({"in_features": 2, "out_features": 3} | arguments))


def test_the_state_restores_the_parameters():
    a, b = dw.Dense(3, 4, seed=1), dw.Dense(3, 4, seed=2)
    state = a.state_dict()
    a.weight[...] = 0
    b.load_state_dict(state)
    np.testing.assert_array_equal(b.weight, dw.Dense(3, 4, seed=1).weight)


@pytest.mark.parametrize("duplicate", [copy.deepcopy, lambda d: pickle.loads(pickle.dumps(d))])
def test_a_copy_has_parameters_of_its_own(duplicate):
    dense = dw.Dense(3, 4, seed=1)
    x = integers((5, 3))
    y = dense.forward(x)
    dense.backward(y)
    other = duplicate(dense)
    with pytest.raises(RuntimeError, match="backward was called before forward"):
        other.backward(y)
    assert not other.grad_weight.any()
    dense.weight[...] = 0
    np.testing.assert_array_equal(other.forward(x), y)


@pytest.mark.parametrize(
    "text",
    [
        "Dense(2, 3)",
        "Dense(2, 3, l1=0.1, l2=0.2, bias_l1=0.3, bias_l2=0.4, init='he_normal')",
        "Dense(2, 3, init=0.01, dtype='float64', skip_zeros=False)",
    ],
)
def test_the_repr_is_the_call_that_makes_it(text):
    assert repr(eval(text, {"Dense": dw.Dense})) == text
