"""Losses: ``forward`` gives the mean over the batch, ``backward`` its gradient."""

from __future__ import annotations

from typing import Any, Protocol

import numpy as np
from numpy.typing import ArrayLike, NDArray

from dropwise._backends.protocol import Array

# NumPy is slow along a last axis of a few elements: below this many classes they go first.
_FEW_CLASSES = 32


class Loss(Protocol):
    """What training needs of a loss.  `accuracy` is of the last forward; None: there is none."""

    def forward(self, y_pred: Array, y: ArrayLike) -> float: ...

    def backward(self) -> Array: ...

    @property
    def accuracy(self) -> float | None: ...


class SoftmaxCrossEntropy:
    """Softmax over the last axis, and cross-entropy with the target classes.

    Attributes
    ----------
    probabilities : ndarray, shape (B, C)
        Of the last forward.
    accuracy : float
        Share of rows, in the last forward, whose largest score is the target's.

    Examples
    --------
    >>> import numpy as np
    >>> import dropwise as dw
    >>> loss = dw.SoftmaxCrossEntropy()
    >>> round(loss.forward(np.log([[0.7, 0.1, 0.2]]), [0]), 6) == round(-np.log(0.7), 6)
    True
    >>> loss.backward().round(6)
    array([[-0.3,  0.1,  0.2]])
    """

    def __init__(self) -> None:
        self._last: tuple[Array, Array | None, NDArray[np.intp]] | None = None
        self._scores: Array | None = None

    def forward(self, y_pred: ArrayLike, y: ArrayLike) -> float:
        """The mean cross-entropy.

        Parameters
        ----------
        y_pred : array_like, shape (B, C)
            Scores (logits).
        y : array_like, shape (B,) of int, or (B, C)
            The class of each row, or its probabilities (one-hot or soft).
        """
        y_pred, y = np.asarray(y_pred), np.asarray(y)
        if y_pred.ndim != 2 or 0 in y_pred.shape:
            raise ValueError(f"y_pred must have shape (B, C), got {y_pred.shape}")
        rows, classes = y_pred.shape
        # Classes first: [C, B], each class one run of memory (or the reverse, where they are many).
        scores = y_pred.T if classes >= _FEW_CLASSES else np.ascontiguousarray(y_pred.T)
        shifted = scores - scores.max(axis=0)
        self._scores = scores
        if y.shape == (rows,):
            if y.dtype.kind not in "iu":
                raise TypeError(f"y must hold classes as integers, got dtype {y.dtype}")
            target, index = None, y.astype(np.intp, copy=False)
            if index.min() < 0 or index.max() >= classes:
                raise ValueError(
                    f"y must hold classes in [0, {classes}), got {index.min()} to {index.max()}"
                )
            log_likelihood = float(shifted[index, np.arange(rows)].sum(dtype=np.float64))
        elif y.shape == y_pred.shape:
            target = y.T.astype(scores.dtype, copy=False)
            index = target.argmax(axis=0)
            log_likelihood = float(np.sum(shifted * target, dtype=np.float64))
        else:
            raise ValueError(f"y must have shape ({rows},) or {y_pred.shape}, got {y.shape}")
        np.exp(shifted, out=shifted)
        total = shifted.sum(axis=0)
        mass = 1.0 if target is None else target.sum(axis=0)
        log_total = float(np.sum(np.log(total) * mass, dtype=np.float64))
        shifted /= total
        self._last = (shifted, target, index)
        return (log_total - log_likelihood) / float(rows)

    def backward(self) -> Array:
        """The gradient with respect to `y_pred`, shape (B, C)."""
        probabilities, target, index = self._need()
        rows = probabilities.shape[1]
        gradient: Array
        if target is None:
            gradient = probabilities / rows
            gradient[index, np.arange(rows)] -= 1.0 / rows
        else:
            gradient = probabilities * (target.sum(axis=0) / rows)
            gradient -= target / rows
        return gradient.T

    @property
    def probabilities(self) -> Array:
        return self._need()[0].T

    @property
    def accuracy(self) -> float:
        _, _, index = self._need()
        assert self._scores is not None
        return float(np.count_nonzero(self._scores.argmax(axis=0) == index)) / index.size

    def _need(self) -> tuple[Array, Array | None, NDArray[np.intp]]:
        if self._last is None:
            raise RuntimeError("SoftmaxCrossEntropy: backward was called before forward")
        return self._last

    def __repr__(self) -> str:
        return "SoftmaxCrossEntropy()"


class MeanSquaredError:
    """The mean of ``(y_pred - y)**2`` over all elements.

    Examples
    --------
    >>> import dropwise as dw
    >>> loss = dw.MeanSquaredError()
    >>> loss.forward([[1.0], [3.0]], [[0.0], [1.0]])
    2.5
    >>> loss.backward()
    array([[1.],
           [2.]])
    """

    accuracy = None

    def __init__(self) -> None:
        self._difference: Array | None = None

    def forward(self, y_pred: ArrayLike, y: ArrayLike) -> float:
        """The mean squared error of arrays of one shape; (B, 1) against (B,) is one, too."""
        y_pred = np.asarray(y_pred)
        dtype: Any = y_pred.dtype if y_pred.dtype.kind not in "biu" else np.float64
        y = np.asarray(y)
        if y_pred.shape == (*y.shape, 1):
            y = y[..., None]
        if y.shape != y_pred.shape or y.size == 0:
            raise ValueError(f"y must have the shape of y_pred {y_pred.shape}, got {y.shape}")
        self._difference = difference = np.subtract(y_pred, y, dtype=dtype)
        return float(np.mean(np.square(difference), dtype=np.float64))

    def backward(self) -> Array:
        """The gradient with respect to `y_pred`."""
        if self._difference is None:
            raise RuntimeError("MeanSquaredError: backward was called before forward")
        gradient: Array = self._difference * self._difference.dtype.type(
            2.0 / self._difference.size
        )
        return gradient

    def __repr__(self) -> str:
        return "MeanSquaredError()"
