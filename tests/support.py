"""What tests share besides fixtures.  Tests import it by name (pytest's `pythonpath`)."""

from __future__ import annotations

import importlib
import importlib.util
import os
import subprocess
import sys
import types

import pytest

# CI sets it: there, a test that cannot run is a failure and not a line nobody reads.
REQUIRE_ALL = os.environ.get("DROPWISE_REQUIRE_ALL") == "1"
# What the extra `test` brings for one version of Python only, because it is large.
ONE_PYTHON = {"torch": (3, 11)}


def missing(reason: str) -> None:
    """Skip the test (or the module) because of `reason`; fail with DROPWISE_REQUIRE_ALL=1.

    The only way a test of this suite may skip because something is not installed.
    """
    if REQUIRE_ALL:
        pytest.fail(f"{reason}, and DROPWISE_REQUIRE_ALL=1", pytrace=False)
    pytest.skip(reason, allow_module_level=True)


def require(module: str) -> types.ModuleType:
    """Import an optional module, or skip.  A module that is there but broken is an error."""
    python = ONE_PYTHON.get(module)
    if python not in (None, sys.version_info[:2]) and importlib.util.find_spec(module) is None:
        wanted = ".".join(map(str, python))
        pytest.skip(
            f"{module} is NOT tested: it comes with Python {wanted}", allow_module_level=True
        )
    parent = module.rpartition(".")[0]
    if (parent and importlib.util.find_spec(parent) is None) or (
        importlib.util.find_spec(module) is None
    ):
        missing(f"{module} is not installed")
    return importlib.import_module(module)


def run_python(code: str, *arguments: str, timeout: float = 120, **env: str) -> str:
    """What a fresh interpreter prints for `code`; fails if that fails, complains or hangs."""
    command = [sys.executable, "-W", "ignore::DeprecationWarning", *arguments, "-c", code]
    run = subprocess.run(
        command, env={**os.environ, **env}, capture_output=True, text=True, timeout=timeout
    )
    assert (run.returncode, run.stderr) == (0, ""), run.stdout + run.stderr
    return run.stdout
