"""Tensors as the arrays that backends take, and dropout of them in memory.

Nothing here knows gradients.  A tensor and its array share their memory; that of results is
recycled.
"""

from __future__ import annotations

import math
from typing import Any, NamedTuple

import ml_dtypes
import numpy as np
import torch
from torch import Tensor

from dropwise import _arrays, _memory
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
# A tensor of another class may mean something else by its values.
PLAIN = (Tensor, torch.nn.Parameter)


def _exchange() -> object | None:
    """The C functions by which a backend may take tensors as they are; None: it cannot."""
    try:
        from dropwise import _native
    except ImportError:
        return None
    functions = getattr(Tensor, "__dlpack_c_exchange_api__", None)  # not in early versions
    return functions if functions is not None and _native.can_exchange(functions) else None


_EXCHANGE = _exchange()


class Mask(NamedTuple):
    """Which mask: that of `dropwise.functional.dropout_mask` for these arguments."""

    rate: float
    key: int
    stream: int
    offset: int
    noise_shape: tuple[int, ...] | None = None  # broadcast against the tensor; None: its shape


def is_ours(x: Tensor) -> bool:
    """Whether the backends compute for such a tensor; else PyTorch's own functions do."""
    return (
        x.dtype in DTYPES
        and x.is_cpu
        and x.layout is torch.strided
        # What traces has tensors of classes of its own.
        and (type(x) in PLAIN or torch._C._len_torch_dispatch_stack() > 0)
    )


def as_array(x: Tensor) -> Array:
    """The memory of a tensor."""
    if x.dtype is torch.bfloat16:  # which PyTorch does not give to NumPy
        return x.resolve_neg().view(torch.int16).numpy(force=True).view(_BFLOAT16)
    return x.numpy(force=True)


def as_tensor(x: Array) -> Tensor:
    """The memory of an array of one of `DTYPES`.

    It is no view of another tensor: PyTorch refuses to write to a view that a function returned.
    """
    if x.dtype is not _BFLOAT16:
        return torch.from_numpy(x)
    bits = torch.from_numpy(x.view(np.int16))
    y = torch.empty(0, dtype=torch.bfloat16, device="cpu")
    memory = bits.untyped_storage()
    return y.set_(memory, bits.storage_offset(), bits.shape, bits.stride())


def saved_bits(x: Tensor) -> Bits:
    """A packed mask from `saved_tensors`, where hooks may have laid it out in another way."""
    bits: Bits = x.contiguous().numpy()
    return bits


def dropout(x: Tensor, mask: Mask, bits: Bits | None = None) -> Tensor:
    """``x / (1 - rate)`` where the mask keeps, else +0.0; the packed mask to `bits` if given."""
    rate, key, stream, offset, noise_shape = mask
    if noise_shape is not None or not x.is_contiguous():
        size = x.numel() if noise_shape is None else math.prod(noise_shape)
        made = _arrays.make_bits(size, rate, key, stream, offset)
        if bits is not None:
            bits[...] = made
        return apply_bits(x, rate, made, noise_shape)
    backend = active()
    scale = rate_and_scale(rate, "inverted", True, DTYPES[x.dtype])[1]
    of_tensor = backend.dropout_of_tensor
    if of_tensor is not None and _EXCHANGE is not None and not x.is_neg():
        result: Tensor | None = of_tensor(_EXCHANGE, x, bits, rate, scale, key, stream, offset)
        if result is not None:
            return result
    source = as_array(x)
    y = _memory.empty_like(source)
    if source.size:
        backend.dropout_forward(source, y, bits, rate, scale, key, stream, offset)
    return as_tensor(y)


def apply_bits(
    x: Tensor, rate: float, bits: Bits, noise_shape: tuple[int, ...] | None = None
) -> Tensor:
    """`dropout` with the packed mask that it made, in the memory format of `x`."""
    scale = rate_and_scale(rate, "inverted", True, DTYPES[x.dtype])[1]
    if x.is_contiguous():
        return as_tensor(_arrays.apply_mask(as_array(x), None, bits, scale, noise_shape))
    order = sorted(range(x.ndim), key=x.stride, reverse=True)
    in_memory = x.permute(order)
    if not in_memory.is_contiguous():  # there are gaps
        return apply_bits(torch.empty_like(x).copy_(x), rate, bits, noise_shape)
    # Transposing a mask takes less time than transposing x, and back.
    kept = _arrays.unpack_bits(bits, noise_shape or tuple(x.shape)).transpose(order)
    packed = np.packbits(kept, bitorder="little")
    noise_shape = None if noise_shape is None else kept.shape
    y = _arrays.apply_mask(as_array(in_memory), None, packed, scale, noise_shape)
    return as_tensor(y.transpose(np.argsort(order)))
