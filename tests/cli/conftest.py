"""Files of the command line's tests."""

from __future__ import annotations

from pathlib import Path

import pytest


@pytest.fixture
def csv_file(tmp_path: Path) -> Path:
    return tmp_path / "run.csv"
