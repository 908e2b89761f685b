"""The pool of threads: how many, what they compute, and what happens around them.

What could hang or kill a process runs in one of its own.  tests/cpp/stress_threads.cpp goes further
into the pool itself, under ThreadSanitizer.
"""

from __future__ import annotations

import contextlib
import os
import sys
import threading
import time
from pathlib import Path

import numpy as np
import pytest

from dropwise._backends import serial
from dropwise._backends.protocol import Product
from support import require, run_python

native = require("dropwise._native")

COUNT = "from dropwise import _native as n; print(n.num_threads(), n.num_threads_source(), sep='|')"


def counted(before: str = "", **env: str) -> tuple[int, str]:
    cleared = {"DROPWISE_NUM_THREADS": "", "OMP_NUM_THREADS": ""}
    n, source = run_python(before + COUNT, **{**cleared, **env}).split("|")
    return int(n), source.strip()


def test_the_own_variable_comes_first():
    n = counted(DROPWISE_NUM_THREADS="3", OMP_NUM_THREADS="5")
    assert n == (3, "DROPWISE_NUM_THREADS")


@pytest.mark.parametrize("text", ["4", "4,2", " 4 , 2"])
def test_openmps_variable_comes_second_and_may_be_a_list(text):
    assert counted(OMP_NUM_THREADS=text) == (4, "OMP_NUM_THREADS")


@pytest.mark.parametrize("text", ["", "none", "0", "-2", "4x"])
def test_a_senseless_openmp_variable_is_ignored(text):
    n, source = counted(OMP_NUM_THREADS=text)
    assert n >= 1
    assert source != "OMP_NUM_THREADS"


@pytest.mark.parametrize("text", ["none", "0", "-2", "2,1", "4x", "99999999999999"])
def test_a_senseless_own_variable_is_an_error_that_quotes_it(text):
    code = "try: n.num_threads()\nexcept ValueError as e: print(e)"
    said = run_python("from dropwise import _native as n\n" + code, DROPWISE_NUM_THREADS=text)
    assert f"whole number from 1, got '{text}'" in said


@pytest.mark.skipif(not hasattr(os, "sched_setaffinity"), reason="no affinity masks on this system")
def test_else_the_affinity_mask_decides():
    one = min(os.sched_getaffinity(0))
    n = counted(before=f"import os; os.sched_setaffinity(0, {{{one}}})\n")
    assert n == (1, "CPUs this process may use")


@pytest.mark.parametrize(
    ("files", "cpus"),
    [
        ({"proc/self/cgroup": "0::/\n"}, 0),
        ({"proc/self/cgroup": "0::/\n", "sys/fs/cgroup/cpu.max": "max 100000\n"}, 0),
        ({"proc/self/cgroup": "0::/\n", "sys/fs/cgroup/cpu.max": "200000 100000\n"}, 2),
        ({"proc/self/cgroup": "0::/\n", "sys/fs/cgroup/cpu.max": "150000 100000\n"}, 2),
        ({"proc/self/cgroup": "0::/\n", "sys/fs/cgroup/cpu.max": "10000 100000\n"}, 1),
        (  # the parent's quota is the tighter one
            {
                "proc/self/cgroup": "0::/a/b\n",
                "sys/fs/cgroup/a/b/cpu.max": "800000 100000\n",
                "sys/fs/cgroup/a/cpu.max": "300000 100000\n",
            },
            3,
        ),
        (  # the path is the host's, the mount is the container's
            {"proc/self/cgroup": "0::/../x\n", "sys/fs/cgroup/cpu.max": "400000 100000\n"},
            4,
        ),
        (
            {
                "proc/self/cgroup": "5:memory:/\n4:cpu,cpuacct:/docker/1\n",
                "sys/fs/cgroup/cpu/cpu.cfs_quota_us": "250000\n",
                "sys/fs/cgroup/cpu/cpu.cfs_period_us": "50000\n",
            },
            5,
        ),
        (
            {
                "proc/self/cgroup": "4:cpu,cpuacct:/\n",
                "sys/fs/cgroup/cpu/cpu.cfs_quota_us": "-1\n",
                "sys/fs/cgroup/cpu/cpu.cfs_period_us": "100000\n",
            },
            0,
        ),
        ({}, 0),
    ],
)
def test_the_cgroup_quota_is_read_in_both_versions(tmp_path, files, cpus):
    for name, text in files.items():
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text(text)
    assert native.cgroup_cpus(str(tmp_path)) == cpus


@pytest.mark.parametrize("n", [0, -1])
def test_fewer_than_one_thread_is_refused(n):
    with pytest.raises(ValueError, match=f"at least 1, got {n}"):
        native.set_num_threads(n)


def test_threadpoolctl_finds_and_limits_the_pool():
    controller = require("threadpoolctl").ThreadpoolController
    import dropwise._threadpoolctl  # noqa: F401 - registers

    before = native.num_threads()
    with controller().limit(limits=1, user_api="dropwise"):
        assert native.num_threads() == 1
    assert native.num_threads() == before
    (info,) = controller().select(user_api="dropwise").info()
    assert info["num_threads"] == before
    assert info["internal_api"] == "dropwise"


N = 1 << 22  # worth ten threads


