"""Adam, with decoupled weight decay."""

from __future__ import annotations

from typing import Any

from dropwise import _updates
from dropwise._backends import active
from dropwise.optimizers.base import Move, Number, Optimizer

# A smaller epsilon vanishes beside float32 numbers, and a gradient that was always 0 gives 0 / 0.
_LEAST_EPSILON = 1e-30


class Adam(Optimizer):
    """Adam, with decoupled weight decay (AdamW).

    Parameters
    ----------
    learning_rate : float >= 0
        May be assigned between steps, as all settings may.
    beta_1, beta_2 : float in [0, 1)
        How much of the mean gradient and of the mean squared gradient a step keeps.
    epsilon : float >= 1e-30
        Added to the root of the mean square.
    decay : float >= 0
        The rate falls as ``learning_rate / (1 + decay * iterations)``.
    weight_decay : float >= 0
        A step takes ``current_learning_rate * weight_decay`` of each parameter, biases included,
        away from it, beside what the gradient does [2]_.

    Notes
    -----
    With the means ``m = beta_1 * m + (1 - beta_1) * g`` and ``v = beta_2 * v + (1 - beta_2) *
    g**2``, step t subtracts ``rate * (m / (1 - beta_1**t)) / (sqrt(v / (1 - beta_2**t)) +
    epsilon)``.

    References
    ----------
    .. [1] Kingma and Ba, "Adam: a method for stochastic optimization", ICLR (2015).
    .. [2] Loshchilov and Hutter, "Decoupled weight decay regularization", ICLR (2019).
    """

    beta_1 = Number(below=1.0)
    beta_2 = Number(below=1.0)
    epsilon = Number(least=_LEAST_EPSILON)

    def __init__(
        self,
        learning_rate: float = 0.001,
        *,
        beta_1: float = 0.9,
        beta_2: float = 0.999,
        epsilon: float = 1e-7,
        decay: float = 0.0,
        weight_decay: float = 0.0,
    ) -> None:
        super().__init__(learning_rate, decay, weight_decay)
        self.beta_1, self.beta_2, self.epsilon = beta_1, beta_2, epsilon

    def _slots(self) -> tuple[str, ...]:
        return ("mean", "square")

    def _scalars(self) -> _updates.AdamScalars:
        return _updates.adam_scalars(
            self.iterations + 1,
            self.current_learning_rate,
            self.beta_1,
            self.beta_2,
            self.epsilon,
            self.weight_decay,
        )

    def _operands(self, move: Move) -> tuple[Any, ...]:
        arrays = move.arrays
        return move.flat, move.gradient, arrays["mean"], arrays["square"], move.master

    def _update(self, operands: list[Any], scalars: Any) -> None:
        active().adam_step(operands, scalars)
