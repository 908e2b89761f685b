"""Binary cross-entropy: each output is a yes or a no of its own."""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
from numpy.typing import ArrayLike, NDArray

from dropwise._arguments import as_row_shares
from dropwise._backends.protocol import Array
from dropwise._dtypes import wide_dtype
from dropwise.losses.base import (
    BuiltInLoss,
    as_scores,
    as_targets,
    mean_of_rows,
    row_factors,
    share_of,
)


class _OutputScores(NamedTuple):
    """What a forward of binary cross-entropy leaves, in the shape of y_pred."""

    positive: NDArray[np.bool_]  # score > 0: what is predicted
    wanted: NDArray[np.bool_]  # target > 0.5: what should be
    doubt: Array  # the probability of what is not predicted
    against: Array  # the target's probability of it
    shares: Array | None
    dtype: np.dtype[Any]  # of y_pred


class BinaryCrossEntropy(BuiltInLoss[_OutputScores]):
    """Cross-entropy of independent yes-or-no outputs, from scores: binary or multilabel.

    Each output has the probability ``sigmoid(score)``; the loss is the mean over the rows of the
    mean over the outputs.  Scores of any size give exact results.

    Attributes
    ----------
    probabilities : ndarray, shape and dtype of `y_pred`
        Of the last forward.
    accuracy : float
        Share of elements, in the last forward, with ``(score > 0) == (target > 0.5)``; weighted,
        if the rows have weights.

    Notes
    -----
    float16 and bfloat16 scores are computed with in float32.

    Examples
    --------
    >>> import dropwise as dw
    >>> loss = dw.BinaryCrossEntropy()
    >>> round(loss.forward([[0.0], [2.0]], [0, 1]), 6)  # (log(2) + log(1 + exp(-2))) / 2
    0.410038
    >>> loss.backward().round(6)
    array([[ 0.25    ],
           [-0.059601]])
    >>> loss.accuracy
    1.0
    """

    def forward(
        self, y_pred: ArrayLike, y: ArrayLike, sample_weight: ArrayLike | None = None
    ) -> float:
        """The mean cross-entropy.

        Parameters
        ----------
        y_pred : array_like, shape (B,) or (B, C)
            Scores (logits).
        y : array_like, shape of `y_pred`
            0 or 1, or probabilities.  With one output, (B,) and (B, 1) are the same.
        sample_weight : array_like, shape (B,), optional
            Weights of the rows: the loss is ``sum(weight * row_loss) / sum(weight)``.

        Returns
        -------
        float

        Raises
        ------
        ValueError
            For shapes that do not fit, targets outside [0, 1], weights that are negative, not
            finite or all zero.
        TypeError
            For dtypes that are not real, masked and sparse arrays.
        """
        self._last = None
        y_pred = as_scores(y_pred)
        y, shares = self._arguments(y, y_pred.shape, sample_weight)
        losses, record = self._compute(y_pred, y, shares)
        with np.errstate(all="ignore"):
            value = mean_of_rows(losses, shares)
        self._last = record
        return value

    def _compute(
        self, y_pred: Array, y: Array, shares: Array | None
    ) -> tuple[Array, _OutputScores]:
        scores = y_pred.astype(wide_dtype(y_pred.dtype), copy=False)
        target = y.astype(scores.dtype, copy=False)
        with np.errstate(all="ignore"):
            positive = scores > 0
            against = np.where(positive, 1 - target, target)
            size = np.abs(scores)
            losses = size * against
            losses[against == 0] = 0  # also of an infinite score
            tail = np.exp(-size)
            losses += np.log1p(tail)
            doubt = tail / (1 + tail)
        return losses, _OutputScores(positive, target > 0.5, doubt, against, shares, y_pred.dtype)

    def _arguments(
        self, y: Any, shape: tuple[int, ...], sample_weight: Any
    ) -> tuple[Array, Array | None]:
        """The targets, checked and in the shape of y_pred; and the rows' shares."""
        if len(shape) not in (1, 2) or 0 in shape:
            raise ValueError(f"y_pred must have shape (B,) or (B, C), got {shape}")
        y = as_targets(y, shape)
        if not (y.min() >= 0 and y.max() <= 1):
            where = np.unravel_index(int(((y >= 0) & (y <= 1)).argmin()), y.shape)
            raise ValueError(f"y must be in [0, 1], got {y[where]} in row {where[0]}")
        return y, as_row_shares(sample_weight, shape[0])

    def backward(self) -> Array:
        """The gradient with respect to `y_pred`, in its shape and dtype.

        Raises
        ------
        RuntimeError
            If there was no forward, or the last one failed.
        """
        last = self._need("backward was called")
        # sigmoid(score) - target, without a difference of two numbers that are almost 1.
        gradient = np.where(last.positive, last.against - last.doubt, last.doubt - last.against)
        factors = row_factors(last.shares, gradient.shape, gradient.dtype)
        gradient *= factors / (gradient.size // len(gradient))
        return gradient.astype(last.dtype, copy=False)

    @property
    def probabilities(self) -> Array:
        """Of the last forward; a new array."""
        last = self._need("probabilities was read")
        values: Array = np.where(last.positive, 1 - last.doubt, last.doubt)
        return values.astype(last.dtype, copy=False)

    @property
    def accuracy(self) -> float:
        """Of the last forward."""
        last = self._need("accuracy was read")
        if last.shares is None:
            right = last.positive == last.wanted
            return float(np.count_nonzero(right)) / float(right.size)
        return share_of(self.right_rows(), last.shares)

    def right_rows(self) -> Array:
        """The share of the elements of each row of the last forward that are right."""
        last = self._need("right_rows was called")
        right: Array = last.positive == last.wanted
        of_rows: Array = right.reshape(len(right), -1).mean(axis=1)
        return of_rows
