"""Dropout of tensors with the names of `torch.nn.functional`."""

from __future__ import annotations

from torch import Tensor
from torch.nn import functional as F

from dropwise.torch import _tensors
from dropwise.torch._autograd import drop

__all__ = ["dropout"]


def dropout(
    input: Tensor, p: float = 0.5, training: bool = True, inplace: bool = False
) -> Tensor:
    """Set elements to zero at random and multiply those that are kept by ``1 / (1 - p)``."""
    if not training or p == 0 or not _tensors.is_ours(input):
        return F.dropout(input, p, training, inplace)
    result = drop(input, p, None, None)
    return input.copy_(result) if inplace else result
