"""The choice of the backend."""

from __future__ import annotations

import os
import subprocess
import sys
import threading

import numpy as np
import pytest

import dropwise as dw
from dropwise import _backends
from support import missing


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
    message = run(ACTIVE, DROPWISE_BACKEND="other")
    assert message.startswith("ValueError: unknown backend 'other'; available: ")
    assert "numba" in message


def test_a_backend_that_does_not_load_says_why_and_what_there_is():
    code = (
        "import sys; sys.modules['dropwise._native'] = None\n"
        "import dropwise as dw\n"
        "print(dw.available_backends())\n"
        "dw.use_backend('native')"
    )
    result = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=False
    )
    assert result.stdout.strip() == "('numba',)"
    last = result.stderr.strip().splitlines()[-1]
    assert last.startswith("ImportError: backend 'native' is not available (")
    assert last.endswith("); available: numba")


def test_without_the_native_module_numba_is_the_default():
    assert run("import sys; sys.modules['dropwise._native'] = None\n" + ACTIVE) == "numba"


def test_without_any_backend_the_error_gives_all_reasons():
    code = "import sys; sys.modules['dropwise._native'] = sys.modules['numba'] = None\n" + ACTIVE
    message = run(code)
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
    with dw.use_backend(other) as inner:
        assert _backends.active() is inner
        assert inner.name == other
        with dw.use_backend(backend):
            assert _backends.active().name == backend
        assert _backends.active().name == other
    assert _backends.active().name == backend


def test_a_block_restores_after_an_error(backend, other):
    with pytest.raises(KeyError), dw.use_backend(other):
        raise KeyError
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
        with dw.use_backend(name):
            assert name_in_a_new_thread() == before


def test_a_call_switches_at_once_and_in_new_threads():
    code = (
        "import threading, dropwise as dw\n"
        "from dropwise._backends import active\n"
        "dw.use_backend('numba')\n"
        "print(active().name)\n"
        "t = threading.Thread(target=lambda: print(active().name)); t.start(); t.join()"
    )
    assert run(code).split() == ["numba", "numba"]


def test_an_unknown_backend_changes_nothing(backend):
    with pytest.raises(ValueError, match="unknown backend 'other'; available: "):
        dw.use_backend("other")
    assert _backends.active().name == backend


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
    with dw.use_backend("numba"):
        mask, *values = network_results()
    got_mask, *got = network_results()
    np.testing.assert_array_equal(got_mask, mask)
    for a, b in zip(got, values, strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-5 * abs(b).max())


def test_instruction_sets_agree_on_a_network_in_masks_exactly_and_in_values_to_rounding(isa):
    with dw.use_backend("numba"):
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
