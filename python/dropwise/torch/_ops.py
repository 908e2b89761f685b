"""Dropout as operators of PyTorch, which `torch.compile` and other tracers see as one step each.

Taking the stream of a seed is a step of its own, one that writes to its argument: the compiler may
merge two equal calls of an operator that only returns something, and two layers would get one mask.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor, library

from dropwise.torch import _streams, _tensors
from dropwise.torch._tensors import Mask

NoiseShape = Sequence[int] | None
Arguments = tuple[Tensor, Tensor, float, int, NoiseShape]


@library.custom_op(
    "dropwise::dropout",
    mutates_args=(),
    device_types="cpu",
    schema="(Tensor x, Tensor draw, float rate, SymInt offset, SymInt[]? noise_shape) -> Tensor",
)
def dropout(x: Tensor, draw: Tensor, rate: float, offset: int, noise_shape: NoiseShape) -> Tensor:
    """Dropout with the key and the stream that `draw` holds, int64 [2]."""
    noise = None if noise_shape is None else tuple(noise_shape)
    return _tensors.dropout(x, Mask(rate, *_streams.unpack(draw), offset, noise))


@dropout.register_fake
def _(x: Tensor, draw: Tensor, rate: float, offset: int, noise_shape: NoiseShape) -> Tensor:
    return torch.empty_like(x)


def save_draw(ctx: Any, inputs: Arguments, output: Tensor) -> None:
    """Keep what the gradient needs: the gradient is the same dropout of another tensor."""
    _, draw, *ctx.which = inputs
    ctx.save_for_backward(draw)


def _backward(ctx: Any, dy: Tensor) -> tuple[Tensor | None, ...]:
    return dropout(dy, *ctx.saved_tensors, *ctx.which), None, None, None, None


def vmap_of(dropout: Callable[..., Tensor]) -> Callable[..., tuple[Tensor, int]]:
    """The rule by which `torch.vmap` batches such a function: a draw of one mask, or of several."""

    def rule(
        info: Any,
        in_dims: tuple[int | None, ...],
        x: Tensor,
        draw: Tensor,
        rate: float,
        offset: int,
        noise_shape: NoiseShape,
    ) -> tuple[Tensor, int]:
        x_dim, draw_dim = in_dims[:2]
        if draw_dim is None:
            assert x_dim is not None
            x = x.movedim(x_dim, 0)
            noise = (1, *(x.shape[1:] if noise_shape is None else noise_shape))
            return dropout(x, draw, rate, offset, noise), 0
        xs = [x] * info.batch_size if x_dim is None else x.unbind(x_dim)
        draws = draw.unbind(draw_dim)
        ys = [dropout(x, d, rate, offset, noise_shape) for x, d in zip(xs, draws, strict=True)]
        return torch.stack(ys), 0

    return rule


dropout.register_autograd(_backward, setup_context=save_draw)
dropout.register_vmap(vmap_of(dropout))


@library.custom_op(
    "dropwise::next_stream",
    mutates_args=("state",),
    device_types="cpu",
    schema="(Tensor(a!) state, bool by_rank) -> Tensor",
)
def next_stream(state: Tensor, by_rank: bool) -> Tensor:
    """The key and the next stream of a seed, int64 [2].  See `_streams.take`."""
    return _streams.new_state(*_streams.take(state, by_rank))


@next_stream.register_fake
def _(state: Tensor, by_rank: bool) -> Tensor:
    return torch.empty_like(state)
