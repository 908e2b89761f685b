"""Networks whose dropout layers share masks, and `skip_zeros` that changes after building."""

from __future__ import annotations

import itertools

import numpy as np
import pytest

import dropwise as dw
from networks import chain, one_by_one, sample

pytestmark = pytest.mark.usefixtures("backend")

SPECS = ["5 8 D 2", "5 8 R D 2", "5 8 R D 8 R D 2", "5 D 8 D 2", "5 8 D R 2", "5 8 R D"]


def assert_same_pass(net, layers, x, training=True):
    y, _ = one_by_one(layers, x, np.zeros((*x.shape[:-1], net.out_features or 5)), training)
    dy = sample(1, y.size, seed=2).reshape(y.shape)
    for layer in layers:  # as before the forward that only asked for the shape
        if isinstance(layer, dw.Dropout) and training:
            state = layer.state_dict()
            layer.load_state_dict(state | {"next_stream": state["next_stream"] - 1})
    y, dx = one_by_one(layers, x, dy, training)
    tolerance = {"rtol": 1e-10, "atol": 1e-11 * max(1.0, abs(y).max(initial=0))}
    np.testing.assert_allclose(net.forward(x, training), y, **tolerance)
    np.testing.assert_allclose(net.backward(dy), dx, **tolerance)
    for layer, fused in zip(layers, net.layers, strict=True):
        if isinstance(layer, dw.Dropout):
            assert fused.state_dict() == layer.state_dict()
            if training:
                np.testing.assert_array_equal(fused.mask, layer.mask)
        for (_, want), (_, got) in zip(layer.parameters(), fused.parameters(), strict=True):
            np.testing.assert_allclose(got, want, **tolerance)
    before = [g.copy() for _, g in net.parameters()]
    assert net.backward(dy, input_grad=False) is None
    for (_, got), want in zip(net.parameters(), before, strict=True):
        np.testing.assert_array_equal(got, want)


@pytest.mark.parametrize("rate", [0.4, 0.9, 1.0])
@pytest.mark.parametrize("noise_shape", [(1, None), (None, 1), (1, 1)])
@pytest.mark.parametrize("spec", SPECS)
def test_shared_masks_that_drop_some_or_all_are_those_of_the_layers_one_by_one(
    spec, noise_shape, rate
):
    for rows, scaling in itertools.product([0, 1, 7], ["inverted", "vanilla"]):
        options = {"rate": rate, "noise_shape": noise_shape, "scaling": scaling}
        net, layers = dw.Sequential(chain(spec, **options)), chain(spec, **options)
        for _ in range(4):  # at rate 0.9 some of the streams drop all columns, some do not
            assert_same_pass(net, layers, sample(rows, 5))
        assert_same_pass(net, layers, sample(rows, 5), training=False)


@pytest.mark.parametrize("rate", [0.4, 1.0])
@pytest.mark.parametrize(
    "noise_shape", [(1, 1, None), (1, None, None), (None, 1, None), (None, None, 1), (1, 1, 1)]
)
@pytest.mark.parametrize("spec", SPECS[:3])
def test_shared_masks_in_three_dimensions_too(spec, noise_shape, rate):
    options = {"rate": rate, "noise_shape": noise_shape}
    net, layers = dw.Sequential(chain(spec, **options)), chain(spec, **options)
    for rows in (0, 3):
        assert_same_pass(net, layers, sample(rows * 4, 5).reshape(rows, 4, 5))


def test_all_columns_dropped_gives_zero_gradients_but_for_the_last_bias():
    net = dw.Sequential(
        [dw.Dense(5, 8), dw.Dropout(1.0, noise_shape=(1, None)), dw.Dense(8, 2)], seed=0
    )
    y = net.forward(np.ones((3, 5)))
    np.testing.assert_array_equal(y, np.zeros((3, 2)))
    np.testing.assert_array_equal(net.backward(np.ones((3, 2))), np.zeros((3, 5)))
    assert not net[0].gradients.any()
    assert not net[2].grad_weight.any()
    np.testing.assert_array_equal(net[2].grad_bias, [3, 3])


@pytest.mark.parametrize("spec", ["5 8", "5 8 R D 3", "5 D 8 3"])
@pytest.mark.parametrize("nested", [False, True])
def test_skip_zeros_is_read_when_it_is_used(spec, nested):
    def dense_layers(net):
        inner = net.layers[0] if nested else net
        return [layer for layer in inner if isinstance(layer, dw.Dense)]

    for skip in (True, False):
        layers = chain(spec, rate=0.0)
        net = dw.Sequential([dw.Sequential(layers)] if nested else layers)
        net.forward(np.ones((3, 5)))
        for layer in dense_layers(net):
            layer.skip_zeros = skip
        dense_layers(net)[0].weight = np.full((5, 8), np.inf)
        dense_layers(net)[0].bias = np.ones(8)
        x = np.zeros((70, 5))
        for y in (net.forward(x), net.predict(x), net.predict_mc(x, 2)[0]):
            assert np.isnan(y).all() == (not skip)
            assert np.isfinite(y).all() == skip
        dense_layers(net)[0].weight = np.ones((5, 8))
        dy = np.full(net.forward(x).shape, np.inf)
        net.backward(dy)
        # x is 0: x.T @ inf
        assert np.isnan(dense_layers(net)[0].grad_weight).any() == (not skip)
