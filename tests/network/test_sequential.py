"""Sequential: what it computes fused, how it trains, what it saves."""

from __future__ import annotations

import json
import sys

import ml_dtypes
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import dropwise as dw
from dropwise.network.blocks import FusedDense
from dropwise.network.fused import split_into_blocks

pytestmark = pytest.mark.usefixtures("backend")


def sample(rows, columns, dtype=np.float64, seed=0):
    return np.random.default_rng(seed).standard_normal((rows, columns)).astype(dtype)


def one_by_one(layers, x, dy, training=True):
    """Forward and backward through the layers themselves."""
    for layer in layers:
        x = layer.forward(x, training)
    for layer in reversed(layers):
        dy = layer.backward(dy)
    return x, dy


def chain(spec, *, dtype="float64", seed=0, **dropout):
    """Layers from a string: a number is a Dense to so many columns, R a ReLU, D a Dropout."""
    columns, *parts = spec.split()
    layers, width = [], int(columns)
    for i, part in enumerate(parts):
        if part == "R":
            layers.append(dw.ReLU())
        elif part == "D":
            layers.append(dw.Dropout(**({"rate": 0.4, "seed": (seed + 1) * 100 + i} | dropout)))
        else:
            layer = dw.Dense(width, int(part), dtype=dtype, seed=i, l2=0.01)
            layer.bias = 0.1 * np.arange(int(part)) - 0.2
            layers.append(layer)
            width = int(part)
    return layers


SPECS = [
    "5 7",
    "5 7 R",
    "5 7 D",
    "5 7 R D",
    "5 7 R D 3",
    "5 7 D 3",
    "5 7 R 3",
    "5 7 3",
    "5 70 R D 65 R D 9 R D 3",
    "5 70 D 65 R 9 D 3 R",
    "5 D 7 R D 3",
    "5 R D 7 R",
    "5 7 D R 3",
    "5 7 R R D D 3",
    "5 D",
]


@pytest.mark.parametrize("skip_zeros", [True, False])
@pytest.mark.parametrize("rate", [0.0, 0.3, 0.8, 1.0])
@pytest.mark.parametrize("spec", SPECS)
def test_fused_is_the_layers_one_by_one(spec, rate, skip_zeros):
    x = sample(33, 5)
    layers = chain(spec, rate=rate)
    for layer in layers:
        if isinstance(layer, dw.Dense):
            layer.skip_zeros = skip_zeros
    net = dw.Sequential(chain(spec, rate=rate))
    for step in range(2):
        dy = sample(33, net.predict(x).shape[1], seed=step)
        y, dx = one_by_one(layers, x, dy)
        np.testing.assert_allclose(net.forward(x), y, rtol=1e-10, atol=1e-12)
        np.testing.assert_allclose(net.backward(dy), dx, rtol=1e-10, atol=1e-12)
        for layer, fused in zip(layers, net.layers, strict=True):
            if isinstance(layer, dw.Dropout):
                np.testing.assert_array_equal(fused.mask, layer.mask)
            for (_, want), (_, got) in zip(layer.parameters(), fused.parameters(), strict=True):
                np.testing.assert_allclose(got, want, rtol=1e-10, atol=1e-12)


@given(
    spec=st.sampled_from(SPECS),
    rows=st.integers(1, 70),
    rate=st.floats(0, 1),
    scaling=st.sampled_from(["inverted", "vanilla"]),
    save_mask=st.booleans(),
    noise=st.sampled_from([None, (1, None), (None, 1), (1, 1)]),
    training=st.booleans(),
)
@settings(max_examples=60)
def test_fused_is_the_layers_one_by_one_with_any_dropout(
    spec, rows, rate, scaling, save_mask, noise, training
):
    options = {"rate": rate, "scaling": scaling, "save_mask": save_mask, "noise_shape": noise}
    x = sample(rows, 5)
    layers, net = chain(spec, **options), dw.Sequential(chain(spec, **options))
    dy = sample(rows, net.predict(x).shape[1])
    y, dx = one_by_one(layers, x, dy, training)
    # The scale may be as large as 2**53: compare relative to the largest value.
    np.testing.assert_allclose(net.forward(x, training), y, rtol=1e-9, atol=1e-12 * abs(y).max())
    np.testing.assert_allclose(net.backward(dy), dx, rtol=1e-9, atol=1e-12 * abs(dx).max())
    for layer, fused in zip(layers, net.layers, strict=True):
        for (_, want), (_, got) in zip(layer.parameters(), fused.parameters(), strict=True):
            scale = abs(want).max()
            np.testing.assert_allclose(got, want, rtol=1e-9, atol=1e-12 * scale)


