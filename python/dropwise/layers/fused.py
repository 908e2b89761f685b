"""Groups ``Dense [-> ReLU] [-> Dropout]`` that run as one: dropped units are never computed.

Forward makes the mask first and then only the outputs that it keeps.  What flows to the next group
has zeros, which its product skips.  Backward, a group writes the gradient of its input only where
the group before let something pass, already times that group's scale (it is "gated").  The results
are those of the layers one by one, to rounding, and with the same masks.

`functional` has checked the input of the first group; from there on the arrays are our own.  Groups
only say which products they need: a chain of groups is one call of the backend.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from dropwise import _memory, functional
from dropwise._backends import active
from dropwise._backends.protocol import Array, Bits, Product
from dropwise.layers.base import Layer
from dropwise.layers.dense import Dense
from dropwise.layers.dropout import Dropout
from dropwise.layers.relu import ReLU

# So few columns of x cost less to copy than it costs to read the gradient of what they made twice.
_FEW_INPUTS = 32


class Workspace:
    """Arrays by name, kept between calls: fresh memory costs more in page faults than to fill."""

    def __init__(self) -> None:
        self._arrays: dict[str, Array] = {}

    def array(self, name: str, shape: tuple[int, ...], dtype: Any) -> Array:
        """An array with whatever was in it; the last one of that name is void."""
        size = math.prod(shape)
        flat = self._arrays.get(name)
        if flat is None or flat.size < size or flat.dtype != dtype:
            flat = self._arrays[name] = np.empty(size, dtype)
        return flat[:size].reshape(shape)

    def __reduce__(self) -> tuple[type[Workspace], tuple[()]]:
        return Workspace, ()  # copies and pickles start empty


@dataclass(slots=True)
class Flow:
    """What one block hands to the next."""

    values: Array  # any shape from a plain layer; [B, N], or [B, len(columns)], from a group
    lead: tuple[int, ...] = ()  # the dimensions that B stands for
    columns: NDArray[np.intp] | None = None  # those of the N columns that are there; others are 0
    width: int = 0  # N; 0: values are from a plain layer

    def full(self) -> Array:
        """The values in their own shape."""
        if not self.width:
            return self.values
        return spread(self.values, self.columns, self.width).reshape(*self.lead, self.width)


def spread(values: Array, columns: NDArray[np.intp] | None, width: int) -> Array:
    """Put columns at their places among zeros."""
    if columns is None:
        return values
    full = np.zeros((len(values), width), values.dtype)
    full[:, columns] = values
    return full


@dataclass(slots=True)
class Trace:
    """What a group's forward leaves for its backward."""

    x: Flow
    y: Flow
    bits: Bits | None  # where the group let something pass, over y.values; None: everywhere
    scale: float  # of what passed


class Chain:
    """Products that wait to be computed in one call, and what there is to do after them."""

    def __init__(self) -> None:
        self.products: list[Product] = []
        self.then: list[Callable[[], None]] = []

    def run(self) -> None:
        """Compute what waits."""
        if self.products:
            active().multiply(self.products)
            self.products = []
        if self.then:
            for do in self.then:
                do()
            self.then = []


class Plain:
    """A block of one layer that runs by itself."""

    def __init__(self, layer: Layer) -> None:
        self.layer = layer

    @property
    def trains(self) -> bool:
        """Whether it has parameters."""
        return bool(self.layer.parameters())

    def forward(
        self,
        x: Flow,
        training: bool,
        space: Workspace,
        chain: Chain,
        *,
        trace: bool,
        fresh: bool,
    ) -> tuple[Flow, None]:
        chain.run()
        if trace or training:
            return Flow(self.layer.forward(x.full(), training)), None
        return Flow(self.layer.predict(x.full())), None

    def backward(
        self,
        trace: Trace | None,
        dy: Array,
        before: Trace | None,
        space: Workspace,
        chain: Chain,
        *,
        gated: bool,
        want_dx: bool,
    ) -> Array:
        chain.run()
        return self.layer.backward(dy)


