"""Tensors as the arrays that backends take, and dropout of them in memory.

Nothing here knows gradients.  A tensor and its array share their memory; results are arrays whose
memory is recycled, seen as tensors.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import ml_dtypes
import numpy as np
import torch
from torch import Tensor

from dropwise import _memory
from dropwise._backends import active
from dropwise._backends.protocol import Array, Bits
from dropwise._dtypes import rate_and_scale

_BFLOAT16 = np.dtype(ml_dtypes.bfloat16)
DTYPES: dict[torch.dtype, np.dtype[Any]] = {
    torch.float32: np.dtype(np.float32),
    torch.float64: np.dtype(np.float64),
    torch.float16: np.dtype(np.float16),
    torch.bfloat16: _BFLOAT16,
}

# In calls of a few elements it shows how this is reached, and results of fewer elements are smaller
# than what `_memory` recycles.
_empty = np.empty
_SMALL = _memory.LARGE // 8


class Mask(NamedTuple):
    """Which mask: that of `dropwise.functional.dropout_mask` for these arguments."""

    rate: float
    key: int
    stream: int
    offset: int


def is_ours(x: Tensor) -> bool:
    """Whether the backends compute for such a tensor; else PyTorch's own functions do."""
    return x.dtype in DTYPES and x.is_cpu and x.layout is torch.strided


def as_array(x: Tensor) -> Array:
    """The memory of a tensor."""
    if x.dtype is torch.bfloat16:  # which PyTorch does not give to NumPy
        return x.view(torch.int16).numpy(force=True).view(_BFLOAT16)
    return x.numpy(force=True)


def as_tensor(x: Array) -> Tensor:
    """The memory of an array of one of `DTYPES`."""
    if x.dtype is _BFLOAT16:
        return torch.from_numpy(x.view(np.int16)).view(torch.bfloat16)
    return torch.from_numpy(x)


def dropout(x: Tensor, mask: Mask, bits: Bits | None = None) -> Tensor:
    """``x / (1 - rate)`` where the mask keeps, else +0.0; the packed mask to `bits` if given."""
    if not x.is_contiguous():
        return torch.empty_like(x).copy_(dropout(x.contiguous(), mask, bits))
    rate, key, stream, offset = mask
    source = as_array(x)
    dtype = source.dtype
    result = _empty(source.shape, dtype) if source.size < _SMALL else _memory.empty(source.shape, dtype)
    if source.size:
        scale = rate_and_scale(rate, "inverted", True, dtype)[1]
        active().dropout_forward(source, result, bits, rate, scale, key, stream, offset)
    return as_tensor(result)


def apply_bits(x: Tensor, rate: float, bits: Bits) -> Tensor:
    """`dropout` with the packed mask that it made."""
    if not x.is_contiguous():
        return torch.empty_like(x).copy_(apply_bits(x.contiguous(), rate, bits))
    source = as_array(x)
    result = _memory.empty(source.shape, source.dtype)
    scale = rate_and_scale(rate, "inverted", True, source.dtype)[1]
    active().apply_bits(source, result, bits, scale)
    return as_tensor(result)
