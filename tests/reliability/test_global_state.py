"""What belongs to the process stays as it was: importing and using dropwise changes none of it.

Settings of NumPy, its random generator, signal handlers, how floats round, CPU affinity, the
environment, warning filters, garbage collection.
"""

from __future__ import annotations

import shutil
import subprocess
import sys

import numpy as np
import pytest

from dropwise import functional as F
from support import missing, require, run_python

USES = """
def use():
    import dropwise as dw
    from dropwise import functional as F
    rng = np.random.default_rng(0)
    for dtype in ("float16", "float32", "float64"):
        x = rng.integers(-8, 9, (300, 500)).astype(dtype)
        x[0, :4] = np.nan, np.inf, np.finfo(dtype).tiny, 0
        x[1] = np.finfo(dtype).max  # which overflows when it is scaled
        F.dropout_backward(F.relu(F.dropout(x, 0.3, key=1)), 0.3, key=1)
        F.matmul(x[2:], x[2:].T, bias=x[2:, 0], relu=True)
        F.dropout_mask((30, 40), 0.2, key=5, stream=7, offset=100)
    net = dw.Sequential(
        [dw.Dense(20, 300), dw.ReLU(), dw.Dropout(0.5), dw.Dense(300, 3)], seed=1)
    x, y = rng.standard_normal((1000, 20)), rng.integers(0, 3, 1000)
    for optimizer in (dw.Adam(), dw.SGD(0.01, momentum=0.9)):
        net.fit(x, y, loss=dw.SoftmaxCrossEntropy(), optimizer=optimizer, epochs=2, progress=False)
    net.predict_mc(x, 4)
    net.evaluate(x, y, loss=dw.SoftmaxCrossEntropy())
    file = io.BytesIO()
    net.save(file, optimizer)
    file.seek(0)
    dw.load_checkpoint(file)
    for wrong in (lambda: net.forward(x[:, :3]), lambda: F.dropout(x, 2, key=1)):
        try:
            wrong()
        except ValueError:
            pass
    dw.show_config("dicts")
    dw.clear_memory()
"""

STATE = """
import ctypes, gc, io, locale, os, signal, sys, threading, warnings
import numpy as np
libm = ctypes.CDLL("libm.so.6")

def environment_of_floats():
    "The control and status registers, by fegetenv; the flags that arithmetic raises left out."
    memory = (ctypes.c_uint32 * 16)()
    assert libm.fegetenv(memory) == 0
    x87, mxcsr = memory[0] & 0xFFFF, memory[7] & ~0x3F
    tiny = np.float32(1e-40) * np.ones(9, np.float32) + np.float32(0)
    return libm.fegetround(), (x87, mxcsr) if os.uname().machine == "x86_64" else (), tiny.tolist()

def state():
    random = np.random.get_state()
    return {
        "errors": np.geterr(),
        "call on error": np.geterrcall(),
        "print options": np.get_printoptions(),
        "buffer size": np.getbufsize(),
        "global random numbers": (random[0], random[1].tolist(), *random[2:]),
        "floats": environment_of_floats(),
        "signals": {s: signal.getsignal(s) for s in signal.valid_signals()},
        "blocked signals": signal.pthread_sigmask(signal.SIG_BLOCK, []),
        "timer": signal.getitimer(signal.ITIMER_REAL),
        "affinity": os.sched_getaffinity(0),
        "niceness": os.nice(0),
        "environment": dict(os.environ),
        "folder": os.getcwd(),
        "locale": locale.setlocale(locale.LC_ALL),
        "warnings": list(warnings.filters),
        "collection": (gc.isenabled(), gc.get_threshold()),
        "switches": sys.getswitchinterval(),
        "recursion": sys.getrecursionlimit(),
        "hooks": (sys.excepthook, sys.unraisablehook, threading.excepthook, sys.gettrace()),
    }
"""

COMPARE = """
{given}
before = state()
use()
after = state()
assert before == after, {{
    name: (value, after[name]) for name, value in before.items() if value != after[name]}}
with open("/proc/self/status") as file:
    caught = next(int(line.split()[1], 16) for line in file if line.startswith("SigCgt"))
print(caught & ~caught_before)
for task in os.listdir("/proc/self/task"):  # each thread may run where the process may
    assert os.sched_getaffinity(int(task)) == before["affinity"]
"""

DEFAULTS = ""
CHANGED = """
np.seterr(all="raise", under="ignore")
np.set_printoptions(precision=3)
np.random.seed(5)
warnings.simplefilter("error")
signal.signal(signal.SIGINT, signal.SIG_IGN)
gc.set_threshold(500, 5, 5)
"""


@pytest.mark.skipif(sys.platform != "linux", reason="reads the state of Linux")
@pytest.mark.parametrize("given", [DEFAULTS, CHANGED], ids=["defaults", "changed"])
@pytest.mark.parametrize("backend", ["native", "numba"])
def test_the_state_of_the_process_stays_as_it_was(backend, given):
    require({"native": "dropwise._native", "numba": "numba"}[backend])
    caught = """
with open("/proc/self/status") as file:
    caught_before = next(int(l.split()[1], 16) for l in file if l.startswith("SigCgt"))
"""
    # Numba changes what it likes on its import, before ours; so does SciPy, which it uses.
    scipy = "    import scipy.linalg\n"
    numba = "import contextlib, numba\nwith contextlib.suppress(ImportError):\n" + scipy
    first = numba if backend == "numba" else ""
    code = first + STATE + USES + caught + COMPARE.format(given=given)
    assert run_python(code, DROPWISE_BACKEND=backend) == "0\n"


SETTERS = {
    *("signal", "sigaction", "sigprocmask", "setitimer", "alarm", "setlocale", "setenv", "putenv"),
    *("sched_setaffinity", "pthread_setaffinity_np", "sched_setscheduler", "nice", "setpriority"),
    *("fesetenv", "fesetround", "feenableexcept", "fedisableexcept", "srand", "srandom", "chdir"),
    *("setrlimit", "umask", "mallopt"),
}


@pytest.mark.skipif(sys.platform != "linux", reason="symbols of Linux")
def test_the_native_module_calls_no_function_that_sets_something_of_the_process():
    native = require("dropwise._native")
    if shutil.which("nm") is None:
        missing("nm (binutils) is not installed")
    lines = subprocess.run(
        ["nm", "-D", "--undefined-only", native.__file__],
        capture_output=True,
        text=True,
        check=True,
    )
    called = {line.split()[-1].partition("@")[0] for line in lines.stdout.splitlines()}
    assert "sched_getaffinity" in called  # so these are the names
    assert called.isdisjoint(SETTERS)


def test_no_kernel_leaves_a_report_of_an_error_for_numpy(backend):
    # Kernels overflow as they may; what NumPy computes next has no error of its own.
    x = np.full(1000, np.finfo(np.float32).max)
    with np.errstate(all="raise"):
        y = F.dropout(x, 0.9, key=1)
        assert np.isinf(y).any()
        np.testing.assert_array_equal(np.ones(1000, np.float32) + np.ones(1000, np.float32), 2)