# The native backend takes so many rows of such narrow layers through them in pieces.
@pytest.mark.parametrize("options", [{}, {"noise_shape": (1, None)}, {"scaling": "vanilla"}])
@pytest.mark.parametrize("training", [True, False])
@pytest.mark.parametrize("spec", ["5 400 R D 3", "5 400 D 6 400 R D 7 R", "5 R D 400 R 3"])
def test_fused_is_the_layers_one_by_one_with_many_rows(spec, training, options):
    x = sample(1501, 10)[::-1, ::2]
    layers, net = chain(spec, **options), dw.Sequential(chain(spec, **options))
    dy = sample(1501, net.predict(x).shape[1])
    y, dx = one_by_one(layers, x, dy, training)
    np.testing.assert_allclose(net.forward(x, training), y, rtol=1e-10, atol=1e-11)
    np.testing.assert_allclose(net.backward(dy), dx, rtol=1e-10, atol=1e-11)
    for layer, fused in zip(layers, net.layers, strict=True):
        for (_, want), (_, got) in zip(layer.parameters(), fused.parameters(), strict=True):
            np.testing.assert_allclose(got, want, rtol=1e-10, atol=1e-9)


@pytest.mark.parametrize("lead", [(6,), (2, 3), (3, 1, 2)])
@pytest.mark.parametrize("spec", ["5 7 R D 3", "5 7 R D 3 R D", "5 D 7"])
def test_leading_dimensions_are_kept(lead, spec):
    x = sample(6, 5).reshape(*lead, 5)
    layers, net = chain(spec), dw.Sequential(chain(spec))
    y = net.forward(x)
    dx = net.backward(np.ones_like(y))
    want = one_by_one(layers, x, np.ones_like(y))
    assert (y.shape[:-1], dx.shape) == (lead, x.shape)
    np.testing.assert_allclose(y, want[0], rtol=1e-10, atol=1e-12)
    np.testing.assert_allclose(dx, want[1], rtol=1e-10, atol=1e-12)
    assert net.predict(x).shape == y.shape


def test_a_mask_of_columns_reaches_over_all_leading_dimensions():
    x = sample(6, 5).reshape(2, 3, 5)
    options = {"noise_shape": (1, 1, None)}
    layers, net = chain("5 70 R D 3", **options), dw.Sequential(chain("5 70 R D 3", **options))
    y, _ = one_by_one(layers, x, np.zeros((2, 3, 3)))
    np.testing.assert_allclose(net.forward(x), y, rtol=1e-10, atol=1e-12)
    with pytest.raises(ValueError, match="noise_shape must have"):
        net.forward(x[0])


@pytest.mark.parametrize("dtype", ["float16", "bfloat16"])
def test_half_networks_run_layer_by_layer(dtype):
    x = sample(9, 5, np.dtype(getattr(ml_dtypes, dtype, dtype)))
    layers, net = chain("5 7 R D 3", dtype=dtype), dw.Sequential(chain("5 7 R D 3", dtype=dtype))
    dy = np.ones((9, 3), x.dtype)
    y, dx = one_by_one(layers, x, dy)
    np.testing.assert_array_equal(net.forward(x), y)
    np.testing.assert_array_equal(net.backward(dy), dx)


def test_groups_are_found_in_any_depth():
    blocks = split_into_blocks(chain("5 7 R D 6 D 5 R 4 D R 3"))
    kinds = [
        (b.relu is not None, b.dropout is not None) if isinstance(b, FusedDense) else "plain"
        for b in blocks
    ]
    assert kinds == [
        (True, True),
        (False, True),
        (True, False),
        (False, True),
        "plain",
        (False, False),
    ]


