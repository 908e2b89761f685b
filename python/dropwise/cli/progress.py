"""The progress of training: a tqdm bar, or lines of text where tqdm is not installed."""

from __future__ import annotations

import sys
import time
from typing import Any

from dropwise.cli.errors import INSTALL_HINT


class TextProgress:
    """Has the methods of tqdm that are used; prints ten lines over all epochs, none if quiet."""

    def __init__(self, total: int, quiet: bool, done: int = 0) -> None:
        self.every = 0 if quiet else max(1, total // 10)
        self.total, self.done, self.text = total, done, ""
        self.before = done
        self.start = time.perf_counter()

    def __enter__(self) -> TextProgress:
        return self

    def __exit__(self, *_: object) -> None:
        pass

    def set_postfix_str(self, text: str, refresh: bool = False) -> None:
        self.text = text

    def update(self) -> None:
        self.done += 1
        if self.every and self.done % self.every == 0:
            each = (time.perf_counter() - self.start) / (self.done - self.before)
            left = each * (self.total - self.done)
            print(
                f"epoch {self.done} of {self.total}, {self.text}, {left:.0f} s left",
                file=sys.stderr,
                flush=True,
            )


def progress_bar(total: int, quiet: bool, done: int = 0) -> Any:
    """A tqdm bar that begins at `done`; a `TextProgress` if tqdm is not installed or if quiet."""
    if not quiet:
        try:
            from tqdm import tqdm
        except ImportError:
            print(f"plain progress, as tqdm is not installed: {INSTALL_HINT}", file=sys.stderr)
        else:
            return tqdm(total=total, initial=done, unit="epoch", smoothing=0.05)
    return TextProgress(total, quiet, done)
