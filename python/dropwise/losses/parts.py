"""The loss of a batch whose rows are not all at one place."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from dropwise._backends.protocol import Array
from dropwise.losses.base import Loss, accuracy_of
from dropwise.losses.binary import BinaryCrossEntropy
from dropwise.losses.poisson import HalfPoissonDeviance
from dropwise.losses.scaled import ScaledLoss
from dropwise.losses.softmax import SoftmaxCrossEntropy
from dropwise.losses.squared import MeanSquaredError

_BUILT_IN = (SoftmaxCrossEntropy, BinaryCrossEntropy, MeanSquaredError, HalfPoissonDeviance)
_FEW_ROWS = 64  # that show whether a loss is a mean over rows
_TOLERANCE = 1e-3


def is_mean_of_rows(loss: Loss) -> bool:
    """Whether the loss is known to be: it is of this package itself, not derived from one."""
    if type(loss) is ScaledLoss:
        return is_mean_of_rows(loss.loss)
    return type(loss) in _BUILT_IN


class PartialLoss:
    """A loss that sees some rows of a batch at a time, and counts them as what they are in it.

    Parameters
    ----------
    loss : Loss
        One of another package is called for each block of rows, since it knows no part of a mean.
    block_rows : int
        Rows that have one figure.

    Notes
    -----
    What a block gives depends on its rows alone, and on what share of the batch they are.
    """

    def __init__(self, loss: Loss, block_rows: int) -> None:
        self._loss: Any = loss
        self._block_rows = block_rows
        self._built_in = is_mean_of_rows(loss)
        self.has_accuracy = False  # whether the last forward gave one
        self._factors: list[tuple[slice, float]] = []
        self._gradients: list[Array] = []

    def forward(
        self, y_pred: Array, y: Array, weight: NDArray[np.float64] | None, total: float
    ) -> NDArray[np.float64]:
        """What each block of the rows adds to loss and accuracy of the batch, shape (blocks, 2).

        Parameters
        ----------
        y_pred, y : ndarray, of these rows
        weight : ndarray, shape (B,), or None
            Weights of the rows; None: 1 each.
        total : float
            The sum of the weights of the batch, not 0.
        """
        if not self._built_in:
            return self._forward_blocks(y_pred, y, weight, total)
        shares = np.full(len(y), 1.0 / total) if weight is None else weight / total
        losses = self._loss.forward_part(y_pred, y, shares)
        right = self._loss.right_rows()
        self.has_accuracy = right is not None
        starts = range(0, len(losses), self._block_rows)
        figures = np.zeros((len(starts), 2))
        with np.errstate(all="ignore"):
            np.add.reduceat(losses * shares, starts, out=figures[:, 0])
            if right is not None:
                np.add.reduceat(right * shares, starts, out=figures[:, 1])
        return figures

    def backward(self) -> Array:
        """The gradient of the batch's loss with respect to the `y_pred` of the last forward."""
        if self._built_in:
            gradient: Array = self._loss.backward()
            return gradient
        return np.concatenate(self._gradients)

    def _forward_blocks(
        self, y_pred: Array, y: Array, weight: NDArray[np.float64] | None, total: float
    ) -> NDArray[np.float64]:
        starts = range(0, len(y), self._block_rows)
        figures = np.zeros((len(starts), 2))
        self._gradients = []
        for figure, start in zip(figures, starts, strict=True):
            rows = slice(start, start + self._block_rows)
            scores, target = y_pred[rows], y[rows]
            if weight is None:
                share = len(target) / total
                value = self._loss.forward(scores, target)
            else:
                share = float(weight[rows].sum()) / total
                if share == 0.0:
                    self._gradients.append(np.zeros_like(scores))
                    continue
                value = self._loss.forward(scores, target, sample_weight=weight[rows])
            accuracy = accuracy_of(self._loss)
            self.has_accuracy = accuracy is not None
            figure[:] = share * float(value), share * (accuracy or 0.0)
            gradient = np.asarray(self._loss.backward())
            if gradient.dtype.kind in "biu":
                gradient = gradient.astype(np.float64)
            self._gradients.append(gradient * gradient.dtype.type(share))
        return figures


def check_mean_of_rows(loss: Loss, y_pred: Array, y: Array) -> None:
    """Raise unless the loss of these rows is the mean of that of their halves.

    A loss of which each row has its own part is one; a loss that looks at several rows at once is
    not, nor is a sum.
    """
    if len(y) < 2:
        return
    y_pred, y = y_pred[:_FEW_ROWS], y[:_FEW_ROWS]
    n, half = len(y), len(y) // 2
    value, gradient = _value_and_gradient(loss, y_pred, y)
    first, first_gradient = _value_and_gradient(loss, y_pred[:half], y[:half])
    rest, rest_gradient = _value_and_gradient(loss, y_pred[half:], y[half:])
    share = half / n
    of_halves = share * first + (1 - share) * rest
    gradients = np.concatenate([share * first_gradient, (1 - share) * rest_gradient])
    near = np.isclose(value, of_halves, rtol=_TOLERANCE, atol=1e-6)
    scale = float(np.abs(gradient).max(initial=0.0))
    if not near or not np.allclose(gradient, gradients, rtol=0, atol=_TOLERANCE * scale):
        raise ValueError(
            f"{type(loss).__name__} is not a mean over rows: for {n} rows it is {value:.6g}, and "
            f"{of_halves:.6g} from their halves, or the gradients differ; parts of a batch cannot "
            "be computed apart with it"
        )


def _value_and_gradient(loss: Loss, y_pred: Array, y: Array) -> tuple[float, NDArray[np.float64]]:
    value = float(loss.forward(y_pred, y))
    return value, np.asarray(loss.backward(), np.float64)
