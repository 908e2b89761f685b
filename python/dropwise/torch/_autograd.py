"""Dropout of a tensor in every mode that PyTorch runs in.

Dropout is linear, and a mask can be made again from its key and stream.  So a gradient, a gradient
of a gradient and a tangent are all the same dropout, of another tensor.

There are three ways to the kernels, each the fastest that is right where it is used: functions of
autograd (`_Replayed`, `_Kept`), one for the transforms of `torch.func` (`_Transformed`), and the
operators of `_ops` for what compiles or traces.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any, TypeVar

import torch
from torch import Tensor
from torch._C import _are_functorch_transforms_active, _len_torch_dispatch_stack
from torch._C._functorch import TransformType, is_legacy_batchedtensor
from torch.autograd import forward_ad

from dropwise import _memory
from dropwise._arguments import as_offset
from dropwise.random import STREAM_END
from dropwise.torch import _ops, _streams, _tensors
from dropwise.torch._tensors import PLAIN, Mask

# In calls of a few elements it shows: this takes a third of the time of the constructor.
_new_mask = tuple.__new__

_Function = TypeVar("_Function", bound=Callable[..., Any])

# Elements from which on reading a packed mask takes less time than making it again, with what
# PyTorch needs to keep it.
_KEEP_BITS = 1 << 17


def when_traced(function: _Function) -> _Function:
    """Let torch.compile call `function` while it traces, and take the result for a constant.

    `torch.compiler.assume_constant_result` does this after it has imported the compiler, which
    takes two seconds.
    """
    function._dynamo_marked_constant = True  # type: ignore[attr-defined]
    return function


def drop(
    x: Tensor,
    p: float,
    state: Tensor | None = None,
    row_offset: int | None = None,
    noise_shape: tuple[int, ...] | None = None,
) -> Tensor:
    """Dropout of a tensor that is ours, with a new mask.

    Parameters
    ----------
    x : Tensor, any shape
    p : float in [0, 1]
    state : Tensor, optional
        The key and the next stream of a seed; None: torch's generator draws.
    row_offset : int, optional
        Index of the first row of `x` in the batch of which it is a part.
    noise_shape : tuple of int, optional
        Shape of the mask, broadcast against `x`.
    """
    if not 0.0 <= p <= 1.0:
        raise ValueError(f"dropout probability has to be between 0 and 1, but got {p}")
    offset = 0
    if row_offset:
        offset = row_offset * math.prod((noise_shape or x.shape)[1:])
    if is_plain(x):
        if offset:
            offset = as_offset(offset, x.numel())
        key, stream = next_draw(state, row_offset)
        return _dropout_of_plain(x, _new_mask(Mask, (p, key, stream, offset, noise_shape)))
    if state is None:
        draw = torch.randint(STREAM_END, (2,), device="cpu")
    elif _is_batching():
        raise RuntimeError("a dropout with seed=int cannot run inside torch.vmap; use seed=None")
    else:
        draw = _ops.next_stream(state, row_offset is None)
    return _dropout_by_draw(x, draw, p, offset, noise_shape)


def next_draw(state: Tensor | None, row_offset: int | None) -> tuple[int, int]:
    """A new key and stream, where nothing transforms or traces."""
    return _streams.draw() if state is None else _streams.take(state, row_offset is None)


def is_plain(x: Tensor) -> bool:
    """Whether `x` has its values now: nothing transforms, compiles or traces."""
    return not (
        torch.compiler.is_compiling()
        or _are_functorch_transforms_active()
        or _len_torch_dispatch_stack()
        or type(x) not in PLAIN
        or is_legacy_batchedtensor(x)  # of torch.autograd.grad(is_grads_batched=True)
    )


def has_derivatives(x: Tensor) -> bool:
    """Whether autograd has to know of what is done with a plain tensor."""
    return (x.requires_grad and torch.is_grad_enabled()) or forward_ad._current_level >= 0


def dropout(x: Tensor, mask: Mask) -> Tensor:
    """Dropout with a given mask."""
    if is_plain(x):
        return _dropout_of_plain(x, mask)
    rate, key, stream, offset, noise_shape = mask
    draw = torch.tensor((_streams.as_signed(key), stream), dtype=torch.int64, device="cpu")
    return _dropout_by_draw(x, draw, rate, offset, noise_shape)


def _dropout_of_plain(x: Tensor, mask: Mask) -> Tensor:
    if not has_derivatives(x):
        return _tensors.dropout(x, mask)
    if x.numel() < _KEEP_BITS or mask.noise_shape is not None:
        return _apply_replayed(x, mask)
    return _apply_kept(x, mask)


class _Replayed(torch.autograd.Function):
    """Dropout with a given mask, of a plain tensor; the gradient makes the mask again."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, mask: Mask) -> Tensor:
        ctx.mask = mask
        return _tensors.dropout(x, mask)

    @staticmethod
    def backward(ctx: Any, dy: Tensor) -> tuple[Tensor, None]:
        return dropout(dy, ctx.mask), None

    @staticmethod
    def jvp(ctx: Any, tangent: Tensor, _: None) -> Tensor:
        return dropout(tangent, ctx.mask)


