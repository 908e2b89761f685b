"""Softmax and cross-entropy: one of several classes."""

from __future__ import annotations

from typing import Any, NamedTuple, TypeAlias

import numpy as np
from numpy.typing import ArrayLike, NDArray

from dropwise._arguments import as_real_array, as_row_shares
from dropwise._backends import active
from dropwise._backends.protocol import Array
from dropwise._dtypes import F64, has_kernel, wide_dtype
from dropwise.losses.base import BuiltInLoss, as_scores, mean_of_rows, share_of

# NumPy is slow along a last axis of a few elements: below this many classes they go first.
_FEW_CLASSES = 32


def _check_classes(label: NDArray[np.integer[Any]], classes: int) -> None:
    """Raise unless all are in [0, classes)."""
    if label.size and (label.min() < 0 or label.max() >= classes):
        raise _not_in_range(label, classes)


def _not_in_range(label: NDArray[np.integer[Any]], classes: int) -> ValueError:
    found = f"{label.min()} to {label.max()}"
    return ValueError(f"y must hold classes in [0, {classes}), got {found}")


class _Pass(NamedTuple):
    """What a forward leaves for backward and for the figures."""

    dtype: np.dtype[Any]  # of y_pred
    shares: Array | None
    probabilities: Array  # [B, C], in the dtype in which they were computed
    target: Array  # classes [B], int64, or probabilities [B, C]
    right: NDArray[np.bool_]  # [B]: whether the first of the largest scores is the target's
    total: float  # the sum of the losses
    n_right: int


def _check_probabilities(y: Array) -> None:
    """Raise unless the rows of `y` [B, C] are not negative and sum to 1."""
    kind, short = y.dtype.kind, y.dtype.itemsize == 2
    dtype = F64 if kind in "biu" else wide_dtype(y.dtype)
    # Probabilities that were rounded are fine: each may be off by half a unit of the last place.
    tolerance = {"f": 4e-3, "V": 3e-2}.get(kind, 0.0) if short else 1e-5
    with np.errstate(all="ignore"):
        total = y.astype(dtype, copy=False) @ np.ones(y.shape[1], dtype)
    if y.min() >= 0 and total.min() >= 1 - tolerance and total.max() <= 1 + tolerance:
        return
    good = (np.abs(total - 1.0) <= tolerance) & (y >= 0).all(axis=1)
    row = int(good.argmin())
    raise ValueError(
        "y must hold probabilities: rows that are not negative and sum to 1, "
        f"got row {row} with minimum {float(y[row].min()):.6g} and sum {float(total[row]):.6g}"
    )


