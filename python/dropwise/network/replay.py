"""A training run with the products of the run before, of which only the values differ."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from dropwise import _memory
from dropwise._backends import active
from dropwise._backends.protocol import Array, Product
from dropwise.layers.dropout_base import DropoutPass
from dropwise.layers.run import RunContext
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
    block_rows : int
        Of the products: 0, or rows that are computed as if they were alone.

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
        block_rows: int,
    ) -> None:
        self.records, self.block_rows = records, block_rows
        x, y = records[0].x.values, records[-1].y.values
        self._shape, self._y_shape, self._dtype = x.shape, y.shape, y.dtype
        self._backend = active()
        self._dense = [block.dense for block in blocks]
        self._layers = [
            (dense, dense.parameter_values()[0], dense.gradients, dense.skip_zeros)
            for dense in self._dense
        ]
        self._prepare_forward(blocks, workspaces)
        self._prepare_backward(workspaces)
        for workspace in workspaces:
            workspace.release()

    def _prepare_forward(
        self, blocks: Sequence[FusedDense], workspaces: Sequence[BlockWorkspace]
    ) -> None:
        self._dropouts = []
        products: list[Product] = []
        varying = [(0, "a"), (len(blocks) - 1, "out")]
        for i, (block, workspace) in enumerate(zip(blocks, workspaces, strict=True)):
            ready, record = workspace.forward, self.records[i]
            assert ready is not None
            # The forward may have been a replay, which leaves the records alone.
            ready.product.a, ready.product.out = record.x.values, record.y.values
            products.append(ready.product)
            if block.dropout is not None:
                assert ready.mask is not None
                shape, size = record.y.values.shape, record.y.values.size
                self._dropouts.append((block.dropout, record, ready.mask, shape, size))
                varying.append((i, "scale"))
        self._multiply_forward = self._backend.prepare(products, varying, self.block_rows)

    def _prepare_backward(self, workspaces: Sequence[BlockWorkspace]) -> None:
        products: list[Product] = []
        of_x, of_dy, of_scales = [], [], []
        self._copied_inputs = []
        self._scaled_by = []
        for i in range(len(workspaces) - 1, -1, -1):
            back = workspaces[i].backward
            assert back is not None
            is_last = i == len(workspaces) - 1
            if back.x1 is not None:
                self._copied_inputs.append((back.x1[:-1], self.records[i].x))
            elif i == 0:
                of_x.append((len(products), "a"))
            for product in back.sums:
                if is_last:
                    of_dy.append((len(products), "b"))
                products.append(product)
            if back.input_gradient is not None:
                if is_last:
                    of_dy.append((len(products), "a"))
                of_scales.append((len(products), "scale"))
                self._scaled_by.append(self.records[i - 1])
                products.append(back.input_gradient)
        self._reads_x, self._reads_dy = bool(of_x), len(of_dy)
        varying = of_x + of_dy + of_scales
        self._multiply_backward = self._backend.prepare(products, varying, self.block_rows)

    def forward(self, x: Array, context: RunContext | None = None) -> Array | None:
        """The output of the last block; None if this run needs other products.

        Without a context it is a run of a whole batch, and the streams of its masks are used up.
        """
        if (
            type(x) is not np.ndarray
            or x.shape != self._shape
            or x.dtype != self._dtype
            or not x.flags.aligned
            or not self._has_the_layers()
        ):
            return None
        dtype, taken = self._dtype, []
        scales = []
        try:
            for dropout, record, bits, shape, size in self._dropouts:
                if context is None:
                    rate, scale, key, stream = dropout.next_noise(dtype)
                    taken.append((dropout, (shape, dtype, None, rate, scale, key, stream, False)))
                    self._backend.mask_bits(bits, size, rate, key, stream, 0)
                else:
                    noise = dropout.noise_in(context, shape, dtype)
                    rate, scale, key, stream, offset, _, _, _ = noise
                    assert type(offset) is int
                    self._backend.mask_bits(bits, size, rate, key, stream, offset)
                    context.remember(dropout, DropoutPass(shape, dtype, None, *noise))
                record.scale = scale
                scales.append(scale)
            y = _memory.empty(self._y_shape, dtype)
            self._multiply_forward((x, y, *scales))
        except BaseException:
            for dropout, left in taken:
                dropout.give_back(left[6])
            raise
        self.records[0].x.values, self.records[-1].y.values = x, y
        for dropout, left in taken:
            dropout.remember(left)
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
        values: list[Any] = [self.records[0].x.values.T] if self._reads_x else []
        values += [dy] * self._reads_dy
        values += [record.scale for record in self._scaled_by]
        self._multiply_backward(tuple(values))
        for dense in reversed(self._dense):
            dense.complete_gradients()
        return True

    def _has_the_layers(self) -> bool:
        """Whether backend and layers are as they were, but for values."""
        for dense, parameters, gradients, skip_zeros in self._layers:
            if (
                dense._parameters is not parameters
                or dense.gradients is not gradients
                or dense.skip_zeros is not skip_zeros
            ):
                return False
        return active() is self._backend

    def release(self) -> None:
        """Hold no array that was given or returned."""
        self.records[0].x.values = self.records[-1].y.values = NOTHING


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
