"""Who computes the chunks does not show: threads, processes, a cluster that loses a worker."""

from __future__ import annotations

import numpy as np
import pytest

import dropwise as dw
from dropwise import functional as F
from support import require, run_python

dask = require("dask")
da = require("dask.array")
require("distributed")

import dropwise.dask as dd

ROWS, COLUMNS = 3000, 40


def work():
    """What is to be computed, and the same in memory."""
    x = np.random.default_rng(0).standard_normal((ROWS, COLUMNS)).astype(np.float32)
    layers = [dw.Dense(COLUMNS, 30), dw.ReLU(), dw.Dropout(0.5), dw.Dense(30, 2)]
    net = dw.Sequential(layers, seed=1)
    lazy = da.from_array(x, chunks=(700, 11))
    expected = (F.dropout(x, 0.3, key=1), net.predict(x))
    return (dd.dropout(lazy, 0.3, key=1), dd.predict(net, lazy)), expected


def check(computed, expected):
    for a, b in zip(computed, expected, strict=True):
        assert a.tobytes() == b.tobytes()


def test_one_thread_gives_the_bits_of_its_backend(backend):
    lazy, expected = work()
    check(dask.compute(*lazy, scheduler="synchronous"), expected)


@pytest.mark.parametrize("scheduler", ["synchronous", "threads"])
def test_a_block_around_the_call_chooses_the_backend_of_its_tasks(scheduler):
    for name in ("dropwise._native", "numba"):
        require(name)
    (_, lazy), (_, native) = work()
    with dw.backend("numba"):
        (_, by_numba), (_, numba) = work()
    assert not np.array_equal(numba, native)
    assert by_numba.name != lazy.name
    with dw.backend("native"):
        check([by_numba.compute(scheduler=scheduler)], [numba])


def test_threads_give_the_same_bits():
    lazy, expected = work()
    check(dask.compute(*lazy, scheduler="threads", num_workers=3), expected)


# In a process of its own: one that starts others by "spawn", and that workers' warnings do not
# reach.  Numbers are drawn in the workers, so that little goes through the scheduler.
PROCESSES = """
import dask, dask.array as da, numpy as np
import dropwise as dw, dropwise.dask as dd
from dropwise import functional as F

if __name__ == "__main__":
    x = np.arange(12_000, dtype=np.float32).reshape(3000, 4)
    net = dw.Sequential([dw.Dense(4, 30), dw.ReLU(), dw.Dropout(0.5), dw.Dense(30, 2)], seed=1)
    lazy = da.from_array(x, chunks=(900, 3))
    made = dd.dropout(lazy, 0.3, key=1), dd.predict(net, lazy), *dd.predict_mc(net, lazy, 3)
    net = dw.Sequential([dw.Dense(4, 30), dw.ReLU(), dw.Dropout(0.5), dw.Dense(30, 2)], seed=1)
    expected = F.dropout(x, 0.3, key=1), net.predict(x), *net.predict_mc(x, 3)
    with dw.backend("numba"):
        made += (dd.predict(net, lazy),)
        expected += (net.predict(x),)
    with dask.config.set(scheduler="processes", num_workers=2):
        for got, want in zip(dask.compute(*made), expected):
            print(got.tobytes() == want.tobytes())
"""


def test_processes_give_the_same_bits():
    assert run_python(PROCESSES).split() == ["True"] * 5


