"""What the tests of the door to PyTorch share."""

from __future__ import annotations

import types
from collections.abc import Callable

import pytest


@pytest.fixture(autouse=True)
def team_runner() -> None:
    """Tasks run in PyTorch's threads, as they do for whoever imports `dropwise.torch`."""
    from dropwise.torch._threads import share_threads

    share_threads()


@pytest.fixture
def steps(monkeypatch: pytest.MonkeyPatch) -> Callable[[], list[str]]:
    """The names of the steps that were taken since the last call of this, in order.

    With it, blocks of any size are one step.
    """
    from dropwise.torch import _feed_forward, _layers, _multihead_attention

    monkeypatch.setattr(_feed_forward, "_WORTH", 0)
    taken: list[str] = []

    def watch(module: types.ModuleType, name: str) -> None:
        function = getattr(module, name)
        monkeypatch.setattr(module, name, lambda *given: taken.append(name) or function(*given))

    watch(_feed_forward, "fused")
    watch(_layers, "fused")
    watch(_multihead_attention, "attend")

    def take() -> list[str]:
        names = list(taken)
        taken.clear()
        return names

    return take
