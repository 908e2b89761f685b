"""A chain of layers, cut into blocks and run block by block."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np

from dropwise._backends.protocol import Array
from dropwise.layers.activations import ReLU, Sigmoid, Tanh
from dropwise.layers.base import Layer, is_registered, layers_within
from dropwise.layers.dense import Dense
from dropwise.layers.dropout import Dropout
from dropwise.layers.dropout_base import DropoutBase
from dropwise.layers.run import RunContext
from dropwise.network.blocks import (
    Activations,
    BackwardStep,
    BlockWorkspace,
    ForwardRun,
    FusedDense,
    ProductChain,
    SingleLayer,
)
from dropwise.network.replay import Replay, can_replay

# Rows that inference computes at a time: their hidden values stay in cache.
ROWS_AT_ONCE = 1024

# Sets of workspaces that a network keeps for later runs.
_SPARE = 2

_ELEMENTWISE = (ReLU, Sigmoid, Tanh, DropoutBase)  # a result has the shape of the input


def check_chain(layers: Sequence[Layer]) -> None:
    """Raise if these layers cannot be a chain."""
    seen: set[int] = set()
    before: Dense | None = None
    for layer in layers:
        if not isinstance(layer, Layer):
            raise TypeError(f"layers must be Layer objects, got {layer!r}")
        for part in (layer, *layers_within(layer)):
            if id(part) in seen:
                raise ValueError(f"{part!r} is in the network twice; use two layers")
            seen.add(id(part))
        if not isinstance(layer, Dense):
            before = before if isinstance(layer, _ELEMENTWISE) and is_registered(layer) else None
            continue
        if before is not None and before.out_features != layer.in_features:
            raise ValueError(
                f"{before!r} gives {before.out_features} columns; "
                f"{layer!r} takes {layer.in_features}"
            )
        if before is not None and before.dtype != layer.dtype:
            raise ValueError(f"{before!r} gives {before.dtype}; {layer!r} takes {layer.dtype}")
        before = layer


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


class PassMemory:
    """The memory of one pass through the blocks, and what is prepared for the next one."""

    __slots__ = ("replay", "workspaces")

    def __init__(self, n_blocks: int) -> None:
        self.workspaces = [BlockWorkspace() for _ in range(n_blocks)]
        self.replay: Replay | None = None

    def release(self) -> None:
        """Hold no array that is not the memory's own."""
        if self.replay is not None:
            self.replay.release()
            return
        for workspace in self.workspaces:
            workspace.release()


class NetworkPass:
    """What a forward of a network leaves for its backward, and the memory in which that lies.

    When nobody holds it any more, the memory goes back to the network for its next forward.
    """

    __slots__ = ("_spare", "block_rows", "dtype", "memory", "records", "shape", "training")

    def __init__(self, memory: PassMemory, spare: list[PassMemory]) -> None:
        self._spare = spare
        self.memory = memory
        self.training = False
        self.records: list[Any] = []  # of each block
        self.block_rows = 0  # of the products: there, each vector of features is a row
        self.shape: tuple[int, ...] = ()  # of the result
        self.dtype: np.dtype[Any] = np.dtype(np.float64)

    def __del__(self) -> None:
        if not hasattr(self, "memory"):  # Ctrl-C ended the constructor
            return
        self.memory.release()
        if len(self._spare) < _SPARE:
            self._spare.append(self.memory)


