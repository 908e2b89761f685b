"""A chain of layers, cut into blocks and run block by block."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from dropwise._backends.protocol import Array
from dropwise.layers.activations import ReLU
from dropwise.layers.base import Layer
from dropwise.layers.dense import Dense
from dropwise.layers.dropout import Dropout
from dropwise.network.blocks import (
    Activations,
    BackwardStep,
    ForwardRecord,
    ForwardRun,
    FusedDense,
    ProductChain,
    SingleLayer,
)
from dropwise.network.workspace import Workspace

# Rows that inference computes at a time: their hidden values stay in cache.
ROWS_AT_ONCE = 1024


def split_into_blocks(layers: Sequence[Layer]) -> list[FusedDense | SingleLayer]:
    """Cut a chain of layers into blocks.  Only our own classes are fused, not their subclasses."""
    blocks: list[FusedDense | SingleLayer] = []
    i = 0
    while i < len(layers):
        dense = layers[i]
        i += 1
        if type(dense) is not Dense or dense.dtype.itemsize < 4:
            blocks.append(SingleLayer(dense))
            continue
        relu = dropout = None
        if i < len(layers) and type(candidate := layers[i]) is ReLU:
            relu, i = candidate, i + 1
        if i < len(layers) and type(candidate := layers[i]) is Dropout and _can_fuse(candidate):
            dropout, i = candidate, i + 1
        blocks.append(FusedDense(dense, relu, dropout))
    return blocks


def _can_fuse(dropout: Dropout) -> bool:
    """Whether the mask has a bit for each element, or one for each column."""
    noise = dropout.noise_shape
    return noise is None or (len(noise) > 1 and noise[-1] != 1 and set(noise[:-1]) == {1})


class FusedLayers:
    """The blocks of a chain of layers.

    A run is given a workspace for each block and shares nothing but the layers with other runs.  So
    inference may run between a forward and its backward, and in several threads.
    """

    def __init__(self, layers: Sequence[Layer]) -> None:
        self.layers = tuple(layers)
        self.blocks = split_into_blocks(layers)

    def new_workspaces(self) -> list[Workspace]:
        """A workspace for each block."""
        return [Workspace() for _ in self.blocks]

    def forward(
        self, x: Array, training: bool, workspaces: Sequence[Workspace]
    ) -> tuple[Array, list[ForwardRecord | None]]:
        """The output of all blocks, and their records for ``backward``."""
        records: list[ForwardRecord | None] = []
        return self._run(x, range(len(self.blocks)), training, workspaces, records), records

    def forward_from(
        self, start: int, x: Array, workspaces: Sequence[Workspace], *, training: bool
    ) -> Array:
        """The output of the blocks from `start` on, without records."""
        return self._run(x, range(start, len(self.blocks)), training, workspaces, None)

    def infer(self, x: Array, stop: int) -> Array:
        """The output of the blocks before `stop` at inference, computed some rows at a time."""
        workspaces = self.new_workspaces()
        parts = []
        for start in range(0, max(1, len(x)), ROWS_AT_ONCE):
            rows = x[start : start + ROWS_AT_ONCE]
            parts.append(self._run(rows, range(stop), False, workspaces, None))
        return parts[0] if len(parts) == 1 else np.concatenate(parts)

    def _run(
        self,
        x: Array,
        indices: range,
        training: bool,
        workspaces: Sequence[Workspace],
        records: list[ForwardRecord | None] | None,
    ) -> Array:
        """Run these blocks; append their records, if there is a list for them."""
        activations = Activations(x)
        run = ForwardRun(training, records is not None, ProductChain())
        for i in indices:
            # A fused block needs its input no longer than until its backward, so the workspace will
            # do.  Other layers, and the caller, may keep what they are given.
            last = i + 1 == indices.stop
            own_memory = last or not isinstance(self.blocks[i + 1], FusedDense)
            activations, record = self.blocks[i].forward(
                activations, run, workspaces[i], own_memory
            )
            if records is not None:
                records.append(record)
        run.chain.compute()
        return activations.in_full()

    def backward(
        self,
        dy: Array,
        records: Sequence[ForwardRecord | None],
        workspaces: Sequence[Workspace],
        *,
        input_grad: bool,
    ) -> Array | None:
        """Set the gradients of all parameters; return that of the input, if it is wanted."""
        first = 0  # the blocks before this one need no gradient
        if not input_grad:
            trainable = [block.has_parameters for block in self.blocks]
            first = trainable.index(True) if True in trainable else len(trainable)
        gradient: Array | None = dy
        masked, chain = False, ProductChain()
        for i in range(len(self.blocks) - 1, first - 1, -1):
            block, previous = self.blocks[i], records[i - 1] if i else None
            wanted = input_grad or i > first
            step = BackwardStep(records[i], previous, masked, wanted, workspaces[i], chain)
            assert gradient is not None
            gradient = block.backward(gradient, step)
            masked = previous is not None and isinstance(block, FusedDense)
        chain.compute()
        return gradient if input_grad else None