# When a third of the chunks are there, the others wait until a worker has been killed.
CLUSTER = """
import os, pathlib, signal, time, uuid
import dask.array as da, numpy as np
from distributed import Client, LocalCluster
import dropwise as dw, dropwise.dask as dd
from dropwise import functional as F

N = 24
started, killed = (pathlib.Path(os.environ["FOLDER"]) / name for name in ("started", "killed"))

def wait(block):
    (started / uuid.uuid4().hex).touch()
    while len(list(started.iterdir())) > N // 3 and not killed.exists():
        time.sleep(0.01)
    return block

if __name__ == "__main__":
    started.mkdir()
    with LocalCluster(
        n_workers=2, threads_per_worker=1, host="127.0.0.1", dashboard_address=None
    ) as cluster, Client(cluster) as client:
        x = da.arange(N * 1000, chunks=1000, dtype="float32").reshape(N * 10, 100)
        y = dd.dropout(x.map_blocks(wait, dtype=x.dtype, meta=x._meta), 0.3, key=1).persist()
        pids = client.run(os.getpid)
        while sum(f.status == "finished" for f in client.futures.values()) < N // 4:
            time.sleep(0.01)
        held = client.has_what()
        print(len(pids), sum(map(len, held.values())) < N)
        os.kill(pids[max(held, key=lambda worker: len(held[worker]))], signal.SIGKILL)
        killed.touch()
        whole = np.arange(N * 1000, dtype=np.float32).reshape(N * 10, 100)
        print(y.compute().tobytes() == F.dropout(whole, 0.3, key=1).tobytes())
        print(len(list(started.iterdir())) > N)  # some chunks were lost, and computed again

        net = dw.Sequential([dw.Dense(100, 9), dw.ReLU(), dw.Dropout(0.5), dw.Dense(9, 2)], seed=1)
        expected = net.predict(whole)
        print(dd.predict(net, x).compute().tobytes() == expected.tobytes())
        print(set(client.run(dw.get_num_threads).values()))
"""


def test_a_cluster_that_loses_a_worker_in_the_middle_gives_the_same_bits(tmp_path):
    # A lost worker is worth a warning to Dask.
    quiet = {"DASK_LOGGING__DISTRIBUTED": "error", "FOLDER": str(tmp_path)}
    middle, same, again, predicted, threads = run_python(CLUSTER, timeout=300, **quiet).splitlines()
    assert middle == "2 True"
    assert same == again == predicted == "True"
    assert threads == "{1}"


@pytest.fixture
def many_threads():
    native = require("dropwise._native")
    before = native.num_threads()
    native.set_num_threads(7)
    yield native
    native.set_num_threads(before)


LARGE = 1 << 22  # elements that are worth several threads


def test_a_task_takes_the_thread_of_its_worker_alone(many_threads):
    native = many_threads
    layers = [dw.Dense(64, 2048), dw.ReLU(), dw.Dropout(0.5), dw.Dense(2048, 64)]
    net = dw.Sequential(layers, seed=1)
    x = da.ones((2 * 1024, 64), chunks=(1024, 64), dtype=np.float32)
    lazy = [
        dd.dropout(da.ones(2 * LARGE, chunks=LARGE, dtype=np.float32), 0.3, key=1),
        dd.dropout_backward(da.ones(2 * LARGE, chunks=LARGE, dtype=np.float32), 0.3, key=1),
        dd.dropout_mask(2 * LARGE, 0.3, key=1, chunks=LARGE),
        dd.predict(net, x),
        dd.predict_mc(net, x, 4)[0],
    ]
    F.dropout(np.ones(LARGE), 0.3, key=1)
    net.predict(np.ones((1024, 64), np.float32))
    assert native.take_most_threads() > 1  # of calls in memory
    for scheduler in ("synchronous", "threads"):
        for array in lazy:
            array.sum().compute(scheduler=scheduler, num_workers=2)
            assert native.take_most_threads() == 1, (scheduler, array)
    F.dropout(np.ones(LARGE), 0.3, key=1)
    assert native.take_most_threads() > 1  # this thread has its others back


def test_a_failure_leaves_the_thread_its_others(many_threads):
    x = da.ones((LARGE, 1), chunks=(LARGE, 1)).map_blocks(
        lambda block: np.array([["no number"]]), dtype=np.float64, meta=np.empty((0, 0))
    )
    with pytest.raises(TypeError, match="array of numbers"):
        dd.dropout(x, 0.5, key=1).compute(scheduler="synchronous")
    many_threads.take_most_threads()
    F.dropout(np.ones(LARGE), 0.3, key=1)
    assert many_threads.take_most_threads() > 1
