"""Stateless dropout, ReLU and products.  All validation of the package happens here.

What a backend gets from here is described in `_backends.protocol`: C-contiguous arrays of one of
four dtypes, plain scalars in range.  Everything else (other dtypes, layouts, byte orders,
overlapping outputs) is brought to that form here, or computed here with NumPy on the backend's
mask.
"""

from __future__ import annotations

import functools
import math
import operator
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, DTypeLike, NDArray

from dropwise import _memory
from dropwise._backends import active
from dropwise._backends.protocol import Array, Bits, Product
from dropwise.random import KEY_END, STREAM_END

__all__ = ["dropout", "dropout_backward", "dropout_mask", "matmul", "relu"]

_F32 = np.dtype(np.float32)
_F64 = np.dtype(np.float64)
STANDARD = frozenset((_F32, _F64, np.dtype(np.float16)))  # native byte order
_SCALINGS = ("inverted", "vanilla")


# ---- public functions --------------------------------------------------------------------------


def dropout(
    x: ArrayLike,
    rate: float,
    *,
    key: int,
    stream: int = 0,
    offset: int = 0,
    scaling: str = "inverted",
    noise_shape: Sequence[int | None] | None = None,
    training: bool = True,
    out: Array | None = None,
) -> Array:
    """Set elements to zero at random and scale those that are kept.

    Parameters
    ----------
    x : array_like, any shape
        float32, float64, float16 and bfloat16 stay what they are; integers and bool become float64,
        except with ``scaling="vanilla"`` in training, which keeps them.
    rate : float in [0, 1]
        Probability that an element is dropped.
    key : int in [0, 2**64)
        Selects the random sequence.
    stream : int in [0, 2**56)
        Selects one mask of the sequence: use a new one for every call.
    offset : int in [0, 2**64)
        Index of the first element in the global array of which `x` is a part.
    scaling : {"inverted", "vanilla"}
        Kept elements are multiplied by ``1 / (1 - rate)`` in training ("inverted"), or by 1 in
        training and everything by ``1 - rate`` at inference ("vanilla").
    noise_shape : sequence of int or None, optional
        Shape of the mask, broadcast against `x`: 1, or the size of `x` (also written None), for
        each dimension.  Its own C order gives the indices.
    training : bool
        At inference nothing is dropped.
    out : ndarray, optional
        Where the result goes; may be `x`, or overlap it.

    Returns
    -------
    ndarray, shape of `x`
        Dropped elements are +0.0, even where `x` is NaN or infinite.

    Raises
    ------
    ValueError, TypeError
        If an argument is out of range or of the wrong kind.

    Notes
    -----
    The mask depends on ``(key, stream, offset, rate)`` and the element's C-order index only: not on
    dtype, memory layout, backend, instruction set or threads.  That holds for every release with
    mask contract version 1.

    From 4 MiB on, a result lies in the memory of a former one of its size that is gone, if there is
    one: up to 256 MiB are kept for that.

    Examples
    --------
    >>> import numpy as np
    >>> from dropwise import functional as F
    >>> F.dropout(np.arange(6, dtype=np.float32), 0.5, key=2)
    array([ 0.,  2.,  4.,  0.,  0., 10.], dtype=float32)

    References
    ----------
    .. [1] Srivastava et al., "Dropout: a simple way to prevent neural networks from overfitting",
       JMLR 15 (2014).
    """
    vanilla = check_scaling(scaling) == "vanilla"
    rate = check_rate(rate)
    x = as_input(x, keep_integers=vanilla and training)
    mask_rate, scale = rate_and_scale(rate, scaling, training, x.dtype)
    check_key(key, stream)
    noise = check_noise_shape(noise_shape, x.shape)
    check_offset(offset, x.size if noise is None else math.prod(noise))
    if out is not None:
        check_out(out, x.shape, x.dtype)
    return apply_dropout(x, out, None, mask_rate, scale, key, stream, offset, noise)


