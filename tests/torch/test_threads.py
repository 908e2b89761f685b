"""The native backend runs its tasks in PyTorch's threads: how many, the same results, and forks.

What changes the threads of a process runs in one of its own.
"""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from support import missing, require, run_python

require("torch")
require("dropwise._native")

from dropwise.torch._threads import share_threads

if not share_threads():
    missing("PyTorch's OpenMP runtime has no GOMP_parallel here")

PRELUDE = """
import os, sys, threading
import numpy as np
import torch
from dropwise import _native
from dropwise._backends.protocol import Product
from dropwise.torch._threads import share_threads

N = 1 << 21  # worth four threads

def mask():
    bits = np.empty(N // 8, np.uint8)
    _native.mask_bits(bits, N, 0.3, 5, 0, 0)
    return bits.tobytes()

def product():
    a = np.random.default_rng(0).standard_normal((384, 384)).astype(np.float32)
    out = np.empty_like(a)
    _native.multiply([Product(a, a, out)])
    return out.tobytes()

def threads_of(call):
    _native.take_most_threads()
    call()
    return _native.take_most_threads()

torch.set_num_threads(4)
_native.set_num_threads(4)
expected = mask(), product()
"""

SHARED = PRELUDE + "assert share_threads()\n"

needs_fork = pytest.mark.skipif(not hasattr(os, "fork"), reason="no fork on this system")
needs_proc = pytest.mark.skipif(not Path("/proc/self/task").exists(), reason="no /proc")


@needs_proc
def test_no_threads_are_started_beside_pytorchs():
    code = """
def started():
    return len(os.listdir("/proc/self/task"))
torch.ones(1 << 20).add(1)
before = started()
"""
    own = "expected = mask(), product()"
    shared = SHARED.replace(own, "")
    assert own in SHARED
    run_python(shared + code + "assert threads_of(mask) == 4; assert started() == before")
    run_python(shared + code + "_native.set_team_runner(0); mask(); assert started() == before + 3")


def test_a_call_takes_as_many_threads_as_both_allow():
    code = """
for of_pytorch, of_dropwise, threads in ((4, 4, 4), (2, 4, 2), (4, 3, 3), (1, 4, 1), (4, 4, 4)):
    torch.set_num_threads(of_pytorch)
    _native.set_num_threads(of_dropwise)
    assert threads_of(mask) == threads_of(product) == threads
    assert (mask(), product()) == expected
"""
    run_python(SHARED + code)


def test_several_python_threads_may_call_at_once():
    calls = """
wrong = []
def call():
    for _ in range(25):
        torch.ones(1 << 20).add(1)
        if (mask(), product()) != expected:
            wrong.append(1)
callers = [threading.Thread(target=call) for _ in range(3)]
for caller in callers: caller.start()
for caller in callers: caller.join()
assert not wrong
"""
    run_python(SHARED + calls)


@needs_fork
@pytest.mark.parametrize("torch_has_computed", [False, True])
def test_the_child_of_a_fork_has_a_pool_of_its_own(torch_has_computed):
    # OpenMP's runtime would wait for threads that only the parent has.
    fork = """
for _ in range(10):
    assert (mask(), product()) == expected
    child = os.fork()
    if child == 0:
        right = (mask(), product()) == expected and threads_of(mask) == 4
        os._exit(0 if right else 3)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
    assert threads_of(mask) == 4
"""
    region = "torch.ones(1 << 20).add(1)\n" if torch_has_computed else ""
    run_python(SHARED + region + fork)


def test_memory_that_runs_out_inside_a_task_is_an_error_of_the_call():
    code = """
_native.fail_allocations(3)
try:
    product()
except MemoryError:
    pass
else:
    raise AssertionError
_native.fail_allocations(-1)
assert (mask(), product()) == expected
"""
    run_python(SHARED + code)
