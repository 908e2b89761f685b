"""What is known of epochs that are over: their figures, and which was the best."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np

from dropwise._backends.protocol import Array


@dataclass(frozen=True)
class Epoch:
    """The figures of one epoch: means over its batches, and of the validation data after it.

    Parameters
    ----------
    epoch : int
        1, 2, ... over the life of the network.
    loss : float
        ``data_loss + regularization_loss``.
    data_loss, regularization_loss : float
    accuracy : float or None
        Dropout is active, as in all training figures.  None: the loss has no accuracy.
    learning_rate : float
    val_loss : float or None
        The data loss only; None without validation data.
    val_accuracy : float or None
    """

    epoch: int
    loss: float
    data_loss: float
    regularization_loss: float
    accuracy: float | None
    learning_rate: float
    val_loss: float | None = None
    val_accuracy: float | None = None


@dataclass
class Best:
    """The best epoch of a training run, by validation loss if there is one, else by loss."""

    loss: float = math.inf
    epoch: int | None = None  # None: none so far
    parameters: list[Array] = field(default_factory=list)  # copies, if they are to be restored

    def see(self, epoch: Epoch, parameters: Sequence[Array]) -> None:
        """Take note of an epoch that is over; with these parameters, if they are to be restored."""
        loss = epoch.loss if epoch.val_loss is None else epoch.val_loss
        if self.epoch is None or loss < self.loss:
            self.parameters = [p.copy() for p in parameters]
            self.loss = loss if loss == loss else math.inf
            self.epoch = epoch.epoch

    def epochs_since(self, epoch: Epoch) -> int:
        """How many epochs have been no better."""
        return 0 if self.epoch is None else epoch.epoch - self.epoch

    def restore(self, parameters: Sequence[Array]) -> None:
        """Set the parameters to those of the best epoch."""
        for p, best in zip(parameters, self.parameters, strict=bool(self.parameters)):
            np.copyto(p, best)
