"""Batches of rows."""

from __future__ import annotations

import numpy as np
import pytest

import dropwise as dw
from dropwise._backends import active
from dropwise.network.data import Data, checked_data
from dropwise.network.workspace import Workspace
from support import require

ORDER = np.random.default_rng(0).permutation(10)


@pytest.mark.parametrize("order", [None, ORDER, ORDER.astype(np.int32)], ids=["none", "64", "32"])
@pytest.mark.parametrize("kind", ["dense", "sparse"])
def test_batches_have_the_rows_in_order_and_are_dense(order, kind):
    x, y, weight = np.eye(10), np.arange(10), np.arange(10.0)
    rows_in = require("scipy.sparse").csr_array(x) if kind == "sparse" else x
    batches = Data(rows_in, y, weight).batches(4, order, Workspace())
    batches = [Data(batch.x.copy(), batch.y, batch.weight) for batch in batches]
    assert [len(batch.x) for batch in batches] == [4, 4, 2]
    rows = np.arange(10) if order is None else order
    np.testing.assert_array_equal(np.concatenate([batch.x for batch in batches]), x[rows])
    np.testing.assert_array_equal(np.concatenate([batch.y for batch in batches]), rows)
    np.testing.assert_array_equal(np.concatenate([batch.weight for batch in batches]), rows)


def test_all_threads_gather_rows_that_may_only_be_read(backend, monkeypatch):
    # As of a file that is mapped, and of pandas.
    x = np.random.default_rng(0).random((10, 3), np.float32)
    x.flags.writeable = False
    taken, computing = [], active()
    take_rows = computing.take_rows
    monkeypatch.setattr(
        computing, "take_rows", lambda *args: (taken.append(args[1]), take_rows(*args))
    )
    batch = Data(x, x[:, 0], None).take(ORDER[:4], Workspace())
    np.testing.assert_array_equal(batch.x, x[ORDER[:4]])
    assert len(taken) == 1


def test_rows_to_train_with_are_in_c_order():
    # np.take from another order copies all of the array for each batch.
    network = dw.Sequential([dw.Dense(3, 2)])
    x = np.asfortranarray(np.ones((6, 3), np.float32))
    data = checked_data(network, x, np.zeros(6, int), dw.SoftmaxCrossEntropy())
    assert data.x.flags.c_contiguous


@pytest.mark.parametrize("shape", [(9,), (9, 5), (9, 0), (2000, 70), (300, 4, 33)])
@pytest.mark.parametrize("dtype", [np.float16, np.float32, np.float64])
def test_rows_are_taken_in_any_order(backend, threads, shape, dtype):
    rng = np.random.default_rng(0)
    x = rng.standard_normal(shape).astype(dtype)
    for n in (0, 1, 3 * len(x)):
        rows = rng.integers(0, len(x), n)
        out = np.empty((n, *shape[1:]), dtype)
        active().take_rows(x, rows, out)
        np.testing.assert_array_equal(out, x[rows])


def test_rows_that_would_be_elsewhere_are_refused():
    require("dropwise._native")
    with dw.backend("native"):
        x, rows, out = np.ones((4, 3)), np.array([0, 3]), np.zeros((2, 3))
        for wrong in (
            (x, np.array([0, 4]), out),
            (x, np.array([0, -1]), out),
            (x, rows.astype(np.int32), out),
            (x, rows[:, None], out),
            (x, rows, out[:1]),
            (x, rows, np.empty((2, 2))),
            (x, rows, out.astype(np.float32)),
            (x[:0], rows, out),
            (x[:, :2], rows, np.empty((2, 2))),
        ):
            with pytest.raises(ValueError, match="must"):
                active().take_rows(*wrong)