def test_a_layer_of_ones_own_takes_part():
    class Twice(dw.Layer):
        def forward(self, x, training=True):
            return 2 * x

        def backward(self, dy):
            return 2 * dy

    class MyDense(dw.Dense):  # overrides what fusing would go round
        def forward(self, x, training=True):
            return super().forward(x, training) + 1

    def layers():
        own = MyDense(7, 3, dtype="float64", seed=5)
        return [*chain("5 7 R"), Twice(), *chain("7 D"), own, Twice()]

    x = sample(9, 5)
    net = dw.Sequential(layers())
    y, dx = one_by_one(layers(), x, np.ones((9, 3)))
    np.testing.assert_allclose(net.forward(x), y, rtol=1e-12)
    np.testing.assert_allclose(net.backward(np.ones((9, 3))), dx, rtol=1e-12)


@pytest.mark.parametrize("spec", ["5 7 R D 3", "5 D 7 R", "5 R D"])
def test_without_input_grad_the_parameters_get_the_same_gradients(spec):
    x = sample(33, 5)
    a, b = dw.Sequential(chain(spec)), dw.Sequential(chain(spec))
    dy = np.ones_like(a.forward(x))
    b.forward(x)
    a.backward(dy)
    assert b.backward(dy, input_grad=False) is None
    for (_, want), (_, got) in zip(a.parameters(), b.parameters(), strict=True):
        np.testing.assert_array_equal(got, want)


def test_batches_of_changing_size_do_not_disturb_each_other():
    layers, net = chain("5 70 R D 65 R D 3"), dw.Sequential(chain("5 70 R D 65 R D 3"))
    for rows in (64, 3, 100, 1, 64):
        x, dy = sample(rows, 5, seed=rows), sample(rows, 3, seed=rows)
        y, dx = one_by_one(layers, x, dy)
        np.testing.assert_allclose(net.forward(x), y, rtol=1e-10, atol=1e-12)
        np.testing.assert_allclose(net.backward(dy), dx, rtol=1e-10, atol=1e-12)


def test_an_empty_batch_works():
    net = dw.Sequential(chain("5 7 R D 3"))
    assert net.forward(np.empty((0, 5))).shape == (0, 3)
    assert net.backward(np.empty((0, 3))).shape == (0, 5)
    assert net.predict(np.empty((0, 5))).shape == (0, 3)


class Identity(dw.Layer):
    """Hands on what it is given."""

    def forward(self, x, training=True):
        return x

    def backward(self, dy):
        return dy


@pytest.mark.parametrize("spec", ["5 7 R D", "5 7", "5 7 R D 3"])
def test_what_is_returned_is_not_written_to_again_whatever_the_layers_hand_on(spec):
    net = dw.Sequential([Identity(), *chain(spec), Identity()])
    results = []
    for seed in range(2):
        y = net.forward(sample(9, 5, seed=seed))
        dx = net.backward(sample(*y.shape, seed=seed))
        p = net.predict(sample(9, 5, seed=seed))
        results.append([(a, a.copy()) for a in (y, dx, p)])
    for array, copied in results[0]:
        np.testing.assert_array_equal(array, copied)


def test_the_result_may_be_changed_before_backward():
    x, dy = sample(9, 5), sample(9, 7)
    a, b = dw.Sequential(chain("5 7 R D")), dw.Sequential(chain("5 7 R D"))
    a.forward(x)
    y = b.forward(x)
    y[...] = dy
    np.testing.assert_array_equal(b.backward(y), a.backward(dy))


# ---- inference ---------------------------------------------------------------------------------


@pytest.mark.parametrize("rows", [1, 1023, 1024, 1025, 3000])
@pytest.mark.parametrize("scaling", ["inverted", "vanilla"])
def test_predict_is_the_inference_forward(rows, scaling):
    net = dw.Sequential(chain("5 70 R D 3", scaling=scaling))
    x = sample(rows, 5)
    np.testing.assert_allclose(net.predict(x), net.forward(x, training=False), rtol=1e-12)


def test_predict_takes_no_streams():
    net = dw.Sequential(chain("5 7 R D 3"))
    net.predict(sample(4, 5))
    assert net.layers[2].state_dict()["next_stream"] == 0


