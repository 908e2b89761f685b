"""The Poisson deviance, for counts."""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
from numpy.typing import ArrayLike

from dropwise._arguments import as_row_shares, check_finite
from dropwise._backends.protocol import Array
from dropwise._dtypes import wide_dtype
from dropwise.losses.base import (
    BuiltInLoss,
    as_scores,
    as_targets,
    mean_of_rows,
    row_factors,
)


class _LogMeans(NamedTuple):
    """What a forward of the Poisson deviance leaves, in the shape of y_pred."""

    mean: Array  # exp(y_pred)
    target: Array
    shares: Array | None
    dtype: np.dtype[Any]  # of y_pred


class HalfPoissonDeviance(BuiltInLoss[_LogMeans]):
    """Half the Poisson deviance, for counts and rates, from the logarithms of their means.

    With ``mean = exp(y_pred)`` an element has ``y * log(y / mean) - y + mean``: 0 where the mean is
    `y`.  The loss is the mean over the rows of the mean over a row's elements.

    Attributes
    ----------
    accuracy : None

    Notes
    -----
    float16 and bfloat16 predictions are computed with in float32.

    Examples
    --------
    >>> import numpy as np
    >>> from dropwise.losses import HalfPoissonDeviance
    >>> loss = HalfPoissonDeviance()
    >>> loss.forward(np.log([[2.0], [1.0]]), [[2], [0]])
    0.5
    >>> loss.backward()
    array([[0. ],
           [0.5]])
    """

    accuracy: None = None

    def forward(
        self, y_pred: ArrayLike, y: ArrayLike, sample_weight: ArrayLike | None = None
    ) -> float:
        """The mean of half the deviance.

        Parameters
        ----------
        y_pred : array_like, shape (B, ...)
            Logarithms of the predicted means.
        y : array_like, shape of `y_pred`
            At least 0.  With one output, (B,) and (B, 1) are the same.
        sample_weight : array_like, shape (B,), optional
            Weights of the rows: the loss is ``sum(weight * row_loss) / sum(weight)``.

        Returns
        -------
        float

        Raises
        ------
        ValueError
            For shapes that do not fit, targets that are negative or not finite, weights that are
            negative, not finite or all zero.
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

    def _compute(self, y_pred: Array, y: Array, shares: Array | None) -> tuple[Array, _LogMeans]:
        scores = y_pred.astype(wide_dtype(y_pred.dtype), copy=False)
        target = y.astype(scores.dtype)  # a copy: y is the caller's
        with np.errstate(all="ignore"):
            mean = np.exp(scores)
            losses = target * (np.log(np.where(target > 0, target, 1)) - scores)
            losses[target == 0] = 0  # also of an infinite score
            losses += mean - target
        return losses, _LogMeans(mean, target, shares, y_pred.dtype)

    def _arguments(
        self, y: Any, shape: tuple[int, ...], sample_weight: Any
    ) -> tuple[Array, Array | None]:
        """The targets, checked and in the shape of y_pred; and the rows' shares."""
        if not shape or 0 in shape:
            raise ValueError(f"y_pred must have shape (B, ...), got {shape}")
        target = as_targets(y, shape)
        check_finite(target, "y")
        if target.min() < 0:
            where = np.unravel_index(int(target.argmin()), target.shape)
            raise ValueError(f"y must not be negative, got {target[where]} in row {where[0]}")
        return target, as_row_shares(sample_weight, shape[0])

    def backward(self) -> Array:
        """The gradient with respect to `y_pred`, in its shape and dtype.

        Raises
        ------
        RuntimeError
            If there was no forward, or the last one failed.
        """
        last = self._need("backward was called")
        with np.errstate(all="ignore"):
            factors = row_factors(last.shares, last.mean.shape, last.mean.dtype)
            gradient: Array = last.mean - last.target
            gradient *= factors / (gradient.size // len(gradient))
            return gradient.astype(last.dtype, copy=False)
