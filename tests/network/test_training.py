"""Training: fit, iter_fit and their figures."""

from __future__ import annotations

import sys

import numpy as np
import pytest

import dropwise as dw
from networks import network, train

pytestmark = pytest.mark.usefixtures("backend")


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