class _Kept(_Replayed):
    """The same function, which keeps the packed mask for the gradient."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, mask: Mask) -> Tensor:
        ctx.mask = mask
        bits = _memory.empty_bits(x.numel())
        ctx.save_for_backward(torch.from_numpy(bits))
        return _tensors.dropout(x, mask, bits)

    @staticmethod
    def backward(ctx: Any, dy: Tensor) -> tuple[Tensor, None]:
        (bits,) = ctx.saved_tensors
        if is_plain(dy) and not has_derivatives(dy):
            return _tensors.apply_bits(dy, ctx.mask.rate, _tensors.saved_bits(bits)), None
        return dropout(dy, ctx.mask), None


def _bare_apply(function: type[torch.autograd.Function]) -> Callable[[Tensor, Mask], Tensor]:
    """`function.apply` with nothing but what PyTorch needs: two wrappers take 1.5 us a call.

    The one around `apply` checks what `is_plain` does.  The one around `backward` looks for other
    ways to define it.
    """
    function._backward_cls.apply = function.backward  # type: ignore[attr-defined]
    return super(torch.autograd.Function, function).apply  # type: ignore[misc,no-any-return]


_apply_replayed, _apply_kept = _bare_apply(_Replayed), _bare_apply(_Kept)


def _dropout_by_draw(
    x: Tensor, draw: Tensor, rate: float, offset: int, noise_shape: Sequence[int] | None
) -> Tensor:
    """Dropout of a tensor that is not plain, with the key and the stream in `draw`, int64 [2]."""
    if _are_functorch_transforms_active():
        if not torch.compiler.is_compiling():
            return _apply_transformed(x, draw, rate, offset, noise_shape)
        if _is_differentiating():  # where an operator's derivative would be an error or 0
            raise RuntimeError(
                "dropout inside torch.func.grad, jvp or the like inside torch.compile is not "
                "supported; compile what is inside the transform, or without fullgraph=True"
            )
    result: Tensor = _ops.dropout(x, draw, rate, offset, noise_shape)
    return result


class _Transformed(torch.autograd.Function):
    """Dropout under `torch.func.grad`, `vmap`, `jvp` and so on."""

    forward = staticmethod(_ops.dropout)

    @staticmethod
    def setup_context(ctx: Any, inputs: _ops.Arguments, output: Tensor) -> None:
        _ops.save_draw(ctx, inputs, output)
        ctx.save_for_forward(inputs[1])

    @staticmethod
    def backward(ctx: Any, dy: Tensor) -> tuple[Tensor | None, ...]:
        return _dropout_by_draw(dy, *ctx.saved_tensors, *ctx.which), None, None, None, None

    @staticmethod
    def jvp(ctx: Any, tangent: Tensor, *_: None) -> Tensor:
        return _dropout_by_draw(tangent, *ctx.saved_tensors, *ctx.which)

    vmap = staticmethod(_ops.vmap_of(_dropout_by_draw))


_apply_transformed: Callable[..., Tensor] = _Transformed.apply


@when_traced
def _is_batching() -> bool:
    """Whether `torch.vmap` is active."""
    levels = torch._C._functorch.get_interpreter_stack() or []
    return any(level.key() == TransformType.Vmap for level in levels)


@when_traced
def _is_differentiating() -> bool:
    """Whether a transform of `torch.func` other than `vmap` is active."""
    levels = torch._C._functorch.get_interpreter_stack() or []
    return any(level.key() != TransformType.Vmap for level in levels)
