"""Memory errors of the portable kernels, as valgrind sees them.

It reports what Python and NumPy do as well, so reports count that have the native module in their
stack.
"""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from support import missing, require

pytestmark = pytest.mark.slow

# What depends on memory that nobody has written to must be reported, or else nothing is.
UNINITIALISED = """
import numpy as np
from dropwise import functional as F
F.matmul(np.empty((70, 90), np.float32), np.ones((90, 30), np.float32))
"""


def reports(log: Path, *command: str) -> list[str]:
    """Those reports on a Python command in which the native module occurs."""
    native = require("dropwise._native")
    if shutil.which("valgrind") is None:
        missing("valgrind is not installed")
    environment = {
        **os.environ,
        "DROPWISE_BACKEND": "native",
        "DROPWISE_ISA": "scalar",  # valgrind does not know all instructions of the other sets
        "PYTHONMALLOC": "malloc",
        "OPENBLAS_NUM_THREADS": "1",
    }
    subprocess.run(
        ["valgrind", "--num-callers=40", f"--log-file={log}", sys.executable, *command],
        env=environment,
        check=True,
        timeout=3000,
    )
    paragraphs = re.split(r"^==\d+== $", log.read_text(), flags=re.M)
    return [text for text in paragraphs if Path(native.__file__).name in text]


def test_valgrind_has_nothing_to_say_about_the_portable_kernels(tmp_path):
    script = Path(__file__).with_name("exercise.py")
    assert reports(tmp_path / "log", str(script)) == []
    found = reports(tmp_path / "control", "-c", UNINITIALISED)
    assert any("uninitialised" in text for text in found)
