"""A chain of layers, cut into blocks and run block by block."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from dropwise._backends.protocol import Array
from dropwise.layers.activations import ReLU
from dropwise.layers.base import Layer
from dropwise.layers.dense import Dense
from dropwise.layers.dropout import Dropout
from dropwise.network.blocks import Chain, Flow, Group, Plain, Trace
from dropwise.network.workspace import Workspace

# Rows that inference computes at a time: the hidden values of so many stay in cache.
ROWS_AT_ONCE = 1024


def plan(layers: Sequence[Layer]) -> list[Group | Plain]:
    """Cut a chain of layers into blocks.  Only our own classes are fused, not their subclasses."""
    blocks: list[Group | Plain] = []
    i = 0
    while i < len(layers):
        dense = layers[i]
        i += 1
        if type(dense) is not Dense or dense.dtype.itemsize < 4:
            blocks.append(Plain(dense))
            continue
        relu = dropout = None
        if i < len(layers) and type(candidate := layers[i]) is ReLU:
            relu, i = candidate, i + 1
        if i < len(layers) and type(candidate := layers[i]) is Dropout and _fusible(candidate):
            dropout, i = candidate, i + 1
        blocks.append(Group(dense, relu, dropout))
    return blocks


def _fusible(dropout: Dropout) -> bool:
    """Whether the mask is one of elements, or one of columns."""
    noise = dropout.noise_shape
    return noise is None or (len(noise) > 1 and noise[-1] != 1 and set(noise[:-1]) == {1})


class FusedLayers:
    """A chain of layers, cut into blocks, some or all of which can be run."""

    def __init__(self, layers: Sequence[Layer]) -> None:
        self.layers = tuple(layers)
        self.blocks = plan(layers)

    def new_workspaces(self) -> list[Workspace]:
        """A workspace for each block."""
        return [Workspace() for _ in self.blocks]

    def run(
        self, x: Array, spaces: Sequence[Workspace], blocks: slice, training: bool, *, trace: bool
    ) -> tuple[Flow, list[Trace | None]]:
        """Run some of the blocks."""
        flow, chain = Flow(x), Chain()
        traces = []
        run = self.blocks[blocks]
        for block, following, space in zip(run, [*run[1:], None], spaces[blocks], strict=False):
            # A group is done with its input when the next step begins; others may hand it on.
            fresh = not isinstance(following, Group)
            flow, left = block.forward(flow, training, space, chain, trace=trace, fresh=fresh)
            traces.append(left)
        chain.run()
        return flow, traces

    def infer(self, x: Array, stop: int) -> Array:
        """Blocks before `stop`, at inference, some rows at a time."""
        spaces = self.new_workspaces()
        parts = []
        for start in range(0, max(1, len(x)), ROWS_AT_ONCE):
            rows = x[start : start + ROWS_AT_ONCE]
            parts.append(self.run(rows, spaces, slice(stop), False, trace=False)[0].full())
        return parts[0] if len(parts) == 1 else np.concatenate(parts)

    def backward(
        self,
        traces: Sequence[Trace | None],
        gradient: Any,
        spaces: Sequence[Workspace],
        *,
        input_grad: bool,
    ) -> Any:
        """Set the gradients of all parameters."""
        lowest = 0  # below it nobody asks for a gradient
        if not input_grad:
            trains = [block.trains for block in self.blocks]
            lowest = trains.index(True) if True in trains else len(trains)
        gated, chain = False, Chain()
        for i in range(len(self.blocks) - 1, lowest - 1, -1):
            before = traces[i - 1] if i else None
            gradient = self.blocks[i].backward(
                traces[i],
                gradient,
                before,
                spaces[i],
                chain,
                gated=gated,
                want_dx=input_grad or i > lowest,
            )
            gated = before is not None and isinstance(self.blocks[i], Group)
        chain.run()
        return gradient
