"""The layers of *Deep Learning from Scratch*, both volumes, over this package.

Put ``from dropwise.textbook.dlfs import *`` under ``from common.layers import *`` (or under ``from
common.time_layers import *`` of the second volume): the book's other layers and functions stay.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import ArrayLike

from dropwise import _arguments
from dropwise._backends.protocol import Array
from dropwise.textbook._compute import (
    FEW_ELEMENTS,
    affine,
    numbers,
    product,
    sigmoid,
    sigmoid_gradient,
    softmax,
    weight_gradients,
)
from dropwise.textbook._shared import (
    MaskAttribute,
    MaskRecord,
    TextObject,
    masked_gradient,
    multiply_by_mask,
    relu_mask,
    relu_masked_gradient,
    training_dropout,
)

_maximum = np.maximum  # a script may put its own in NumPy's place

__all__ = ["Affine", "Dropout", "Relu", "Sigmoid", "SoftmaxWithLoss", "TimeDropout"]


class _Layer(TextObject):
    """A layer as a network of the second volume sees it: here one without parameters."""

    def __init__(self) -> None:
        self.params: list[Array] = []
        self.grads: list[Array] = []


class Dropout(_Layer):
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

    mask: Any = MaskAttribute(MaskRecord.kept)

    def __init__(self, dropout_ratio: float = 0.5) -> None:
        super().__init__()
        self.dropout_ratio = dropout_ratio
        self.mask = None

    def forward(self, x: ArrayLike, train_flg: bool = True) -> Array:
        """`x` where the mask keeps; at inference ``x * (1 - dropout_ratio)``."""
        if train_flg:
            y, self.__dict__["mask"] = training_dropout(x, self.dropout_ratio, "vanilla")
            return y
        x = _arguments.as_input(x, keep_integers=False)
        return np.asarray(x * x.dtype.type(1.0 - self.dropout_ratio))

    def backward(self, dout: ArrayLike) -> Array:
        """`dout` where the mask of the last training forward kept, 0 elsewhere."""
        return _masked(self, dout)


def _masked(layer: Dropout | TimeDropout, dout: ArrayLike) -> Array:
    mask = layer.__dict__.get("mask")
    if type(mask) is MaskRecord:
        return masked_gradient(dout, mask)
    if mask is None:
        name = type(layer).__name__
        raise RuntimeError(f"{name}: backward was called before a training forward")
    return multiply_by_mask(dout, mask)


class TimeDropout(_Layer):
    """Dropout between the time layers of the second volume: inverted, switched by `train_flg`.

    Parameters
    ----------
    dropout_ratio : float in [0, 1]
        Probability that an element is dropped.

    Attributes
    ----------
    train_flg : bool
        False: ``forward`` gives `xs` itself.
    mask : ndarray, or None before the first training forward
        What the last training forward multiplied with: 0, or ``1 / (1 - dropout_ratio)``.
    """

    mask: Any = MaskAttribute(MaskRecord.factors)

    def __init__(self, dropout_ratio: float = 0.5) -> None:
        super().__init__()
        self.dropout_ratio = dropout_ratio
        self.mask = None
        self.train_flg = True

    def forward(self, xs: Array) -> Array:
        if not self.train_flg:
            return xs
        y, self.__dict__["mask"] = training_dropout(xs, self.dropout_ratio, "inverted")
        return y

    def backward(self, dout: ArrayLike) -> Array:
        return _masked(self, dout)


class Relu(_Layer):
    """``max(x, 0)``.

    Attributes
    ----------
    mask : ndarray of bool, or None before the first forward
        True where the last `x` was not positive, that is where the gradient is 0.  May be assigned.
    """

    mask: Any = MaskAttribute(MaskRecord.dropped)

    def __init__(self) -> None:
        super().__init__()
        self.mask = None

    def forward(self, x: ArrayLike) -> Array:
        """`x` where it is positive, 0 elsewhere."""
        if type(x) is np.ndarray and x.size <= FEW_ELEMENTS:
            zero = numbers(x.dtype)[0]
            self.__dict__["mask"] = x <= zero
            y: Array = _maximum(x, zero)
            return y
        y, self.__dict__["mask"] = relu_mask(x)
        return y

    def backward(self, dout: ArrayLike) -> Array:
        """`dout` where the last `x` was positive.  `dout` itself stays as it is."""
        mask = self.__dict__.get("mask")
        if type(mask) is MaskRecord:
            return relu_masked_gradient(dout, mask)
        if mask is None:
            raise RuntimeError("Relu: backward was called before forward")
        dx = np.array(dout)
        try:
            dx[mask] = 0
        except IndexError:
            shapes = f"{dx.shape}, and the mask {np.shape(mask)}"
            raise ValueError(f"Relu: the gradient has shape {shapes}") from None
        return dx


class Sigmoid(_Layer):
    """``1 / (1 + exp(-x))``; `out` is the last result."""

    def __init__(self) -> None:
        super().__init__()
        self.out: Array | None = None

    def forward(self, x: ArrayLike) -> Array:
        self.out = out = sigmoid(_arguments.as_plain_array(x, "x"))
        return out

    def backward(self, dout: ArrayLike) -> Array:
        out = self.out
        if out is None:
            raise RuntimeError("Sigmoid: backward was called before forward")
        return sigmoid_gradient(out, dout)


class Affine(_Layer):
    """``x @ W + b``; inputs of more dimensions are flattened to (N, -1) where that fits W.

    Parameters
    ----------
    W : ndarray, shape (D, M)
    b : ndarray, shape (M,) or (1, M)
        Both are kept by reference: an optimizer changes them in place.

    Attributes
    ----------
    W, b : ndarray
        Also as `params`, the list of both.
    dW, db : ndarray
        Gradients of the last backward, new arrays each time.
    grads : list of two ndarrays
        The same gradients in arrays that stay, as the second volume's optimizers need them.
    """

    def __init__(self, W: Array, b: Array) -> None:
        self.params = [W, b]
        self.x: Array | None = None
        self.original_x_shape: tuple[int, ...] | None = None
        self.dW: Array | None = None
        self.db: Array | None = None

    def forward(self, x: ArrayLike) -> Array:
        w, b = self.params
        x = _arguments.as_plain_array(x, "x")
        self.original_x_shape = shape = x.shape
        if len(shape) > 2:
            rows = x.reshape(shape[0], -1)
            if rows.shape[1] == w.shape[0]:
                x = rows
        self.x = x
        return affine(x, w, b)

    def backward(self, dout: ArrayLike) -> Array:
        x = self.x
        if x is None or self.original_x_shape is None:
            raise RuntimeError("Affine: backward was called before forward")
        dout = np.asarray(dout)
        self.dW, self.db = weight_gradients(x, dout)
        grads = self.__dict__.get("grads")
        if grads is not None:
            grads[0][...] = self.dW
            grads[1][...] = self.db
        dx = product(dout, self.params[0].T)
        return dx if dx.shape == self.original_x_shape else dx.reshape(self.original_x_shape)

    def __getattr__(self, name: str) -> Any:
        """What is not there until it is asked for, or came from the first volume's class."""
        known = self.__dict__
        if name == "params" and "W" in known and "b" in known:
            self.params = [known.pop("W"), known.pop("b")]
            return self.params
        if name == "grads" and self.params:
            self.grads = [np.zeros_like(parameter) for parameter in self.params]
            if self.dW is not None:
                for kept, gradient in zip(self.grads, (self.dW, self.db), strict=True):
                    kept[...] = gradient
            return self.grads
        if name in ("dW", "db", "original_x_shape"):  # the second volume's class has none
            return None
        raise AttributeError(f"{type(self).__name__!r} object has no attribute {name!r}")

    def __getstate__(self) -> dict[str, Any]:
        w, b = self.params
        state = super().__getstate__() | {"W": w, "b": b, "params": [w, b]}
        if "grads" in state:  # lists of its own
            state["grads"] = list(state["grads"])
        return state

    @property
    def W(self) -> Array:
        return self.params[0]

    @W.setter
    def W(self, value: Array) -> None:
        self._set(0, value)

    @property
    def b(self) -> Array:
        return self.params[1]

    @b.setter
    def b(self, value: Array) -> None:
        self._set(1, value)

    def _set(self, i: int, value: Array) -> None:
        self.__dict__.setdefault("params", [None, None])[i] = value


