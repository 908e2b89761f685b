"""The layers of *Deep Learning from Scratch* (its ``common/layers.py``) over this package.

Change ``from common.layers import *`` to ``from dropwise.textbook.dlfs import *``, or put the
second line under the first to keep the book's other layers.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike, NDArray

from dropwise import _arguments, _arrays, functional
from dropwise._backends.protocol import Array
from dropwise.losses import SoftmaxCrossEntropy
from dropwise.textbook._shared import (
    MaskRecord,
    masked_gradient,
    multiply_by_mask,
    training_dropout,
    weight_gradients,
)

__all__ = ["Affine", "Dropout", "Relu", "Sigmoid", "SoftmaxWithLoss"]


class Dropout:
    """Dropout as the book has it: nothing is scaled in training, everything at inference.

    Parameters
    ----------
    dropout_ratio : float in [0, 1]
        Probability that an element is dropped.

    Attributes
    ----------
    mask : ndarray of bool, or None before the first training forward
        True where the last training forward kept.  May be assigned or changed in place: `backward`
        uses what is there.

    Notes
    -----
    Each training forward takes 64 bits from NumPy's global generator as the key of its mask, so
    that ``np.random.seed`` repeats a run.  The masks are others than the book's class draws.

    Examples
    --------
    >>> import numpy as np
    >>> from dropwise.textbook.dlfs import Dropout
    >>> dropout = Dropout(dropout_ratio=0.5)
    >>> dropout.forward(np.array([0, 1, 2, 3, 4]), train_flg=False)
    array([0. , 0.5, 1. , 1.5, 2. ])
    >>> dropout.mask = np.array([False, False, True, False, True])
    >>> dropout.backward([0.0, 0.1, 0.2, 0.3, 0.4])
    array([0. , 0. , 0.2, 0. , 0.4])
    """

    def __init__(self, dropout_ratio: float = 0.5) -> None:
        self.dropout_ratio = dropout_ratio
        self._record: MaskRecord | None = None
        self._mask: NDArray[np.bool_] | None = None  # once someone has asked for it, or set it

    def forward(self, x: ArrayLike, train_flg: bool = True) -> Array:
        """`x` where the mask keeps; at inference ``x * (1 - dropout_ratio)``."""
        if not train_flg:
            x = _arguments.as_input(x, keep_integers=False)
            return np.asarray(x * x.dtype.type(1.0 - self.dropout_ratio))
        y, self._record = training_dropout(x, self.dropout_ratio, "vanilla")
        self._mask = None
        return y

    def backward(self, dout: ArrayLike) -> Array:
        """`dout` where the mask of the last training forward kept, 0 elsewhere."""
        if self._mask is not None:
            return multiply_by_mask(dout, self._mask)
        if self._record is None:
            raise RuntimeError("Dropout: backward was called before a training forward")
        return masked_gradient(dout, self._record)

    @property
    def mask(self) -> NDArray[np.bool_] | None:
        if self._mask is None and self._record is not None:
            self._mask = _arrays.unpack_bits(self._record.bits, self._record.shape)
        return self._mask

    @mask.setter
    def mask(self, value: NDArray[np.bool_] | None) -> None:
        self._mask, self._record = value, None


class Relu:
    """``max(x, 0)``.

    Attributes
    ----------
    mask : ndarray of bool, or None before the first forward
        True where the last `x` was not positive, that is where the gradient is 0.  May be assigned.
    """

    def __init__(self) -> None:
        self._record: MaskRecord | None = None
        self._mask: NDArray[np.bool_] | None = None

    def forward(self, x: ArrayLike) -> Array:
        """`x` where it is positive, 0 elsewhere."""
        out, bits = _arrays.apply_relu(_arguments.as_input(x, keep_integers=True), None)
        self._record, self._mask = MaskRecord(bits, out.shape), None
        return out

    def backward(self, dout: ArrayLike) -> Array:
        """`dout` where the last `x` was positive.  `dout` itself stays as it is."""
        if self._mask is not None:
            return multiply_by_mask(dout, ~self._mask)
        if self._record is None:
            raise RuntimeError("Relu: backward was called before forward")
        return masked_gradient(dout, self._record)

    @property
    def mask(self) -> NDArray[np.bool_] | None:
        if self._mask is None and self._record is not None:
            self._mask = ~_arrays.unpack_bits(self._record.bits, self._record.shape)
        return self._mask

    @mask.setter
    def mask(self, value: NDArray[np.bool_] | None) -> None:
        self._mask, self._record = value, None


class Sigmoid:
    """``1 / (1 + exp(-x))``; `out` is the last result."""

    def __init__(self) -> None:
        self.out: Array | None = None

    def forward(self, x: ArrayLike) -> Array:
        x = np.asarray(x)
        self.out = out = 0.5 * np.tanh(0.5 * x) + 0.5  # does not overflow
        return out

    def backward(self, dout: ArrayLike) -> Array:
        if self.out is None:
            raise RuntimeError("Sigmoid: backward was called before forward")
        dx: Array = np.asarray(dout) * (1.0 - self.out) * self.out
        return dx


class Affine:
    """``x @ W + b``; inputs of more dimensions are flattened to (N, -1).

    Parameters
    ----------
    W : ndarray, shape (D, M)
    b : ndarray, shape (M,)
        Both are kept by reference: an optimizer changes them in place.

    Attributes
    ----------
    dW, db : ndarray
        Gradients of the last backward.
    """

    def __init__(self, W: Array, b: Array) -> None:
        self.W = W
        self.b = b
        self.x: Array | None = None
        self.original_x_shape: tuple[int, ...] | None = None
        self.dW: Array | None = None
        self.db: Array | None = None

    def forward(self, x: ArrayLike) -> Array:
        x = np.asarray(x)
        self.original_x_shape = x.shape
        self.x = x.reshape(x.shape[0], -1)
        return functional.matmul(self.x, self.W, bias=self.b)

    def backward(self, dout: ArrayLike) -> Array:
        if self.x is None or self.original_x_shape is None:
            raise RuntimeError("Affine: backward was called before forward")
        dout = np.asarray(dout)
        self.dW, self.db = weight_gradients(self.x, dout)
        return functional.matmul(dout, self.W.T).reshape(self.original_x_shape)


class SoftmaxWithLoss:
    """Softmax and mean cross-entropy.

    Attributes
    ----------
    loss : float
    y : ndarray
        The probabilities of the last forward.
    t : ndarray
        Its labels: class numbers, or one-hot rows.
    """

    def __init__(self) -> None:
        self.loss: float | None = None
        self.y: Array | None = None
        self.t: Array | None = None
        self._loss = SoftmaxCrossEntropy()

    def forward(self, x: ArrayLike, t: ArrayLike) -> float:
        x, self.t = np.asarray(x), np.asarray(t)
        scores = np.atleast_2d(x)
        labels = self.t.reshape(scores.shape if self.t.size == scores.size else -1)
        self.loss = loss = self._loss.forward(scores, labels)
        self.y = self._loss.probabilities.reshape(x.shape)
        return loss

    def backward(self, dout: float = 1) -> Array:
        """The gradient of the loss.  `dout` makes no difference, as in the book."""
        if self.y is None:
            raise RuntimeError("SoftmaxWithLoss: backward was called before forward")
        return self._loss.backward().reshape(self.y.shape)
