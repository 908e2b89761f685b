"""Layouts, elementwise calls and products of the active backend, on checked arguments.

What a backend gets is described in `_backends.protocol`: C-contiguous arrays of one of four dtypes,
plain scalars in range.  Everything else (other dtypes, layouts, byte orders, overlapping outputs)
is converted to that form here, or computed by NumPy with the backend's mask.
"""

from __future__ import annotations

import functools
import math
from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from dropwise import _memory
from dropwise._arguments import as_operand
from dropwise._backends import active
from dropwise._backends.protocol import Array, Bits, Box, Product
from dropwise._dtypes import F32, F64, alpha_constants, has_kernel, wide_dtype

# [256, 8]: the bits of each byte of a packed mask.
_BITS_OF_BYTES = np.unpackbits(np.arange(256, dtype=np.uint8)[:, None], axis=1, bitorder="little")


class NoiseSpec(NamedTuple):
    """Which mask a dropout call makes, and what becomes of the elements.

    Those kept become ``scale * x + shift``, the others `dropped`.  In the gradient both constants
    are 0: see `of_gradient`.
    """

    rate: float  # of the mask: 0 at inference
    scale: float  # rounded to the dtype of the array
    key: int
    stream: int = 0
    offset: int | Box = 0
    noise_shape: tuple[int, ...] | None = None  # None: the shape of the array
    shift: float = 0.0  # rounded to the dtype of the array, and so is `dropped`
    dropped: float = 0.0

    @property
    def of_gradient(self) -> NoiseSpec:
        """The same mask and scale, without the constants."""
        return self._replace(shift=0.0, dropped=0.0)


def alpha_noise(
    rate: float,
    dtype: np.dtype[Any],
    key: int,
    stream: int = 0,
    offset: int | Box = 0,
    noise_shape: tuple[int, ...] | None = None,
    *,
    training: bool = True,
) -> NoiseSpec:
    """Alpha dropout of an array of this dtype, for `apply_dropout`.

    The gradient is `apply_dropout` with ``noise.of_gradient``, or `apply_mask` with the mask and
    ``noise.scale``.  At rate 1 all results are zeros.
    """
    rate, scale, shift, dropped = alpha_constants(rate, training, dtype)
    return NoiseSpec(rate, scale, key, stream, offset, noise_shape, shift, dropped)


def box_of(
    start: tuple[int, ...], shape: tuple[int, ...], whole: tuple[int, ...]
) -> tuple[tuple[int, ...], int | Box]:
    """The part of the shape `shape` that begins at `start` in the noise array of shape `whole`.

    Where that has 1, the part has 1 at the start, too.  Returns the shape of the part, and where
    its elements are: an offset if they are one run.
    """
    part = tuple(min(n, g) for n, g in zip(shape, whole, strict=True))
    first, stride, lengths, strides = 0, 1, [1], [1]
    for s, n, g in reversed([*zip(start, part, whole, strict=True)]):
        if n > 1 and stride == lengths[-1] * strides[-1]:  # goes on where the last ones end
            lengths[-1] *= n
        elif n != 1:
            lengths.append(n)
            strides.append(stride)
        first += 0 if g == 1 else s * stride
        stride *= g
    if len(lengths) == 1 or 0 in part:
        return part, first
    return part, Box(first, tuple(lengths[::-1]), tuple(strides[::-1]))


def make_bits(size: int, rate: float, key: int, stream: int, offset: int | Box) -> Bits:
    """The packed mask of `size` elements."""
    bits = _memory.empty_bits(size)
    if isinstance(offset, Box):
        active().mask_box(bits, offset.lengths, offset.strides, rate, key, stream, offset.first)
    elif size:
        active().mask_bits(bits, size, rate, key, stream, offset)
    return bits


def unpack_bits(bits: Bits, shape: tuple[int, ...]) -> NDArray[np.bool_]:
    """A packed mask as an array of bool."""
    count = math.prod(shape)
    return np.unpackbits(bits, count=count, bitorder="little").view(np.bool_).reshape(shape)


def apply_dropout(x: Array, out: Array | None, bits: Bits | None, noise: NoiseSpec) -> Array:
    """Dropout of an array from `as_input`; the packed mask goes to `bits` if given."""
    constants = noise.shift or noise.dropped
    if noise.noise_shape is None and has_kernel(x.dtype) and not isinstance(noise.offset, Box):
        if bits is None and constants:
            bits = _memory.empty_bits(x.size)
        y = _elementwise(x, out, functools.partial(_dropout_kernel, bits, noise))
    else:
        size = x.size if noise.noise_shape is None else math.prod(noise.noise_shape)
        made = make_bits(size, noise.rate, noise.key, noise.stream, noise.offset)
        if bits is None:
            bits = made
        else:
            bits[...] = made
        y = apply_mask(x, out, made, noise.scale, noise.noise_shape)
    if constants:
        assert bits is not None
        _add_constants(y, bits, noise)
    return y