@pytest.mark.parametrize("spec", ["5 64 R D 3", "5 64 R D 64 R D 3", "5 D 64 R D 3", "5 64 R D"])
@pytest.mark.parametrize("noise_shape", [None, (1, None)])
@pytest.mark.parametrize("rows", [1, 300])
def test_predict_mc_has_the_mean_and_deviation_of_many_training_forwards(spec, noise_shape, rows):
    n = 400
    net = dw.Sequential(chain(spec, noise_shape=noise_shape))
    x = sample(rows, 5)
    mean, std = net.predict_mc(x, n)
    samples = np.stack([net.forward(x) for _ in range(n)])
    assert mean.shape == std.shape == samples.shape[1:]
    error = samples.std(axis=0) * np.sqrt(2 / n)
    # 6 sigma of the difference of two means, 2e-9 for each of up to 20000 values
    assert (abs(mean - samples.mean(axis=0)) <= 6 * error + 1e-12).all()
    # Deviations differ by the spread of their estimates; values of heavy tails by more.
    assert abs(std.mean() / samples.std(axis=0).mean() - 1) < 0.2


def test_predict_mc_with_the_same_seed_is_the_same():
    x = sample(7, 5)
    a, b = (dw.Sequential(chain("5 64 R D 3")).predict_mc(x, 50) for _ in range(2))
    np.testing.assert_array_equal(a, b)


def test_predict_mc_of_a_network_without_dropout_does_not_vary():
    net = dw.Sequential(chain("5 7 R 3"))
    mean, std = net.predict_mc(sample(4, 5), 10)
    np.testing.assert_allclose(mean, net.predict(sample(4, 5)), rtol=1e-12)
    np.testing.assert_array_equal(std, np.zeros((4, 3)))


def test_predict_mc_transforms_each_sample():
    net = dw.Sequential(chain("5 64 R D 3"))
    mean, std = net.predict_mc(sample(4, 5), 30, transform=lambda y: y > 0)
    assert ((mean >= 0) & (mean <= 1)).all()
    np.testing.assert_allclose(std**2, mean * (1 - mean), atol=1e-12)


def test_predict_mc_keeps_the_digits_of_a_large_mean():
    net = dw.Sequential(chain("5 64 R D 3"))
    small = net.predict_mc(sample(4, 5), 64)[1]
    shifted = dw.Sequential(chain("5 64 R D 3"))
    shifted.layers[-1].bias += 1e8
    np.testing.assert_allclose(shifted.predict_mc(sample(4, 5), 64)[1], small, rtol=1e-5)


def test_after_predict_mc_backward_needs_a_forward():
    net = dw.Sequential(chain("5 7 D 3"))
    net.forward(sample(4, 5))
    net.predict_mc(sample(4, 5), 2)
    with pytest.raises(RuntimeError, match="backward was called before forward"):
        net.backward(np.ones((4, 3)))


# ---- errors ------------------------------------------------------------------------------------


def test_layers_that_do_not_fit_are_an_error_at_once():
    with pytest.raises(ValueError, match=r"Dense\(2, 3\) gives 3 columns; Dense\(4, 5\) takes 4"):
        dw.Sequential([dw.Dense(2, 3), dw.ReLU(), dw.Dropout(), dw.Dense(4, 5)])
    with pytest.raises(ValueError, match=r"gives float32; .* takes float64"):
        dw.Sequential([dw.Dense(2, 3), dw.Dense(3, 4, dtype="float64")])
    with pytest.raises(TypeError, match="layers must be Layer objects, got 3"):
        dw.Sequential([3])


def test_a_layer_that_is_there_twice_is_an_error_at_once():
    drop = dw.Dropout(0.5)
    with pytest.raises(ValueError, match=r"Dropout\(rate=0.5\) is in the network twice"):
        dw.Sequential([dw.Dense(2, 3), drop, dw.Dense(3, 3), drop])


def test_the_wrong_number_of_columns_is_an_error_that_names_both():
    net = dw.Sequential([dw.Dense(512, 256), dw.ReLU()])
    for call in (net.forward, net.predict):
        with pytest.raises(
            ValueError, match=r"Dense\(512, 256\) got x with 784 columns; it was built for 512"
        ):
            call(np.ones((3, 784)))


# ---- seeds -------------------------------------------------------------------------------------


