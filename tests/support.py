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


def is_installed(module: str) -> bool:
    """Whether a module can be found; a folder of tests of the same name is none."""
    parent = module.rpartition(".")[0]
    if parent and not is_installed(parent):
        return False
    spec = importlib.util.find_spec(module)
    return spec is not None and spec.origin is not None


def require(module: str) -> types.ModuleType:
    """Import an optional module, or skip.  A module that is there but broken is an error."""
    if not is_installed(module):
        python = ONE_PYTHON.get(module, sys.version_info[:2])
        if python != sys.version_info[:2]:
            wanted = ".".join(map(str, python))
            reason = f"{module} is NOT tested: it is installed for Python {wanted} only"
            pytest.skip(reason, allow_module_level=True)
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
