"""What the tests of the door to PyTorch share."""

from __future__ import annotations

import pytest


@pytest.fixture(autouse=True)
def team_runner() -> None:
    """Tasks run in PyTorch's threads, as they do for whoever imports `dropwise.torch`."""
    from dropwise.torch._threads import share_threads

    share_threads()
