"""Blocks of a network: one layer, or ``Dense [-> ReLU] [-> Dropout]`` as one masked product.

A `FusedDense` makes the dropout mask first, and then computes only the outputs that are kept.  The
next product skips the zeros of the others.  In backward, a fused block computes the gradient of its
input only where the mask of the block before it let something pass, and multiplies it by that
block's scale.  Masks are those of the layers called one by one; values are the same to rounding.

Blocks do not compute their products themselves.  They append them to a `ProductChain`, so that
several blocks are one call of the backend.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from dropwise import _arguments, _arrays, _memory
from dropwise._backends import active
from dropwise._backends.protocol import Array, Bits, Product
from dropwise.layers.activations import ReLU
from dropwise.layers.base import Layer, class_to_run
from dropwise.layers.dense import Dense
from dropwise.layers.dropout import Dropout
from dropwise.layers.dropout_base import DropoutPass
from dropwise.layers.run import RunContext
from dropwise.network.workspace import Workspace

Columns = NDArray[np.intp]

# With fewer input columns than this, copying x costs less than reading dz a second time.
_FEW_INPUTS = 32


@dataclass(slots=True)
class Activations:
    """The output of a block, and so the input of the next."""

    values: Array  # of a single layer: any shape; of a fused block: [B, width] or [B, len(columns)]
    batch_shape: tuple[int, ...] = ()  # the leading dimensions, whose product is B
    columns: Columns | None = None  # the columns that `values` holds, the others being 0; None: all
    width: int = 0  # columns of the layer's output; 0: `values` are from a single layer

    def in_full(self) -> Array:
        """The values in the shape that the layer returns."""
        if not self.width:
            return self.values
        full = scatter_columns(self.values, self.columns, self.width)
        return full.reshape(*self.batch_shape, self.width)


def scatter_columns(values: Array, columns: Columns | None, width: int) -> Array:
    """A matrix of `width` columns: `values` in these columns, 0 in the others."""
    if columns is None:
        return values
    full = np.zeros((len(values), width), values.dtype)
    full[:, columns] = values
    return full


class ProductChain:
    """Products that are computed in one call, and what has to follow them."""

    def __init__(self, block_rows: int = 0) -> None:
        self._block_rows = block_rows
        self._products: list[Product] = []
        self._callbacks: list[Callable[[], None]] = []

    def append(self, product: Product) -> None:
        """Add a product, which may read the results of earlier ones."""
        self._products.append(product)

    def call_afterwards(self, callback: Callable[[], None]) -> None:
        """Call this after the products have been computed."""
        self._callbacks.append(callback)

    def compute(self) -> None:
        """Compute all products that were appended, then call the callbacks in order."""
        if self._products:
            active().multiply(self._products, self._block_rows)
            self._products = []
        for callback in self._callbacks:
            callback()
        self._callbacks = []


NOTHING: Array = np.empty((0, 0))  # in the place of an array that is not there now


@dataclass(slots=True)
class PreparedForward:
    """The product of a fused block's forward, for runs that differ in values alone."""

    conditions: tuple[Any, ...] | None  # what decides all of it; None: values do, too
    product: Product  # each run sets a, out and scale
    values: Array | None  # the memory of `out`; None: new for each run
    mask: Bits | None  # what the product applies; each run fills it
    columns: Columns | None  # those that are computed; None: all


@dataclass(slots=True)
class PreparedBackward:
    """The products of a fused block's backward, for runs that differ in values alone."""

    conditions: tuple[Any, ...] | None  # what decides all of it; None: values do, too
    gradients: Array  # of the weights and, in the last row, of the bias
    part: Any  # index of what `gradients` are in the layer's weights; None: all
    x1: Array | None  # the columns of x, which each run sets, and one of ones; transposed
    sums: list[Product]  # over the rows; each run sets b and, without x1, the first one's a
    input_gradient: Product | None  # each run sets a, out, bits and scale


