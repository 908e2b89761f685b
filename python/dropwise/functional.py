"""Stateless dropout, ReLU and products: the public functions."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import TypeAlias

import numpy as np
from numpy.typing import ArrayLike, NDArray

from dropwise._arguments import (
    as_input,
    as_key,
    as_noise_shape,
    as_offset,
    as_plain_array,
    as_shape,
    as_stream,
    as_within,
    check_numbers,
    check_out,
    check_rate,
    check_scaling,
    fit_noise_shape,
)
from dropwise._arrays import (
    NoiseSpec,
    apply_dropout,
    apply_mask,
    apply_relu,
    box_of,
    make_bits,
    product,
    unpack_bits,
)
from dropwise._backends.protocol import Array, Box
from dropwise._dtypes import has_kernel, rate_and_scale

# Where a part begins in a global array, in each dimension, and the shape of that.
Within: TypeAlias = "tuple[Sequence[int], Sequence[int]]"

__all__ = ["dropout", "dropout_backward", "dropout_mask", "matmul", "relu"]


def dropout(
    x: ArrayLike,
    rate: float,
    *,
    key: int,
    stream: int = 0,
    offset: int = 0,
    within: Within | None = None,
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
        Index of the first element in the global array of which `x` is a part, if `x` is one run of
        its elements.
    within : (start, global_shape), optional
        In the place of `offset`: the index of the first element of `x` in each dimension of the
        global array, and the shape of that, which `noise_shape` then refers to.
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

    A result of 4 MiB or more uses the memory of an earlier result of its size that is gone, if
    there is one: up to 256 MiB are kept for that.

    References
    ----------
    .. [1] Srivastava et al., "Dropout: a simple way to prevent neural networks from overfitting",
       JMLR 15 (2014).

    Examples
    --------
    >>> import numpy as np
    >>> from dropwise import functional as F
    >>> F.dropout(np.arange(6, dtype=np.float32), 0.5, key=2)
    array([ 0.,  2.,  4.,  0.,  0., 10.], dtype=float32)
    """
    vanilla = check_scaling(scaling) == "vanilla"
    rate = check_rate(rate)
    x = as_input(x, keep_integers=vanilla and training)
    mask_rate, scale = rate_and_scale(rate, scaling, training, x.dtype)
    key, stream = as_key(key), as_stream(stream)
    noise, first = _placed(x.shape, offset, within, noise_shape)
    if out is not None:
        check_out(out, x.shape, x.dtype)
    return apply_dropout(x, out, None, NoiseSpec(mask_rate, scale, key, stream, first, noise))


def _placed(
    shape: tuple[int, ...],
    offset: int,
    within: Within | None,
    noise_shape: Sequence[int | None] | None,
) -> tuple[tuple[int, ...] | None, int | Box]:
    """The shape of the mask (None: `shape`), and where it is in that of the global array."""
    given = as_noise_shape(noise_shape)
    if within is None:
        noise = fit_noise_shape(given, shape)
        return noise, as_offset(offset, math.prod(shape if noise is None else noise))
    if type(offset) is not int or offset:
        raise ValueError("give offset or within, not both")
    start, whole = as_within(within, shape)
    part, first = box_of(start, shape, fit_noise_shape(given, whole) or whole)
    return (None if part == shape else part), first


def dropout_backward(
    dy: ArrayLike,
    rate: float,
    *,
    key: int | None = None,
    stream: int = 0,
    offset: int = 0,
    within: Within | None = None,
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
    rate, key, stream, offset, within, scaling, noise_shape, training : as for `dropout`
        The mask is made again from them.
    mask : ndarray of bool, optional
        The mask itself, True where kept, of the shape of `dy` or `noise_shape`; `key`, `stream`,
        `offset` and `within` are then not needed.
    out : ndarray, optional
        Where the result goes; may be `dy`, or overlap it.

    Returns
    -------
    ndarray, shape of `dy`
        ``dy`` times the same scale where the mask kept, +0.0 elsewhere.

    References
    ----------
    .. [1] Salmon et al., "Parallel random numbers: as easy as 1, 2, 3", SC11 (2011).

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
            within=within,
            scaling=scaling,
            noise_shape=noise_shape,
            training=training,
            out=out,
        )
    vanilla = check_scaling(scaling) == "vanilla"
    dy = as_input(dy, keep_integers=vanilla and training)
    _, scale = rate_and_scale(check_rate(rate), scaling, training, dy.dtype)
    mask = as_plain_array(mask, "mask")
    if mask.dtype != np.bool_:
        raise TypeError(f"mask must be an array of bool, got dtype {mask.dtype}")
    if not training:
        mask = np.ones(mask.shape, np.bool_)
    given = mask.shape if noise_shape is None else as_noise_shape(noise_shape)
    noise = fit_noise_shape(given, dy.shape)
    expected = dy.shape if noise is None else noise
    if mask.shape != expected:
        raise ValueError(f"mask must have shape {expected}, got {mask.shape}")
    if out is not None:
        check_out(out, dy.shape, dy.dtype)
    return apply_mask(dy, out, np.packbits(mask, bitorder="little"), scale, noise)


def dropout_mask(
    shape: int | Sequence[int],
    rate: float,
    *,
    key: int,
    stream: int = 0,
    offset: int = 0,
    within: Within | None = None,
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
    within : (start, global_shape), optional
        In the place of `offset`: the index of the first element in each dimension of the global
        array, and the shape of that.

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
    >>> F.dropout_mask((2, 2), 0.5, key=2, within=((0, 1), (2, 3)))  # its last two columns
    array([[ True,  True],
           [False,  True]])
    """
    shape = as_shape(shape)
    size = math.prod(shape)
    rate, key, stream = check_rate(rate), as_key(key), as_stream(stream)
    _, first = _placed(shape, offset, within, None)
    return unpack_bits(make_bits(size, rate, key, stream, first), shape)


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
    """``a @ b``, in less time the more zeros `a` and `b` have.

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
        Whether terms with an exact zero may be left out; the measured density decides whether they
        are.  Such a term contributes nothing, even where the other factor is NaN or infinite; False
        gives IEEE results.
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
    a, b = as_plain_array(a, "a"), as_plain_array(b, "b")
    shape, inner = a.shape, b.shape
    if len(inner) != 2 or not shape or shape[-1] != inner[0]:
        raise ValueError(f"matmul needs shapes (..., K) and (K, N), got {shape} and {inner}")
    dtype = a.dtype
    if dtype is not b.dtype or not dtype.isnative:
        dtype = np.result_type(a, b)
    if bias is not None:
        bias = as_plain_array(bias, "bias")
        if bias.shape != inner[1:]:
            raise ValueError(f"bias must have shape {inner[1:]}, got {bias.shape}")
        if bias.dtype is not dtype:
            dtype = np.result_type(dtype, bias)
    if not has_kernel(dtype):
        check_numbers(dtype, "the product")
    if relu and dtype.kind == "c":
        raise TypeError(f"relu needs real numbers, got dtype {dtype}")
    if out is not None:
        check_out(out, (*shape[:-1], inner[1]), dtype)
    if len(shape) != 2:
        a = a.reshape(math.prod(shape[:-1]), inner[0])
    y = product(a, b, dtype, bias, relu, "ab" if skip_zeros else "", out)
    if y is out:
        return out
    if len(shape) != 2:
        y = y.reshape(*shape[:-1], inner[1])
    if out is None:
        return y
    out[...] = y
    return out
