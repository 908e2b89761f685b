"""Processes and callers: however a worker was started, and however many call, results are the same.

tests/backends/test_threads.py forks in the middle of calls.
"""

from __future__ import annotations

import multiprocessing
import os
import subprocess
import sys
import threading

import numpy as np
import pytest

import dropwise as dw
from dropwise import functional as F
from networks import chain
from support import require

# A script, because a spawned worker imports what it was started from.
WORKERS = """
import functools, multiprocessing, os, sys
import numpy as np
import dropwise as dw
from dropwise import functional as F

def network():
    layers = [dw.Dense(2000, 64), dw.ReLU(), dw.Dropout(0.5), dw.Dense(64, 3)]
    return dw.Sequential(layers, seed=1)

def tasks():
    rng = np.random.default_rng(0)
    x, w = (rng.integers(-8, 9, shape).astype(np.float32) for shape in [(300, 2000), (2000, 30)])
    options = dict(loss=dw.SoftmaxCrossEntropy(), optimizer=dw.Adam(), epochs=2, progress=False)
    return [
        functools.partial(F.dropout, x, 0.3, key=5),
        functools.partial(F.matmul, x, w),
        functools.partial(network().forward, x),
        functools.partial(network().predict_mc, x, 3),
        functools.partial(network().fit, x, np.arange(300) % 3, **options),
    ]

def call(task):
    result = task()
    return [epoch.loss for epoch in result] if isinstance(result, list) else result

def in_workers(start):
    if start == "loky":
        import joblib
        return joblib.Parallel(2, "loky")(joblib.delayed(call)(task) for task in tasks())
    with multiprocessing.get_context(start).Pool(2) as pool:
        return pool.map(call, tasks())

if __name__ == "__main__":
    dw.set_num_threads(3)
    expected = [call(task) for task in tasks()]  # which starts the pool of threads
    for got, want in zip(in_workers(sys.argv[1]), expected, strict=True):
        if os.environ["DROPWISE_BACKEND"] == "native":
            np.testing.assert_equal(got, want)
        else:  # NumPy's products, whose last bits depend on their threads
            np.testing.assert_allclose(got, want, rtol=1e-3, atol=1e-3)
"""


@pytest.mark.parametrize("backend", ["native", "numba"])
@pytest.mark.parametrize("start", ["fork", "spawn", "forkserver", "loky"])
def test_a_worker_computes_what_its_parent_does(start, backend, tmp_path):
    require({"native": "dropwise._native", "numba": "numba"}[backend])
    if start == "loky":
        require("joblib")
    elif start not in multiprocessing.get_all_start_methods():
        pytest.skip(f"no {start} on this system")
    script = tmp_path / "workers.py"
    script.write_text(WORKERS)
    run = subprocess.run(
        [sys.executable, str(script), start],
        env={**os.environ, "DROPWISE_BACKEND": backend},
        capture_output=True,
        text=True,
        timeout=300,
    )
    assert run.returncode == 0, run.stderr


def results(key):
    """What one caller computes: elementwise calls, products, a training of its own."""
    rng = np.random.default_rng(key)
    x = rng.standard_normal((200, 300)).astype(np.float32)
    y = F.dropout(x, 0.4, key=key)
    net = dw.Sequential(chain("300 40 R D 3"), seed=key)
    losses = net.fit(
        x,
        np.arange(200) % 3,
        loss=dw.SoftmaxCrossEntropy(),
        optimizer=dw.Adam(),
        epochs=2,
        batch_size=64,
        progress=False,
    )
    return [y, F.relu(y), F.matmul(y, x.T), net.predict(x), [e.loss for e in losses]]


def test_sixteen_callers_at_once_get_what_each_gets_alone(backend, threads):
    expected = [results(key) for key in range(16)]
    shared = dw.Sequential(chain("300 40 R D 3"), seed=1)
    x = np.ones((50, 300))
    wanted = shared.predict(x)
    start, wrong = threading.Barrier(16), []

    def call(key):
        with dw.backend(backend):
            start.wait()
            try:
                for _ in range(3):
                    np.testing.assert_equal(results(key), expected[key])
                    np.testing.assert_equal(shared.predict(x), wanted)
            except BaseException as error:
                wrong.append((key, error))

    callers = [threading.Thread(target=call, args=(key,)) for key in range(16)]
    for caller in callers:
        caller.start()
    for caller in callers:
        caller.join()
    assert wrong == []
