"""One run of a network: what its layers must know of the batch, and the streams that they take."""

from __future__ import annotations

import copy
import math
from typing import Any, Protocol, TypeVar

from dropwise._arguments import as_offset


class TakesStreams(Protocol):
    """A layer that uses a new stream in each training run."""

    def next_stream(self) -> int:
        """The stream that comes next."""

    def take_stream(self) -> int:
        """The same, which is used up."""

    def give_back(self, stream: int) -> None:
        """Undo `take_stream`."""

    def remember(self, record: Any) -> None:
        """Keep what the run has left."""


class GoesOn(Protocol):
    """A layer that runs on a copy of it, where a run leaves no record."""

    def _go_on_from(self: StandIn, stand_in: StandIn) -> None:
        """Take over what the copy has used up."""


StandIn = TypeVar("StandIn", bound=GoesOn)


class RunContext:
    """What the layers of a network must know of one run of it.

    Parameters
    ----------
    training : bool
        Whether dropout drops.
    keep_records : bool
        Whether there will be a backward.
    takes_streams : bool
        Whether the streams of the run are used up.  Several runs that each compute a part of one
        result look at the same ones.
    samples : int
        0, or the number of samples of Monte Carlo dropout: each row of the batch is there so many
        times, one after the other, and each of them counts as a row.

    Attributes
    ----------
    first_row : int
        Index, in the whole batch, of the first row that is run.
    block_rows : int
        Not 0: products are computed in blocks of so many rows, each as if it were alone, and sums
        over the rows are added up in a tree.

    Notes
    -----
    A run takes one stream of each dropout layer, also if it runs the batch in several pieces.  It
    is a context manager: when it ends well, the layers learn what it has left, and after a failure
    they are as they were.
    """

    __slots__ = (
        "_records",
        "_stand_ins",
        "_streams",
        "block_rows",
        "first_row",
        "keep_records",
        "samples",
        "takes_streams",
        "training",
    )

    def __init__(
        self, training: bool, *, keep_records: bool, samples: int = 0, takes_streams: bool = True
    ) -> None:
        self.training = training
        self.keep_records = keep_records
        self.samples = samples
        self.takes_streams = takes_streams
        self.first_row = 0
        self.block_rows = 0
        self._streams: dict[TakesStreams, int] = {}
        self._records: dict[TakesStreams, Any] = {}
        self._stand_ins: dict[int, tuple[Any, Any]] = {}

    def stream_of(self, layer: TakesStreams) -> int:
        """The stream of this layer in this run."""
        streams = self._streams
        if layer not in streams:
            streams[layer] = layer.take_stream() if self.takes_streams else layer.next_stream()
        return streams[layer]

    def offset(self, noise_shape: tuple[int, ...]) -> int:
        """Index of the first element of the run in a noise array whose first dimension is rows."""
        first = self.first_row * math.prod(noise_shape[1:])
        return as_offset(first, math.prod(noise_shape)) if first else 0

    def remember(self, layer: TakesStreams, record: Any) -> None:
        """Let the layer know of this record once the run has ended well."""
        if self.keep_records:
            self._records[layer] = record

    def stand_in(self, layer: StandIn) -> StandIn:
        """A copy of the layer, the same one for the whole run."""
        pair = self._stand_ins.get(id(layer))
        if pair is None:
            pair = self._stand_ins[id(layer)] = layer, copy.copy(layer)
        found: StandIn = pair[1]
        return found

    def __enter__(self) -> RunContext:
        return self

    def __exit__(self, error: type[BaseException] | None, *_: object) -> None:
        if error is None:
            for layer, stand_in in self._stand_ins.values():
                layer._go_on_from(stand_in)
            for dropout, record in self._records.items():
                dropout.remember(record)
        elif self.takes_streams:
            for dropout, stream in self._streams.items():
                dropout.give_back(stream)
