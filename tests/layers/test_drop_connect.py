"""DropConnect: a Dense layer with the weights that are kept."""

from __future__ import annotations

import copy
import io

import numpy as np
import pytest

import dropwise as dw
from dropwise import functional as F
from dropwise.layers.run import RunContext
from dropwise.random import key_from_seed, spawn
from gradients import assert_gradients
from kinds import dtype_of, kept, values
from networks import chain, one_by_one
from samples import numbers

pytestmark = pytest.mark.usefixtures("backend")

KEY = key_from_seed(spawn(np.random.SeedSequence(3), 0))
DTYPES = ["float16", "bfloat16", "float32", "float64"]


def make(inputs=10, outputs=7, rate=0.5, **options):
    layer = dw.DropConnect(inputs, outputs, rate, **({"dtype": "float64", "seed": 3} | options))
    layer.weight = values((inputs, outputs), "float64", 1)
    layer.bias = values(outputs, "float64", 2)
    return layer


def mask_of(layer, stream=0, offset=0):
    return kept(layer.weight.shape, layer.rate, key=KEY, stream=stream, offset=offset)


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("save_mask", [True, False])
@pytest.mark.parametrize("skip_zeros", [True, False])
@pytest.mark.parametrize(("rows", "size"), [(1, 3), (9, 10), (70, 130), (0, 4)])
def test_both_directions_are_those_of_the_weights_that_are_kept(
    dtype, save_mask, skip_zeros, rows, size
):
    layer = make(size, size + 1, dtype=dtype, save_mask=save_mask, skip_zeros=skip_zeros)
    # Sums of such numbers are exact in the dtype in which they are added up.
    x, dy = values((rows, size), "float64", 4), values((rows, size + 1), "float64", 5)
    for stream in range(2):
        y = layer.forward(x)
        mask = mask_of(layer, stream)
        np.testing.assert_array_equal(layer.mask, mask)
        weight = np.where(mask, 2 * layer.weight.astype(float), 0.0)
        dx = layer.backward(dy)
        for got, want in [
            (y, x @ weight + layer.bias.astype(float)),
            (dx, dy @ weight.T),
            (layer.grad_weight, np.where(mask, 2 * (x.T @ dy), 0.0)),
            (layer.grad_bias, dy.sum(axis=0)),
        ]:
            assert got.dtype == dtype_of(dtype)
            np.testing.assert_array_equal(got, want.astype(dtype_of(dtype)))


def test_the_mask_is_that_of_the_key_and_stream_of_the_state():
    layer = make()
    layer.forward(np.ones((2, 10)))
    layer.forward(np.ones((2, 10)))
    state = layer.state_dict()
    want = F.dropout_mask((10, 7), 0.5, key=int(state["key"], 16), stream=1)
    np.testing.assert_array_equal(layer.mask, want)
    assert state["next_stream"] == 2


def test_there_is_no_mask_before_a_training_forward():
    layer = make()
    layer.forward(np.ones((2, 10)), training=False)
    with pytest.raises(RuntimeError, match="no mask before a training forward"):
        _ = layer.mask


def test_inference_uses_all_weights_and_takes_no_stream():
    layer, dense = make(), dw.Dense(10, 7, dtype="float64")
    dense.weight, dense.bias = layer.weight, layer.bias
    x, dy = numbers(5, 10), numbers(5, 7)
    np.testing.assert_array_equal(layer.forward(x, training=False), dense.forward(x))
    np.testing.assert_array_equal(layer.backward(dy), dense.backward(dy))
    np.testing.assert_array_equal(layer.grad_weight, dense.grad_weight)
    np.testing.assert_array_equal(layer.predict(x), dense.predict(x))
    assert layer.state_dict()["next_stream"] == 0