class FusedLayers:
    """The blocks of a chain of layers.

    Each run has workspaces of its own and shares nothing but the layers with other runs: several
    threads may run the layers at once, and a run does not disturb what an earlier one left.
    """

    def __init__(self, layers: Sequence[Layer]) -> None:
        self.layers = tuple(layers)
        self.blocks = split_into_blocks(layers)
        fused = [block for block in self.blocks if isinstance(block, FusedDense)]
        self._all_fused = fused if len(fused) == len(self.blocks) else None
        self.dense = tuple(layer for layer in layers_within(self) if isinstance(layer, Dense))
        self._spare: list[PassMemory] = []
        self._without_dropout: dict[int, FusedLayers] = {}

    def _new_pass(self) -> NetworkPass:
        """A pass with the memory of one that is gone, or new memory."""
        try:
            memory = self._spare.pop()
        except IndexError:
            memory = PassMemory(len(self.blocks))
        return NetworkPass(memory, self._spare)

    def forward(
        self, x: Array, context: RunContext, last: NetworkPass | None = None
    ) -> tuple[Array, NetworkPass | None]:
        """The output of all blocks, and what ``backward`` needs if the context says so.

        `last` is a pass that only the caller holds, and needs no longer.
        """
        if not context.keep_records:
            return self.forward_from(0, x, context), None
        x = self._apart(x)
        this = self._new_pass() if last is None else last
        replay, y = this.memory.replay, None
        if replay is not None and context.training and context.block_rows == replay.block_rows:
            y = replay.forward(x, context)
            this.records, this.block_rows = replay.records, replay.block_rows
        if y is None:
            y = self._run(x, range(len(self.blocks)), context, this)
        this.shape, this.dtype, this.training = y.shape, y.dtype, context.training
        return y, this

    def forward_again(self, x: Array, last: NetworkPass) -> Array | None:
        """The output of a training run like `last`, which becomes what this run leaves.

        None if this run is another: nothing has changed then.  The streams of a run are used up.
        """
        replay = last.memory.replay
        if replay is None or replay.block_rows:
            return None
        return replay.forward(self._apart(x))

    def forward_from(self, start: int, x: Array, context: RunContext) -> Array:
        """The output of the blocks from `start` on, of which nothing is kept."""
        return self._run(x, range(start, len(self.blocks)), context, self._new_pass())

    @property
    def heeds_block_rows(self) -> bool:
        """Whether all products of a run are computed in the blocks that its context asks for.

        Those of layers that run by themselves are not.
        """
        return all(
            isinstance(block, FusedDense)
            or (isinstance(block.layer, _ELEMENTWISE) and is_registered(block.layer))
            for block in self.blocks
        )

    def without_dropout(self, i: int) -> FusedLayers:
        """The layers of block `i`, a fused one, before its dropout."""
        found = self._without_dropout.get(i)
        if found is None:
            block = self.blocks[i]
            assert isinstance(block, FusedDense)
            layers = [layer for layer in (block.dense, block.relu) if layer is not None]
            found = self._without_dropout[i] = FusedLayers(layers)
        return found

    def infer(self, x: Array, stop: int) -> Array:
        """The output of the blocks before `stop` at inference, computed some rows at a time."""
        context = RunContext(False, keep_records=False)
        this = self._new_pass()
        parts = []
        for start in range(0, max(1, len(x)), ROWS_AT_ONCE):
            rows = x[start : start + ROWS_AT_ONCE]
            parts.append(self._run(rows, range(stop), context, this))
        return parts[0] if len(parts) == 1 else np.concatenate(parts)

    def _run(self, x: Array, indices: range, context: RunContext, this: NetworkPass) -> Array:
        """Run these blocks, and keep their records if the context says so."""
        this.memory.replay = None
        this.records = []
        activations = Activations(x)
        this.block_rows = context.block_rows * math.prod(x.shape[1:-1])
        run = ForwardRun(context, ProductChain(this.block_rows))
        for i in indices:
            # A fused block needs its input no longer than until its backward, so the workspace will
            # do.  Other layers, and the caller, may keep what they are given.
            last = i + 1 == indices.stop
            own_memory = last or not isinstance(self.blocks[i + 1], FusedDense)
            activations, record = self.blocks[i].forward(
                activations, run, this.memory.workspaces[i], own_memory
            )
            if context.keep_records:
                this.records.append(record)
        run.chain.compute()
        return activations.in_full()

    def backward(self, dy: Array, this: NetworkPass, *, input_grad: bool) -> Array | None:
        """Set the gradients of all parameters; return that of the input, if it is wanted."""
        first = 0  # the blocks before this one need no gradient
        if not input_grad:
            while first < len(self.blocks) and not self.blocks[first].has_parameters:
                first += 1
        records = this.records
        dy = self._apart(dy)
        gradient: Array | None = dy
        memory = this.memory
        replay, memory.replay = memory.replay, None
        masked, chain = False, ProductChain(this.block_rows)
        try:
            if replay is not None and not input_grad and replay.backward(dy):
                memory.replay = replay
                return None
            for i in range(len(self.blocks) - 1, first - 1, -1):
                block = self.blocks[i]
                fused_before = i > 0 and isinstance(self.blocks[i - 1], FusedDense)
                previous = records[i - 1] if fused_before else None
                wanted = input_grad or i > first
                step = BackwardStep(
                    records[i], previous, masked, wanted, memory.workspaces[i], chain
                )
                assert gradient is not None
                gradient = block.backward(gradient, step)
                masked = fused_before and isinstance(block, FusedDense)
            chain.compute()
        except BaseException:
            for dense in self.dense:
                dense.leave_gradients()
            raise
        if input_grad:
            return gradient
        if self._all_fused and this.training and can_replay(records, memory.workspaces):
            memory.replay = Replay(self._all_fused, records, memory.workspaces, this.block_rows)
        return None

    def _apart(self, x: Array) -> Array:
        """`x`, or a copy if a backward that reads it would write to it."""
        base = x.base
        if base is None:
            return x
        # The base of a view is the array that owns the memory, unless it went through other types.
        plain = type(base) is np.ndarray and base.base is None and base.flags.owndata
        for dense in self.dense:
            if base is dense.gradients or (not plain and np.may_share_memory(x, dense.gradients)):
                return x.copy()
        return x

    def __getstate__(self) -> dict[str, Any]:
        return self.__dict__ | {"_spare": [], "_without_dropout": {}}
