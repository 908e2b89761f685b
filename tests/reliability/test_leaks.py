"""Calls without end take no more memory: neither those that compute nor those that fail.

Blocks of Python's allocator are counted, the bytes that the C library has handed out, and for a
million calls the memory of the process.
"""

from __future__ import annotations

import sys

import pytest

from support import require, run_python

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="reads counts of Linux")

CODE = """
import copy, ctypes, gc, io, pickle, sys
import numpy as np
import dropwise as dw
from dropwise import _backends, functional as F
from dropwise._backends.protocol import Product

class MallInfo(ctypes.Structure):
    _fields_ = [(name, ctypes.c_size_t) for name in (
        "arena", "ordblks", "smblks", "hblks", "hblkhd", "usmblks", "fsmblks", "uordblks",
        "fordblks", "keepcost")]

try:
    mallinfo = ctypes.CDLL("libc.so.6").mallinfo2
except (OSError, AttributeError):  # a C library without it: blocks of Python only
    mallinfo = MallInfo
mallinfo.restype = MallInfo

def counts():
    gc.collect()
    dw.clear_memory()
    info = mallinfo()
    return sys.getallocatedblocks(), info.uordblks + info.hblkhd

def resident():
    with open("/proc/self/statm") as file:
        return int(file.read().split()[1]) * 4096

x = np.random.default_rng(0).standard_normal((8, 16), np.float32)
large = np.ones((300, 300), np.float32)
drop, dense = dw.Dropout(0.3, seed=1), dw.Dense(16, 4, seed=1)
net = dw.Sequential([dw.Dense(16, 9), dw.ReLU(), dw.Dropout(0.5), dw.Dense(9, 2)], seed=1)
adam = dw.Adam()
backend = _backends.active()

def refused(call):
    try:
        call()
    except (TypeError, ValueError, RuntimeError, AttributeError):
        pass

def step():
    net.forward(x)
    net.backward(np.ones((8, 2)))
    adam.step(net.parameters())

CALLS = [
    lambda: F.dropout(x, 0.3, key=1),
    lambda: F.dropout(large, 0.3, key=1),
    lambda: F.dropout(x.T, 0.3, key=1, within=((0, 0), (16, 9))),
    lambda: F.dropout_mask((3, 5), 0.5, key=2),
    lambda: F.relu(x[:, ::2]),
    lambda: F.matmul(x, x.T, bias=x[:, 0], relu=True),
    lambda: drop.backward(drop.forward(x)),
    lambda: dense.backward(dense.forward(x)),
    step,
    lambda: net.predict_mc(x, 2),
    lambda: refused(lambda: F.dropout(x, 2, key=1)),
    lambda: refused(lambda: F.matmul(x, x)),
    lambda: refused(lambda: net.forward(x[:, :3])),
    lambda: refused(lambda: backend.multiply([Product(x, x, x, bits=None), None])),
    lambda: refused(lambda: backend.dropout_forward(x, x[:2], None, 0.5, 2.0, 1, 0, 0)),
    lambda: refused(lambda: backend.adam_step([(x, x, None, None, None)], (1,))),
]
RARE = [
    lambda: copy.deepcopy(net),
    lambda: pickle.loads(pickle.dumps(net)),
    lambda: net.spawn(2),
    lambda: (net.save(file := io.BytesIO(), adam), file.seek(0), dw.load_checkpoint(file)),
    lambda: refused(lambda: dw.load_checkpoint(io.BytesIO(b"PK"))),
]

def run(times):
    for i in range(times):
        for call in CALLS:
            call()
        if i % 50 == 0:
            for call in RARE:
                call()

times = int(sys.argv[1])
run(200)
before, size = counts(), resident()
run(times)
blocks, taken = (b - a for a, b in zip(before, counts(), strict=True))
print(f"{times * len(CALLS)} calls: {blocks} blocks, {taken} bytes, {resident() - size} resident")
# Free lists fill up.  Of a leak there is one block or more each time, and none is below 32 bytes.
assert blocks < times // 2
assert taken < 24 * times
assert resident() - size < 4 << 20
"""


@pytest.mark.parametrize("backend", ["native", "numba"])
def test_no_call_keeps_memory(backend):
    require({"native": "dropwise._native", "numba": "numba"}[backend])
    code = f"import sys; sys.argv = ['', '2000']\n{CODE}"
    assert run_python(code, DROPWISE_BACKEND=backend).startswith("32000 calls")


@pytest.mark.slow
def test_a_million_calls_leave_the_memory_flat():
    require("dropwise._native")
    code = f"import sys; sys.argv = ['', '62500']\n{CODE}"
    assert run_python(code, timeout=3600).startswith("1000000 calls")
