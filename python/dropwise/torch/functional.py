"""Dropout of tensors with the names of `torch.nn.functional`."""

from __future__ import annotations

import math

import torch
from torch import Tensor
from torch.nn import functional as F

from dropwise.random import STREAM_END
from dropwise.torch import _ops, _streams

__all__ = ["dropout"]


def dropout(
    input: Tensor,
    p: float = 0.5,
    training: bool = True,
    inplace: bool = False,
    *,
    row_offset: int | None = None,
) -> Tensor:
    """Set elements to zero at random and multiply those that are kept by ``1 / (1 - p)``."""
    if not training or p == 0 or not _ops.is_ours(input):
        return F.dropout(input, p, training, inplace)
    return in_place(input, drop(input, p, None, row_offset), inplace)


def in_place(input: Tensor, result: Tensor, inplace: bool) -> Tensor:
    return input.copy_(result) if inplace else result


def drop(x: Tensor, p: float, state: Tensor | None, row_offset: int | None) -> Tensor:
    """Dropout of a tensor that is ours, with a new mask: of the seed whose `state` is given."""
    if not 0.0 <= p <= 1.0:
        raise ValueError(f"dropout probability has to be between 0 and 1, but got {p}")
    offset = row_offset * math.prod(x.shape[1:]) if row_offset else 0
    if _ops.needs_draw(x):
        if state is None:
            draw = torch.randint(STREAM_END, (2,), device="cpu")
        else:
            draw = _ops.next_stream(state, row_offset is None)
        return _ops.dropout_by_draw(x, draw, p, offset)
    key, stream = _streams.draw() if state is None else _streams.take(state, row_offset is None)
    return _ops.dropout(x, _ops.Mask(p, key, stream, offset))
