"""The choice of the backend."""

from __future__ import annotations

import asyncio
import os
import subprocess
import sys
import threading

import numpy as np
import pytest

import dropwise as dw
from dropwise import _backends
from support import missing, require


def run(code, **env):
    """The output of a fresh interpreter."""
    result = subprocess.run(
        [sys.executable, "-c", code],
        env={**os.environ, **env},
        capture_output=True,
        text=True,
        check=False,
    )
    return result.stdout.strip() or result.stderr.strip().splitlines()[-1]


ACTIVE = "import dropwise as dw; from dropwise._backends import active; print(active().name)"


def test_the_best_available_backend_is_the_default():
    assert run(ACTIVE, DROPWISE_BACKEND="") == dw.available_backends()[0]


def test_the_environment_chooses_the_default(backend):
    assert run(ACTIVE, DROPWISE_BACKEND=backend) == backend


def test_an_unknown_backend_in_the_environment_is_an_error_that_lists_what_there_is():
    require("numba")
    message = run(ACTIVE, DROPWISE_BACKEND="other")
    assert message.startswith("ValueError: unknown backend 'other'; available: ")
    assert "numba" in message


def test_a_backend_that_does_not_load_says_why_and_what_there_is():
    require("numba")
    code = (
        "import sys; sys.modules['dropwise._native'] = None\n"
        "import dropwise as dw\n"
        "print(dw.available_backends())\n"
        "dw.set_backend('native')"
    )
    result = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=False
    )
    assert result.stdout.strip() == "('numba',)"
    last = result.stderr.strip().splitlines()[-1]
    assert last.startswith("ImportError: backend 'native' is not available (")
    assert last.endswith("); available: numba")


def test_without_the_native_module_numba_is_the_default():
    require("numba")
    assert run("import sys; sys.modules['dropwise._native'] = None\n" + ACTIVE) == "numba"


def test_without_any_backend_the_error_gives_all_reasons():
    code = "import sys; sys.modules['dropwise._native'] = sys.modules['numba'] = None\n" + ACTIVE
    message = run(code, DROPWISE_BACKEND="")
    assert message.startswith("ImportError: no backend is available (native: ")
    assert "numba: " in message


def test_import_loads_neither_numba_nor_matplotlib():
    code = (
        "import sys, dropwise; dropwise.Dropout().forward([1.0])\n"
        "print([m for m in ('numba', 'matplotlib', 'tqdm', 'rich') if m in sys.modules])"
    )
    if "native" in dw.available_backends():
        assert run(code, DROPWISE_BACKEND="native") == "[]"
    assert "matplotlib" not in run(code)


@pytest.fixture
def other(backend):
    names = [name for name in dw.available_backends() if name != backend]
    if not names:
        missing("a second backend is not installed")
    return names[0]


def test_a_block_switches_and_restores(backend, other):
    with dw.backend(other) as inner:
        assert _backends.active() is inner
        assert inner.name == other
        with dw.backend(backend):
            assert _backends.active().name == backend
        assert _backends.active().name == other
    assert _backends.active().name == backend


def test_a_block_restores_after_an_error(backend, other):
    with pytest.raises(KeyError), dw.backend(other):
        raise KeyError
    assert _backends.active().name == backend


def test_a_block_may_be_entered_again_also_within_itself(backend, other):
    block = dw.backend(other)
    for _ in range(2):
        with block:
            with dw.backend(backend), block:
                assert _backends.active().name == other
            assert _backends.active().name == other
        assert _backends.active().name == backend


def test_a_decorated_function_computes_with_its_backend(backend, other):
    @dw.backend(other)
    def recurse(depth):
        names = {_backends.active().name}
        return names | recurse(depth - 1) if depth else names

    assert recurse(3) == {other}
    assert _backends.active().name == backend


def name_in_a_new_thread():
    names = []
    thread = threading.Thread(target=lambda: names.append(_backends.active().name))
    thread.start()
    thread.join()
    return names[0]


def test_a_block_switches_its_own_context_only(backend, other):
    before = name_in_a_new_thread()
    for name in (backend, other):
        with dw.backend(name):
            assert name_in_a_new_thread() == before


def test_a_block_of_one_task_leaves_the_others_alone(backend, other):
    async def task(name):
        with dw.backend(name):
            await asyncio.sleep(0)
            return _backends.active().name

    async def main():
        return await asyncio.gather(task(other), task(backend), task(other))

    assert asyncio.run(main()) == [other, backend, other]
    assert _backends.active().name == backend


@pytest.fixture
def restored_default():
    before = _backends._process_default
    yield
    _backends._process_default = before


@pytest.mark.usefixtures("restored_default")
def test_the_default_of_the_process_is_that_of_all_its_threads_and_of_no_open_block(backend, other):
    dw.set_backend(other)
    assert name_in_a_new_thread() == other
    assert _backends.active().name == backend  # the fixture's block
    dw.set_backend(backend)
    assert name_in_a_new_thread() == backend


