"""Stochastic gradient descent, with momentum."""

from __future__ import annotations

from typing import Any

import numpy as np

from dropwise import _updates
from dropwise._backends import active
from dropwise.optimizers.base import Move, Number, Optimizer


class SGD(Optimizer):
    """Stochastic gradient descent.

    Parameters
    ----------
    learning_rate : float >= 0
        May be assigned between steps, as all settings may.
    momentum : float in [0, 1)
        Share of the last update that is added to the next.
    nesterov : bool
        Whether the gradient counts as one taken after the momentum's part of the update [1]_.
        Needs a momentum.
    decay : float >= 0
        The rate falls as ``learning_rate / (1 + decay * iterations)``.
    weight_decay : float >= 0
        A step takes ``current_learning_rate * weight_decay`` of each parameter, biases included,
        away from it, beside what the gradient does [2]_.

    References
    ----------
    .. [1] Sutskever et al., "On the importance of initialization and momentum in deep learning",
       ICML (2013).
    .. [2] Loshchilov and Hutter, "Decoupled weight decay regularization", ICLR (2019).

    Examples
    --------
    >>> import numpy as np
    >>> import dropwise as dw
    >>> w, dw_ = np.ones(2), np.array([1.0, -1.0])
    >>> dw.SGD(0.5).step([(w, dw_)])
    >>> w
    array([0.5, 1.5])
    """

    momentum = Number(below=1.0)

    def __init__(
        self,
        learning_rate: float = 0.01,
        *,
        momentum: float = 0.0,
        nesterov: bool = False,
        decay: float = 0.0,
        weight_decay: float = 0.0,
    ) -> None:
        super().__init__(learning_rate, decay, weight_decay)
        self.momentum = momentum
        if not isinstance(nesterov, (bool, np.bool_)):
            raise TypeError(f"nesterov must be True or False, got {nesterov!r}")
        self.nesterov = bool(nesterov)
        if self.nesterov and not self.momentum:
            raise ValueError("momentum must be positive with nesterov=True, got 0.0")

    def _slots(self) -> tuple[str, ...]:
        return ("velocity",) if self.momentum else ()

    def _scalars(self) -> _updates.SGDScalars:
        return _updates.SGDScalars(
            self.current_learning_rate, self.momentum, self.nesterov, self.weight_decay
        )

    def _operands(self, move: Move) -> tuple[Any, ...]:
        return move.flat, move.gradient, move.arrays.get("velocity"), move.master

    def _update(self, operands: list[Any], scalars: Any) -> None:
        active().sgd_step(operands, scalars)