def network(seed=None, rate=0.4, **options):
    return dw.Sequential(
        [dw.Dense(2, 32, **options), dw.ReLU(), dw.Dropout(rate), dw.Dense(32, 3, **options)],
        seed=seed,
    )


def test_the_seed_fixes_weights_and_masks():
    x = sample(20, 2, np.float32)
    a, b, c = network(1), network(1), network(2)
    for _ in range(2):
        y = a.forward(x)
        np.testing.assert_array_equal(b.forward(x), y)
        assert (c.forward(x) != y).any()


def test_child_i_has_the_seed_with_spawn_key_i():
    net = network(1)
    sequence = np.random.SeedSequence(1, spawn_key=(2,))
    key = int(sequence.generate_state(1, np.uint64)[0])
    assert net.layers[2].state_dict()["key"] == f"{key:#018x}"
    inner = dw.Sequential(
        [dw.Sequential([dw.Dropout()]), dw.Dropout()], seed=np.random.SeedSequence(1)
    )
    nested = np.random.SeedSequence(1, spawn_key=(0, 0)).generate_state(1, np.uint64)[0]
    assert inner.layers[0].layers[0].state_dict()["key"] == f"{int(nested):#018x}"


def test_the_seed_fixes_the_weights_of_nested_networks():
    def nested():
        return dw.Sequential([dw.Sequential([dw.Dense(2, 3)]), dw.ReLU(), dw.Dense(3, 1)], seed=1)

    for (a, _), (b, _) in zip(nested().parameters(), nested().parameters(), strict=True):
        np.testing.assert_array_equal(a, b)


def test_a_layer_keeps_a_seed_or_weights_of_its_own():
    drop, looked_at = dw.Dropout(seed=5), dw.Dense(2, 3)
    key, weight = drop.state_dict()["key"], looked_at.weight.copy()
    net = dw.Sequential([dw.Dense(2, 2, seed=9), looked_at, drop], seed=1)
    assert drop.state_dict()["key"] == key
    np.testing.assert_array_equal(net.layers[0].weight, dw.Dense(2, 2, seed=9).weight)
    np.testing.assert_array_equal(net.layers[1].weight, weight)


# ---- training ----------------------------------------------------------------------------------


def train(net, epochs=3, **options):
    x, y = dw.datasets.spiral_data(60, 3, seed=0)
    settings = {"loss": dw.SoftmaxCrossEntropy(), "optimizer": dw.Adam(0.02), "progress": False}
    return net.fit(x, y, epochs=epochs, **(settings | options))


def test_fit_learns():
    net = network(0, rate=0.1)
    x, y = dw.datasets.spiral_data(60, 3, seed=0)
    history = train(net, 400, batch_size=None, optimizer=dw.Adam(0.05))
    assert [e.epoch for e in history] == list(range(1, 401))
    assert history[-1].data_loss < 0.7 * history[0].data_loss
    assert (net.predict(x).argmax(axis=1) == y).mean() > 0.6  # chance is a third


@pytest.mark.parametrize("batch_size", [None, 64, 1000])
def test_fused_training_is_that_of_the_layers_one_by_one(batch_size):
    x, y = dw.datasets.spiral_data(60, 3, seed=0, dtype="float64")
    net, reference = (network(3, dtype="float64", l2=0.01) for _ in range(2))
    history = train(net, 5, batch_size=batch_size, shuffle=False)
    loss, adam = dw.SoftmaxCrossEntropy(), dw.Adam(0.02)
    for epoch in history:
        losses, sizes = [], []
        for start in range(0, len(x), batch_size or len(x)):
            part = slice(start, start + (batch_size or len(x)))
            out = x[part]
            for layer in reference.layers:
                out = layer.forward(out)
            losses.append(loss.forward(out, y[part]) + reference.regularization_loss())
            sizes.append(len(out))
            gradient = loss.backward()
            for layer in reversed(reference.layers):
                gradient = layer.backward(gradient)
            adam.step(reference.parameters())
        assert epoch.loss == pytest.approx(np.average(losses, weights=sizes), rel=1e-9)
        np.testing.assert_array_equal(net.layers[2].mask.shape, reference.layers[2].mask.shape)
    np.testing.assert_array_equal(net.layers[2].mask, reference.layers[2].mask)
    np.testing.assert_allclose(net.layers[0].weight, reference.layers[0].weight, rtol=1e-6)