def dropout_backward(
    dy: ArrayLike,
    rate: float,
    *,
    key: int | None = None,
    stream: int = 0,
    offset: int = 0,
    scaling: str = "inverted",
    noise_shape: Sequence[int | None] | None = None,
    training: bool = True,
    mask: NDArray[np.bool_] | None = None,
    out: Array | None = None,
) -> Array:
    """The gradient of `dropout` with respect to its input.

    Parameters
    ----------
    dy : array_like
        Gradient with respect to the result of `dropout`.
    rate, key, stream, offset, scaling, noise_shape, training
        As in the call of `dropout`; the mask is made again from them.
    mask : ndarray of bool, optional
        The mask itself, True where kept, of the shape of `dy` or `noise_shape`; `key`, `stream` and
        `offset` are then not needed.
    out : ndarray, optional
        Where the result goes; may be `dy`, or overlap it.

    Returns
    -------
    ndarray, shape of `dy`
        ``dy`` times the same scale where the mask kept, +0.0 elsewhere.

    Examples
    --------
    >>> import numpy as np
    >>> from dropwise import functional as F
    >>> F.dropout_backward(np.ones(3), 0.5, mask=np.array([True, False, True]))
    array([2., 0., 2.])
    """
    if mask is None:
        if key is None:
            raise TypeError("dropout_backward needs the key of the forward call, or its mask")
        return dropout(
            dy,
            rate,
            key=key,
            stream=stream,
            offset=offset,
            scaling=scaling,
            noise_shape=noise_shape,
            training=training,
            out=out,
        )
    vanilla = check_scaling(scaling) == "vanilla"
    dy = as_input(dy, keep_integers=vanilla and training)
    _, scale = rate_and_scale(check_rate(rate), scaling, training, dy.dtype)
    mask = np.asarray(mask)
    if mask.dtype != np.bool_:
        raise TypeError(f"mask must be an array of bool, got dtype {mask.dtype}")
    if not training:
        mask = np.ones(mask.shape, np.bool_)
    noise = check_noise_shape(mask.shape if noise_shape is None else noise_shape, dy.shape)
    expected = dy.shape if noise is None else noise
    if mask.shape != expected:
        raise ValueError(f"mask must have shape {expected}, got {mask.shape}")
    if out is not None:
        check_out(out, dy.shape, dy.dtype)
    return apply_mask(dy, out, np.packbits(mask, bitorder="little"), scale, noise)


def dropout_mask(
    shape: int | Sequence[int], rate: float, *, key: int, stream: int = 0, offset: int = 0
) -> NDArray[np.bool_]:
    """Decide which elements survive.

    Parameters
    ----------
    shape : int or sequence of int
    rate : float in [0, 1]
        Probability that an element is dropped.
    key : int in [0, 2**64)
        Selects the random sequence.
    stream : int in [0, 2**56)
        Selects one mask of the sequence.
    offset : int in [0, 2**64)
        Index of the first element in the global array of which this is a part.

    Returns
    -------
    ndarray of bool, shape `shape`
        True where the element is kept.

    Notes
    -----
    The result depends on ``(key, stream, offset, rate)`` and the element's C-order index only.
    This holds for every release with mask contract version 1.  Masks are nested: a larger rate
    drops a superset.

    Examples
    --------
    >>> from dropwise import functional as F
    >>> F.dropout_mask((2, 3), 0.5, key=2)
    array([[False,  True,  True],
           [False, False,  True]])

    References
    ----------
    .. [1] Salmon et al., "Parallel random numbers: as easy as 1, 2, 3", SC11 (2011).
    """
    shape = (shape,) if isinstance(shape, (int, np.integer)) else tuple(shape)
    size = math.prod(shape)
    if any(n < 0 for n in shape):
        raise ValueError(f"shape must not have negative dimensions, got {shape}")
    check_key(key, stream)
    check_offset(offset, size)
    return unpack_bits(make_bits(size, check_rate(rate), key, stream, offset), shape)


def relu(x: ArrayLike, *, out: Array | None = None) -> Array:
    """``max(x, 0)``, with NaN staying NaN.

    Parameters
    ----------
    x : array_like
    out : ndarray, optional
        Where the result goes; may be `x`, or overlap it.

    Examples
    --------
    >>> from dropwise import functional as F
    >>> F.relu([-1.0, 2.0])
    array([0., 2.])
    """
    x = as_input(x, keep_integers=True)
    if out is not None:
        check_out(out, x.shape, x.dtype)
    return apply_relu(x, out)[0]


