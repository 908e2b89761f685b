"""When tensors may be computed on directly: on the CPU, in eager mode, under no transformation."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.autograd import forward_ad
from torch.nn.modules import module as _module


def is_eager() -> bool:
    """Whether nothing records, transforms or redirects what is called: no compiler, no tracing, no
    `torch.func`, no forward-mode derivatives, no dispatch mode.
    """
    return not (
        torch.compiler.is_compiling()
        or torch._C._are_functorch_transforms_active()
        or torch._C._get_tracing_state() is not None
        or torch._C._len_torch_dispatch_stack()
        or forward_ad._current_level >= 0
    )


def is_plain(x: Tensor | None) -> bool:
    """Whether this is a strided tensor on the CPU, of no subclass that has its own functions."""
    return x is None or (
        type(x) in (Tensor, nn.Parameter)
        and x.device.type == "cpu"
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
