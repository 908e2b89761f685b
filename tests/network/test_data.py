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
