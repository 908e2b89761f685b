"""Keys and streams: where the randomness of a mask comes from.

A mask is a pure function of ``(key, stream, index, rate)``.  A layer owns a key and counts streams:
each training forward takes one.  The key comes from a seed by `numpy.random.SeedSequence`.
"""

from __future__ import annotations

import operator
from typing import Any, TypeAlias

import numpy as np

__all__ = ["MASK_CONTRACT", "MaskStreams", "Seed", "key_from_seed", "seed_sequence", "spawn"]

MASK_CONTRACT = 1
"""Version of the mask contract: what a (key, stream, index, rate) decides.  In every state."""

KEY_END = 1 << 64
STREAM_END = 1 << 56

Seed: TypeAlias = "int | np.random.SeedSequence | np.random.Generator | None"


def seed_sequence(seed: Seed = None) -> np.random.SeedSequence:
    """The seed sequence that stands for `seed`.

    Parameters
    ----------
    seed : int, SeedSequence, Generator or None
        A Generator is asked for 64 bits; None takes fresh entropy from the operating system.
    """
    if isinstance(seed, np.random.SeedSequence):
        return seed
    if isinstance(seed, np.random.Generator):
        return np.random.SeedSequence(int(seed.integers(KEY_END, dtype=np.uint64)))
    if seed is None:
        return np.random.SeedSequence()
    try:
        if isinstance(seed, np.bool_):  # which older releases of NumPy take for an index
            raise TypeError
        return np.random.SeedSequence(operator.index(seed))
    except TypeError:
        raise TypeError(
            f"seed must be an int, a SeedSequence, a Generator or None, got {seed!r}"
        ) from None


def spawn(sequence: np.random.SeedSequence, i: int) -> np.random.SeedSequence:
    """The sequence of child `i`: unlike ``sequence.spawn`` the same at every call.

    Parameters
    ----------
    sequence : SeedSequence
    i : int

    Returns
    -------
    SeedSequence
    """
    return np.random.SeedSequence(
        entropy=sequence.entropy, spawn_key=(*sequence.spawn_key, i), pool_size=sequence.pool_size
    )


def key_from_seed(seed: Seed = None) -> int:
    """The 64-bit key of a seed.

    Parameters
    ----------
    seed : int, SeedSequence, Generator or None
        None takes fresh entropy.

    Returns
    -------
    int in [0, 2**64)

    Examples
    --------
    >>> from dropwise.random import key_from_seed
    >>> key_from_seed(0) == key_from_seed(0) != key_from_seed(1)
    True
    """
    return int(seed_sequence(seed).generate_state(1, np.uint64)[0])


def spawned_key(key: int, stream: int, i: int) -> int:
    """The key of child `i` of a layer with this key and next stream."""
    return key_from_seed(np.random.SeedSequence([key, stream, i]))


class MaskStreams:
    """A key and the next unused stream.

    Parameters
    ----------
    key : int in [0, 2**64)
    next_stream : int in [0, 2**56]
        ``2**56`` if all have been used.
    """

    __slots__ = ("_given_back", "_rest", "key")

    def __init__(self, key: int, next_stream: int = 0) -> None:
        if not 0 <= key < KEY_END:
            raise ValueError(f"key must be in [0, 2**64), got {key!r}")
        if not 0 <= next_stream <= STREAM_END:
            raise ValueError(f"next_stream must be in [0, 2**56], got {next_stream!r}")
        self.key = key
        self._rest: Any = iter(range(next_stream, STREAM_END))
        self._given_back: list[int] = []

    @property
    def next_stream(self) -> int:
        """The next stream; from there on, none has been used."""
        stream: int = STREAM_END - self._rest.__length_hint__()
        while stream - 1 in self._given_back:
            stream -= 1
        return stream

    def take(self) -> int:
        """A stream that has not been used, for the caller alone, whatever other threads do.

        Returns
        -------
        int

        Raises
        ------
        RuntimeError
            If all have been used.
        """
        try:  # both are one step, so that two threads never get the same
            return self._given_back.pop() if self._given_back else next(self._rest)
        except IndexError:  # another thread has got it
            return self.take()
        except StopIteration:
            raise _none_left() from None

    def give_back(self, stream: int) -> None:
        """Let a stream that was taken, and then not used, be taken again.

        Parameters
        ----------
        stream : int
        """
        self._given_back.append(stream)

    def peek(self) -> int:
        """The next stream, which others may look at, too.

        Returns
        -------
        int

        Raises
        ------
        RuntimeError
            If all have been used.
        """
        stream = self.next_stream
        if stream >= STREAM_END:
            raise _none_left()
        return stream

    def copy(self) -> MaskStreams:
        """The same key and stream, to be counted apart."""
        return MaskStreams(self.key, self.next_stream)

    def __reduce__(self) -> tuple[type[MaskStreams], tuple[int, int]]:
        return MaskStreams, (self.key, self.next_stream)

    def state_dict(self) -> dict[str, int | str]:
        """The state in plain ints and strings; the key is too long for JSON's numbers."""
        return {
            "mask_contract": MASK_CONTRACT,
            "key": f"{self.key:#018x}",
            "next_stream": self.next_stream,
        }

    def __repr__(self) -> str:
        return f"MaskStreams(key={self.key:#018x}, next_stream={self.next_stream})"


def _none_left() -> RuntimeError:
    return RuntimeError("all 2**56 streams of this key have been used; take another seed")