class SoftmaxWithLoss(_Layer):
    """Softmax and mean cross-entropy.

    Attributes
    ----------
    loss : float
        Without the 1e-7 that later editions add to a probability before its logarithm.
    y : ndarray
        The probabilities of the last forward.
    t : ndarray
        Its labels: class numbers, or one-hot rows.
    """

    def __init__(self) -> None:
        super().__init__()
        self.loss: Any = None
        self.y: Any = None
        self.t: Any = None

    def forward(self, x: ArrayLike, t: ArrayLike) -> Any:
        x = _arguments.as_plain_array(x, "x")
        self.t = t = _arguments.as_plain_array(t, "t")
        self.y = y = softmax(x)
        if y.ndim == 1:
            x, y, t = x[None], y[None], t.reshape(1, -1)
        at = np.arange(len(y)), t.argmax(axis=1) if t.size == y.size else t
        likelihood = y[at]
        if likelihood.all():
            log_likelihood = np.log(likelihood)
        else:  # some are smaller than the smallest number
            shifted = x - x.max(axis=1, keepdims=True)
            log_likelihood = shifted[at] - np.log(np.exp(shifted).sum(axis=1))
        self.loss = loss = -np.add.reduce(log_likelihood, None) / len(y)
        return loss

    def backward(self, dout: Any = 1) -> Array:
        """The gradient of the loss, times `dout` as in the second volume."""
        y, t = self.y, self.t
        if y is None:
            raise RuntimeError("SoftmaxWithLoss: backward was called before forward")
        t = np.asarray(t)
        rows = t.shape[0]
        if t.size == y.size:
            dx = y - t
        else:
            dx = y.copy()
            dx[np.arange(rows), t] -= 1
        dx /= rows
        if type(dout) is not int or dout != 1:
            dx *= dout
        return np.asarray(dx)
