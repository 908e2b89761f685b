"""Activation layers."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import ArrayLike

from dropwise import _arguments, _arrays, functional
from dropwise._backends.protocol import Array, Bits
from dropwise.layers.base import Layer, check_gradient, no_forward, register


@register
class ReLU(Layer):
    """``max(x, 0)``; NaN stays NaN.  Keeps 1 bit per element for ``backward``.

    Examples
    --------
    >>> import dropwise as dw
    >>> relu = dw.ReLU()
    >>> relu.forward([-1.0, 0.0, 2.0])
    array([0., 0., 2.])
    >>> relu.backward([5.0, 5.0, 5.0])
    array([0., 0., 5.])
    """

    def __init__(self) -> None:
        self._pass: tuple[tuple[int, ...], np.dtype[Any], Bits] | None = None

    def forward(self, x: ArrayLike, training: bool = True, *, out: Array | None = None) -> Array:
        """``max(x, 0)``, in `out` if given; the same in training and at inference."""
        x = _arguments.as_input(x, keep_integers=True)
        if out is not None:
            _arguments.check_out(out, x.shape, x.dtype)
        shape, dtype = x.shape, x.dtype
        y, bits = _arrays.apply_relu(x, out)
        self._pass = (shape, dtype, bits)
        return y

    def backward(self, dy: ArrayLike, *, out: Array | None = None) -> Array:
        """`dy` where the last `x` was positive (or NaN), 0 elsewhere."""
        if self._pass is None:
            raise no_forward(self)
        shape, dtype, bits = self._pass
        dy = _arguments.as_input(check_gradient(dy, shape, dtype, self), keep_integers=True)
        if out is not None:
            _arguments.check_out(out, dy.shape, dy.dtype)
        return _arrays.apply_mask(dy, out, bits, 1.0, None)

    def predict(self, x: ArrayLike) -> Array:
        """``max(x, 0)``; remembers nothing."""
        return functional.relu(x)