def _dropout_kernel(bits: Bits | None, noise: NoiseSpec, x: Array, out: Array) -> None:
    rate, scale, key, stream, offset, _, _, _ = noise
    assert not isinstance(offset, Box)
    active().dropout_forward(x, out, bits, rate, scale, key, stream, offset)


def _add_constants(y: Array, bits: Bits, noise: NoiseSpec) -> None:
    """Add ``noise.shift`` to what the packed mask keeps, ``noise.dropped`` to the zeros."""
    shape = y.shape if noise.noise_shape is None else noise.noise_shape
    # A byte of the mask stands for eight constants, which are copied as one.
    of_bytes = np.array([noise.dropped, noise.shift], y.dtype)[_BITS_OF_BYTES]
    constants = of_bytes.take(bits, axis=0).reshape(-1)[: math.prod(shape)].reshape(shape)
    with np.errstate(over="ignore"):  # as the kernels do
        np.add(y, constants, out=y)


def apply_mask(
    x: Array, out: Array | None, bits: Bits, scale: float, noise_shape: tuple[int, ...] | None
) -> Array:
    """``scale * x`` where the packed mask of the noise array keeps, +0.0 elsewhere."""
    kept = None
    if noise_shape is not None or not has_kernel(x.dtype):
        mask_shape = x.shape if noise_shape is None else noise_shape
        kept = np.broadcast_to(unpack_bits(bits, mask_shape), x.shape)
    if has_kernel(x.dtype):
        of_x = bits if kept is None else _pack(kept)
        apply_bits = active().apply_bits
        return _elementwise(x, out, lambda a, b: apply_bits(a, b, of_x, scale))
    y = np.zeros(x.shape, x.dtype)
    # A factor of complex type would make NaN of the other part where one part is infinite.
    parts = [(x.real, y.real), (x.imag, y.imag)] if x.dtype.kind == "c" else [(x, y)]
    for source, target in parts:
        factor = target.dtype.type(scale)
        np.multiply(source, factor, out=target, where=True if kept is None else kept)
    if out is None:
        return y
    out[...] = y
    return out


