"""What `verbose` shows: a progress bar, or lines of text where tqdm is not installed."""

from __future__ import annotations

from contextlib import AbstractContextManager
from typing import Any

from dropwise.network.training import progress_bar


class Progress(AbstractContextManager["Progress"]):
    """The progress of a fit; nothing, if it is not wanted."""

    def __init__(self, wanted: bool, total: int) -> None:
        self._wanted = wanted
        self._bar: Any = progress_bar(total) if wanted else None

    def iteration(self, number: int, loss: float, score: float | None = None) -> None:
        """An iteration is over."""
        if self._bar is not None:
            text = f"loss {loss:.6f}"
            self._bar.set_postfix_str(
                text if score is None else f"{text}, validation score {score:.4f}", refresh=False
            )
            self._bar.update()
        elif self._wanted:
            print(f"Iteration {number}, loss = {loss:.8f}")
            if score is not None:
                print(f"Validation score: {score:f}")

    def message(self, text: str) -> None:
        """Something that the user should know."""
        if self._bar is not None:
            self._bar.write(text)
        elif self._wanted:
            print(text)

    def __exit__(self, *_: object) -> None:
        if self._bar is not None:
            self._bar.close()
