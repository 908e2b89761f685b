"""What the import loads, what chooses backend and threads, and how `show_config` says so."""

from __future__ import annotations

import json
import platform
import re
import sysconfig

import numpy as np
import pytest

import dropwise as dw
from support import require, run_python

SHOW = "import dropwise as dw, json; print(json.dumps(dw.show_config('dicts')))"


def shown(code: str = SHOW, **env: str) -> dict:
    cleared = {"DROPWISE_BACKEND": "", "DROPWISE_ISA": "", "DROPWISE_NUM_THREADS": ""}
    return json.loads(run_python(code, **{**cleared, **env}))


def test_the_configuration_names_versions_backend_and_threads(backend):
    config = dw.show_config("dicts")
    assert config["dropwise"] == dw.__version__
    assert config["mask contract"] == 1
    assert config["backend"]["active"] == backend
    assert config["threads"]["count"] == dw.get_num_threads()
    assert config["versions"]["numpy"] == np.__version__
    assert platform.python_version() in config["versions"]["python"]


def test_the_configuration_names_instruction_sets_and_build(isa):
    config = dw.show_config("dicts")
    assert config["instruction sets"]["active"] == isa
    assert set(config["instruction sets"]["usable"]) <= set(config["instruction sets"]["built"])
    assert {"compiler", "flags", "type", "sanitizer"} == set(config["native build"])


def test_the_configuration_is_printed(backend, capsys):
    dw.show_config()
    said = capsys.readouterr().out
    assert f"active: {backend}" in said
    assert dw.__version__ in said


def test_an_unknown_mode_is_refused():
    with pytest.raises(ValueError, match="'stdout' or 'dicts', got 'json'"):
        dw.show_config("json")


def test_what_forced_a_choice_is_said():
    require("dropwise._native")
    by_default = shown()
    assert by_default["backend"]["active"] == "native"
    assert by_default["backend"]["why"] == "the best there is"
    forced = shown(DROPWISE_BACKEND="native", DROPWISE_ISA="scalar", DROPWISE_NUM_THREADS="3")
    assert forced["backend"]["why"] == "DROPWISE_BACKEND"
    assert forced["instruction sets"]["active"] == "scalar"
    assert forced["instruction sets"]["why"] == "DROPWISE_ISA"
    assert forced["threads"] == {"count": 3, "why": "DROPWISE_NUM_THREADS"}


def test_a_choice_by_call_or_block_is_said():
    require("numba")
    called = shown("import dropwise as dw; dw.set_backend('numba')\n" + SHOW)
    assert called["backend"]["active"] == "numba"
    assert called["backend"]["why"] == "set_backend"
    in_block = shown("import dropwise as dw; dw.backend('numba').__enter__()\n" + SHOW)
    assert in_block["backend"]["active"] == "numba"
    assert in_block["backend"]["why"] == "backend"


def test_a_forced_instruction_set_computes(isa):
    # One column a product that needs the last bit of (1 + 2**-12)**2, which only a fused multiply
    # and add keeps.  The portable set has none, the others have.
    code = """
import dropwise as dw, numpy as np
big = np.float32(1 + 2**-12)
x = np.tile(np.array([1, big], np.float32), (64, 1))
w = np.tile(np.array([[-1], [big]], np.float32), (1, 64))
from dropwise import _native
y = dw.functional.matmul(x, w)
assert _native.active_isa() == ISA, _native.active_isa()
print(np.unique(y - np.float32(2**-11)).tolist())
"""
    said = run_python(code.replace("ISA", repr(isa)), DROPWISE_BACKEND="native", DROPWISE_ISA=isa)
    assert json.loads(said) == ([0.0] if isa == "scalar" else [2**-24])


@pytest.mark.parametrize(
    ("variable", "said"),
    [
        ("DROPWISE_ISA", "instruction set 'sse9' is not available; available: .*scalar"),
        ("DROPWISE_BACKEND", "unknown backend 'sse9'; available: native"),
        ("DROPWISE_NUM_THREADS", "whole number from 1, got 'sse9'"),
    ],
)
def test_an_environment_variable_without_sense_raises_at_first_use(variable, said):
    require("dropwise._native")
    code = """
import dropwise as dw
try:
    dw.functional.dropout_mask((4,), 0.5, key=1)
except ValueError as error:
    print(error)
"""
    assert re.search(said, run_python(code, **{variable: "sse9"}))


def test_an_unknown_instruction_set_raises_and_lists_what_there_is():
    native = require("dropwise._native")
    with pytest.raises(ValueError, match=r"'sse9' is not available; available: .*scalar"):
        native.set_isa("sse9")


def test_the_import_leaves_the_heavy_ones_alone():
    code = "import dropwise, json, sys; print(json.dumps(sorted(sys.modules)))"
    tops = {name.partition(".")[0] for name in json.loads(run_python(code))}
    assert not tops & {
        *("numba", "llvmlite", "matplotlib", "tqdm", "rich", "torch", "sklearn", "scipy", "jax"),
        *("ml_dtypes", "threadpoolctl", "hypothesis", "pytest"),
    }


def test_the_package_works_without_numba():
    code = """
import sys
sys.modules["numba"] = None  # an import of it raises ImportError
import dropwise as dw, numpy as np
assert dw.available_backends() == ("native",)
assert dw.Dropout(0.5, seed=1).forward(np.ones(8)).shape == (8,)
dw.show_config()
try:
    dw.set_backend("numba")
except ImportError as error:
    print(error)
"""
    require("dropwise._native")
    said = run_python(code, DROPWISE_BACKEND="")
    assert "backend 'numba' is not available" in said.splitlines()[-1]


def test_the_native_module_leaves_the_gil_off():
    require("dropwise._native")
    if not sysconfig.get_config_var("Py_GIL_DISABLED"):
        pytest.skip("this Python always has a GIL")
    code = "import sys, dropwise._native; print(sys._is_gil_enabled())"
    assert run_python(code, "-W", "error") == "False\n"  # turning it on warns, too


def test_threadpoolctl_is_told_when_it_is_there_first():
    require("threadpoolctl")
    code = """
import threadpoolctl, dropwise as dw
dw.set_backend("native")
print([pool["internal_api"] for pool in threadpoolctl.threadpool_info()].count("dropwise"))
"""
    assert run_python(code) == "1\n"
