"""What the tests of the command line share."""

from __future__ import annotations

from pathlib import Path

import pytest


@pytest.fixture
def csv_file(tmp_path: Path) -> Path:
    return tmp_path / "run.csv"