class BlockWorkspace(Workspace):
    """The arrays of a block, and the products over them."""

    forward: PreparedForward | None = None
    backward: PreparedBackward | None = None

    def release(self) -> None:
        """Hold no array that is not the workspace's own."""
        if (forward := self.forward) is not None:
            forward.product.a = forward.product.out = NOTHING
        if (backward := self.backward) is not None:
            for product in backward.sums:
                product.b = NOTHING
            if backward.x1 is None:
                backward.sums[0].a = NOTHING
            if backward.input_gradient is not None:
                backward.input_gradient.a = backward.input_gradient.out = NOTHING


@dataclass(slots=True)
class ForwardRecord:
    """What the forward of a fused block leaves for its backward."""

    x: Activations
    y: Activations
    passed: Bits | None  # packed mask over y.values: 1 where the gradient passes; None: everywhere
    scale: float  # of what passes


@dataclass(slots=True)
class ForwardRun:
    """What the blocks share in one forward run."""

    context: RunContext
    chain: ProductChain


@dataclass(slots=True)
class BackwardStep:
    """What a block's backward needs besides the gradient."""

    record: Any  # of this block: a ForwardRecord, or what a single layer left
    previous: ForwardRecord | None  # of the block before it; None: that is not a fused one
    masked: bool  # whether the gradient has been multiplied by this block's mask and scale
    input_grad: bool  # whether the gradient of the input is wanted
    workspace: BlockWorkspace
    chain: ProductChain


class SingleLayer:
    """A block of one layer, which runs by itself."""

    def __init__(self, layer: Layer) -> None:
        self.layer = layer
        self._as = class_to_run(layer)

    @property
    def has_parameters(self) -> bool:
        return self.layer.has_parameters()

    def forward(
        self, x: Activations, run: ForwardRun, workspace: BlockWorkspace, own_memory: bool
    ) -> tuple[Activations, Any]:
        """The layer's output, and its record."""
        run.chain.compute()
        values, context = x.in_full(), run.context
        if not (context.training or context.keep_records):
            return Activations(self.layer.predict(values)), None
        y, record = self._as._run(self.layer, values, context)
        return Activations(y), record

    def backward(self, dy: Array, step: BackwardStep) -> Array:
        """The gradient with respect to the layer's input."""
        step.chain.compute()
        return self._as._gradient(self.layer, step.record, dy)