def test_a_call_switches_at_once_in_every_thread_and_against_the_environment():
    require("numba")
    code = (
        "import threading, dropwise as dw\n"
        "from dropwise._backends import active\n"
        "set_, seen = threading.Event(), threading.Event()\n"
        "def work():\n"
        "    print(active().name); seen.set(); set_.wait(); print(active().name)\n"
        "t = threading.Thread(target=work); t.start(); seen.wait()\n"
        "dw.set_backend('numba'); set_.set(); t.join()\n"
        "print(active().name)"
    )
    first = dw.available_backends()[0]
    assert run(code, DROPWISE_BACKEND=first).split() == [first, "numba", "numba"]


@pytest.mark.usefixtures("restored_default")
def test_blocks_of_many_threads_and_a_switch_of_the_default_do_not_disturb_each_other(
    backend, other
):
    stop, wrong = threading.Event(), []

    def switch_blocks(mine, theirs):
        while not stop.is_set():
            with dw.backend(mine):
                with dw.backend(theirs):
                    if _backends.active().name != theirs:
                        wrong.append("inner")
                if _backends.active().name != mine:
                    wrong.append("outer")
            if _backends.active().name not in (mine, theirs):
                wrong.append("default")

    pairs = [(backend, other), (other, backend)] * 4
    threads = [threading.Thread(target=switch_blocks, args=pair) for pair in pairs]
    for thread in threads:
        thread.start()
    for _ in range(500):
        dw.set_backend(other)
        dw.set_backend(backend)
    dw.set_backend(other)
    stop.set()
    for thread in threads:
        thread.join()
    assert wrong == []
    assert name_in_a_new_thread() == other
    assert _backends.active().name == backend


@pytest.mark.usefixtures("restored_default")
def test_the_first_use_in_one_thread_does_not_undo_a_switch_in_another(monkeypatch, other):
    choosing, switched = threading.Event(), threading.Event()
    best = _backends._best()

    def slow_best():
        choosing.set()
        assert switched.wait(30)
        return best

    _backends._process_default = None
    monkeypatch.setattr(_backends, "_best", slow_best)
    names = []
    thread = threading.Thread(target=lambda: names.append(_backends.active().name))
    thread.start()
    assert choosing.wait(30)
    dw.set_backend(other)
    switched.set()
    thread.join()
    assert names == [other]
    assert name_in_a_new_thread() == other


@pytest.mark.parametrize("choose", [dw.set_backend, dw.backend])
@pytest.mark.usefixtures("restored_default")
def test_an_unknown_backend_changes_nothing(backend, choose):
    before = name_in_a_new_thread()
    with pytest.raises(ValueError, match="unknown backend 'other'; available: "):
        choose("other")
    assert _backends.active().name == backend
    assert name_in_a_new_thread() == before


@pytest.mark.usefixtures("backend")
def test_the_number_of_threads_is_what_was_set():
    before = dw.get_num_threads()
    try:
        dw.set_num_threads(1)
        assert dw.get_num_threads() == 1
    finally:
        dw.set_num_threads(before)


@pytest.mark.usefixtures("backend")
@pytest.mark.parametrize("n", [0, -3])
def test_the_number_of_threads_must_be_positive(n):
    with pytest.raises(ValueError, match=f"number of threads must be at least 1, got {n}"):
        dw.set_num_threads(n)


def network_results():
    """The mask, the result and a gradient of a small network."""
    net = dw.Sequential(
        [
            dw.Dense(20, 65),
            dw.ReLU(),
            dw.Dropout(0.4),
            dw.Dense(65, 70),
            dw.ReLU(),
            dw.Dense(70, 3),
        ],
        seed=1,
    )
    x = np.random.default_rng(0).standard_normal((333, 20)).astype(np.float32)
    y = net.forward(x)
    dx = net.backward(np.ones_like(y))
    return net.layers[2].mask, y, dx, *(g.copy() for _, g in net.parameters())


def test_backends_agree_on_a_network_in_masks_exactly_and_in_values_to_rounding(backend):
    require("numba")
    with dw.backend("numba"):
        mask, *values = network_results()
    got_mask, *got = network_results()
    np.testing.assert_array_equal(got_mask, mask)
    for a, b in zip(got, values, strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-5 * abs(b).max())


def test_instruction_sets_agree_on_a_network_in_masks_exactly_and_in_values_to_rounding(isa):
    require("numba")
    with dw.backend("numba"):
        mask, *values = network_results()
    got_mask, *got = network_results()
    np.testing.assert_array_equal(got_mask, mask)
    for a, b in zip(got, values, strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-5 * abs(b).max())


def test_no_result_depends_on_the_number_of_threads(backend):
    before = dw.get_num_threads()
    try:
        results = []
        for n in (1, 2, 7):
            dw.set_num_threads(n)
            results.append([a.tobytes() for a in network_results()])
    finally:
        dw.set_num_threads(before)
    assert results[0] == results[1] == results[2]
