"""Ranks that add up their gradients by MPI, of rows that all can read or of their own."""

from __future__ import annotations

import numpy as np
import pytest

import dropwise as dw
from ranks_in_threads import results_of

RNG = np.random.default_rng(4)
X = RNG.standard_normal((240, 6)).astype(np.float32)
Y = RNG.integers(0, 4, 240)


def make(dtype="float32"):
    layers = [dw.Dense(6, 20, l2=0.01, dtype=dtype), dw.ReLU(), dw.Dropout(0.5)]
    return dw.Sequential([*layers, dw.Dense(20, 4, dtype=dtype)], seed=3)


def fit(net, x, y, comm=None, **options):
    defaults = {"loss": dw.SoftmaxCrossEntropy(), "optimizer": dw.SGD(0.1), "batch_size": 100}
    return net.fit(x, y, comm=comm, progress=False, **{**defaults, **options})


def gradient(net):
    return np.concatenate([g for _, g in net.parameters()])


@pytest.mark.parametrize("size", [1, 2, 3, 7])
@pytest.mark.parametrize("dtype", ["float32", "float64", "float16"])
def test_gradients_are_those_of_one_process_within_what_is_stated(dtype, size):
    """The docstring of fit says how far they may be, for float32."""
    whole = make(dtype)
    fit(whole, X, Y, optimizer=dw.SGD(0.0), batch_size=None)
    want = gradient(whole).astype(np.float64)
    tolerance = {"float32": 1e-5, "float64": 1e-14, "float16": 4e-3}[dtype] * np.abs(want).max()

    def run(comm):
        net = make(dtype)
        history = fit(net, X, Y, comm, exact=False, optimizer=dw.SGD(0.0), batch_size=None)
        return gradient(net), history[0]

    results = results_of(size, run)
    for got, epoch in results:
        np.testing.assert_array_equal(got, results[0][0])
        assert np.abs(got - want).max() <= tolerance
        assert epoch.loss == pytest.approx(
            whole.history[0].loss, rel=1e-3 if dtype == "float16" else 1e-6
        )
        assert epoch.accuracy == pytest.approx(whole.history[0].accuracy)


def test_masks_and_order_of_the_rows_are_those_of_one_process():
    whole = make("float64")
    fit(whole, X, Y, epochs=3)

    def run(comm):
        net = make("float64")
        fit(net, X, Y, comm, exact=False, epochs=3)
        return net.parameter_values()

    for values in results_of(3, run):
        for got, want in zip(values, whole.parameter_values(), strict=True):
            np.testing.assert_allclose(got, want, rtol=1e-9, atol=1e-12)


def shards(*lengths):
    ends = np.cumsum(lengths)
    return [slice(end - n, end) for n, end in zip(lengths, ends, strict=True)]


@pytest.mark.parametrize("lengths", [(240,), (80, 160), (240, 0), (1, 0, 239), (0, 120, 0, 120)])
@pytest.mark.parametrize("weighted", [False, True])
def test_shards_in_one_batch_are_the_rows_of_one_process(lengths, weighted):
    weight = RNG.random(240) if weighted else None
    options = {"batch_size": None, "epochs": 3}
    validation = X[:60], Y[:60]
    whole = make("float64")
    want = fit(whole, X, Y, sample_weight=weight, validation_data=validation, **options)
    parts, seen = shards(*lengths), shards(60, *[0] * (len(lengths) - 1))

    def run(comm):
        net, rows, few = make("float64"), parts[comm.Get_rank()], seen[comm.Get_rank()]
        mine = None if weight is None else weight[rows]
        history = fit(
            net, X[rows], Y[rows], comm, sharded=True, sample_weight=mine,
            validation_data=(validation[0][few], validation[1][few]), **options,
        )  # fmt: skip
        return net.parameter_values(), history

    results = results_of(len(lengths), run)
    for values, history in results:
        assert history == results[0][1]
        for got, expected in zip(values, whole.parameter_values(), strict=True):
            np.testing.assert_allclose(got, expected, rtol=1e-9, atol=1e-12)
        np.testing.assert_allclose([e.loss for e in history], [e.loss for e in want], rtol=1e-9)
        val_losses = [[epoch.val_loss for epoch in epochs] for epochs in (history, want)]
        np.testing.assert_allclose(*val_losses, rtol=1e-9)


class Recorder(dw.SoftmaxCrossEntropy):
    """Notes which rows it has seen, by their class."""

    def forward(self, y_pred, y, sample_weight=None):
        self.seen = [*getattr(self, "seen", []), *np.asarray(y).tolist()]
        return super().forward(y_pred, y, sample_weight)


def test_each_row_of_a_shard_is_used_once_in_an_epoch():
    parts = shards(7, 0, 30, 1)

    def run(comm):
        net, loss = dw.Sequential([dw.Dense(6, 38)], seed=1), Recorder()
        rows = parts[comm.Get_rank()]
        x, y = X[:38][rows], np.arange(38)[rows]
        fit(net, x, y, comm, sharded=True, loss=loss, batch_size=8)
        # Before these, the loss was looked at.
        return loss.seen[-len(y) :] if len(y) else []

    orders = results_of(4, run)
    assert sorted(i for seen in orders for i in seen) == list(range(38))
    assert orders[2] != sorted(orders[2])  # shuffled


def test_the_rows_of_a_rank_have_the_masks_that_follow_those_of_the_ranks_before():
    def wide():
        return dw.Sequential([dw.Dense(6, 400), dw.Dropout(0.5)], seed=5)

    def run(comm):
        net, loss = wide(), dw.MeanSquaredError()
        fit(net, X[:4], np.zeros((4, 400)), comm, sharded=True, loss=loss, batch_size=None)
        return net[1].mask

    whole = wide()
    whole.forward(X[:12])
    np.testing.assert_array_equal(np.concatenate(results_of(3, run)), whole[1].mask)


def test_a_network_without_any_rows_is_refused():
    def run(comm):
        with pytest.raises(ValueError, match="no rank has any rows"):
            fit(make(), X[:0], Y[:0], comm, sharded=True)
        return True

    assert results_of(2, run) == [True, True]


def test_weights_that_balance_the_classes_need_the_rows_of_all_ranks():
    parts = shards(80, 160)

    def run(comm):
        rows = parts[comm.Get_rank()]
        with pytest.raises(ValueError, match=r"class_weight='balanced'.*its own rows"):
            fit(make(), X[rows], Y[rows], comm, sharded=True, class_weight="balanced")
        whole, net = make("float64"), make("float64")
        weights = {0: 2.0, 1: 0.5}
        fit(whole, X, Y, batch_size=None, class_weight=weights)
        fit(net, X[rows], Y[rows], comm, sharded=True, batch_size=None, class_weight=weights)
        np.testing.assert_allclose(gradient(net), gradient(whole), rtol=1e-9, atol=1e-12)
        return comm._world.aborted

    assert results_of(2, run) == [[], []]


def test_options_that_need_ranks_say_so():
    for options in ({"exact": False}, {"sharded": True}):
        with pytest.raises(ValueError, match="need comm"):
            fit(make(), X, Y, **options)