def matmul(
    a: ArrayLike,
    b: ArrayLike,
    *,
    bias: ArrayLike | None = None,
    relu: bool = False,
    skip_zeros: bool = True,
    out: Array | None = None,
) -> Array:
    """``a @ b``, at the cost of what is not zero in `a` and `b`.

    Parameters
    ----------
    a : array_like, shape (..., K)
    b : array_like, shape (K, N)
        Both may have any strides: ``a.T`` costs nothing.
    bias : array_like, shape (N,), optional
        Added to each row of the product.
    relu : bool
        Whether negative results (after the bias) become 0.
    skip_zeros : bool
        Whether products with an exact zero may be left out.  It depends on the measured density
        whether they are.  Such a product contributes nothing, also where the other factor is NaN or
        infinite; False gives IEEE results.
    out : ndarray, shape (..., N), optional
        Where the result goes.

    Returns
    -------
    ndarray, shape (..., N)
        Of the dtype that NumPy gives; float16 and bfloat16 accumulate in float32.

    Examples
    --------
    >>> import numpy as np
    >>> from dropwise import functional as F
    >>> x = np.array([[1.0, 0.0, 2.0]])
    >>> F.matmul(x, np.ones((3, 2)), bias=[0.5, -9.0], relu=True)
    array([[3.5, 0. ]])
    """
    a, b = np.asarray(a), np.asarray(b)
    shape, inner = a.shape, b.shape
    if len(inner) != 2 or not shape or shape[-1] != inner[0]:
        raise ValueError(f"matmul needs shapes (..., K) and (K, N), got {shape} and {inner}")
    dtype = a.dtype
    if dtype is not b.dtype or not dtype.isnative:
        dtype = np.result_type(a, b)
    if bias is not None:
        bias = np.asarray(bias)
        if bias.shape != inner[1:]:
            raise ValueError(f"bias must have shape {inner[1:]}, got {bias.shape}")
        if bias.dtype is not dtype:
            dtype = np.result_type(dtype, bias)
    if out is not None:
        check_out(out, (*shape[:-1], inner[1]), dtype)
    if len(shape) != 2:
        a = a.reshape(math.prod(shape[:-1]), inner[0])
    if has_kernel(dtype):
        product = _kernel_product(a, b, dtype, bias, relu, "ab" if skip_zeros else "", out)
    else:  # integers, long double, complex
        product = np.matmul(as_operand(a, dtype), as_operand(b, dtype))
        if bias is not None:
            product += bias
        if relu:
            product = np.maximum(product, 0)
    if product is out:
        return out
    if len(shape) != 2:
        product = product.reshape(*shape[:-1], inner[1])
    if out is None:
        return product
    out[...] = product
    return out


def _kernel_product(
    a: Array,
    b: Array,
    dtype: np.dtype[Any],
    bias: Array | None,
    relu: bool,
    skip: str,
    out: Array | None,
) -> Array:
    """The product of two matrices by the backend, in `out` if that can be written directly."""
    work = _F64 if dtype == _F64 else _F32
    b = as_operand(b, work)
    if bias is not None:
        bias = np.ascontiguousarray(bias, work)
    direct = a.dtype == work and a.flags.aligned
    if not direct and len(a) <= _rows_at_once(a):
        a, direct = as_operand(a, work), True
    product: Array
    if (
        out is not None
        and out.ndim == 2
        and out.dtype == work
        and _is_simple(out)
        and not any(np.may_share_memory(out, o) for o in (a, b))
    ):
        product = out
    else:
        product = _memory.empty((a.shape[0], b.shape[1]), work)
    if direct:
        active().multiply((Product(a, b, product, bias, relu, skip),))
    else:  # converted some rows at a time, which then are in cache
        step = _rows_at_once(a)
        converted = np.empty((step, a.shape[1]), work)
        for i in range(0, len(a), step):
            part = converted[: len(a) - i]
            part[...] = a[i : i + step]
            rows = product[i : i + step]
            active().multiply((Product(part, b, rows, bias, relu, skip),))
    return product if work == dtype else product.astype(dtype)