class Group:
    """A block of a Dense layer and, where they follow, its ReLU and Dropout."""

    trains = True

    def __init__(self, dense: Dense, relu: ReLU | None, dropout: Dropout | None) -> None:
        self.dense, self.relu, self.dropout = dense, relu, dropout
        self._skip = "a" if dense.skip_zeros else ""

    # ---- forward

    def forward(
        self,
        x: Flow,
        training: bool,
        space: Workspace,
        chain: Chain,
        *,
        trace: bool,
        fresh: bool,
    ) -> tuple[Flow, Trace | None]:
        """The group's output once `chain` has run, and a trace if asked for.

        The output lies in memory of its own if `fresh`, else in the workspace for the next group.
        """
        dense, dropout = self.dense, self.dropout
        dtype, width = dense.dtype, dense.out_features
        if not x.width:
            rows, lead = functional.as_rows(x.values, dtype, dense.in_features, dense)
            x = Flow(rows, lead, None, dense.in_features)
        weight = dense.weight if x.columns is None else dense.weight[x.columns]
        bias, relu = dense.bias, self.relu is not None
        n_rows = len(x.values)

        columns: NDArray[np.intp] | None = None
        mask: Bits | None = None
        scale = 1.0
        if dropout is not None and not training:
            _, scale = functional.rate_and_scale(dropout.rate, dropout.scaling, False, dtype)
        elif dropout is not None:
            shape = (*x.lead, width)
            _, _, rate, scale, key, stream, _, noise, bits = dropout.begin(shape, dtype, True)
            if noise is not None:
                kept = functional.make_bits(width, rate, key, stream, 0)
                if bits is not None:
                    bits[...] = kept
                columns = np.flatnonzero(functional.unpack_bits(kept, (width,)))
                weight, bias = weight[:, columns], bias[columns]
            else:
                mask = bits
                if mask is None:
                    mask = space.array("mask", ((n_rows * width + 7) >> 3,), np.uint8)
                active().mask_bits(mask, n_rows * width, rate, key, stream, 0)
        shape = (n_rows, width if columns is None else len(columns))
        values = _memory.empty(shape, dtype) if fresh else space.array("y", shape, dtype)
        bits = mask
        passed: Bits | None = None
        if trace and relu:
            bits = passed = space.array("passed", ((values.size + 7) >> 3,), np.uint8)
        rescale = mask is None and scale != 1.0
        chain.products.append(
            Product(
                x.values,
                weight,
                values,
                bias,
                relu,
                self._skip,
                passed,
                mask,
                scale,
                temporary=not (trace or fresh or rescale),
            )
        )
        if rescale:
            chain.run()
            np.multiply(values, dtype.type(scale), out=values)
        y = Flow(values, x.lead, columns, width)
        if not trace:
            return y, None
        return y, Trace(x, y, bits, scale)

    # ---- backward

    def backward(
        self,
        trace: Trace | None,
        dy: Array,
        before: Trace | None,
        space: Workspace,
        chain: Chain,
        *,
        gated: bool,
        want_dx: bool,
    ) -> Array | None:
        """The layer's gradients, and that of the group's input, once `chain` has run.

        `dy` is the gradient of what the Dense computed, in the group's columns, if `gated`, else
        that of what the group gave.  `before` is the trace of the group that made ``trace.x``: the
        result is gated for it, and lies in the workspace.  If no group made it, `before` is None
        and the result has the shape of the input, in fresh memory.
        """
        assert trace is not None
        dense, x, columns = self.dense, trace.x, trace.y.columns
        dz = dy if gated else self._gate(dy, trace, space)
        weight, gradients = dense.weight, dense.gradients
        if x.columns is not None or columns is not None:
            part = np.ix_(
                np.arange(dense.in_features) if x.columns is None else x.columns,
                np.arange(dense.out_features) if columns is None else columns,
            )
            weight = weight[part]
            gradients = np.empty(weight.size + weight.shape[1], dense.dtype)
        both = gradients.reshape(-1, weight.shape[1])
        self._add_gradients(x.values, dz, both, space, chain)
        if gradients is not dense.gradients:
            chain.then.append(lambda: self._spread_gradients(both, part, columns))
        chain.then.append(dense.add_penalties)
        if not want_dx:
            return None
        shape, dtype = x.values.shape, dense.dtype
        if before is None:
            dx = _memory.empty(shape, dtype)
            chain.products.append(Product(dz, weight.T, dx, skip=self._skip))
            return dx.reshape(*x.lead, dense.in_features)
        dx = space.array("dx", shape, dtype)
        rescale = before.bits is None and before.scale != 1.0
        chain.products.append(
            Product(
                dz,
                weight.T,
                dx,
                skip=self._skip,
                bits=before.bits,
                scale=before.scale,
                temporary=not rescale,
            )
        )
        if rescale:
            chain.run()
            np.multiply(dx, dtype.type(before.scale), out=dx)
        return dx

    def _add_gradients(
        self, x: Array, dz: Array, both: Array, space: Workspace, chain: Chain
    ) -> None:
        """Ask for ``x.T @ dz`` and, in the last row of `both`, the sum of the rows of `dz`."""
        rows, inputs = x.shape
        skip = "ab" if self.dense.skip_zeros else ""
        if inputs < min(_FEW_INPUTS, both.shape[1] // 4):
            # With a column of ones in x, reading dz once gives both.
            x1 = space.array("x1", (inputs + 1, rows), x.dtype)
            x1[:-1] = x.T
            x1[-1] = 1
            chain.products.append(Product(x1, dz, both, skip=skip, over_rows=True))
            return
        ones = space.array("ones", (1, rows), x.dtype)
        ones[...] = 1
        chain.products.append(Product(x.T, dz, both[:-1], skip=skip, over_rows=True))
        chain.products.append(Product(ones, dz, both[-1:], over_rows=True))

    def _spread_gradients(self, both: Array, part: Any, columns: NDArray[np.intp] | None) -> None:
        """Put the gradients of some columns of the layer, or for some of its inputs, in place."""
        dense = self.dense
        dense.grad_weight[...] = 0
        dense.grad_weight[part] = both[:-1]
        dense.grad_bias[...] = spread(both[-1:], columns, dense.out_features)[0]

    def _gate(self, dy: Array, trace: Trace, space: Workspace) -> Array:
        """The gradient of what the Dense computed, from that of what the group gave."""
        dy = functional.as_operand(dy, self.dense.dtype).reshape(-1, self.dense.out_features)
        if trace.y.columns is not None:
            dy = dy[:, trace.y.columns]
        if trace.bits is None and trace.scale == 1.0:
            return dy
        dz = space.array("dz", dy.shape, dy.dtype)
        if trace.bits is None:
            np.multiply(dy, dy.dtype.type(trace.scale), out=dz)
            return dz
        return functional.apply_mask(dy, dz, trace.bits, trace.scale, None)


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
