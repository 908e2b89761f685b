"""What holds for every layer."""

from __future__ import annotations

import copy
import pickle

import numpy as np
import pytest

import dropwise as dw
from gradients import assert_gradients
from networks import dropouts, family

pytestmark = pytest.mark.usefixtures("backend")

# Each takes rows of 6 float64 columns.
LAYERS = {
    "Dense": lambda: dw.Dense(6, 4, l2=0.1, bias_l1=0.1, dtype="float64", seed=1),
    "ReLU": lambda: dw.ReLU(),
    "Dropout": lambda: dw.Dropout(0.4, seed=1),
    "Dropout, replayed": lambda: dw.Dropout(0.4, seed=1, save_mask=False),
    "Dropout, vanilla": lambda: dw.Dropout(0.4, seed=1, scaling="vanilla"),
    "Dropout, columns": lambda: dw.Dropout(0.4, seed=1, noise_shape=(1, None)),
    **family(6),
    "DropConnect, penalties": lambda: dw.DropConnect(
        6, 4, 0.4, l2=0.1, bias_l1=0.1, dtype="float64", seed=1
    ),
    "Sequential": lambda: dw.Sequential(
        [
            dw.Dense(6, 9, l2=0.1, dtype="float64"),
            dw.ReLU(),
            dw.Dropout(0.4),
            dw.Dense(9, 4, bias_l2=0.1, dtype="float64"),
        ],
        seed=1,
    ),
}


@pytest.fixture(params=LAYERS)
def layer(request):
    return LAYERS[request.param]()


def sample(rows=11, dtype=np.float64):
    return np.random.default_rng(0).standard_normal((rows, 6)).astype(dtype)


def test_gradients_are_those_of_finite_differences(layer):
    streams = [(part, part.state_dict()["next_stream"]) for part in dropouts(layer)]

    def same_masks():
        for dropout, stream in streams:  # whose weights differ in between
            dropout.load_state_dict(dropout.state_dict() | {"next_stream": stream})

    assert_gradients(layer, sample(), before=same_masks)


def test_backward_before_forward_is_an_error(layer):
    with pytest.raises(RuntimeError, match="backward was called before forward"):
        layer.backward(sample())


def test_a_gradient_of_another_shape_is_an_error(layer):
    y = layer.forward(sample())
    with pytest.raises(ValueError, match="returned an array of shape"):
        layer.backward(y[1:])


def test_predict_is_inference_and_comes_between_forward_and_backward(layer):
    y = layer.forward(sample())
    dx = layer.backward(y).copy()
    reference = copy.deepcopy(layer).forward(sample(5), training=False)
    np.testing.assert_allclose(layer.predict(sample(5)), reference, rtol=1e-14)
    np.testing.assert_array_equal(layer.backward(y), dx)


def test_neither_direction_changes_its_input(layer):
    x = sample()
    y = layer.forward(x)
    dy = y.copy()
    layer.backward(dy)
    np.testing.assert_array_equal(x, sample())
    np.testing.assert_array_equal(dy, y)


def test_a_later_call_does_not_change_earlier_results(layer):
    y = layer.forward(sample())
    dx = layer.backward(y)
    before = y.copy(), dx.copy()
    layer.backward(layer.forward(sample()[::-1]))
    np.testing.assert_array_equal(y, before[0])
    np.testing.assert_array_equal(dx, before[1])


def test_a_config_makes_the_layer_again(layer):
    if not isinstance(layer, dw.Sequential):
        assert repr(type(layer)(**layer.config())) == repr(layer)


@pytest.mark.parametrize("duplicate", [copy.deepcopy, lambda d: pickle.loads(pickle.dumps(d))])
def test_a_copy_goes_on_as_the_layer_does(layer, duplicate):
    layer.forward(sample())
    other = duplicate(layer)
    y = layer.forward(sample())
    np.testing.assert_array_equal(other.forward(sample()), y)
    np.testing.assert_array_equal(other.backward(y), layer.backward(y))


def test_a_state_restores_what_training_changes(layer):
    layer.forward(sample())
    other = copy.deepcopy(layer)
    for _ in range(2):
        other.forward(sample())
        for values, _ in other.parameters():
            values += 1
    other.load_state_dict(layer.state_dict())
    np.testing.assert_array_equal(other.forward(sample()), layer.forward(sample()))
