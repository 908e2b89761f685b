"""Layers without parameters that act on each element by itself: ReLU, Sigmoid and Tanh."""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
from numpy.typing import ArrayLike

from dropwise import _arguments, _arrays, _dtypes, functional
from dropwise._backends.protocol import Array, Bits
from dropwise.layers.base import Layer, no_forward, register
from dropwise.layers.run import RunContext


class ReLUPass(NamedTuple):
    """What a forward leaves for backward."""

    shape: tuple[int, ...]
    dtype: np.dtype[Any]
    bits: Bits  # packed: 1 where the input was passed on


@register
class ReLU(Layer):
    """``max(x, 0)``; NaN stays NaN.  Keeps 1 bit an element for ``backward``.

    Examples
    --------
    >>> import dropwise as dw
    >>> relu = dw.ReLU()
    >>> relu.forward([-1.0, 0.0, 2.0])
    array([0., 0., 2.])
    >>> relu.backward([5.0, 5.0, 5.0])
    array([0., 0., 5.])
    """

    _pass: ReLUPass | None = None

    def forward(self, x: ArrayLike, training: bool = True, *, out: Array | None = None) -> Array:
        """``max(x, 0)``, in `out` if given; the same in training and at inference.

        Parameters
        ----------
        x : array_like, any shape
        training : bool
            Makes no difference.
        out : ndarray, optional
            Where the result goes; may be `x`.

        Returns
        -------
        ndarray, shape and dtype of `x`
        """
        y, self._pass = self._compute(x, out)
        return y

    def _compute(self, x: ArrayLike, out: Array | None) -> tuple[Array, ReLUPass]:
        x = _arguments.as_input(x, keep_integers=True)
        if out is not None:
            _arguments.check_out(out, x.shape, x.dtype)
        y, bits = _arrays.apply_relu(x, out)
        return y, ReLUPass(y.shape, y.dtype, bits)

    def backward(self, dy: ArrayLike, *, out: Array | None = None) -> Array:
        """`dy` where the last `x` was positive (or NaN), 0 elsewhere.

        Parameters
        ----------
        dy : array_like, shape of the last `x`
        out : ndarray, optional
            Where the result goes; may be `dy`.

        Returns
        -------
        ndarray, shape and dtype of the last `x`
        """
        if self._pass is None:
            raise no_forward(self)
        return self._gradient(self._pass, dy, out)

    def _run(self, x: Array, context: RunContext) -> tuple[Array, ReLUPass]:
        return self._compute(x, None)

    def _gradient(self, record: ReLUPass, dy: ArrayLike, out: Array | None = None) -> Array:
        dy = _arguments.as_gradient(dy, record.shape, record.dtype, self)
        if out is not None:
            _arguments.check_out(out, dy.shape, dy.dtype)
        return _arrays.apply_mask(dy, out, record.bits, 1.0, None)

    def predict(self, x: ArrayLike) -> Array:
        """``max(x, 0)``; nothing is remembered.

        Parameters
        ----------
        x : array_like, any shape

        Returns
        -------
        ndarray, shape and dtype of `x`
        """
        return functional.relu(x)


class SmoothPass(NamedTuple):
    """What a forward leaves for backward."""

    y: Array  # the result, in the dtype in which it was computed
    dtype: np.dtype[Any]  # of the result

    def apart_from(self, result: Array) -> SmoothPass:
        """The same, whatever becomes of the array that is the caller's."""
        return self._replace(y=self.y.copy()) if self.y is result else self


class _Smooth(Layer):
    """An activation whose gradient follows from its result."""

    _pass: SmoothPass | None = None

    def forward(self, x: ArrayLike, training: bool = True) -> Array:
        """The function of each element; the same in training and at inference.

        Parameters
        ----------
        x : array_like, any shape
            float16 and bfloat16 are computed in float32; integers and bool become float64.
        training : bool
            Makes no difference.

        Returns
        -------
        ndarray, shape of `x`
        """
        y, record = self._compute(x)
        self._pass = record.apart_from(y)
        return y

    def _compute(self, x: ArrayLike) -> tuple[Array, SmoothPass]:
        values = _arguments.as_real_array(x, "x")
        dtype = _dtypes.F64 if values.dtype.kind in "biu" else values.dtype
        y = np.asarray(self._function(values.astype(_dtypes.wide_dtype(dtype), copy=False)))
        return y.astype(dtype, copy=False), SmoothPass(y, dtype)

    def _run(self, x: Array, context: RunContext) -> tuple[Array, SmoothPass]:
        y, record = self._compute(x)
        return y, record.apart_from(y) if context.keep_records else record

    def backward(self, dy: ArrayLike) -> Array:
        """The gradient with respect to `x` of the last forward.

        Parameters
        ----------
        dy : array_like, shape of the last `x`

        Returns
        -------
        ndarray, shape of the last `x`
        """
        if self._pass is None:
            raise no_forward(self)
        return self._gradient(self._pass, dy)

    def _gradient(self, record: SmoothPass, dy: ArrayLike) -> Array:
        y, dtype = record
        dy = _arguments.as_gradient(dy, y.shape, dtype, self)
        return np.asarray(self._times_derivative(y, dy)).astype(dtype, copy=False)

    def predict(self, x: ArrayLike) -> Array:
        """The function of each element; nothing is remembered.

        Parameters
        ----------
        x : array_like, any shape

        Returns
        -------
        ndarray, shape of `x`
        """
        return self._compute(x)[0]

    def _function(self, x: Array) -> Array:
        raise NotImplementedError

    def _times_derivative(self, y: Array, dy: Array) -> Array:
        """`dy` times the derivative of the function where its result is `y`."""
        raise NotImplementedError


@register
class Sigmoid(_Smooth):
    """The logistic function, ``1 / (1 + exp(-x))``.

    Examples
    --------
    >>> import dropwise as dw
    >>> dw.Sigmoid().forward([0.0, 1000.0, -1000.0])
    array([0.5, 1. , 0. ])
    """

    def _function(self, x: Array) -> Array:
        small = np.exp(-np.abs(x))  # in (0, 1], whatever the sign
        y: Array = np.where(x >= 0, 1, small) / (1 + small)
        return y

    def _times_derivative(self, y: Array, dy: Array) -> Array:
        return _arrays.sigmoid_gradient(y, dy)


@register
class Tanh(_Smooth):
    """The hyperbolic tangent.

    Examples
    --------
    >>> import dropwise as dw
    >>> dw.Tanh().forward([0.0, 1000.0, -1000.0])
    array([ 0.,  1., -1.])
    """

    def _function(self, x: Array) -> Array:
        y: Array = np.tanh(x)
        return y

    def _times_derivative(self, y: Array, dy: Array) -> Array:
        dx: Array = dy * (1 - y * y)
        return dx