def test_the_same_seed_trains_the_same_network():
    a, b = network(1), network(1)
    assert train(a, batch_size=50) == train(b, batch_size=50)
    np.testing.assert_array_equal(a.layers[0].weight, b.layers[0].weight)


def test_each_epoch_takes_the_rows_in_another_order():
    class Recorder(dw.Layer):
        def __init__(self):
            self.seen = []

        def forward(self, x, training=True):
            self.seen.append(x[:, 0].copy())
            return x

        def backward(self, dy):
            return dy

    x = np.arange(100, dtype=np.float32)[:, None]
    orders = []
    for seed in (1, 1, 2):
        recorder = Recorder()
        net = dw.Sequential([recorder, dw.Dense(1, 1, seed=0)], seed=seed)
        net.fit(
            x,
            x,
            loss=dw.MeanSquaredError(),
            optimizer=dw.SGD(0),
            epochs=2,
            batch_size=30,
            progress=False,
        )
        sizes = [len(rows) for rows in recorder.seen]
        assert sizes == [30, 30, 30, 10] * 2
        epochs = np.concatenate(recorder.seen).reshape(2, 100)
        np.testing.assert_array_equal(np.sort(epochs), np.tile(np.arange(100), (2, 1)))
        assert (epochs[0] != epochs[1]).any()
        orders.append(epochs.tobytes())
    assert orders[0] == orders[1] != orders[2]


def test_the_figures_of_an_epoch_are_those_of_its_batches():
    x, y = dw.datasets.spiral_data(60, 3, seed=0)
    net = network(0, rate=0.0, l2=0.1)
    loss = dw.SoftmaxCrossEntropy()
    want, accuracy = net.evaluate(x, y, loss=loss)
    penalty = net.regularization_loss()
    (epoch,) = train(net, 1, optimizer=dw.SGD(0.25, decay=1.0), batch_size=None)
    assert epoch.data_loss == pytest.approx(want, rel=1e-6)
    assert epoch.accuracy == accuracy
    assert epoch.regularization_loss == pytest.approx(penalty, rel=1e-6)
    assert epoch.loss == epoch.data_loss + epoch.regularization_loss
    assert epoch.learning_rate == 0.25
    assert epoch.val_loss is epoch.val_accuracy is None


def test_validation_figures_are_those_of_inference_after_the_epoch():
    net = network(0)
    x, y = dw.datasets.spiral_data(20, 3, seed=1)
    history = train(net, 2, validation_data=(x, y))
    loss, accuracy = net.evaluate(x, y, loss=dw.SoftmaxCrossEntropy())
    assert (history[-1].val_loss, history[-1].val_accuracy) == (loss, accuracy)


def test_regression_has_no_accuracy():
    net = dw.Sequential([dw.Dense(1, 16), dw.ReLU(), dw.Dense(16, 1)], seed=0)
    x = np.linspace(-1, 1, 50)
    history = net.fit(
        x[:, None],
        x**2,
        loss=dw.MeanSquaredError(),
        optimizer=dw.Adam(0.02),
        epochs=100,
        progress=False,
    )
    assert history[-1].accuracy is None
    assert history[-1].loss < 0.1 * history[0].loss


def test_iter_fit_can_be_left_and_taken_up_again():
    x, y = dw.datasets.spiral_data(60, 3, seed=0)
    whole, parts = network(1), network(1)
    train(whole, 4, batch_size=50)
    options = {"loss": dw.SoftmaxCrossEntropy(), "optimizer": dw.Adam(0.02), "batch_size": 50}
    for epoch in parts.iter_fit(x, y, epochs=100, **options):
        if epoch.epoch == 2:
            break
    assert [e.epoch for e in parts.iter_fit(x, y, epochs=2, **options)] == [3, 4]
    np.testing.assert_array_equal(parts.layers[0].weight, whole.layers[0].weight)


