"""A loss times a number."""

from __future__ import annotations

import copy
from typing import Any

from numpy.typing import ArrayLike

from dropwise import _arguments
from dropwise._backends.protocol import Array
from dropwise.losses.base import Loss, accuracy_of


class ScaledLoss:
    """Another loss times a number, its gradient likewise.

    Parameters
    ----------
    loss : BinaryCrossEntropy, MeanSquaredError, or another that takes weights
    factor : float >= 0
        E.g. the number of outputs, for a sum over the outputs of a row in place of their mean.

    Attributes
    ----------
    accuracy : float or None
        That of `loss`.

    Examples
    --------
    >>> from dropwise.losses import MeanSquaredError, ScaledLoss
    >>> half = ScaledLoss(MeanSquaredError(), 0.5)
    >>> half.forward([[1.0], [3.0]], [[0.0], [1.0]])
    1.25
    >>> half.backward()
    array([[0.5],
           [1. ]])
    """

    def __init__(self, loss: Loss, factor: float) -> None:
        self.loss = loss
        self.factor = _arguments.check_number(factor, "factor")

    def forward(
        self, y_pred: ArrayLike, y: ArrayLike, sample_weight: ArrayLike | None = None
    ) -> float:
        """``factor * loss.forward(y_pred, y, sample_weight)``."""
        loss: Any = self.loss
        if sample_weight is None:
            return float(self.factor * loss.forward(y_pred, y))
        return float(self.factor * loss.forward(y_pred, y, sample_weight=sample_weight))

    def forward_part(self, y_pred: ArrayLike, y: ArrayLike, shares: Array) -> Array:
        """``factor * loss.forward_part(y_pred, y, shares)``, of a loss that has it."""
        loss: Any = self.loss
        of_rows: Array = self.factor * loss.forward_part(y_pred, y, shares)
        return of_rows

    def right_rows(self) -> Array | None:
        """That of `loss`."""
        loss: Any = self.loss
        right: Array | None = loss.right_rows()
        return right

    def backward(self) -> Array:
        """The gradient with respect to `y_pred`."""
        gradient: Array = self.loss.backward()
        scaled: Array = gradient * gradient.dtype.type(self.factor)
        return scaled

    def check(
        self, y: ArrayLike, shape: tuple[int, ...], sample_weight: ArrayLike | None = None
    ) -> None:
        """Raise what ``forward`` would for these targets and weights, if `loss` can tell."""
        check: Any = getattr(self.loss, "check", None)
        if check is not None:
            check(y, shape, sample_weight)

    @property
    def accuracy(self) -> float | None:
        """That of the last forward of `loss`; None if it has none."""
        return accuracy_of(self.loss)

    def __copy__(self) -> ScaledLoss:
        return ScaledLoss(copy.copy(self.loss), self.factor)

    def __repr__(self) -> str:
        return f"ScaledLoss({self.loss!r}, {self.factor!r})"
