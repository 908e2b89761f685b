"""The axes of the suite; and which tests need a checkout."""

from __future__ import annotations

import contextlib
import importlib.util
import sys
from collections.abc import Iterator
from pathlib import Path

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

# Tests of the repository rather than of the package.  A copy of tests/ beside an installed package
# goes without them, as does a source distribution, which has no .ci.
OF_THE_REPOSITORY = [
    "statistics/test_batteries.py",
    "test_architecture.py",
    "test_bench.py",
    "test_build.py",
    "test_docs.py",
    "test_packaging.py",
    "test_scale_model.py",
    "test_typing.py",
]
IN_A_CHECKOUT = (Path(__file__).parents[1] / ".ci").is_dir()
collect_ignore = [] if IN_A_CHECKOUT else OF_THE_REPOSITORY


def pytest_report_header() -> str | None:
    if IN_A_CHECKOUT:
        return None
    return f"not in a checkout, so these are left out: {', '.join(OF_THE_REPOSITORY)}"


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
