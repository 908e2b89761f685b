"""The memory of large results is recycled, but never while a view of it exists."""

from __future__ import annotations

import contextlib
import gc
import os
import subprocess
import sys
import textwrap
import threading

import numpy as np
import pytest

import dropwise as dw
from dropwise import _memory
from dropwise import functional as F
from support import require

F32 = np.dtype(np.float32)
N = (1 << 22) // 4  # float32 elements that both stores keep


@pytest.fixture(params=["native", "leases"])
def store(request, monkeypatch):
    """Each store in turn, with nothing kept."""
    if request.param == "native":
        require("dropwise._native")
        from dropwise import _native

        kept = _native
        _native.set_memory_limit(_memory.DEFAULT_LIMIT)
    else:
        kept = _memory.Leases(_memory.DEFAULT_LIMIT)
    monkeypatch.setattr(_memory, "_store", kept)
    monkeypatch.setattr(_memory, "_limit", _memory.DEFAULT_LIMIT)
    gc.collect()
    dw.clear_memory()
    yield kept
    dw.clear_memory()


@pytest.fixture
def native(store):
    if isinstance(store, _memory.Leases):
        pytest.skip("about the native store")
    return store


@contextlib.contextmanager
def limited(native, limit):
    native.set_memory_limit(limit)
    yield
    native.set_memory_limit(_memory.DEFAULT_LIMIT)


def address(x):
    return x.__array_interface__["data"][0]


def run_python(code, **environment):
    return subprocess.run(
        [sys.executable, "-c", textwrap.dedent(code)],
        env={**os.environ, **environment},
        capture_output=True,
        text=True,
        timeout=120,
    )


# ---- reuse ---------------------------------------------------------------------------------------


def test_memory_of_a_result_that_is_gone_is_used_again(store):
    x = np.ones(N, np.float32)
    y = F.dropout(x, 0.5, key=1)
    first = address(y)
    del y
    assert address(F.dropout(x, 0.1, key=1)) == first


