"""One run of a network: what its layers must know of the batch, and the streams that they take."""

from __future__ import annotations

import copy
import math
from typing import Any, Protocol, TypeVar


class TakesStreams(Protocol):
    """A layer that uses a new stream in each training run."""

    def next_stream(self) -> int:
        """The stream that comes next."""

    def use_up(self, stream: int, record: Any = None) -> None:
        """Count `stream` as used, by the forward that left `record`."""


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
    A run takes one stream of each dropout layer, also if it runs the batch in several pieces.
    The layers learn of it by `commit`: after a failure without it they are as they were.
    """

    __slots__ = (
        "_records",
        "_stand_ins",
        "_streams",
        "block_rows",
        "first_row",
        "keep_records",
        "samples",
        "training",
    )

    def __init__(self, training: bool, *, keep_records: bool, samples: int = 0) -> None:
        self.training = training
        self.keep_records = keep_records
        self.samples = samples
        self.first_row = 0
        self.block_rows = 0
        self._streams: dict[TakesStreams, int] = {}
        self._records: dict[TakesStreams, Any] = {}
        self._stand_ins: dict[int, tuple[Any, Any]] = {}

    def stream_of(self, layer: TakesStreams) -> int:
        """The stream of this layer in this run."""
        streams = self._streams
        if layer not in streams:
            streams[layer] = layer.next_stream()
        return streams[layer]

    def offset(self, noise_shape: tuple[int, ...]) -> int:
        """Index of the first element of the run in a noise array whose first dimension is rows."""
        return self.first_row * math.prod(noise_shape[1:])

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

    def commit(self) -> None:
        """The run has ended well: its streams are used up."""
        for layer, stand_in in self._stand_ins.values():
            layer._go_on_from(stand_in)
        for layer, stream in self._streams.items():
            layer.use_up(stream, self._records.get(layer))
