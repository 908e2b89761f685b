"""The memory of large results is recycled, but never while a view of it exists."""

from __future__ import annotations

import gc
import os
import threading

import numpy as np
import pytest

import dropwise as dw
from dropwise import _memory
from dropwise import functional as F

F32 = np.dtype(np.float32)
N = _memory.LARGE // 4


@pytest.fixture(autouse=True)
def nothing_kept():
    _memory._spare.clear()
    yield
    _memory._spare.clear()


def address(x):
    return x.__array_interface__["data"][0]


def kept_bytes():
    return sum(memory.nbytes for memory in _memory._spare.values())


def test_memory_of_a_result_that_is_gone_is_used_again():
    x = np.ones(N, np.float32)
    y = F.dropout(x, 0.5, key=1)
    first = address(y)
    del y
    assert address(F.dropout(x, 0.1, key=1)) == first


def test_other_sizes_get_memory_of_their_own():
    y = _memory.empty((N,), F32)
    first = address(y)
    del y
    larger = _memory.empty((N + 1,), F32)
    assert address(larger) != first
    assert kept_bytes() == 4 * N


def test_a_block_of_the_same_size_serves_another_dtype_and_shape():
    y = _memory.empty((N,), F32)
    first = address(y)
    del y
    other = _memory.empty((N // 8, 4), np.dtype(np.float64))
    assert address(other) == first
    assert other.dtype == np.float64
    assert other.shape == (N // 8, 4)
    assert other.flags.carray


def test_any_view_keeps_the_memory():
    x = np.ones((N // 4, 4), np.float32)
    view = F.dropout(x, 0.0, key=1)[::3, 1].T
    memoryview_of_it = memoryview(view)
    del view
    gc.collect()
    assert not _memory._spare
    other = F.dropout(x, 1.0, key=1)
    assert not other.any()
    assert np.asarray(memoryview_of_it).all()
    del memoryview_of_it
    assert kept_bytes() == x.nbytes


def test_the_dropout_layer_writes_every_element_of_used_memory(backend):
    drop = dw.Dropout(0.5, seed=1)
    x = np.ones(N, np.float32)
    drop.forward(x)  # later calls take the fast path
    for call in (drop.forward, drop.backward):
        y = call(x)
        kept = drop.mask
        first = address(y)
        y.fill(np.nan)
        del y
        y = call(x)
        assert address(y) == first
        np.testing.assert_array_equal(y, 2 * (drop.mask if call == drop.forward else kept))
        del y


def test_no_more_than_the_limit_is_kept():
    count = _memory.KEPT // _memory.LARGE
    results = [_memory.empty((N,), F32) for _ in range(count + 3)]
    last = address(results[-1])
    results.reverse()
    while results:
        results.pop()
        assert kept_bytes() <= _memory.KEPT
    assert kept_bytes() == _memory.KEPT
    assert last in {address(memory) for memory in _memory._spare.values()}


def test_small_and_huge_results_are_left_to_numpy():
    for n in (N - 1, _memory.KEPT // 4 + 1):
        y = _memory.empty((n,), F32)
        assert y.base is None
        del y
    assert not _memory._spare


def test_threads_never_get_the_same_memory(backend):
    x = np.ones(N, np.float32)
    wrong = []

    def work(key):
        for stream in range(12):
            y = F.dropout(x, 0.5, key=key, stream=stream)
            z = F.dropout(x, 0.5, key=key, stream=stream)
            if address(y) == address(z) or not np.array_equal(y, z):
                wrong.append((key, stream))
            del y, z

    threads = [threading.Thread(target=work, args=(key,)) for key in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not wrong


@pytest.mark.skipif(not hasattr(os, "fork"), reason="no fork here")
@pytest.mark.filterwarnings("ignore:.*fork:DeprecationWarning")
def test_a_forked_child_uses_kept_memory_of_its_own():
    result = _memory.empty((N,), F32)
    where = address(result)
    del result  # kept, and known to parent and child alike
    child = os.fork()
    if child == 0:
        y = _memory.empty((N,), F32)
        y[:] = 1
        os._exit(address(y) != where)
    y = _memory.empty((N,), F32)
    y[:] = 2
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
    assert address(y) == where
    assert (y == 2).all()
