"""Linear layers with ReLU and dropout between them, as one step that computes no dropped unit.

The masks are made first.  Hidden units that are dropped are never computed, and the next product
and all gradients skip the zeros that dropout and ReLU leave.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor

from dropwise import _memory
from dropwise._arrays import make_bits
from dropwise._backends import active
from dropwise._backends.protocol import Array, Product


class Noise(NamedTuple):
    """The mask of a dropout, and the factor of what it keeps."""

    rate: float
    scale: float
    key: int
    stream: int
    offset: int


def _array(x: Tensor) -> Array:
    array: Array = x.numpy(force=True)
    return array


def _rows(x: Tensor) -> Array:
    """The tensor as a matrix [rows, features]."""
    return _array(x.detach().reshape(-1, x.shape[-1]))


class FeedForward(torch.autograd.Function):
    """``linear(dropout(relu(linear(x))))``, any number of linear layers, perhaps dropout at the end.

    `noises` has one for each dropout, None where nothing is dropped; `parameters` are weight and
    bias of each linear layer in turn.
    """

    @staticmethod
    def forward(
        ctx: Any, x: Tensor, noises: Sequence[Noise | None], *parameters: Tensor | None
    ) -> Tensor:
        weights, biases = parameters[::2], parameters[1::2]
        operand, last = _rows(x), len(weights) - 1
        rows = len(operand)
        products, hidden, masks = [], [], []
        for i, (weight, bias, noise) in enumerate(zip(weights, biases, noises, strict=True)):
            assert weight is not None
            width = len(weight)
            out = _memory.empty((rows, width), operand.dtype)
            bits = None if noise is None else make_bits(out.size, noise.rate, *noise[2:])
            passed = _memory.empty_bits(out.size) if i < last else bits
            products.append(
                Product(
                    operand,
                    _array(weight).T,
                    out,
                    None if bias is None else np.ascontiguousarray(_array(bias)),
                    relu=i < last,
                    skip="a" if i else "",
                    nonzero=passed if i < last else None,
                    bits=bits,
                    scale=1.0 if noise is None else noise.scale,
                )
            )
            operand = out
            hidden.append(None if i == last else torch.from_numpy(out))
            masks.append(None if passed is None else torch.from_numpy(passed))
        active().multiply(products)
        ctx.save_for_backward(x, *parameters, *hidden[:-1], *masks)
        ctx.scales = [product.scale for product in products]
        return torch.from_numpy(operand).view(*x.shape[:-1], operand.shape[1])

    @staticmethod
    def backward(ctx: Any, dy: Tensor) -> tuple[Tensor | None, ...]:
        layers = len(ctx.scales)
        x, *saved = ctx.saved_tensors
        parameters, saved = saved[: 2 * layers], saved[2 * layers :]
        hidden, masks = saved[: layers - 1], saved[layers - 1 :]
        inputs = [_rows(x), *(_array(h) for h in hidden)]
        wanted = ctx.needs_input_grad[2:]
        gradients: list[Array | None] = [None] * (2 * layers)
        dz, products = _rows(dy), []
        if masks[-1] is not None:
            dz = np.ascontiguousarray(dz)
            masked = _memory.empty(dz.shape, dz.dtype)
            active().apply_bits(dz, masked, _array(masks[-1]), ctx.scales[-1])
            dz = masked
        ones = np.ones((1, len(dz)), dz.dtype)
        dx = None
        for i in reversed(range(layers)):
            weight, skip = _array(parameters[2 * i]), "" if i == layers - 1 else "a"
            if wanted[2 * i]:
                out = gradients[2 * i] = _memory.empty(weight.shape, dz.dtype)
                skips = skip + ("b" if i else "")
                products.append(Product(dz.T, inputs[i], out, skip=skips, over_rows=True))
            if wanted[2 * i + 1]:
                out = gradients[2 * i + 1] = np.empty(len(weight), dz.dtype)
                products.append(Product(ones, dz, out[None], over_rows=True))
            if not (ctx.needs_input_grad[0] or any(wanted[: 2 * i])):
                break
            dx = _memory.empty(inputs[i].shape, dz.dtype)
            passed = None if i == 0 else _array(masks[i - 1])
            scale = 1.0 if i == 0 else ctx.scales[i - 1]
            products.append(Product(dz, weight, dx, skip=skip, bits=passed, scale=scale))
            dz = dx
        active().multiply(products)
        of_x = torch.from_numpy(dx).view(x.shape) if ctx.needs_input_grad[0] else None
        return of_x, None, *(None if g is None else torch.from_numpy(g) for g in gradients)