def mask(key: int) -> bytes:
    bits = np.empty(N // 8, np.uint8)
    native.mask_bits(bits, N, 0.3, key, 0, 0)
    return bits.tobytes()


@pytest.fixture
def restored_threads():
    before = native.num_threads()
    yield
    native.set_num_threads(before)


@pytest.mark.usefixtures("restored_threads")
def test_the_number_of_threads_changes_no_result():
    results = set()
    for n in (1, 2, 3, 7, 33):
        native.set_num_threads(n)
        results.add(mask(key=5))
    assert len(results) == 1


@pytest.mark.usefixtures("restored_threads")
def test_several_python_threads_may_call_at_once():
    native.set_num_threads(4)
    expected = [mask(key) for key in range(4)]
    wrong = []

    def call(key: int) -> None:
        for _ in range(25):
            if mask(key) != expected[key]:
                wrong.append(key)

    callers = [threading.Thread(target=call, args=(key,)) for key in range(4)]
    for t in callers:
        t.start()
    for t in callers:
        t.join()
    assert wrong == []


def threads_taken() -> int:
    native.take_most_threads()
    mask(key=5)
    return native.take_most_threads()


@pytest.mark.usefixtures("restored_threads")
def test_a_serial_block_keeps_its_own_thread_from_sharing_out():
    native.set_num_threads(4)
    taken = [threads_taken()]
    with contextlib.suppress(KeyError), serial():
        taken.append(threads_taken())
        with serial():
            taken.append(threads_taken())
        taken.append(threads_taken())
        other = threading.Thread(target=lambda: taken.append(threads_taken()))
        other.start()
        other.join()
        raise KeyError
    taken.append(threads_taken())
    assert taken == [4, 1, 1, 1, 4, 4]


def elementwise(name: str, *arguments: object) -> list[object]:
    x = np.ones(N, np.float32)
    bits = np.empty(N // 8, np.uint8)
    return {
        "mask_bits": [bits, N, 0.3, 1, 0, 0],
        "dropout_forward": [x, np.empty_like(x), None, 0.3, 1.0, 1, 0, 0],
        "apply_bits": [x, np.empty_like(x), bits, 1.0],
        "relu": [x, np.empty_like(x), bits],
        "nonzero_bits": [x, bits],
    }[name]


@pytest.mark.parametrize(
    "name", ["mask_bits", "dropout_forward", "apply_bits", "relu", "nonzero_bits", "multiply"]
)
def test_the_gil_is_released(name):
    if name == "multiply":
        a = np.ones((384, 384), np.float32)
        arguments = [[Product(a, a, np.empty_like(a))]]
    else:
        arguments = elementwise(name)
    function = getattr(native, name)
    counter, seen = [0], []

    def call() -> None:
        for _ in range(2000):
            before = counter[0]
            function(*arguments)
            if counter[0] != before:
                seen.append(True)
                return

    # With no forced switches, the loop below advances only while the other thread lets go.
    interval = sys.getswitchinterval()
    sys.setswitchinterval(1000)
    try:
        other = threading.Thread(target=call)
        other.start()
        while other.is_alive():
            counter[0] += 1
            time.sleep(0)
        other.join()
    finally:
        sys.setswitchinterval(interval)
    assert seen


PRELUDE = """
import os, sys, threading, time
import numpy as np
from dropwise import _native
N = 1 << 21  # worth four threads
_native.set_num_threads(4)
def mask():
    bits = np.empty(N // 8, np.uint8)
    _native.mask_bits(bits, N, 0.3, 5, 0, 0)
    return bits.tobytes()
expected = mask()
"""

needs_fork = pytest.mark.skipif(not hasattr(os, "fork"), reason="no fork on this system")

FORK = """
def fork_and_compute():
    child = os.fork()
    if child == 0:
        os._exit(0 if mask() == expected and mask() == expected else 3)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
"""


@needs_fork
def test_a_fork_after_a_parallel_call_computes_in_parent_and_child():
    run_python(
        PRELUDE
        + FORK
        + "for _ in range(20):\n    fork_and_compute()\n    assert mask() == expected\n"
    )


@needs_fork
def test_a_fork_while_another_thread_computes_is_safe():
    busy = """
stop = False
def compute():
    while not stop:
        assert mask() == expected
other = threading.Thread(target=compute)
other.start()
for _ in range(40):
    fork_and_compute()
stop = True
other.join()
"""
    run_python(PRELUDE + FORK + busy)


@needs_fork
def test_the_child_of_a_fork_has_workers_of_its_own():
    child = """
child = os.fork()
if child == 0:
    assert len(os.listdir("/proc/self/task")) == 1
    mask()
    os._exit(0 if len(os.listdir("/proc/self/task")) == 4 else 3)
assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
"""
    if not Path("/proc/self/task").exists():
        pytest.skip("no /proc on this system")
    run_python(PRELUDE + child, OPENBLAS_NUM_THREADS="1")


@pytest.mark.skipif(not Path("/proc/self/task").exists(), reason="no /proc on this system")
def test_idle_workers_sleep():
    idle = """
def states():
    for task in os.listdir("/proc/self/task"):
        if int(task) != os.getpid():
            with open(f"/proc/self/task/{task}/stat") as stat:
                yield stat.read().rpartition(")")[2].split()[0]
deadline = time.monotonic() + 30
while "".join(states()) != "SSS" and time.monotonic() < deadline:
    time.sleep(0.01)
print("".join(states()))
"""
    assert run_python(PRELUDE + idle, OPENBLAS_NUM_THREADS="1") == "SSS\n"


def test_the_interpreter_may_exit_while_others_compute():
    callers = """
def compute():
    while True:
        mask()
for _ in range(3):
    threading.Thread(target=compute, daemon=True).start()
time.sleep(0.05)
print("leaving")
"""
    for _ in range(5):
        assert run_python(PRELUDE + callers) == "leaving\n"
