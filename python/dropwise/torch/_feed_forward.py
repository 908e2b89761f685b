"""Linear layers with ReLU and dropout between them, as one step that computes no dropped unit.

The masks are made first.  Hidden units that are dropped are never computed, and the next product
and all gradients skip the zeros that dropout and ReLU leave.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from dropwise import _memory
from dropwise._arrays import make_bits, unpack_bits
from dropwise._backends import active
from dropwise._backends.protocol import Array, Product
from dropwise._dtypes import rate_and_scale
from dropwise.torch._eager import (
    differentiable_gradients,
    is_bare,
    is_eager,
    is_plain,
    next_mask,
)
from dropwise.torch._tensors import Mask, saved_bits
from dropwise.torch.modules import Dropout

# Multiplications in the first product from which on one step takes less time than its layers.
_WORTH = 1 << 19


def feed_forward(x: Tensor, *layers: nn.Module) -> Tensor:
    """Linear layers with ReLU and dropout between them, in less time the more is dropped.

    Parameters
    ----------
    x : Tensor, shape (..., features)
    *layers : nn.Module
        Linear layers and dropouts in turn, a linear layer first: ``linear1, dropout, linear2`` is
        ``linear2(dropout(relu(linear1(x))))``.  With more pairs of dropout and linear layer there
        are more hidden layers; a dropout at the end acts on the result.

    Returns
    -------
    Tensor, shape (..., features of the last linear layer)

    Raises
    ------
    ValueError
        If there are fewer than three layers.

    Notes
    -----
    Masks are those of the layers called one by one, and values and gradients the same to rounding.
    A unit that is zero contributes nothing to the next layer, not even NaN where a weight is
    infinite.

    The layers are called one by one if there is little to compute, and unless they are exactly
    `torch.nn.Linear` and `dropwise.torch.Dropout` in training, without hooks, parametrizations or
    compiled forwards, and tensors are float32 on the CPU, under no autocast, compiler, tracer or
    transform of `torch.func`.

    Examples
    --------
    >>> import torch
    >>> from torch import nn
    >>> import dropwise.torch as dt
    >>> first, second = nn.Linear(4, 8), nn.Linear(8, 2)
    >>> dt.feed_forward(torch.ones(3, 5, 4), first, dt.Dropout(0.5), second).shape
    torch.Size([3, 5, 2])
    """
    if len(layers) < 3:
        raise ValueError(
            f"feed_forward needs a linear layer, a dropout and a linear layer, got {len(layers)}"
        )
    if can_fuse(x, layers):
        return fused(x, layers)
    last = (len(layers) - 1) // 2 * 2
    for i, layer in enumerate(layers):
        x = layer(x)
        if i % 2 == 0 and i < last:
            x = F.relu(x)
    return x


def can_fuse(x: Tensor, layers: Sequence[Any]) -> bool:
    """Whether `fused` computes what the layers would, called one by one with ReLU between them, and
    in less time.
    """
    if not is_plain(x, (torch.float32,)) or x.dim() == 0 or not is_eager(x):
        return False
    if torch.is_autocast_enabled("cpu"):
        return False
    features = x.shape[-1]
    for layer in layers[::2]:
        if type(layer) is not nn.Linear or not is_bare(layer):
            return False
        weight, bias = layer.weight, layer.bias
        if not (is_plain(weight, (torch.float32,)) and is_plain(bias, (torch.float32,))):
            return False
        if weight.shape[1:] != (features,):
            return False
        features = len(weight)
    if x.numel() * len(layers[0].weight) < _WORTH:
        return False
    return all(
        type(layer) is Dropout and layer.training and 0.0 <= layer.p <= 1.0 and is_bare(layer)
        for layer in layers[1::2]
    )


def fused(x: Tensor, layers: Sequence[Any]) -> Tensor:
    """The layers with ReLU between them as one step.  `can_fuse` has said yes."""
    masks: list[Mask | None] = []
    parameters: list[Tensor | None] = []
    for i, linear in enumerate(layers[::2]):
        parameters += (linear.weight, linear.bias)
        dropout = layers[2 * i + 1] if 2 * i + 1 < len(layers) else None
        shape = (*x.shape[:-1], len(linear.weight))
        masks.append(None if dropout is None else next_mask(dropout, dropout.p, shape))
    return _apply(x, masks, *parameters)


def _array(x: Tensor) -> Array:
    array: Array = x.numpy(force=True)
    return array


def _rows(x: Tensor) -> Array:
    """The tensor as a matrix [rows, features]."""
    return _array(x.detach().reshape(-1, x.shape[-1]))


class FeedForward(torch.autograd.Function):
    """``linear(dropout(relu(linear(x))))``, for any number of linear layers.

    `masks` has that of the dropout after each linear layer, None where nothing is dropped;
    `parameters` are weight and bias of each in turn.
    """

    @staticmethod
    def forward(
        ctx: Any, x: Tensor, masks: Sequence[Mask | None], *parameters: Tensor | None
    ) -> Tensor:
        operand, last = _rows(x), len(masks) - 1
        rows, dtype = len(operand), operand.dtype
        products: list[Product] = []
        hidden: list[Tensor] = []
        # After a hidden layer: where the gradient passes ReLU and dropout; at the end: the mask.
        passed: list[Tensor | None] = []
        for i, mask in enumerate(masks):
            weight, bias = parameters[2 * i], parameters[2 * i + 1]
            assert weight is not None
            out = _memory.empty((rows, len(weight)), dtype)
            product = Product(operand, _array(weight).T, out, skip="a" if i else "")
            if bias is not None:
                product.bias = np.ascontiguousarray(_array(bias))
            if mask is not None:
                product.bits = make_bits(out.size, *mask[:4])
                product.scale = rate_and_scale(mask.rate, "inverted", True, dtype)[1]
            kept = product.bits
            if i < last:
                product.relu = True
                kept = product.nonzero = _memory.empty_bits(out.size)
                hidden.append(torch.from_numpy(out))
            passed.append(None if kept is None else torch.from_numpy(kept))
            products.append(product)
            operand = out
        active().multiply(products)
        ctx.save_for_backward(x, *parameters, *hidden, *passed)
        ctx.scales = [product.scale for product in products]
        return torch.from_numpy(operand.reshape(*x.shape[:-1], operand.shape[1]))

    @staticmethod
    def backward(ctx: Any, dy: Tensor) -> tuple[Tensor | None, ...]:
        layers, scales = len(ctx.scales), ctx.scales
        x, *saved = ctx.saved_tensors
        parameters, saved = saved[: 2 * layers], saved[2 * layers :]
        hidden, passed = saved[: layers - 1], saved[layers - 1 :]
        wants_dx, wanted = ctx.needs_input_grad[0], ctx.needs_input_grad[2:]
        if torch.is_grad_enabled():
            dx, *found = differentiable_gradients(
                lambda x, *parameters: _masked(x, parameters, passed, scales),
                (x, *parameters),
                (wants_dx, *wanted),
                dy,
            )
            return dx, None, *found

        inputs = [_rows(x), *(_array(h) for h in hidden)]
        dz = _rows(dy)
        if passed[-1] is not None:
            masked = _memory.empty(dz.shape, dz.dtype)
            bits = saved_bits(passed[-1])
            active().apply_bits(np.ascontiguousarray(dz), masked, bits, scales[-1])
            dz = masked
        ones = np.ones((1, len(dz)), dz.dtype)
        products: list[Product] = []
        gradients: list[Array | None] = [None] * (2 * layers)
        for i in reversed(range(layers)):
            weight = _array(parameters[2 * i])
            skip = "" if i == layers - 1 else "a"  # of dz, after the last layer's
            if wanted[2 * i]:
                dw = gradients[2 * i] = _memory.empty(weight.shape, dz.dtype)
                skips = skip + ("b" if i else "")
                products.append(Product(dz.T, inputs[i], dw, skip=skips, over_rows=True))
            if wanted[2 * i + 1]:
                db = gradients[2 * i + 1] = np.empty(len(weight), dz.dtype)
                products.append(Product(ones, dz, db[None], over_rows=True))
            if not (wants_dx or any(wanted[: 2 * i])):
                break
            product = Product(dz, weight, _memory.empty(inputs[i].shape, dz.dtype), skip=skip)
            if i > 0:
                product.bits, product.scale = saved_bits(passed[i - 1]), scales[i - 1]
            products.append(product)
            dz = product.out
        active().multiply(products)
        return (
            torch.from_numpy(dz.reshape(x.shape)) if wants_dx else None,
            None,
            *(None if g is None else torch.from_numpy(g) for g in gradients),
        )


_apply: Callable[..., Tensor] = FeedForward.apply


def _masked(
    x: Tensor,
    parameters: Sequence[Tensor | None],
    passed: Sequence[Tensor | None],
    scales: Sequence[float],
) -> Tensor:
    """The same from PyTorch's functions, with known masks of ReLU and dropout together."""
    for i, (bits, scale) in enumerate(zip(passed, scales, strict=True)):
        weight, bias = parameters[2 * i], parameters[2 * i + 1]
        assert weight is not None
        x = F.linear(x, weight, bias)
        if bits is not None:
            kept = torch.from_numpy(unpack_bits(saved_bits(bits), tuple(x.shape)))
            x = torch.where(kept, x * scale, 0.0)
    return x
