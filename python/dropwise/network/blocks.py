"""Blocks of a network: one layer, or ``Dense [-> ReLU] [-> Dropout]`` as one masked product.

A `FusedDense` makes the dropout mask first, and then computes only the outputs that are kept.  The
next product skips the zeros of the others.  In backward, a fused block computes the gradient of its
input only where the mask of the block before it let something pass, and multiplies it by that
block's scale.  Masks are those of the layers called one by one; values are the same to rounding.

Blocks do not compute their products themselves.  They append them to a `ProductChain`, so that
several blocks are one call of the backend.
"""

from __future__ import annotations

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

    def __init__(self) -> None:
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
            active().multiply(self._products)
            self._products = []
        for callback in self._callbacks:
            callback()
        self._callbacks = []


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
    workspace: Workspace
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
        self, x: Activations, run: ForwardRun, workspace: Workspace, own_memory: bool
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


@dataclass(slots=True)
class _OutputMask:
    """What a dropout does to the outputs of a product."""

    bits: Bits | None  # packed mask over the outputs that are computed; None: keep them all
    columns: Columns | None  # the columns that are computed; None: all
    scale: float  # of what is kept


class FusedDense:
    """A block of a Dense layer and, where they follow it, its ReLU and its Dropout."""

    has_parameters = True

    def __init__(self, dense: Dense, relu: ReLU | None, dropout: Dropout | None) -> None:
        self.dense, self.relu, self.dropout = dense, relu, dropout

    def forward(
        self, x: Activations, run: ForwardRun, workspace: Workspace, own_memory: bool
    ) -> tuple[Activations, ForwardRecord | None]:
        """The block's output.  The values are set when the chain is computed.

        With `own_memory` they are in a new array, otherwise in the workspace.
        """
        dense, has_relu, context = self.dense, self.relu is not None, run.context
        if context.samples and self.dropout is not None and self.dropout.shares_rows:
            return self._forward_samples(x, run, workspace), None
        if not x.width:
            rows, batch_shape = _arguments.as_rows(x.values, dense.dtype, dense.in_features, dense)
            x = Activations(rows, batch_shape, None, dense.in_features)
        weight = dense.weight if x.columns is None else dense.weight[x.columns]
        bias = dense.bias
        mask = self._next_mask(x, context, workspace)
        if mask.columns is not None:
            weight, bias = weight[:, mask.columns], bias[mask.columns]

        shape = (len(x.values), weight.shape[1])
        values: Array
        if own_memory:
            values = _memory.empty(shape, dense.dtype)
        else:
            values = workspace.array("y", shape, dense.dtype)
        passed: Bits | None = None
        if context.keep_records and has_relu:
            passed = workspace.array("passed", ((values.size + 7) >> 3,), np.uint8)
        rescale = mask.bits is None and mask.scale != 1.0
        run.chain.append(
            Product(
                x.values,
                weight,
                values,
                bias,
                has_relu,
                "a" if dense.skip_zeros else "",
                passed,
                mask.bits,
                mask.scale,
                temporary=not (context.keep_records or own_memory or rescale),
            )
        )
        if rescale:
            run.chain.compute()
            np.multiply(values, dense.dtype.type(mask.scale), out=values)
        y = Activations(values, x.batch_shape, mask.columns, dense.out_features)
        if not context.keep_records:
            return y, None
        return y, ForwardRecord(x, y, mask.bits if passed is None else passed, mask.scale)

    def _forward_samples(
        self, x: Activations, run: ForwardRun, workspace: Workspace
    ) -> Activations:
        """Monte Carlo dropout whose masks are those of samples, not of rows."""
        assert self.dropout is not None
        without = FusedDense(self.dense, self.relu, None)
        y, _ = without.forward(x, run, workspace, own_memory=True)
        run.chain.compute()
        return Activations(self.dropout.drop_samples(y.in_full(), run.context))

    def _next_mask(self, x: Activations, context: RunContext, workspace: Workspace) -> _OutputMask:
        """The mask of this forward."""
        dense, dropout = self.dense, self.dropout
        if dropout is None:
            return _OutputMask(None, None, 1.0)
        rows, width = len(x.values), dense.out_features
        shape = (*x.batch_shape, width)
        noise = dropout.noise_in(context, shape, dense.dtype)
        rate, scale, key, stream, offset, noise_shape = noise[:6]
        if not context.training:
            return _OutputMask(None, None, scale)
        context.remember(dropout, DropoutPass.of_call(shape, dense.dtype, None, noise))
        if noise_shape is not None:  # one bit for each column
            kept = _arrays.make_bits(width, rate, key, stream, offset)
            columns = np.flatnonzero(_arrays.unpack_bits(kept, (width,)))
            return _OutputMask(None, columns, scale)
        bits = workspace.array("mask", ((rows * width + 7) >> 3,), np.uint8)
        active().mask_bits(bits, rows * width, rate, key, stream, offset)
        return _OutputMask(bits, None, scale)

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
        dense, x, columns = self.dense, record.x, record.y.columns
        dz = dy if step.masked else self._mask_gradient(dy, record, step.workspace)
        part = None  # of the weights, if only some columns of x or y were computed
        if x.columns is not None or columns is not None:
            part = np.ix_(
                np.arange(dense.in_features) if x.columns is None else x.columns,
                np.arange(dense.out_features) if columns is None else columns,
            )
        self._parameter_gradients(dz, part, step)
        if not step.input_grad:
            return None
        weight = dense.weight if part is None else dense.weight[part]
        return self._input_gradient(dz, weight, step)

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

    def _parameter_gradients(self, dz: Array, part: Any, step: BackwardStep) -> None:
        """Append ``x.T @ dz`` and the sum of dz's rows, the gradients of weights and bias."""
        dense, x, columns = self.dense, step.record.x.values, step.record.y.columns
        rows, inputs = x.shape
        outputs = dz.shape[1]
        dense.begin_gradients()
        both: Array  # the last row is the bias's
        if part is None:
            both = dense.gradients.reshape(inputs + 1, outputs)
        else:
            both = np.empty((inputs + 1, outputs), dense.dtype)
        skip = "ab" if dense.skip_zeros else ""
        if inputs < min(_FEW_INPUTS, outputs // 4):
            # With a column of ones in x, reading dz once gives both.
            x1 = step.workspace.array("x1", (inputs + 1, rows), x.dtype)
            x1[:-1] = x.T
            x1[-1] = 1
            step.chain.append(Product(x1, dz, both, skip=skip, over_rows=True))
        else:
            ones = step.workspace.array("ones", (1, rows), x.dtype)
            ones[...] = 1
            step.chain.append(Product(x.T, dz, both[:-1], skip=skip, over_rows=True))
            step.chain.append(Product(ones, dz, both[-1:], over_rows=True))
        if part is not None:
            step.chain.call_afterwards(lambda: self._scatter_gradients(both, part, columns))
        step.chain.call_afterwards(dense.complete_gradients)

    def _scatter_gradients(self, both: Array, part: Any, columns: Columns | None) -> None:
        """Set the layer's gradients: `both` in a part of the weights and in `columns`, else 0."""
        dense = self.dense
        gradients = dense.gradients.reshape(dense.in_features + 1, dense.out_features)
        gradients[:-1] = 0
        gradients[:-1][part] = both[:-1]
        gradients[-1] = scatter_columns(both[-1:], columns, dense.out_features)[0]

    def _input_gradient(self, dz: Array, weight: Array, step: BackwardStep) -> Array:
        """Append ``dz @ weight.T``, masked for the block before."""
        dense, x, previous = self.dense, step.record.x, step.previous
        skip = "a" if dense.skip_zeros else ""
        if previous is None:
            dx = _memory.empty(x.values.shape, dense.dtype)
            step.chain.append(Product(dz, weight.T, dx, skip=skip))
            return dx.reshape(*x.batch_shape, dense.in_features)
        dx = step.workspace.array("dx", x.values.shape, dense.dtype)
        rescale = previous.passed is None and previous.scale != 1.0
        step.chain.append(
            Product(
                dz,
                weight.T,
                dx,
                skip=skip,
                bits=previous.passed,
                scale=previous.scale,
                temporary=not rescale,
            )
        )
        if rescale:
            step.chain.compute()
            np.multiply(dx, dense.dtype.type(previous.scale), out=dx)
        return dx
