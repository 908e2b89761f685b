"""What the functions of several steps share: when they may compute, their masks, and derivatives
of their derivatives.

Such a function computes outside of PyTorch's sight.  It applies to plain tensors on the CPU in
eager mode, and where modules would do nothing but what their class does.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence

import torch
from torch import Tensor, nn
from torch.autograd import forward_ad
from torch.nn.modules import module as _module

from dropwise.torch import _autograd
from dropwise.torch._seeded import Seeded
from dropwise.torch._tensors import PLAIN, Mask


def next_mask(module: Seeded, rate: float, shape: Sequence[int]) -> Mask | None:
    """A new mask over a tensor of that shape; None if nothing is dropped."""
    if rate == 0.0:
        return None
    state, row_offset = module._state, module.row_offset
    offset = row_offset * math.prod(shape[1:]) if row_offset else 0
    return Mask(rate, *_autograd.next_draw(state, row_offset), offset)


def is_eager(x: Tensor) -> bool:
    """Whether a call on `x` is neither recorded nor transformed, by a compiler, a tracer, a
    dispatch mode, `torch.func` or forward-mode derivatives.
    """
    return not (
        not _autograd.is_plain(x)
        or torch._C._get_tracing_state() is not None
        or forward_ad._current_level >= 0
    )


def is_plain(x: Tensor | None, dtypes: Sequence[torch.dtype]) -> bool:
    """Whether this is a strided tensor on the CPU, of no subclass that has its own functions."""
    return x is None or (
        type(x) in PLAIN
        and x.dtype in dtypes
        and x.is_cpu
        and x.layout is torch.strided
        and not x.is_nested
    )


def is_bare(module: nn.Module) -> bool:
    """Whether a call of `module` runs the forward of its class and nothing else: no hooks, of its
    own or of all modules, no other forward in the instance, no compiled one.
    """
    return not (
        module._forward_hooks
        or module._forward_pre_hooks
        or module._backward_hooks
        or module._backward_pre_hooks
        or "forward" in module.__dict__
        or module._compiled_call_impl is not None
        or _module._global_forward_hooks
        or _module._global_forward_pre_hooks
        or _module._global_backward_hooks
        or _module._global_backward_pre_hooks
    )


def differentiable_gradients(
    function: Callable[..., Tensor],
    inputs: Sequence[Tensor | None],
    wanted: Sequence[bool],
    dy: Tensor,
) -> list[Tensor | None]:
    """The gradients of ``function(*inputs)`` that are wanted, with a graph of their own.

    For the backward of a backward, which a function that computes in NumPy leaves to PyTorch.
    """
    # A view of each: a tensor that is there twice has a gradient for each place.
    views = [None if x is None else x.view_as(x) for x in inputs]
    of = [x for x, is_wanted in zip(views, wanted, strict=True) if is_wanted and x is not None]
    found = iter(torch.autograd.grad(function(*views), of, dy, create_graph=True))
    return [next(found) if is_wanted else None for is_wanted in wanted]