def _pack(kept: NDArray[np.bool_]) -> Bits:
    """The packed mask of a mask that may be a broadcast view."""
    varied = max((i + 1 for i, stride in enumerate(kept.strides) if stride), default=0)
    run = math.prod(kept.shape[varied:])  # elements in a row that share a value
    # Whole bytes then, which are copied in less time than bits are packed.
    if run % 8 or not kept.size or 0 in kept.strides[:varied]:
        return np.packbits(kept, bitorder="little")
    first: Any = (..., *(0,) * (kept.ndim - varied))
    return np.repeat(np.where(kept[first], np.uint8(255), np.uint8(0)), run // 8)


def apply_relu(x: Array, out: Array | None) -> tuple[Array, Bits]:
    """ReLU of an array from `as_input`, and the packed mask of what it lets pass."""
    if has_kernel(x.dtype):
        bits = _memory.empty_bits(x.size)
        kernel = active().relu
        return _elementwise(x, out, lambda a, b: kernel(a, b, bits)), bits
    if x.dtype.kind == "c":
        raise TypeError(f"relu needs real numbers, got dtype {x.dtype}")
    kept = ~(x <= 0)
    bits = np.packbits(kept, bitorder="little")
    return apply_mask(x, out, bits, 1.0, None), bits


def _elementwise(x: Array, out: Array | None, kernel: Callable[[Array, Array], None]) -> Array:
    """Run ``kernel(source, target)`` on C-contiguous arrays, whatever the layouts of x and out."""
    owned = not (x.flags.c_contiguous and x.flags.aligned)
    source = np.array(x, order="C") if owned else x
    target: Array
    if out is not None and _is_simple(out) and _same_or_apart(source, out):
        target = out
    else:
        target = source if owned else _memory.empty(x.shape, x.dtype)
    if x.size:
        kernel(source, target)
    if out is None or target is out:
        return target
    out[...] = target
    return out


def _is_simple(x: Array) -> bool:
    """Whether a backend may write to `x` as one run of elements."""
    return bool(x.flags.carray) and x.dtype.isnative


def _same_or_apart(x: Array, out: Array) -> bool:
    """Whether two C-contiguous arrays of one size are the same memory or share none of it."""
    # Reading the addresses takes the longest, so they come last.
    return x is out or not np.may_share_memory(x, out) or x.ctypes.data == out.ctypes.data


def can_write_directly(x: Array, out: Array) -> bool:
    """Whether a kernel may write its result for the C-contiguous array `x` straight to `out`."""
    return (
        type(out) is np.ndarray
        and out.dtype == x.dtype
        and out.shape == x.shape
        and out.flags.carray
        and (x is out or not np.may_share_memory(x, out))
    )


def product(
    a: Array,
    b: Array,
    dtype: np.dtype[Any],
    bias: Array | None = None,
    relu: bool = False,
    skip: str = "",
    out: Array | None = None,
) -> Array:
    """The product of two matrices in `dtype`, written to `out` if a backend can do so directly."""
    if has_kernel(dtype):
        return _kernel_product(a, b, dtype, bias, relu, skip, out)
    y: Array = np.matmul(as_operand(a, dtype), as_operand(b, dtype))  # integers, complex, ...
    if bias is not None:
        y += bias
    return np.maximum(y, y.dtype.type(0)) if relu else y


def _kernel_product(
    a: Array,
    b: Array,
    dtype: np.dtype[Any],
    bias: Array | None,
    relu: bool,
    skip: str,
    out: Array | None,
) -> Array:
    """`product` by the backend."""
    work = F64 if dtype == F64 else F32
    b = as_operand(b, work)
    if bias is not None:
        bias = np.ascontiguousarray(bias, work)
    direct = a.dtype == work and a.flags.aligned
    if not direct and len(a) <= _rows_at_once(a):
        a, direct = as_operand(a, work), True
    y: Array
    if (
        out is not None
        and out.ndim == 2
        and out.dtype == work
        and _is_simple(out)
        and not any(np.may_share_memory(out, o) for o in (a, b, bias) if o is not None)
    ):
        y = out
    else:
        y = _memory.empty((a.shape[0], b.shape[1]), work)
    if direct:
        active().multiply((Product(a, b, y, bias, relu, skip),))
    else:  # converted in blocks of rows, which stay in the cache
        step = _rows_at_once(a)
        converted = np.empty((step, a.shape[1]), work)
        for i in range(0, len(a), step):
            part = converted[: len(a) - i]
            part[...] = a[i : i + step]
            active().multiply((Product(part, b, y[i : i + step], bias, relu, skip),))
    return y if work == dtype else y.astype(dtype)


def masked_product(
    a: Array, b: Array, out: Array, bits: Bits, scale: float, skip: str = ""
) -> None:
    """Write ``scale * (a @ b)`` to the C-contiguous `out` where the mask keeps, else +0.0."""
    work = wide_dtype(out.dtype)
    a, b = as_operand(a, work), as_operand(b, work)
    direct = out.dtype == work and not any(np.may_share_memory(out, o) for o in (a, b))
    y = out if direct else _memory.empty(out.shape, work)
    active().multiply((Product(a, b, y, skip=skip, bits=bits, scale=scale),))
    if not direct:
        out[...] = y


def _rows_at_once(a: Array) -> int:
    """Rows of a matrix that are converted together: up to 4 MB of float64, at least 256 rows."""
    columns: int = a.shape[1]
    return max(256, (1 << 19) // max(1, columns))


def sum_rows(x: Array) -> Array:
    """The sum of a matrix's rows, as a product: several times faster than NumPy's sum of axis 0."""
    total: Array = product(np.ones((1, len(x)), x.dtype), x, x.dtype)[0]
    return total


def add_scaled(x: Array, factor: float, other: Array) -> None:
    """``x += factor * other`` in one pass; both C-contiguous, of one shape and float dtype."""
    if x.dtype.itemsize < 4:
        x += factor * other
    else:
        active().sgd_step([(x, other, None, None)], (-factor, 0.0, False, 0.0))


def sigmoid_gradient(y: Array, dy: Array) -> Array:
    """``dy * (1 - y) * y`` of two float arrays of one shape: `y` is what the sigmoid gave."""
    dtype = y.dtype
    if not (dtype in (F32, F64) and dtype == dy.dtype and _is_ready(y) and _is_ready(dy)):
        gradient: Array = dy * (1 - y) * y
        return gradient
    out = _memory.empty(y.shape, dtype)
    active().sigmoid_gradient(y, dy, out)
    return out


def _is_ready(x: Array) -> bool:
    """Whether a backend can read the elements where they are: not those of NumPy's scalars."""
    return isinstance(x, np.ndarray) and x.flags.c_contiguous and x.flags.aligned
