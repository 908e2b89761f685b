"""Layers of `torch.nn` whose feed-forward block is one step: what `convert` makes of them."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from dropwise.torch._eager import is_bare
from dropwise.torch._feed_forward import can_fuse, fused


def is_relu(activation: Any) -> bool:
    """Whether this is ReLU, as a function or as a module."""
    return type(activation) is nn.ReLU or activation in (F.relu, torch.relu)


def _feed_forward(layer: Any, x: Tensor, last: nn.Module) -> Tensor | None:
    """The block of an encoder or decoder layer as one step, or None if that is not for it."""
    activation = layer.activation
    if not is_relu(activation) or (isinstance(activation, nn.Module) and not is_bare(activation)):
        return None
    layers = (layer.linear1, layer.dropout, layer.linear2, last)
    if can_fuse(x, layers):
        return fused(x, layers)
    if can_fuse(x, layers[:3]):
        result: Tensor = last(fused(x, layers[:3]))
        return result
    return None


class TransformerEncoderLayer(nn.TransformerEncoderLayer):
    """`torch.nn.TransformerEncoderLayer` with its feed-forward block as one step."""

    def _ff_block(self, x: Tensor) -> Tensor:
        y = _feed_forward(self, x, self.dropout2)
        return super()._ff_block(x) if y is None else y


class TransformerDecoderLayer(nn.TransformerDecoderLayer):
    """`torch.nn.TransformerDecoderLayer` with its feed-forward block as one step."""

    def _ff_block(self, x: Tensor) -> Tensor:
        y = _feed_forward(self, x, self.dropout3)
        return super()._ff_block(x) if y is None else y


class Sequential(nn.Sequential):
    """`torch.nn.Sequential` with linear layers, ReLU and dropout in turn as one step."""

    def forward(self, input: Any) -> Any:
        """As that of `torch.nn.Sequential`."""
        modules = list(self)
        i = 0
        while i < len(modules):
            end = feed_forward_end(modules, i)
            layers = [m for m in modules[i:end] if type(m) is not nn.ReLU]
            relus = [m for m in modules[i:end] if type(m) is nn.ReLU]
            if end > i and all(map(is_bare, relus)) and can_fuse(input, layers):
                input, i = fused(input, layers), end
            else:
                input, i = modules[i](input), i + 1
        return input


def feed_forward_end(modules: Sequence[nn.Module], start: int) -> int:
    """Where a feed-forward block that starts there ends; `start` if there is none.

    It is a linear layer, ReLU, dropout and linear layer once or more often, perhaps dropout.
    """

    def follows(i: int, *types: type[nn.Module]) -> bool:
        found = modules[i : i + len(types)]
        return len(found) == len(types) and all(map(isinstance, found, types))

    if not follows(start, nn.Linear):
        return start
    end = start + 1
    while follows(end, nn.ReLU, nn.Dropout, nn.Linear):
        end += 3
    if end == start + 1:
        return start
    return end + 1 if follows(end, nn.Dropout) else end
