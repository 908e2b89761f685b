"""A training run with the products of the run before, of which only the values differ."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from dropwise import _memory
from dropwise._backends import active
from dropwise._backends.protocol import Array
from dropwise.network.blocks import NOTHING, BlockWorkspace, ForwardRecord, FusedDense


class Replay:
    """The forward and backward of a chain of fused blocks, as one list of products each.

    Parameters
    ----------
    blocks : sequence of FusedDense
    records : list of ForwardRecord
        What the forward of each block left, in a run that `can_replay`.
    workspaces : sequence of BlockWorkspace
        What the blocks prepared in that run.

    Notes
    -----
    The steps of training that follow each other differ in their rows and masks alone.  To go
    through the blocks takes longer than the products of a small network.
    """

    def __init__(
        self,
        blocks: Sequence[FusedDense],
        records: list[ForwardRecord],
        workspaces: Sequence[BlockWorkspace],
    ) -> None:
        self.records = records
        x, y = records[0].x.values, records[-1].y.values
        self._shape, self._y_shape, self._dtype = x.shape, y.shape, y.dtype
        self._dense = [block.dense for block in blocks]
        self._layers = [
            (dense, dense.parameter_values()[0], dense.gradients, dense.skip_zeros)
            for dense in self._dense
        ]
        self._forward = []
        self._dropouts = []
        for block, record, workspace in zip(blocks, records, workspaces, strict=True):
            ready = workspace.forward
            assert ready is not None
            self._forward.append(ready.product)
            if block.dropout is not None:
                assert ready.mask is not None
                shape, size = record.y.values.shape, record.y.values.size
                made = (block.dropout, record, ready.product, ready.mask, shape, size)
                self._dropouts.append(made)
        self._backward = []
        self._to_input = []
        self._copied_inputs = []
        for i in range(len(blocks) - 1, -1, -1):
            back = workspaces[i].backward
            assert back is not None
            self._backward += back.sums
            if back.x1 is not None:
                self._copied_inputs.append((back.x1[:-1], records[i].x))
            if back.input_gradient is not None:
                self._backward.append(back.input_gradient)
                self._to_input.append((back.input_gradient, records[i - 1]))
        first, last = workspaces[0].backward, workspaces[-1].backward
        assert first is not None
        assert last is not None
        self._reads_x = first.sums[0] if first.x1 is None else None
        self._last_sums, self._last_to_input = last.sums, last.input_gradient

    def forward(self, x: Array) -> Array | None:
        """The output of the last block; None if this run needs other products.

        The streams of its masks are used up.
        """
        if (
            type(x) is not np.ndarray
            or x.shape != self._shape
            or x.dtype != self._dtype
            or not x.flags.aligned
            or not self._has_the_layers()
        ):
            return None
        backend, dtype, used = active(), self._dtype, []
        for dropout, record, product, bits, shape, size in self._dropouts:
            rate, scale, key, stream = dropout.next_noise(dtype)
            backend.mask_bits(bits, size, rate, key, stream, 0)
            product.scale = record.scale = scale
            used.append((dropout, stream, (shape, dtype, None, rate, scale, key, stream, False)))
        y = _memory.empty(self._y_shape, dtype)
        self._forward[0].a = self.records[0].x.values = x
        self._forward[-1].out = self.records[-1].y.values = y
        backend.multiply(self._forward)
        for dropout, stream, taken in used:
            dropout.use_up(stream, taken)
        return y

    def backward(self, dy: Array) -> bool:
        """Set the gradients of all layers, from that of the last block's output.

        False if that needs other products: nothing has changed then.
        """
        if dy.dtype != self._dtype or not dy.flags.aligned or not self._has_the_layers():
            return False
        for dense in self._dense:
            dense.begin_gradients()
        for part, x in self._copied_inputs:
            part[...] = x.values.T
        if self._reads_x is not None:
            self._reads_x.a = self.records[0].x.values.T
        for product in self._last_sums:
            product.b = dy
        if self._last_to_input is not None:
            self._last_to_input.a = dy
        for product, previous in self._to_input:
            product.scale = previous.scale
        active().multiply(self._backward)
        for dense in reversed(self._dense):
            dense.complete_gradients()
        return True

    def _has_the_layers(self) -> bool:
        """Whether the layers are as they were, but for values."""
        for dense, parameters, gradients, skip_zeros in self._layers:
            if (
                dense._parameters is not parameters
                or dense.gradients is not gradients
                or dense.skip_zeros is not skip_zeros
            ):
                return False
        return True

    def release(self) -> None:
        """Hold no array that was given or returned."""
        self._forward[0].a = self.records[0].x.values = NOTHING
        self._forward[-1].out = self.records[-1].y.values = NOTHING
        if self._reads_x is not None:
            self._reads_x.a = NOTHING
        for product in self._last_sums:
            product.b = NOTHING
        if self._last_to_input is not None:
            self._last_to_input.a = NOTHING


def can_replay(records: Sequence[Any], workspaces: Sequence[BlockWorkspace]) -> bool:
    """Whether this training run, after its backward, can be replayed with other values."""
    return (
        all(
            w.forward is not None
            and w.forward.conditions is not None
            and w.backward is not None
            and w.backward.conditions is not None
            for w in workspaces
        )
        and len(records[0].x.batch_shape) == 1
        # No step of its own beside the products.
        and all(record.passed is not None or record.scale == 1.0 for record in records)
        and records[-1].passed is None
    )
