"""Memory that the system refuses: a MemoryError each time, and everything works afterwards.

Each test limits the address space of a process of its own to a little more than it has.
"""

from __future__ import annotations

import sys

import pytest

from support import require, run_python

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="limits of Linux")

PRELUDE = """
import io, resource
import numpy as np
import dropwise as dw
from dropwise import functional as F

def used():
    with open("/proc/self/statm") as file:
        return int(file.read().split()[0]) * resource.getpagesize()

def limit(more):
    hard = resource.getrlimit(resource.RLIMIT_AS)[1]
    soft = hard if more is None else used() + more
    resource.setrlimit(resource.RLIMIT_AS, (soft, hard))

def refused(call):
    try:
        call()
    except MemoryError:
        return True

x = np.random.default_rng(0).standard_normal((4000, 1000), np.float32)
labels = np.arange(4000) % 3
def network():
    return dw.Sequential(
        [dw.Dense(1000, 700), dw.ReLU(), dw.Dropout(0.5), dw.Dense(700, 3)], seed=1)
def fit(net):
    net.fit(x, labels, loss=dw.SoftmaxCrossEntropy(), optimizer=dw.Adam(), epochs=1,
            batch_size=4000, progress=False)
"""

CALLS = """
net = network()
drop = dw.Dropout(0.5, seed=1)
file = io.BytesIO()
dw.Sequential([dw.Dense(3000, 1000)]).save(file)
calls = {
    "dropout": lambda: F.dropout(x, 0.5, key=1),
    "backward": lambda: F.dropout_backward(x, 0.5, key=1),
    "mask": lambda: F.dropout_mask(10**8, 0.5, key=1),
    "relu": lambda: F.relu(x),
    "matmul": lambda: F.matmul(x, x.T),
    "layer": lambda: drop.forward(x),
    "Dense": lambda: dw.Dense(3000, 1000),
    "forward": lambda: network().forward(x),
    "predict_mc": lambda: net.predict_mc(x, 8),
    "fit": lambda: fit(network()),
    "load": lambda: dw.Sequential.load(io.BytesIO(file.getvalue())),
}
good = {name: F.dropout(x[:3], 0.5, key=1) for name in calls}
for call in calls.values():
    call()  # what is loaded or compiled at the first use
dw.clear_memory()
failed = []
for name, call in calls.items():
    limit(1 << 20)
    if refused(call):
        failed.append(name)
    # what is small goes on, within the limit ...
    assert np.array_equal(F.dropout(x[:3], 0.5, key=1), good[name])
    limit(None)
    call()  # ... and everything else without it
    dw.clear_memory()
assert failed == list(calls), failed
"""


@pytest.fixture(params=["native", "numba"])
def environment(request):
    require({"native": "dropwise._native", "numba": "numba"}[request.param])
    # One arena, whose memory is what the process has; and no memory for other threads.
    return {
        "DROPWISE_BACKEND": request.param,
        "DROPWISE_MEMORY_LIMIT": "0",
        "MALLOC_ARENA_MAX": "1",
        "MALLOC_TRIM_THRESHOLD_": "0",
        "MALLOC_MMAP_THRESHOLD_": "65536",
    }


def test_every_call_that_needs_memory_says_so_and_works_later(environment):
    run_python(PRELUDE + CALLS, **environment)


STREAMS = """
fit(network())  # Numba compiles: LLVM without memory would end the process
net, twin = network(), network()
more = np.concatenate([x, x])  # than it has memory for already
net.forward(x)
twin.forward(x)
dw.clear_memory()
limit(1 << 20)
assert refused(lambda: net.forward(more))
limit(None)
np.testing.assert_array_equal(net.forward(x), twin.forward(x))  # no stream was taken
limit(1 << 20)
assert refused(lambda: fit(net))
limit(None)
np.testing.assert_array_equal(net.predict(x), twin.predict(x))  # and no weight changed
net.load_state_dict(twin.state_dict())  # a step that failed may have taken its stream
fit(net)
fit(twin)
np.testing.assert_array_equal(net.predict(x), twin.predict(x))
"""


def test_a_failure_takes_no_stream_and_changes_no_weight(environment):
    run_python(PRELUDE + STREAMS, **environment)


THREADS = """
expected = F.matmul(x, x[:1000])
dw.set_num_threads(1)
F.matmul(x, x[:1000])
limit(20 << 20)  # not enough for the stacks of so many
dw.set_num_threads(64)
y = F.matmul(x, x[:1000])
limit(None)
np.testing.assert_array_equal(y, expected)
np.testing.assert_array_equal(F.matmul(x, x[:1000]), expected)
"""


def test_threads_that_cannot_be_made_are_done_without():
    require("dropwise._native")
    run_python(PRELUDE + THREADS, DROPWISE_BACKEND="native")
