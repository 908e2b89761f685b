"""The functions of a backend, without the package around them, as an axis of these tests."""

from __future__ import annotations

import importlib
import importlib.util

import numpy as np
import pytest

import emulated
from samples import FLOATS
from support import require


def _native_sets():
    if importlib.util.find_spec("dropwise._native") is None:
        return []
    return importlib.import_module("dropwise._native").available_isas()


@pytest.fixture(scope="session")
def programs(tmp_path_factory):
    """Commands of the emulated sets, compiled when they are first asked for."""
    commands = {}

    def get(name):
        if name not in commands:
            directory = tmp_path_factory.mktemp("emulated")
            commands[name] = emulated.compile_program(name, directory)
        return commands[name]

    return get


@pytest.fixture(params=[*_native_sets(), *emulated.SETS, *emulated.GIVEN, "numba"])
def kernels(request, programs):
    """The functions of a backend, on every instruction set that there is."""
    if request.param == "numba":
        require("numba")
        yield importlib.import_module("dropwise._backends.numba").NumbaBackend()
    elif request.param in (*emulated.SETS, *emulated.GIVEN):
        process = emulated.EmulatedKernels(programs(request.param))
        yield process
        process.close()
    else:
        native = require("dropwise._native")
        before = native.active_isa()
        native.set_isa(request.param)
        yield native
        native.set_isa(before)


@pytest.fixture(params=[1, 2, 7], ids="{}-threads".format)
def threads(request, kernels):
    before = kernels.num_threads()
    kernels.set_num_threads(request.param)
    yield request.param
    kernels.set_num_threads(before)


@pytest.fixture(params=FLOATS, ids=lambda dtype: np.dtype(dtype).name)
def dtype(request):
    return np.dtype(request.param)