@pytest.mark.parametrize("dtype", DTYPES)
def test_rate_0_is_a_dense_layer_and_at_rate_1_the_bias_is_left(dtype):
    dense = dw.Dense(10, 7, dtype=dtype, seed=3)
    none, everything = (dw.DropConnect(10, 7, rate, dtype=dtype, seed=3) for rate in (0.0, 1.0))
    x, dy = values((5, 10), "float64"), values((5, 7), "float64", 1)
    np.testing.assert_array_equal(none.forward(x), dense.forward(x))
    np.testing.assert_array_equal(none.backward(dy), dense.backward(dy))
    np.testing.assert_array_equal(none.gradients, dense.gradients)
    everything.bias = np.arange(7)
    np.testing.assert_array_equal(everything.forward(x), np.tile(np.arange(7), (5, 1)))
    assert not everything.backward(dy).any()
    assert not everything.grad_weight.any()
    np.testing.assert_array_equal(everything.grad_bias, dense.grad_bias)


@pytest.mark.parametrize("save_mask", [True, False])
def test_gradients_are_those_of_finite_differences(save_mask):
    layer = make(5, 4, 0.3, save_mask=save_mask, l1=0.1, l2=0.2, bias_l2=0.3)
    layer.weight = numbers(5, 4)
    stream = {"next_stream": 0}
    assert_gradients(
        layer,
        numbers(2, 3, 5),
        before=lambda: layer.load_state_dict(layer.state_dict() | stream),
    )


def test_regularisation_is_that_of_all_weights():
    layer = make(l2=0.5)
    layer.forward(np.zeros((1, 10)))
    layer.backward(np.zeros((1, 7)))
    np.testing.assert_array_equal(layer.grad_weight, layer.weight)
    assert layer.regularization_loss() == 0.5 * (layer.weight**2).sum()


def test_pieces_of_a_batch_have_the_same_mask():
    """As ranks and blocks run one batch: the mask of weights has no rows."""
    layer = make()
    x = numbers(9, 10)
    whole = copy.deepcopy(layer).forward(x)
    parts = []
    with RunContext(True, keep_records=True) as context:
        for start, stop in [(0, 4), (4, 9)]:
            context.first_row = start
            parts.append(layer._run(x[start:stop], context)[0])
    np.testing.assert_allclose(np.concatenate(parts), whole, rtol=1e-12, atol=1e-12)
    assert layer.state_dict()["next_stream"] == 1


def test_an_input_that_is_refused_takes_no_stream():
    layer = make()
    for x, error in [(np.ones((2, 9)), ValueError), (np.ones((2, 10), complex), TypeError)]:
        with pytest.raises(error, match=r"DropConnect\(10, 7.*with 9 columns|real numbers"):
            layer.forward(x)
    assert layer.state_dict()["next_stream"] == 0


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize(("size", "rate"), [(6, 0.5), (300, 0.5), (300, 0.1)])
def test_gradients_may_be_what_goes_in(dtype, size, rate):
    """The gradients of the last backward as x, and as dy."""
    layer, reference = (make(size, size, rate, dtype=dtype) for _ in range(2))
    x = values((size, size), "float64", 6) / 8
    for each in (layer, reference):
        each.forward(x)
        each.backward(x)
    g = layer.grad_weight
    g /= size  # so that float16 can hold what follows
    copied = g.copy()
    np.testing.assert_array_equal(layer.forward(g), reference.forward(copied))
    np.testing.assert_array_equal(layer.backward(g), reference.backward(copied.copy()))
    np.testing.assert_array_equal(layer.gradients, reference.gradients)


def test_without_skipping_zeros_products_are_ieee():
    layer = make(64, 64, 0.9, skip_zeros=False)
    x, dy = np.zeros((70, 64)), np.zeros((70, 64))
    x[3, 5], dy[4, 6] = np.nan, np.inf
    with np.errstate(invalid="ignore"):
        assert np.isnan(layer.forward(x)[3]).all()
        dx = layer.backward(dy)
    assert np.isnan(dx[4]).any()  # infinity times the weights that were dropped
    kept_of_x, kept_of_dy = layer.mask[5], layer.mask[:, 6]
    assert np.isnan(layer.grad_weight[5][kept_of_x]).all()
    assert np.isnan(layer.grad_weight[:, 6][kept_of_dy]).all()
    assert not layer.grad_weight[~layer.mask].any()


