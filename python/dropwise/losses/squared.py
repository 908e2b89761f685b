"""The mean squared error, for values."""

from __future__ import annotations

import math
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


class _Difference(NamedTuple):
    """What a forward of the squared error leaves."""

    difference: Array  # y_pred - y
    shares: Array | None
    dtype: np.dtype[Any]  # of y_pred


class MeanSquaredError(BuiltInLoss[_Difference]):
    """The mean over the rows of the mean of ``(y_pred - y)**2`` over a row's elements.

    Attributes
    ----------
    accuracy : None

    Notes
    -----
    float16 and bfloat16 predictions are computed with in float32.

    Examples
    --------
    >>> import dropwise as dw
    >>> loss = dw.MeanSquaredError()
    >>> loss.forward([[1.0], [3.0]], [[0.0], [1.0]])
    2.5
    >>> loss.backward()
    array([[1.],
           [2.]])
    >>> loss.forward([[1.0], [3.0]], [[0.0], [1.0]], sample_weight=[3, 1])
    1.75
    """

    accuracy: None = None

    def forward(
        self, y_pred: ArrayLike, y: ArrayLike, sample_weight: ArrayLike | None = None
    ) -> float:
        """The mean squared error.

        Parameters
        ----------
        y_pred : array_like, shape (B, ...)
        y : array_like, shape of `y_pred`
            With one output, (B,) and (B, 1) are the same.
        sample_weight : array_like, shape (B,), optional
            Weights of the rows: the loss is ``sum(weight * row_loss) / sum(weight)``.

        Returns
        -------
        float

        Raises
        ------
        ValueError
            For shapes that do not fit, targets that are not finite, weights that are negative, not
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
        if not math.isfinite(value):  # a bad target always leads here
            check_finite(y, "y")
        self._last = record
        return value

    def _compute(self, y_pred: Array, y: Array, shares: Array | None) -> tuple[Array, _Difference]:
        given, dtype = y_pred.dtype, wide_dtype(y_pred.dtype)
        with np.errstate(all="ignore"):
            if y.dtype.kind == "V" or dtype != given:
                y_pred, y = y_pred.astype(dtype, copy=False), y.astype(dtype)
            difference: Array = np.subtract(y_pred, y, dtype=dtype)
            return np.square(difference), _Difference(difference, shares, given)

    def _check_target(self, target: Array, shape: tuple[int, ...]) -> None:
        check_finite(target, "y")

    def _arguments(
        self, y: Any, shape: tuple[int, ...], sample_weight: Any
    ) -> tuple[Array, Array | None]:
        """The targets in the shape of y_pred, and the rows' shares."""
        if not shape or 0 in shape:
            raise ValueError(f"y_pred must have shape (B, ...), got {shape}")
        return as_targets(y, shape), as_row_shares(sample_weight, shape[0])

    def backward(self) -> Array:
        """The gradient with respect to `y_pred`, in its shape and dtype.

        Raises
        ------
        RuntimeError
            If there was no forward, or the last one failed.
        """
        difference, shares, dtype = self._need("backward was called")
        with np.errstate(all="ignore"):
            if shares is None:
                gradient = difference * difference.dtype.type(2.0 / difference.size)
            else:
                factors = row_factors(shares, difference.shape, difference.dtype)
                gradient = difference * (factors * (2.0 * len(difference) / difference.size))
            result: Array = gradient.astype(dtype, copy=False)
        return result