def _rows_at_once(a: Array) -> int:
    """Rows of a matrix that are converted together: 4 MB of float64, and enough for a product."""
    columns: int = a.shape[1]
    return max(256, (1 << 19) // max(1, columns))


# ---- checks ------------------------------------------------------------------------------------


def check_rate(rate: float) -> float:
    """`rate` as a float in [0, 1]."""
    if isinstance(rate, (bool, np.bool_, str, bytes)):
        raise TypeError(f"rate must be a number in [0, 1], got {rate!r}")
    try:
        value = float(rate)
    except TypeError:
        raise TypeError(f"rate must be a number in [0, 1], got {rate!r}") from None
    if not 0.0 <= value <= 1.0:
        raise ValueError(f"rate must be in [0, 1], got {rate!r}")
    return value


def check_scaling(scaling: str) -> str:
    """`scaling`, if it is one of the two."""
    if scaling not in _SCALINGS:
        raise ValueError(f"scaling must be 'inverted' or 'vanilla', got {scaling!r}")
    return scaling


def check_key(key: int, stream: int) -> None:
    """Raise unless both are integers in the contract's range."""
    if not 0 <= operator.index(key) < KEY_END:
        raise ValueError(f"key must be in [0, 2**64), got {key!r}")
    if not 0 <= operator.index(stream) < STREAM_END:
        raise ValueError(f"stream must be in [0, 2**56), got {stream!r}")


def check_offset(offset: int, size: int) -> None:
    """Raise unless elements ``offset`` to ``offset + size`` have 64-bit indices."""
    if not 0 <= operator.index(offset) <= KEY_END - size:
        raise ValueError(f"offset must be in [0, 2**64 - {size}], got {offset!r}")


def check_noise_shape(
    noise_shape: Sequence[int | None] | None, shape: tuple[int, ...]
) -> tuple[int, ...] | None:
    """The shape of the noise array, or None if it is `shape` itself."""
    if noise_shape is None:
        return None
    noise = tuple(n if m is None else m for m, n in zip(noise_shape, shape, strict=False))
    if len(noise_shape) != len(shape) or any(
        m not in (1, n) for m, n in zip(noise, shape, strict=True)
    ):
        raise ValueError(
            f"noise_shape must have 1, None or x's size for each dimension of x {shape}, "
            f"got {tuple(noise_shape)}"
        )
    return None if noise == shape else noise


def check_out(out: Array, shape: tuple[int, ...], dtype: np.dtype[Any]) -> None:
    """Raise unless `out` can take a result of this shape and dtype."""
    if not isinstance(out, np.ndarray):
        raise TypeError(f"out must be an ndarray, got {type(out).__name__}")
    same = out.dtype == dtype or out.dtype.newbyteorder("=") == dtype
    if out.shape != shape or not same:
        raise ValueError(f"out must be {dtype} of shape {shape}, got {out.dtype} of {out.shape}")
    if not out.flags.writeable:
        raise ValueError("out must be writeable")


# ---- dtypes and layouts ------------------------------------------------------------------------


def float_dtype(dtype: DTypeLike) -> np.dtype[Any]:
    """A dtype that layers may have, in native byte order."""
    if isinstance(dtype, str) and dtype == "bfloat16":
        import ml_dtypes

        bfloat16: np.dtype[Any] = np.dtype(ml_dtypes.bfloat16)
        return bfloat16
    wanted = np.dtype(dtype)
    if not has_kernel(_native(wanted)):
        raise TypeError(f"dtype must be float32, float64, float16 or bfloat16, got {wanted}")
    return _native(wanted)


def has_kernel(dtype: np.dtype[Any]) -> bool:
    """Whether the backends compute elementwise in this dtype (in native byte order)."""
    return dtype in STANDARD or dtype.name == "bfloat16"


def as_input(x: ArrayLike, *, keep_integers: bool) -> Array:
    """`x` as an array in native byte order of a dtype that the operations work in."""
    if type(x) is np.ndarray and x.dtype in STANDARD:
        return x
    x = np.asarray(x)
    dtype = x.dtype
    if dtype.kind in "biu":
        return (
            x
            if keep_integers and dtype.isnative
            else x.astype(_native(dtype) if keep_integers else _F64)
        )
    if dtype.kind in "fc" or dtype.name == "bfloat16":
        return x if dtype.isnative else x.astype(_native(dtype))
    raise TypeError(f"x must be an array of numbers, got dtype {dtype}")


def as_operand(x: Array, dtype: np.dtype[Any]) -> Array:
    """`x` in this dtype, aligned and in native byte order; its own memory where possible."""
    if x.dtype != dtype or not x.flags.aligned:
        return np.array(x, dtype, order="K")
    return x


def _native(dtype: np.dtype[Any]) -> np.dtype[Any]:
    return dtype.newbyteorder("=")


def _is_simple(x: Array) -> bool:
    """Whether a backend may write to it as one run of elements."""
    return bool(x.flags.carray) and x.dtype.isnative


def _elementwise(x: Array, out: Array | None, kernel: Callable[[Array, Array], None]) -> Array:
    """Run ``kernel(source, target)`` on simple arrays, whatever the layout of `x` and `out` is."""
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


def _same_or_apart(x: Array, out: Array) -> bool:
    """Whether two C-contiguous arrays of one size are the same memory or share none of it."""
    # Addresses cost the most to ask for, and are asked last.
    return x is out or not np.may_share_memory(x, out) or x.ctypes.data == out.ctypes.data


def takes_result_of(x: Array, out: Array) -> bool:
    """Whether a kernel may write what it makes of the simple array `x` to `out` directly."""
    return (
        type(out) is np.ndarray
        and out.dtype == x.dtype
        and out.shape == x.shape
        and out.flags.carray
        and (x is out or not np.may_share_memory(x, out))
    )


@functools.lru_cache(maxsize=1024)
def round_to(value: float, dtype: np.dtype[Any]) -> float:
    """`value` rounded once, to nearest even, to a number of `dtype`."""
    if dtype.name == "bfloat16":  # NumPy would go by float32 and so round twice
        mantissa, exponent = math.frexp(value)
        return math.ldexp(round(mantissa * 256), exponent - 8)
    if dtype.kind == "f" and dtype.itemsize < 8:
        with np.errstate(over="ignore"):
            return float(dtype.type(value))
    return value


@functools.lru_cache(maxsize=1024)
def rate_and_scale(
    rate: float, scaling: str, training: bool, dtype: np.dtype[Any]
) -> tuple[float, float]:
    """The rate of the mask and the factor of what it keeps, the factor rounded to `dtype`."""
    if training:
        inverted = scaling == "inverted" and rate < 1.0
        return rate, round_to(1.0 / (1.0 - rate), dtype) if inverted else 1.0
    return 0.0, 1.0 if scaling == "inverted" else round_to(1.0 - rate, dtype)


# ---- masks and elementwise operations on checked arguments ---------------------------------------


def make_bits(size: int, rate: float, key: int, stream: int, offset: int) -> Bits:
    """The packed mask of `size` elements."""
    bits = _memory.empty_bits(size)
    if size:
        active().mask_bits(bits, size, rate, key, stream, offset)
    return bits


def unpack_bits(bits: Bits, shape: tuple[int, ...]) -> NDArray[np.bool_]:
    """A packed mask as an array of bool."""
    count = math.prod(shape)
    return np.unpackbits(bits, count=count, bitorder="little").view(np.bool_).reshape(shape)


def apply_dropout(
    x: Array,
    out: Array | None,
    bits: Bits | None,
    rate: float,
    scale: float,
    key: int,
    stream: int,
    offset: int,
    noise: tuple[int, ...] | None,
) -> Array:
    """Dropout of an array from `as_input`; the mask goes to `bits` if given."""
    if noise is None and has_kernel(x.dtype):
        kernel = functools.partial(_forward, bits, rate, scale, key, stream, offset)
        return _elementwise(x, out, kernel)
    size = x.size if noise is None else math.prod(noise)
    made = make_bits(size, rate, key, stream, offset)
    if bits is not None:
        bits[...] = made
    return apply_mask(x, out, made, scale, noise)


def apply_mask(
    x: Array, out: Array | None, bits: Bits, scale: float, noise: tuple[int, ...] | None
) -> Array:
    """``scale * x`` where the packed mask (over `noise`, or over x) keeps, +0.0 elsewhere."""
    kept = None
    if noise is not None or not has_kernel(x.dtype):
        kept = np.broadcast_to(unpack_bits(bits, x.shape if noise is None else noise), x.shape)
    if has_kernel(x.dtype):
        if kept is not None:
            bits = np.packbits(kept, bitorder="little")
        return _elementwise(x, out, functools.partial(_apply, bits, scale))
    y = np.zeros(x.shape, x.dtype)
    np.multiply(x, x.dtype.type(scale), out=y, where=True if kept is None else kept)
    if out is None:
        return y
    out[...] = y
    return out


def _forward(
    bits: Bits | None,
    rate: float,
    scale: float,
    key: int,
    stream: int,
    offset: int,
    x: Array,
    out: Array,
) -> None:
    active().dropout_forward(x, out, bits, rate, scale, key, stream, offset)


def _apply(bits: Bits, scale: float, x: Array, out: Array) -> None:
    active().apply_bits(x, out, bits, scale)


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


# ---- products on checked arguments ---------------------------------------------------------------


def sum_rows(x: Array) -> Array:
    """The sum of a matrix's rows, as a product: several times faster than NumPy's sum of axis 0."""
    total: Array = matmul(np.ones((1, len(x)), x.dtype), x, skip_zeros=False)[0]
    return total


def as_rows(
    x: ArrayLike, dtype: DTypeLike, features: int, who: object
) -> tuple[Array, tuple[int, ...]]:
    """`x` as a matrix [B, features] of `dtype`, and its leading dimensions."""
    x = np.asarray(x)
    if x.ndim < 1 or x.shape[-1] != features:
        columns = x.shape[-1] if x.ndim else "no"
        raise ValueError(f"{who} got x with {columns} columns; it was built for {features}")
    if x.dtype.kind not in "biuf" and x.dtype.name != "bfloat16":
        raise TypeError(f"{who} needs real numbers, got dtype {x.dtype}")
    lead = x.shape[:-1]
    return as_operand(x, np.dtype(dtype)).reshape(-1, features), lead
