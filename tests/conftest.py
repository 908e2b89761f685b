"""The axes of the suite: backends, instruction sets, thread counts."""

from __future__ import annotations

import contextlib
import importlib.util
import sys
from collections.abc import Iterator

import hypothesis
import pytest

import dropwise as dw
from support import require

# Examples are the same on every run: a red test stays red until someone fixes it.
hypothesis.settings.register_profile(
    "dropwise",
    deadline=None,
    derandomize=True,
    # Our fixtures are axes, the same for all examples of a test.
    suppress_health_check=[
        hypothesis.HealthCheck.function_scoped_fixture,
        hypothesis.HealthCheck.too_slow,
    ],
)
hypothesis.settings.load_profile("dropwise")


def _isas() -> list[str]:
    if importlib.util.find_spec("dropwise._native") is None:
        return ["none"]
    from dropwise import _native

    return list(_native.available_isas())


@pytest.fixture(autouse=True)
def team_runner() -> None:
    """Tasks run in the pool of the native backend, whatever tests have been collected."""
    if "dropwise._native" in sys.modules:
        from dropwise import _native

        _native.set_team_runner(0)


@contextlib.contextmanager
def _active_backend(name: str) -> Iterator[None]:
    require({"native": "dropwise._native", "numba": "numba"}[name])
    with dw.backend(name):
        yield


@pytest.fixture(params=["native", "numba"])
def backend(request: pytest.FixtureRequest) -> Iterator[str]:
    """Each backend in turn, made the active one."""
    with _active_backend(request.param):
        yield request.param


@pytest.fixture(params=_isas())
def isa(request: pytest.FixtureRequest) -> Iterator[str]:
    """The native backend on each instruction set this machine runs."""
    with _active_backend("native"):
        from dropwise import _native

        before = _native.active_isa()
        _native.set_isa(request.param)
        yield request.param
        _native.set_isa(before)


@pytest.fixture(params=[1, 2, 7], ids="{}-threads".format)
def threads(request: pytest.FixtureRequest) -> Iterator[int]:
    """Some thread counts, for the active backend; 7 does not divide the sizes of tests."""
    for axis in ("backend", "isa"):  # they choose whose threads these are
        if axis in request.fixturenames:
            request.getfixturevalue(axis)
    before = dw.get_num_threads()
    dw.set_num_threads(request.param)
    yield request.param
    dw.set_num_threads(before)