class FusedDense:
    """A block of a Dense layer and, where they follow it, its ReLU and its Dropout."""

    has_parameters = True

    def __init__(self, dense: Dense, relu: ReLU | None, dropout: Dropout | None) -> None:
        self.dense, self.relu, self.dropout = dense, relu, dropout

    def forward(
        self, x: Activations, run: ForwardRun, workspace: BlockWorkspace, own_memory: bool
    ) -> tuple[Activations, ForwardRecord | None]:
        """The block's output.  The values are set when the chain is computed.

        With `own_memory` they are in a new array, otherwise in the workspace.
        """
        dense, dropout, context = self.dense, self.dropout, run.context
        if context.samples and dropout is not None and dropout.shares_rows:
            return self._forward_samples(x, run, workspace), None
        if not x.width:
            rows, batch_shape = _arguments.as_rows(x.values, dense.dtype, dense.in_features, dense)
            x = Activations(rows, batch_shape, None, dense.in_features)
        noise = None
        if dropout is not None:
            shape = (*x.batch_shape, dense.out_features)
            noise = dropout.noise_in(context, shape, dense.dtype)
            if context.training:
                context.remember(dropout, DropoutPass(shape, dense.dtype, None, *noise))

        conditions = None
        if x.columns is None and (noise is None or not self._drops_columns(noise)):
            parameters = dense.parameter_values()[0]
            conditions = (
                len(x.values),
                id(parameters),
                dense.skip_zeros,
                own_memory,
                context.training,
                context.keep_records,
                None if noise is None else noise.scale == 1.0,
            )
        ready = workspace.forward
        if ready is None or conditions is None or ready.conditions != conditions:
            ready = self._prepare_forward(conditions, x, noise, context, workspace, own_memory)
            workspace.forward = ready
        product, mask, scale = ready.product, ready.mask, 1.0
        values = ready.values
        if values is None:
            values = _memory.empty((len(x.values), product.b.shape[1]), dense.dtype)
        product.a, product.out = x.values, values
        if noise is not None:
            rate, scale, key, stream, offset, _, _, _ = noise
            if mask is not None:
                assert type(offset) is int
                active().mask_bits(mask, values.size, rate, key, stream, offset)
                product.scale = scale
        run.chain.append(product)
        if mask is None and scale != 1.0:
            run.chain.compute()
            np.multiply(values, dense.dtype.type(scale), out=values)
        y = Activations(values, x.batch_shape, ready.columns, dense.out_features)
        if not context.keep_records:
            return y, None
        return y, ForwardRecord(x, y, mask if self.relu is None else product.nonzero, scale)

    def _drops_columns(self, noise: _arrays.NoiseSpec) -> bool:
        """Whether all rows share a mask.  A batch of one row is no exception, so that its results
        are those of the same row among others.
        """
        assert self.dropout is not None
        return noise.noise_shape is not None or self.dropout.shares_rows

    def _prepare_forward(
        self,
        conditions: tuple[Any, ...] | None,
        x: Activations,
        noise: _arrays.NoiseSpec | None,
        context: RunContext,
        workspace: Workspace,
        own_memory: bool,
    ) -> PreparedForward:
        """What ``forward`` needs for such a run, but for the values."""
        dense = self.dense
        weight = dense.weight if x.columns is None else dense.weight[x.columns]
        bias = dense.bias
        mask = columns = None
        if noise is not None and context.training:
            if not self._drops_columns(noise):
                size = len(x.values) * dense.out_features
                mask = workspace.array("mask", ((size + 7) >> 3,), np.uint8)
            else:  # one bit for each column
                rate, _, key, stream, offset, _, _, _ = noise
                kept = _arrays.make_bits(dense.out_features, rate, key, stream, offset)
                columns = np.flatnonzero(_arrays.unpack_bits(kept, (dense.out_features,)))
                weight, bias = weight[:, columns], bias[columns]
        shape = (len(x.values), weight.shape[1])
        passed = None
        if context.keep_records and self.relu is not None:
            passed = workspace.array("passed", ((math.prod(shape) + 7) >> 3,), np.uint8)
        rescale = mask is None and noise is not None and noise.scale != 1.0
        product = Product(
            NOTHING,
            weight,
            NOTHING,
            bias,
            relu=self.relu is not None,
            skip="a" if dense.skip_zeros else "",
            nonzero=passed,
            bits=mask,
            temporary=not (context.keep_records or own_memory or rescale),
        )
        values = None if own_memory else workspace.array("y", shape, dense.dtype)
        return PreparedForward(conditions, product, values, mask, columns)

    def _forward_samples(
        self, x: Activations, run: ForwardRun, workspace: BlockWorkspace
    ) -> Activations:
        """Monte Carlo dropout whose masks are those of samples, not of rows."""
        assert self.dropout is not None
        without = FusedDense(self.dense, self.relu, None)
        y, _ = without.forward(x, run, workspace, own_memory=True)
        run.chain.compute()
        return Activations(self.dropout.drop_samples(y.in_full(), run.context))

    def backward(self, dy: Array, step: BackwardStep) -> Array | None:
        """The gradients of the layer and of the block's input, set when the chain is computed.

        Parameters
        ----------
        dy : ndarray
            The gradient with respect to the block's output or, if it is masked already, to the
            output of the Dense layer, in the columns of ``step.record.y``.
        step : BackwardStep

        Returns
        -------
        ndarray, or None if not wanted
            If the block before is a fused one: masked for that block, and in the workspace.
            Otherwise in a new array of the input's shape.
        """
        record: ForwardRecord = step.record
        previous, dense, x = step.previous, self.dense, record.x.values
        dz = dy if step.masked else self._mask_gradient(dy, record, step.workspace)
        rescale = previous is not None and previous.passed is None and previous.scale != 1.0
        conditions = None
        if record.x.columns is None and record.y.columns is None:
            parameters = dense.parameter_values()[0]
            conditions = (
                len(x),
                id(parameters),
                id(dense.gradients),
                dense.skip_zeros,
                step.input_grad,
                previous is None,
                rescale,
            )
        ready = step.workspace.backward
        if ready is None or conditions is None or ready.conditions != conditions:
            ready = self._prepare_backward(conditions, step, temporary=not rescale)
            step.workspace.backward = ready

        dense.begin_gradients()
        if ready.x1 is None:
            ready.sums[0].a = x.T
        else:
            ready.x1[:-1] = x.T
        for product in ready.sums:
            product.b = dz
            step.chain.append(product)
        if ready.part is not None:
            gradients, part, columns = ready.gradients, ready.part, record.y.columns
            step.chain.call_afterwards(lambda: self._scatter_gradients(gradients, part, columns))
        step.chain.call_afterwards(dense.complete_gradients)
        to_input = ready.input_gradient
        if to_input is None:
            return None
        to_input.a = dz
        if previous is None:
            dx = to_input.out = _memory.empty(x.shape, dense.dtype)
            step.chain.append(to_input)
            return dx.reshape(*record.x.batch_shape, dense.in_features)
        dx = to_input.out = step.workspace.array("dx", x.shape, dense.dtype)
        to_input.bits, to_input.scale = previous.passed, previous.scale
        step.chain.append(to_input)
        if rescale:
            step.chain.compute()
            np.multiply(dx, dense.dtype.type(previous.scale), out=dx)
        return dx

    def _mask_gradient(self, dy: Array, record: ForwardRecord, workspace: Workspace) -> Array:
        """The gradient of the Dense layer's output, from that of the block's output."""
        dy = _arguments.as_operand(dy, self.dense.dtype).reshape(-1, self.dense.out_features)
        if record.y.columns is not None:
            dy = dy[:, record.y.columns]
        if record.passed is None and record.scale == 1.0:
            return dy
        dz = workspace.array("dz", dy.shape, dy.dtype)
        if record.passed is None:
            np.multiply(dy, dy.dtype.type(record.scale), out=dz)
            return dz
        return _arrays.apply_mask(dy, dz, record.passed, record.scale, None)

    def _prepare_backward(
        self, conditions: tuple[Any, ...] | None, step: BackwardStep, *, temporary: bool
    ) -> PreparedBackward:
        """What ``backward`` needs for such a step, but for the values.

        With `temporary`, only the block before reads the gradient of the input.
        """
        dense, x, columns = self.dense, step.record.x, step.record.y.columns
        rows, inputs = x.values.shape
        weight, part = dense.weight, None
        gradients: Array = dense.gradients.reshape(dense.in_features + 1, dense.out_features)
        if x.columns is not None or columns is not None:
            part = np.ix_(
                np.arange(dense.in_features) if x.columns is None else x.columns,
                np.arange(dense.out_features) if columns is None else columns,
            )
            weight = weight[part]
            gradients = np.empty((inputs + 1, weight.shape[1]), dense.dtype)
        skip = "ab" if dense.skip_zeros else ""
        x1 = None
        if inputs < min(_FEW_INPUTS, weight.shape[1] // 4):
            # With a column of ones in x, reading dz once gives both.
            x1 = step.workspace.array("x1", (inputs + 1, rows), x.values.dtype)
            x1[-1] = 1
            sums = [Product(x1, NOTHING, gradients, skip=skip, over_rows=True)]
        else:
            ones = step.workspace.array("ones", (1, rows), x.values.dtype)
            ones[...] = 1
            sums = [
                Product(NOTHING, NOTHING, gradients[:-1], skip=skip, over_rows=True),
                Product(ones, NOTHING, gradients[-1:], over_rows=True),
            ]
        input_gradient = None
        if step.input_grad:
            input_gradient = Product(
                NOTHING,
                weight.T,
                NOTHING,
                skip="a" if dense.skip_zeros else "",
                temporary=temporary and step.previous is not None,
            )
        return PreparedBackward(conditions, gradients, part, x1, sums, input_gradient)

    def _scatter_gradients(self, both: Array, part: Any, columns: Columns | None) -> None:
        """Set the layer's gradients: `both` in a part of the weights and in `columns`, else 0."""
        dense = self.dense
        gradients = dense.gradients.reshape(dense.in_features + 1, dense.out_features)
        gradients[:-1] = 0
        gradients[:-1][part] = both[:-1]
        gradients[-1] = scatter_columns(both[-1:], columns, dense.out_features)[0]
