"""Losses: ``forward`` gives the mean over the batch, ``backward`` its gradient."""

from __future__ import annotations

from typing import Any, NamedTuple, Protocol

import numpy as np
from numpy.typing import ArrayLike, NDArray

from dropwise._backends.protocol import Array

# NumPy is slow along a last axis of a few elements.  With fewer classes than this, matrices are
# stored class by class.
_FEW_CLASSES = 32


class Loss(Protocol):
    """What training needs of a loss.  `accuracy` is that of the last forward, or None."""

    def forward(self, y_pred: Array, y: ArrayLike) -> float: ...

    def backward(self) -> Array: ...

    @property
    def accuracy(self) -> float | None: ...


class _Pass(NamedTuple):
    """What a forward leaves for backward.  Matrices are [C, B]."""

    scores: Array
    top: Array  # [B], the largest score of each row
    probabilities: Array
    target: Array | None  # probabilities; None: classes were given
    label: NDArray[np.intp]  # [B], the target's class
    position: NDArray[np.intp]  # [B], index of that class in the memory of a matrix


def _in_order(matrix: Array) -> Array:
    """A flat view of the elements in memory order."""
    return matrix.reshape(-1, order="A")


def class_numbers(y: Array, classes: int) -> NDArray[np.intp]:
    """`y` as indices; raises unless it holds integers in [0, classes)."""
    if y.dtype.kind not in "iu":
        raise TypeError(f"y must hold classes as integers, got dtype {y.dtype}")
    label = y.astype(np.intp, copy=False)
    if label.size and label.view(np.uintp).max() >= classes:  # negative ones are large as unsigned
        raise ValueError(f"y must hold classes in [0, {classes}), got {y.min()} to {y.max()}")
    return label


class SoftmaxCrossEntropy:
    """Softmax over the last axis, and cross-entropy with the target classes.

    Attributes
    ----------
    probabilities : ndarray, shape (B, C)
        Of the last forward.
    accuracy : float
        Of the last forward: the share of rows whose largest score is that of the target.

    Examples
    --------
    >>> import numpy as np
    >>> import dropwise as dw
    >>> loss = dw.SoftmaxCrossEntropy()
    >>> round(loss.forward(np.log([[0.7, 0.1, 0.2]]), [0]), 6)  # -log(0.7)
    0.356675
    >>> loss.backward().round(6)
    array([[-0.3,  0.1,  0.2]])
    """

    def __init__(self) -> None:
        self._pass: _Pass | None = None

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
        if y_pred.dtype.kind in "biu":
            y_pred = y_pred.astype(np.float64)
        rows, classes = y_pred.shape
        few = classes < _FEW_CLASSES
        # [C, B] in both cases, in different memory order.
        by_class = np.ascontiguousarray if few else np.asarray
        scores = by_class(np.ascontiguousarray(y_pred).T)
        target: Array | None = None
        if y.shape == (rows,):
            label = class_numbers(y, classes)
        elif y.shape == y_pred.shape:
            target = by_class(y.T.astype(scores.dtype, copy=False))
            label = target.argmax(axis=0)
        else:
            raise ValueError(f"y must have shape ({rows},) or {y_pred.shape}, got {y.shape}")
        row = np.arange(rows)
        position = label * rows + row if few else row * classes + label
        top = np.maximum.reduce(scores, axis=0)
        shifted = scores - top
        if target is None:
            log_likelihood = _in_order(shifted).take(position)
        else:
            log_likelihood = np.add.reduce(shifted * target, axis=0)
        probabilities = np.exp(shifted, out=shifted)
        total = np.add.reduce(probabilities, axis=0)
        probabilities /= total
        losses = np.log(total, out=total)
        if target is not None:
            losses *= np.add.reduce(target, axis=0)
        losses -= log_likelihood
        self._pass = _Pass(scores, top, probabilities, target, label, position)
        return float(np.add.reduce(losses, dtype=np.float64) / rows)

    def backward(self) -> Array:
        """The gradient with respect to `y_pred`, shape (B, C)."""
        last = self._need()
        rows = last.label.size
        if last.target is None:
            gradient = last.probabilities / rows
            _in_order(gradient)[last.position] -= 1.0 / rows
        else:
            gradient = last.probabilities * (last.target.sum(axis=0) / rows)
            gradient -= last.target / rows
        return gradient.T

    @property
    def probabilities(self) -> Array:
        """Of the last forward; a new array."""
        by_class = self._need().probabilities
        if by_class.shape[0] >= _FEW_CLASSES:
            return by_class.T.copy()
        rows = np.empty(by_class.shape[::-1], by_class.dtype)
        for i, column in enumerate(by_class):  # long runs, unlike the rows
            rows[:, i] = column
        return rows

    @property
    def accuracy(self) -> float:
        """Of the last forward."""
        last = self._need()
        rows = last.label.size
        if np.count_nonzero(last.scores == last.top) == rows:
            right = _in_order(last.scores).take(last.position) == last.top
        else:  # the largest score occurs twice, or is NaN: the first one counts
            right = last.scores.argmax(axis=0) == last.label
        return float(np.count_nonzero(right)) / rows

    def _need(self) -> _Pass:
        if self._pass is None:
            raise RuntimeError("SoftmaxCrossEntropy: backward was called before forward")
        return self._pass

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
        """The mean squared error.  The shapes must be equal, or (B, 1) and (B,)."""
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