def test_a_block_serves_another_dtype_and_shape(store):
    y = _memory.empty((N,), F32)
    first = address(y)
    del y
    other = _memory.empty((N // 8, 4), np.dtype(np.float64))
    assert address(other) == first
    assert other.dtype == np.float64
    assert other.shape == (N // 8, 4)
    assert other.flags.carray


def test_other_sizes_get_memory_of_their_own(store):
    y = _memory.empty((N,), F32)
    first = address(y)
    del y
    assert address(_memory.empty((2 * N,), F32)) != first
    assert store.kept_bytes() >= 4 * N


@pytest.mark.parametrize("n", [1 << 15, (1 << 15) + 1, 40_000, 123_457, 1 << 17, 3_000_001])
def test_the_last_block_given_back_is_the_first_taken(native, n):
    blocks = [_memory.empty((n,), F32) for _ in range(3)]
    where = [address(y) for y in blocks]
    while blocks:
        blocks.pop(0)
    again = [_memory.empty((n,), F32) for _ in range(3)]
    assert [address(y) for y in again] == where[::-1]


def test_classes_waste_a_quarter_at_most(native):
    for n in [1 << 15, *range(33_000, 70_000, 1111), 1_000_003]:
        y = _memory.empty((n,), F32)
        assert address(y) % 64 == 0
        del y
        assert 4 * n <= native.kept_bytes() <= 5 * n
        dw.clear_memory()


def test_the_dropout_layer_writes_every_element_of_used_memory(store, backend):
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


def test_every_kind_of_large_result_is_recycled(native, backend):
    x = np.ones((256, 256), np.float32)
    dense, network = dw.Dense(256, 256, seed=1), dw.Sequential([dw.Dense(256, 256)], seed=1)
    drop = dw.Dropout(0.5, seed=1)
    drop.forward(x)
    makers = {
        "dropout": lambda: F.dropout(x, 0.5, key=1),
        "backward": lambda: F.dropout_backward(x, 0.5, key=1),
        "relu": lambda: F.relu(x),
        "matmul": lambda: F.matmul(x, x),
        "layer": lambda: drop.forward(x),
        "layer, backward": lambda: drop.backward(x),
        "dense": lambda: dense.forward(x),
        "network": lambda: network.predict(x),
    }
    for name, make in makers.items():
        make()
        gc.collect()
        dw.clear_memory()
        y = make()
        before = native.kept_blocks()
        del y
        assert native.kept_blocks() == before + 1, name


def test_a_result_may_have_its_shape_from_an_array(store):
    x = np.zeros((8, N // 8), np.float32).T
    y = _memory.empty_like(x)
    first = address(y)
    assert y.base is not None
    assert (y.shape, y.dtype, y.flags.carray) == (x.shape, x.dtype, True)
    del y
    assert address(_memory.empty_like(x)) == first
    assert _memory.empty_like(x[:2]).base is None


def test_small_results_are_left_to_numpy(store):
    y = _memory.empty((_memory.LARGE - 1,), np.dtype(np.uint8))
    assert y.base is None
    del y
    assert store.kept_bytes() == 0


# ---- what is kept --------------------------------------------------------------------------------


def test_no_more_than_the_limit_is_kept(store):
    count = _memory.DEFAULT_LIMIT // (4 * N)
    results = [_memory.empty((N,), F32) for _ in range(count + 3)]
    last = address(results[-1])
    while results:
        results.pop(0)
        assert store.kept_bytes() <= _memory.DEFAULT_LIMIT
    assert store.kept_bytes() == _memory.DEFAULT_LIMIT
    assert address(_memory.empty((N,), F32)) == last or isinstance(store, _memory.Leases)


def test_what_was_given_back_first_is_dropped_first(native):
    sizes = (50_000, 60_000, 70_000)
    with limited(native, 600_000):
        results = [_memory.empty((n,), F32) for n in sizes]
        where = [address(y) for y in results]
        while results:
            results.pop(0)
        assert native.kept_blocks() == 2
        # The oldest is gone from its class; the others are still there.
        assert address(_memory.empty((sizes[1],), F32)) == where[1]
        assert address(_memory.empty((sizes[2],), F32)) == where[2]


def test_a_lower_limit_drops_what_is_too_much_at_once(native):
    del_me = [_memory.empty((N,), F32) for _ in range(4)]
    del_me.clear()
    assert native.kept_blocks() == 4
    with limited(native, 10 * N):
        assert native.kept_blocks() == 2
    with limited(native, 0):
        assert native.kept_blocks() == 0
        y = _memory.empty((N,), F32)
        del y
        assert native.kept_bytes() == 0


def test_clear_memory_returns_it_to_the_system(store):
    y = _memory.empty((N,), F32)
    held = _memory.empty((N,), F32)
    held.fill(3)
    del y
    assert dw.show_config("dicts")["memory"]["kept"] >= 4 * N
    dw.clear_memory()
    assert dw.show_config("dicts")["memory"]["kept"] == 0
    assert (held == 3).all()


@pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")
def test_dropped_memory_leaves_the_process(native):
    def resident():
        with open("/proc/self/statm") as file:
            return int(file.read().split()[1]) * os.sysconf("SC_PAGESIZE")

    results = [_memory.empty((N,), F32) for _ in range(32)]
    for y in results:
        y.fill(1)
    full = resident()
    del y
    results.clear()
    dw.clear_memory()
    assert full - resident() > 24 * 4 * N  # of 32; the rest of the process changes too


@pytest.mark.parametrize(
    ("text", "limit"),
    [
        ("0", 0),
        ("1000000", 10**6),
        ("64K", 65536),
        ("3m", 3 << 20),
        (" 2G ", 2 << 30),
        ("", 1 << 28),
    ],
)
def test_the_limit_comes_from_the_environment(text, limit):
    code = """
        import dropwise as dw, numpy as np
        print(dw.show_config("dicts")["memory"]["limit"])
        x = np.ones(1 << 16, np.float32)
        dw.functional.dropout(x, 0.5, key=1)
        print(dw.show_config("dicts")["memory"]["kept"] > 0)
    """
    done = run_python(code, DROPWISE_MEMORY_LIMIT=text)
    assert done.returncode == 0, done.stderr
    kept = limit >= 1 << 18 and "dropwise._native" in sys.modules
    assert done.stdout.split() == [str(limit), str(kept)]


@pytest.mark.parametrize("text", ["-1", "12Q", "1.5G", "much", "1" * 40])
def test_a_limit_that_is_no_number_is_refused_at_the_first_use(text):
    code = """
        import dropwise as dw
        try:
            dw.show_config()
        except ValueError as error:
            print(error)
    """
    done = run_python(code, DROPWISE_MEMORY_LIMIT=text)
    assert done.returncode == 0, done.stderr
    assert "DROPWISE_MEMORY_LIMIT must be a number of bytes" in done.stdout
    assert repr(text) in done.stdout


# ---- what users hold -----------------------------------------------------------------------------


def views(y):
    """Ways to hold the memory of an array without the array."""
    return {
        "a view": y[::3, 1].T,
        "a reshaped view": y.reshape(-1)[5:],
        "a field of bytes": y.view(np.uint8),
        "a memoryview": memoryview(y),
        "a cast memoryview": memoryview(y).cast("B"),
        "a memoryview of a view": memoryview(y[1:]),
        "an array of a memoryview": np.asarray(memoryview(y)),
        "an array from a buffer": np.frombuffer(y, np.float32),
        "DLPack": np.from_dlpack(y),
        "DLPack of a view": np.from_dlpack(y[1:, :2]),
        "the array interface": np.asarray(Holder(y)),
    }


class Holder:
    def __init__(self, y):
        self.y = y
        self.__array_interface__ = y.__array_interface__


@pytest.mark.parametrize("kind", list(views(np.ones((4, 4), np.float32))))
@pytest.mark.parametrize("collect_first", [True, False])
def test_whatever_refers_to_a_result_keeps_its_memory(store, kind, collect_first):
    x = np.ones((N // 4, 4), np.float32)
    y = F.dropout(x, 0.0, key=1)
    held = views(y)[kind]
    del y
    if collect_first:
        gc.collect()
    assert store.kept_bytes() == 0
    others = [F.dropout(x, 1.0, key=1) for _ in range(3)]
    assert not any(other.any() for other in others)
    values = np.asarray(held)
    if values.dtype == np.uint8:
        values = values.view(np.float32)
    assert (values == 1).all()
    del held, values
    gc.collect()
    assert store.kept_bytes() == x.nbytes


def test_a_cycle_of_references_gives_its_memory_back_when_it_is_collected(store):
    gc.collect()
    cycle = [_memory.empty((N,), F32)]
    cycle.append(cycle)
    del cycle
    assert store.kept_bytes() == 0
    gc.collect()
    assert store.kept_bytes() == 4 * N


# ---- threads, forks, the end ---------------------------------------------------------------------


def test_threads_never_get_the_same_memory(store, backend):
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


def test_memory_may_be_given_back_by_another_thread(store):
    held = [_memory.empty((N,), F32)]
    thread = threading.Thread(target=held.clear)
    thread.start()
    thread.join()
    assert store.kept_bytes() == 4 * N


@pytest.mark.skipif(not hasattr(os, "fork"), reason="no fork here")
@pytest.mark.filterwarnings("ignore:.*fork:DeprecationWarning")
def test_parent_and_child_of_a_fork_never_see_what_the_other_writes(store):
    held = _memory.empty((N,), F32)
    held.fill(1)
    kept = _memory.empty((N,), F32)
    where = address(kept)
    del kept
    child = os.fork()
    if child == 0:
        good = (held == 1).all()
        for value in (2, 3):
            y = _memory.empty((N,), F32)
            y.fill(value)
            good &= (held == 1).all() and address(y) != address(held)
            del y
        held.fill(4)
        del held
        good &= store.kept_bytes() > 0
        dw.clear_memory()
        os._exit(0 if good and store.kept_bytes() == 0 else 1)
    y = _memory.empty((N,), F32)
    y.fill(5)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
    assert address(y) == where
    assert (y == 5).all()
    assert (held == 1).all()


@pytest.mark.skipif(not hasattr(os, "fork"), reason="no fork here")
@pytest.mark.filterwarnings("ignore:.*fork:DeprecationWarning")
def test_a_fork_while_other_threads_give_memory_back_does_not_hang_the_child(store):
    stop = threading.Event()

    def work():
        while not stop.is_set():
            _memory.empty((N,), F32)

    thread = threading.Thread(target=work)
    thread.start()
    try:
        for _ in range(20):
            child = os.fork()
            if child == 0:
                y = _memory.empty((N,), F32)
                del y
                os._exit(0)
            assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
    finally:
        stop.set()
        thread.join()


def test_the_interpreter_ends_with_arrays_alive():
    code = """
        import atexit, threading, time
        import numpy as np
        import dropwise as dw

        x = np.ones(1 << 20, np.float32)
        held = [dw.functional.dropout(x, 0.5, key=k) for k in range(3)]
        held.append(held)  # a cycle, for the last collection
        dw.late = dw.functional.dropout(x, 0.0, key=1)
        atexit.register(lambda: print(float(dw.functional.dropout(dw.late, 0.0, key=1).sum())))

        def work():
            while True:
                dw.functional.dropout(x, 0.5, key=1)

        threading.Thread(target=work, daemon=True).start()
        time.sleep(0.05)
    """
    done = run_python(code)
    assert done.returncode == 0, done.stderr
    assert float(done.stdout) == 1 << 20


def test_impossible_sizes_are_an_error_of_memory():
    require("dropwise._native")
    from dropwise import _native

    with pytest.raises(MemoryError):
        _native.empty((1 << 60,), np.dtype(np.uint8))
    with pytest.raises(ValueError, match="too large"):
        _native.empty((1 << 40, 1 << 40), np.dtype(np.uint8))
    with pytest.raises(ValueError, match="negative"):
        _native.empty((-1,), np.dtype(np.uint8))
    with pytest.raises(TypeError, match="objects"):
        _native.empty((4,), np.dtype(object))
    assert _native.empty((), F32).shape == ()
    assert _native.empty((0, 3), F32).shape == (0, 3)
