"""What the texts compute, by NumPy where arrays are small and by this package where they are not.

A call of a backend costs about a microsecond before it starts.  Below the sizes here NumPy's own
operations take less; results differ by rounding at most.  This is the one place that decides.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import ArrayLike

from dropwise import _arrays, functional
from dropwise._backends.protocol import Array
from dropwise._dtypes import F32, F64, has_kernel

FEW_ELEMENTS = 256  # up to here NumPy goes through an array in less time
FEW_MULTIPLICATIONS = 1 << 18  # of a product, up to here NumPy's is as fast

_FEW_CLASSES = 32  # NumPy is slow along a last axis of so few elements,
_MANY_ROWS = 64  # if there are so many of them

# Taken when this is imported: what a script puts into NumPy's place (as ``nnfs.init()`` does with
# ``np.dot``) is meant for its own lines.
_ndarray, _tanh, _maximum, _sum = np.ndarray, np.tanh, np.maximum.reduce, np.add.reduce


# 0, 0.5 and 1 as arrays: to convert Python's numbers takes NumPy half of a small call.
_NUMBERS = {dtype: tuple(np.array(v, dtype) for v in (0, 0.5, 1)) for dtype in (F32, F64)}
_PYTHON_NUMBERS = 0, 0.5, 1.0


def numbers(dtype: np.dtype[Any]) -> Any:
    """0, 0.5 and 1 for operations on arrays of this dtype."""
    return _NUMBERS.get(dtype, _PYTHON_NUMBERS)


def _multiply(a: Array, b: Array, bias: Array | None = None) -> Array:
    """``functional.matmul`` of matrices, by the shortest way if all have one dtype."""
    dtype = a.dtype
    if dtype is b.dtype and (bias is None or bias.dtype is dtype) and has_kernel(dtype):
        return _arrays.product(a, b, dtype, bias, skip="ab")
    return functional.matmul(a, b, bias=bias)


def product(a: Array, b: Array) -> Array:
    """``a @ b`` of two matrices."""
    rows, inner = a.shape
    if rows * inner * b.shape[1] <= FEW_MULTIPLICATIONS:
        y: Array = a.dot(b)
        return y
    return _multiply(a, b)


def affine(x: Array, w: Array, b: Any) -> Array:
    """``x @ w + b`` as NumPy has it: arrays of other ranks, and whatever broadcasts, included."""
    if (
        x.ndim == 2
        and w.ndim == 2
        and type(b) is _ndarray
        and b.shape[-1:] == (b.size,) == w.shape[1:]
    ):
        rows, inner = x.shape
        if rows * inner * b.size > FEW_MULTIPLICATIONS:
            return _multiply(x, w, b.reshape(-1))
        y: Array = x.dot(w)
        if y.dtype is b.dtype:
            y += b
            return y
        y = y + b
        return y
    return np.asarray(x.dot(w) + b)


def weight_gradients(x: Array, dy: Array) -> tuple[Array, Array]:
    """``x.T @ dy`` and the sum of dy's rows, the gradients of weights and bias."""
    rows, inner = x.shape
    if rows * inner * dy.shape[1] <= FEW_MULTIPLICATIONS:
        return x.T.dot(dy), _sum(dy, 0)
    if inner >= 32:
        return _multiply(x.T, dy), _arrays.sum_rows(dy)
    # With a column of ones in x, reading dy once gives both.
    x1 = np.empty((inner + 1, rows), x.dtype)
    x1[:-1] = x.T
    x1[-1] = 1
    both = _multiply(x1, dy)
    return both[:-1], both[-1]


def sigmoid(x: Array) -> Array:
    """``1 / (1 + exp(-x))``, which does not overflow."""
    _, half, _ = numbers(x.dtype)
    y: Array = x * half
    if x.size <= FEW_ELEMENTS:
        y = half * _tanh(y) + half
        return y
    _tanh(y, out=y)
    y *= half
    y += half
    return y


def sigmoid_gradient(y: Array, dy: ArrayLike) -> Array:
    """``dy * (1 - y) * y``, where `y` is what `sigmoid` gave."""
    if y.size > FEW_ELEMENTS and type(dy) is _ndarray and dy.shape == y.shape:
        return _arrays.sigmoid_gradient(y, dy)
    one = numbers(y.dtype)[2]
    dx: Array = one - y
    dx *= y
    dx = dx * dy
    return dx


def softmax(x: Array) -> Array:
    """Softmax over the last axis."""
    if x.ndim == 2 and x.shape[1] < _FEW_CLASSES and x.shape[0] >= _MANY_ROWS:
        dtype = x.dtype if x.dtype.kind == "f" else np.dtype(np.float64)
        columns = np.array(x.T, dtype, order="C")  # [C, B]
        columns -= _maximum(columns, 0)
        np.exp(columns, out=columns)
        by_row = np.empty(x.shape, dtype)
        np.divide(columns, _sum(columns, 0), out=by_row.T)
        return by_row
    y: Array = np.exp(x - _maximum(x, -1, keepdims=True))
    y /= _sum(y, -1, keepdims=True)
    return y


def sum_of_products(a: Array, b: Array) -> Array:
    """The sum over the last axis of ``a * b``, as a column."""
    sums: Array = np.einsum("ij,ij->i", a, b)[:, None]
    return sums
