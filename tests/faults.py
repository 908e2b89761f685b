"""Failures where a test wants them: calls of the backend that raise."""

from __future__ import annotations

import contextlib

from dropwise import _backends

COMPUTING = (
    "mask_bits",
    "dropout_forward",
    "dropout_of_tensor",
    "apply_bits",
    "relu",
    "multiply",
)


class FailingBackend:
    """The active backend, but its nth computation raises, before it has computed or after."""

    def __init__(self, nth, error, after=False):
        self._backend, self._left = _backends.active(), nth
        self._error, self._after = error, after
        self.name = self._backend.name
        self.failed = False

    def __getattr__(self, function):
        real = getattr(self._backend, function)
        if function not in COMPUTING or real is None:
            return real

        def call(*arguments):
            self._left -= 1
            self.failed = self.failed or self._left == -1
            if self._left == -1 and not self._after:
                raise self._error
            result = real(*arguments)
            if self._left == -1:
                raise self._error
            return result

        return call


@contextlib.contextmanager
def failing_call(nth, error=MemoryError, after=False):
    """Let the nth computation within the block raise; gives an object that says if it has."""
    backend = FailingBackend(nth, error, after)
    before = _backends._blocks.get()
    _backends._blocks.set((*before, backend))
    try:
        yield backend
    finally:
        _backends._blocks.set(before)