def test_a_network_gives_what_its_layers_give_one_by_one_and_is_saved():
    def layers():
        return [*chain("5 10 R D"), make(l2=0.1), *chain("7 7 R"), make(7, 6, 0.2, seed=8)]

    x, dy = numbers(4, 3, 5), numbers(4, 3, 6)
    alone, net = layers(), dw.Sequential(layers())
    y, dx = one_by_one(alone, x, dy)
    np.testing.assert_allclose(net.forward(x), y, rtol=1e-12, atol=1e-12)
    np.testing.assert_allclose(net.backward(dy), dx, rtol=1e-12, atol=1e-12)
    want = [g for layer in alone for _, g in layer.parameters()]
    for (_, got), gradient in zip(net.parameters(), want, strict=True):
        np.testing.assert_allclose(got, gradient, rtol=1e-12, atol=1e-12)
    file = io.BytesIO()
    net.save(file)
    file.seek(0)
    loaded = dw.Sequential.load(file)
    assert repr(loaded) == repr(net)
    np.testing.assert_array_equal(loaded.forward(x), net.forward(x))


def test_a_network_with_it_learns():
    x, y = dw.datasets.spiral_data(60, 3, seed=0)
    net = dw.Sequential(
        [dw.Dense(2, 64), dw.ReLU(), dw.DropConnect(64, 64, 0.2), dw.ReLU(), dw.Dense(64, 3)],
        seed=1,
    )
    history = net.fit(
        x, y, loss=dw.SoftmaxCrossEntropy(), optimizer=dw.Adam(0.02), epochs=60, progress=False
    )
    assert history[-1].loss < 0.75 * history[0].loss


@pytest.mark.parametrize(
    "text",
    [
        "DropConnect(3, 4, rate=0.5)",
        "DropConnect(3, 4, rate=0.1, save_mask=False, l2=0.1, dtype='float64')",
    ],
)
def test_the_repr_is_the_call_that_makes_it(text):
    assert repr(eval(text, vars(dw))) == text


def test_a_state_that_does_not_fit_changes_nothing():
    layer = make()
    layer.forward(np.ones((1, 10)))
    before = layer.state_dict()
    for changes, message in [
        ({"key": None}, "missing: 'key'"),
        ({"weight": None}, "missing: 'weight'"),
        ({"more": 1}, "unexpected: 'more'"),
        ({"next_stream": -1, "bias": np.ones(7)}, "next_stream"),
        ({"bias": np.ones(8), "next_stream": 0}, "bias must have shape"),
    ]:
        state = {k: v for k, v in (layer.state_dict() | changes).items() if v is not None}
        with pytest.raises(ValueError, match=message):
            layer.load_state_dict(state)
        np.testing.assert_equal(layer.state_dict(), before)


@pytest.mark.parametrize("rate", [2, np.nan, "0.5", None, True])
def test_a_bad_rate_is_refused_at_once_and_later(rate):
    with pytest.raises((TypeError, ValueError), match="rate must be"):
        dw.DropConnect(2, 3, rate)
    layer = make()
    with pytest.raises((TypeError, ValueError), match="rate must be"):
        layer.rate = rate
    assert layer.rate == 0.5


@pytest.mark.parametrize("base", [dw.DropConnect, dw.Dropout])
def test_a_subclass_with_a_forward_of_its_own_uses_up_streams(base):
    class Own(base):
        def forward(self, x, training=True):
            return super().forward(x, training)

    layer = Own(5, 5, 0.5, seed=1) if base is dw.DropConnect else Own(0.5, seed=1)
    net = dw.Sequential([layer, dw.Dense(5, 2, seed=2)])
    x = np.ones((3, 5), np.float32)
    first, second = (net.predict_mc(x, 4)[0] for _ in range(2))
    assert layer.state_dict()["next_stream"] == 2
    assert not np.array_equal(first, second)