@pytest.mark.parametrize(
    ("x", "y", "batch_size", "message"),
    [
        (np.ones((3, 2)), [0, 1], 2, "same number of rows, got 3 and 2"),
        (np.ones((0, 2)), [], 2, "same number of rows, got 0 and 0"),
        (np.ones((3, 2)), [0, 1, 2], 0, "batch_size must be at least 1, got 0"),
    ],
)
def test_data_that_does_not_fit_is_an_error(x, y, batch_size, message):
    with pytest.raises(ValueError, match=message):
        network().fit(
            x,
            y,
            loss=dw.SoftmaxCrossEntropy(),
            optimizer=dw.Adam(),
            batch_size=batch_size,
            progress=False,
        )


def test_a_progress_bar_is_drawn_if_asked_for(capsys):
    pytest.importorskip("tqdm")
    train(network(0), 2, progress=True)
    assert "2/2" in capsys.readouterr().err
    train(network(0), 2, progress=False)
    assert capsys.readouterr().err == ""


def test_without_tqdm_fit_runs_without_a_bar(monkeypatch, capsys):
    monkeypatch.setitem(sys.modules, "tqdm.auto", None)
    assert len(train(network(0), 2, progress=True)) == 2
    assert capsys.readouterr().err == ""


# ---- state -------------------------------------------------------------------------------------


def test_a_saved_network_goes_on_as_it_would_have(tmp_path):
    net = network(1, l2=0.01)
    train(net, 2, batch_size=50)
    path = tmp_path / "model.npz"
    net.save(path)
    loaded = dw.Sequential.load(path)
    assert repr(loaded) == repr(net)
    x = sample(9, 2, np.float32)
    np.testing.assert_array_equal(loaded.predict(x), net.predict(x))
    assert train(loaded, 2, batch_size=50) == train(net, 2, batch_size=50)


@pytest.mark.parametrize("dtype", ["float16", "float32", "float64", "bfloat16"])
def test_every_dtype_is_saved_exactly(tmp_path, dtype):
    net = dw.Sequential([dw.Dense(3, 4, dtype=dtype), dw.Sequential([dw.Dropout(0.2)])], seed=1)
    net.save(tmp_path / "m.npz")
    loaded = dw.Sequential.load(tmp_path / "m.npz")
    assert loaded.layers[0].dtype == net.layers[0].dtype
    np.testing.assert_array_equal(loaded.layers[0].weight, net.layers[0].weight)
    assert loaded.layers[1].state_dict() == net.layers[1].state_dict()


def test_the_file_holds_no_pickle_and_has_the_name_that_was_given(tmp_path):
    path = tmp_path / "model"
    network(1).save(path)
    with np.load(path, allow_pickle=False) as file:
        assert all(file[name].dtype != object for name in file.files)
        json.loads(str(file["dropwise"]))
    assert [p.name for p in tmp_path.iterdir()] == ["model"]


def test_a_layer_of_ones_own_cannot_be_saved(tmp_path):
    class Mine(dw.ReLU):
        pass

    with pytest.raises(TypeError, match=r"Mine\(\) cannot be saved"):
        dw.Sequential([dw.Dense(1, 1), Mine()]).save(tmp_path / "m.npz")
    assert not list(tmp_path.iterdir())


def test_another_file_is_refused(tmp_path):
    np.savez(tmp_path / "other.npz", a=np.ones(3))
    with pytest.raises(ValueError, match=r"other\.npz' was not written by Sequential\.save"):
        dw.Sequential.load(tmp_path / "other.npz")


def test_the_state_without_arrays_is_json():
    state = network(1).state_dict()
    plain = {k: v for k, v in state.items() if not isinstance(v, np.ndarray)}
    assert json.loads(json.dumps(plain)) == plain
    assert {k for k in state if k not in plain} == {"0.weight", "0.bias", "3.weight", "3.bias"}


def test_the_summary_counts_parameters():
    lines = network(1).summary().splitlines()
    assert lines[0].split() == ["0", "Dense(2,", "32)", "96"]
    assert lines[-1].split() == ["total", "195"]


def test_the_repr_shows_the_layers():
    net = dw.Sequential([dw.Dense(2, 3), dw.ReLU(), dw.Dropout(0.1)])
    assert repr(net) == "Sequential([Dense(2, 3), ReLU(), Dropout(rate=0.1)])"