class SoftmaxCrossEntropy(BuiltInLoss[_Pass]):
    """Softmax over the last axis, and cross-entropy with the target classes.

    Attributes
    ----------
    probabilities : ndarray, shape (B, C), dtype of `y_pred`
        Of the last forward.
    accuracy : float
        Share of rows, in the last forward, whose largest score is the target's; weighted, if the
        rows have weights.

    Notes
    -----
    float16 and bfloat16 scores are computed with in float32.

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

    def forward(
        self, y_pred: ArrayLike, y: ArrayLike, sample_weight: ArrayLike | None = None
    ) -> float:
        """The mean cross-entropy.

        Parameters
        ----------
        y_pred : array_like, shape (B, C) with C >= 2
            Scores (logits).
        y : array_like, shape (B,) of int, or (B, C)
            The class of each row, or its probabilities (one-hot or soft).
        sample_weight : array_like, shape (B,), optional
            Weights of the rows: the loss is ``sum(weight * row_loss) / sum(weight)``.

        Returns
        -------
        float

        Raises
        ------
        ValueError
            For shapes that do not fit, one output, class numbers out of range, probabilities that
            are negative or do not sum to 1, weights that are negative, not finite or all zero.
        TypeError
            For dtypes that are not real, masked and sparse arrays, classes that are not integers.
        """
        self._last = None
        y_pred = as_scores(y_pred)
        y, shares = self._arguments(y, y_pred.shape, sample_weight)
        losses, record = self._compute(y_pred, y, shares)
        value = record.total / len(losses) if shares is None else mean_of_rows(losses, shares)
        self._last = record
        return value

    def _compute(self, y_pred: Array, y: Array, shares: Array | None) -> tuple[Array, _Pass]:
        scores = np.ascontiguousarray(y_pred, wide_dtype(y_pred.dtype))
        compute = _of_classes if y.ndim == 1 and has_kernel(scores.dtype) else _of_probabilities
        losses, probabilities, target, right, total, n_right = compute(scores, y)
        dtype = y_pred.dtype
        return losses, _Pass(dtype, shares, probabilities, target, right, total, n_right)

    def _check_target(self, target: Array, shape: tuple[int, ...]) -> None:
        if target.ndim == 1:
            _check_classes(target, shape[1])

    def right_rows(self) -> Array | None:
        """Whether each row of the last forward is right."""
        return self._need("right_rows was called").right.copy()

    def _arguments(
        self, y: Any, shape: tuple[int, ...], sample_weight: Any
    ) -> tuple[Array, Array | None]:
        """The targets, class numbers [B] or probabilities [B, C], and the rows' shares.

        All is checked but for the range of class numbers, which is seen when they are used.
        """
        if len(shape) != 2 or 0 in shape:
            raise ValueError(f"y_pred must have shape (B, C), got {shape}")
        if shape[1] == 1:
            raise ValueError(
                "SoftmaxCrossEntropy needs at least 2 outputs: the softmax of one is always 1; "
                f"got y_pred of shape {shape}; use BinaryCrossEntropy"
            )
        y = as_real_array(y, "y")
        if y.shape == shape[:1]:
            if y.dtype.kind not in "iu":
                raise TypeError(f"y must hold classes as integers, got dtype {y.dtype}")
            if y.dtype.kind == "u":  # int64 does not hold them all
                _check_classes(y, shape[1])
            y = y.astype(np.int64, copy=False)
        elif y.shape == shape:
            _check_probabilities(y)
        else:
            raise ValueError(f"y must have shape ({shape[0]},) or {shape}, got {y.shape}")
        return y, as_row_shares(sample_weight, shape[0])

    def backward(self) -> Array:
        """The gradient with respect to `y_pred`, in its shape (B, C) and dtype.

        Raises
        ------
        RuntimeError
            If there was no forward, or the last one failed.
        """
        last = self._need("backward was called")
        p, shares = last.probabilities, last.shares
        if shares is not None:
            shares = shares.astype(p.dtype)
        gradient = np.empty_like(p)
        if last.target.ndim == 1:
            active().softmax_gradient(p, last.target, shares, gradient)
        else:
            total = np.add.reduce(last.target, axis=1, keepdims=True)
            np.multiply(p, total, out=gradient)
            gradient -= last.target
            gradient *= p.dtype.type(1 / len(p)) if shares is None else shares[:, None]
        return gradient.astype(last.dtype, copy=False)

    @property
    def probabilities(self) -> Array:
        """Of the last forward; a new array."""
        last = self._need("probabilities was read")
        return last.probabilities.astype(last.dtype)

    @property
    def accuracy(self) -> float:
        """Of the last forward."""
        last = self._need("accuracy was read")
        if last.shares is None:
            return last.n_right / len(last.right)
        return share_of(last.right, last.shares)


# Losses, and of a _Pass probabilities, target, right, total and n_right.
_Results: TypeAlias = "tuple[Array, Array, Array, NDArray[np.bool_], float, int]"


def _of_classes(scores: Array, label: NDArray[np.int64]) -> _Results:
    """The results for class numbers, by the backend."""
    probabilities = np.empty_like(scores)
    losses = np.empty(len(scores), F64)
    right = np.empty(len(scores), np.bool_)
    target = np.array(label, order="C")  # y is the caller's
    sums = active().softmax_cross_entropy(scores, target, probabilities, losses, right)
    if sums is None:
        raise _not_in_range(label, scores.shape[1])
    return losses, probabilities, target, right, *sums


def _of_probabilities(scores: Array, y: Array) -> _Results:
    """The results for targets that are probabilities.

    Also for classes in a dtype that the backends do not compute in.
    """
    if y.ndim == 1:
        _check_classes(y, scores.shape[1])
        target = np.zeros(scores.shape, scores.dtype)
        target[np.arange(len(y)), y] = 1
    else:
        target = y.astype(scores.dtype)  # a copy: y is the caller's
    # NumPy is slow along a last axis of a few elements: then the classes go first.
    few = scores.shape[1] < _FEW_CLASSES
    by_class, of_class = (np.ascontiguousarray(a.T) if few else a.T for a in (scores, target))
    with np.errstate(all="ignore"):
        shifted = by_class - np.maximum.reduce(by_class, axis=0)
        log_likelihood = _expected(shifted, of_class)
        probabilities = np.exp(shifted, out=shifted)
        total = np.add.reduce(probabilities, axis=0)
        probabilities /= total
        losses = np.log(total, out=total)
        losses *= np.add.reduce(of_class, axis=0)
        losses -= log_likelihood
    right = by_class.argmax(axis=0) == of_class.argmax(axis=0)
    probabilities = np.ascontiguousarray(probabilities.T)
    total = float(np.add.reduce(losses, dtype=F64))
    return losses, probabilities, target, right, total, int(np.count_nonzero(right))


def _expected(values: Array, target: Array) -> Array:
    """``sum(values * target)`` over the classes; a probability of 0 takes nothing of -inf."""
    product = values * target
    total: Array = np.add.reduce(product, axis=0)
    if np.isnan(total).any():
        product[target == 0] = 0
        total = np.add.reduce(product, axis=0)
    return total
