"""Dropout of a tensor with a given key and stream, in every mode that PyTorch runs in.

Dropout is linear, and its mask is made again from the key and the stream.  So gradients, gradients
of gradients and tangents are all the same dropout, of another tensor, and nothing is kept for them.

There are three ways to the kernels, each the fastest that is right where it is used: a function of
autograd (`_Eager`), one for the transforms of `torch.func` (`_Transformed`), and operators, which
`torch.compile` and other tracers see as one step.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import ml_dtypes
import numpy as np
import torch
from torch import Tensor
from torch.autograd import forward_ad

from dropwise import _memory
from dropwise._backends import active
from dropwise._dtypes import rate_and_scale
from dropwise.torch import _streams

_BFLOAT16 = np.dtype(ml_dtypes.bfloat16)
DTYPES: dict[torch.dtype, np.dtype[Any]] = {
    torch.float32: np.dtype(np.float32),
    torch.float64: np.dtype(np.float64),
    torch.float16: np.dtype(np.float16),
    torch.bfloat16: _BFLOAT16,
}
# A tensor of another class may mean something else by its values.
_PLAIN = (Tensor, torch.nn.Parameter)


class Mask(NamedTuple):
    """Which mask: that of `dropwise.functional.dropout_mask` for these arguments."""

    rate: float
    key: int
    stream: int
    offset: int


def is_ours(x: Tensor) -> bool:
    """Whether the kernels compute for such a tensor; else PyTorch's own functions do."""
    return x.dtype in DTYPES and x.device.type == "cpu" and x.layout is torch.strided


def dropout(x: Tensor, mask: Mask) -> Tensor:
    """``x / (1 - rate)`` where the mask keeps, +0.0 elsewhere, in the memory format of `x`."""
    if needs_draw(x):
        draw = torch.tensor(
            [_streams.as_signed(mask.key), mask.stream], dtype=torch.int64, device="cpu"
        )
        return dropout_by_draw(x, draw, mask.rate, mask.offset)
    if (x.requires_grad and torch.is_grad_enabled()) or forward_ad._current_level >= 0:
        result: Tensor = _Eager.apply(x, mask)
        return result
    return _compute(x, mask)


def needs_draw(x: Tensor) -> bool:
    """Whether the values of `x` cannot be had now, because PyTorch transforms or traces."""
    return (
        torch.compiler.is_compiling()
        or torch._C._are_functorch_transforms_active()
        or torch._C._len_torch_dispatch_stack() > 0
        or type(x) not in _PLAIN
        or torch._C._functorch.is_legacy_batchedtensor(x)
    )


def dropout_by_draw(x: Tensor, draw: Tensor, rate: float, offset: int) -> Tensor:
    """`dropout` with the key and the stream in a tensor, int64 [2]."""
    if not torch.compiler.is_compiling() and torch._C._are_functorch_transforms_active():
        result: Tensor = _Transformed.apply(x, draw, rate, offset)
        return result
    return dropout_op(x, draw, rate, offset)


def _compute(x: Tensor, mask: Mask) -> Tensor:
    rate, key, stream, offset = mask
    dtype = DTYPES[x.dtype]
    source = x if x.is_contiguous() else x.contiguous()
    values = _as_array(source, dtype)
    result = _memory.empty(values.shape, dtype)
    if values.size:
        scale = rate_and_scale(rate, "inverted", True, dtype)[1]
        active().dropout_forward(values, result, None, rate, scale, key, stream, offset)
    y = _as_tensor(result)
    return y if source is x else torch.empty_like(x).copy_(y)


def _as_array(x: Tensor, dtype: np.dtype[Any]) -> np.ndarray[Any, Any]:
    """The memory of a contiguous tensor."""
    if dtype is _BFLOAT16:  # which PyTorch does not give to NumPy
        return x.view(torch.int16).numpy(force=True).view(dtype)
    return x.numpy(force=True)


def _as_tensor(x: np.ndarray[Any, Any]) -> Tensor:
    if x.dtype is _BFLOAT16:
        return torch.from_numpy(x.view(np.int16)).view(torch.bfloat16)
    return torch.from_numpy(x)


class _Eager(torch.autograd.Function):
    """`dropout` with gradients and tangents."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, mask: Mask) -> Tensor:
        ctx.mask = mask
        return _compute(x, mask)

    @staticmethod
    def backward(ctx: Any, dy: Tensor) -> tuple[Tensor, None]:
        return dropout(dy, ctx.mask), None

    @staticmethod
    def jvp(ctx: Any, tangent: Tensor, _: None) -> Tensor:
        return dropout(tangent, ctx.mask)


class _Transformed(torch.autograd.Function):
    """`dropout_by_draw` under `torch.func.grad`, `vmap`, `jvp` and so on."""

    @staticmethod
    def forward(x: Tensor, draw: Tensor, rate: float, offset: int) -> Tensor:
        return _compute(x, Mask(rate, *_streams.unpack(draw), offset))

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Tensor, Tensor, float, int], output: Tensor) -> None:
        _, draw, *ctx.arguments = inputs
        ctx.save_for_backward(draw)
        ctx.save_for_forward(draw)

    @staticmethod
    def backward(ctx: Any, dy: Tensor) -> tuple[Tensor, None, None, None]:
        return dropout_by_draw(dy, *ctx.saved_tensors, *ctx.arguments), None, None, None

    @staticmethod
    def jvp(ctx: Any, tangent: Tensor, *_: None) -> Tensor:
        return dropout_by_draw(tangent, *ctx.saved_tensors, *ctx.arguments)

    @staticmethod
    def vmap(
        info: Any,
        in_dims: tuple[int | None, ...],
        x: Tensor,
        draw: Tensor,
        rate: float,
        offset: int,
    ) -> tuple[Tensor, int]:
        x_dim, draw_dim = in_dims[:2]
        draws = [draw] * info.batch_size if draw_dim is None else draw.unbind(draw_dim)
        xs = [x] * info.batch_size if x_dim is None else x.unbind(x_dim)
        return torch.stack(
            [dropout_by_draw(x, draw, rate, offset) for x, draw in zip(xs, draws, strict=True)]
        ), 0


@torch.library.custom_op("dropwise::dropout", mutates_args=(), device_types="cpu")
def dropout_op(x: Tensor, draw: Tensor, rate: float, offset: int) -> Tensor:
    """`dropout_by_draw` as an operator."""
    return _compute(x, Mask(rate, *_streams.unpack(draw), offset))


@dropout_op.register_fake
def _(x: Tensor, draw: Tensor, rate: float, offset: int) -> Tensor:
    return torch.empty_like(x)


def _save_draw(ctx: Any, inputs: tuple[Tensor, Tensor, float, int], output: Tensor) -> None:
    _, draw, *ctx.arguments = inputs
    ctx.save_for_backward(draw)


def _op_backward(ctx: Any, dy: Tensor) -> tuple[Tensor, None, None, None]:
    return dropout_op(dy, *ctx.saved_tensors, *ctx.arguments), None, None, None


dropout_op.register_autograd(_op_backward, setup_context=_save_draw)
dropout_op.register_vmap(_Transformed.vmap)


@torch.library.custom_op("dropwise::next_stream", mutates_args=("state",), device_types="cpu")
def next_stream(state: Tensor, by_rank: bool) -> Tensor:
    """`_streams.take` as an operator, with the key and the stream as int64 [2]."""
    key, stream = _streams.take(state, by_rank)
    return _streams.new_state(key, stream)


@next_stream.register_fake
def _(state: Tensor, by_rank: bool) -> Tensor:
    return torch.empty_like(state)
