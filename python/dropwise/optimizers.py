"""Optimizers: they update parameters in place.

``step`` takes the pairs (parameters, gradient) of ``Layer.parameters()``, which must be the same
ones, in the same order, at every step.  The first step allocates all moments and temporaries.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from dropwise._backends.protocol import Array

Pairs = Sequence[tuple[Array, Array]]


class Optimizer:
    """The base of the optimizers: step count, decay, arrays for each parameter."""

    _slots: tuple[str, ...]  # names of the arrays in the state

    def __init__(self, learning_rate: float, decay: float) -> None:
        if not (learning_rate >= 0.0 and decay >= 0.0):
            raise ValueError(
                f"learning_rate and decay must not be negative, got {learning_rate!r}, {decay!r}"
            )
        self.learning_rate = learning_rate
        self.decay = decay
        self.iterations = 0
        self._arrays: list[tuple[Array, ...]] = []  # per parameter: a slot each, a temporary

    @property
    def current_learning_rate(self) -> float:
        """``learning_rate / (1 + decay * iterations)``, the rate of the next step."""
        return self.learning_rate / (1.0 + self.decay * self.iterations)

    def step(self, parameters: Pairs) -> None:
        """Update the parameters by their gradients."""
        if not self._arrays:
            self._arrays = [
                (*(np.zeros_like(p) for _ in self._slots), np.empty_like(p)) for p, _ in parameters
            ]
        if len(parameters) != len(self._arrays):
            raise ValueError(
                f"{self} has stepped {len(self._arrays)} parameters before, got {len(parameters)}"
            )
        self._update(parameters)
        self.iterations += 1

    def _update(self, parameters: Pairs) -> None:
        raise NotImplementedError

    def state_dict(self) -> dict[str, Any]:
        """The number of steps, and copies of the arrays."""
        slots = {
            f"{name}.{i}": arrays[k].copy()
            for i, arrays in enumerate(self._arrays)
            for k, name in enumerate(self._slots)
        }
        return {"iterations": self.iterations, **slots}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """The inverse of `state_dict`."""
        self.iterations = int(state["iterations"])
        self._arrays = []
        for i in range((len(state) - 1) // max(1, len(self._slots))):
            slots = tuple(np.array(state[f"{name}.{i}"]) for name in self._slots)
            self._arrays.append((*slots, np.empty_like(slots[0])))


class SGD(Optimizer):
    """Stochastic gradient descent.

    Parameters
    ----------
    learning_rate : float
    momentum : float
        The share of the last update that is added to the next.
    decay : float
        The rate falls as ``learning_rate / (1 + decay * iterations)``.

    Examples
    --------
    >>> import numpy as np
    >>> import dropwise as dw
    >>> w, dw_ = np.ones(2), np.array([1.0, -1.0])
    >>> dw.SGD(0.5).step([(w, dw_)])
    >>> w
    array([0.5, 1.5])
    """

    _slots = ("velocity",)

    def __init__(
        self, learning_rate: float = 0.01, *, momentum: float = 0.0, decay: float = 0.0
    ) -> None:
        super().__init__(learning_rate, decay)
        self.momentum = momentum

    def _update(self, parameters: Pairs) -> None:
        rate = self.current_learning_rate
        for (p, g), (velocity, temporary) in zip(parameters, self._arrays, strict=True):
            np.multiply(g, rate, out=temporary)
            if self.momentum:
                velocity *= self.momentum
                velocity -= temporary
                p += velocity
            else:
                p -= temporary

    def __repr__(self) -> str:
        return f"SGD({self.learning_rate}, momentum={self.momentum}, decay={self.decay})"


class Adam(Optimizer):
    """Adam.

    Parameters
    ----------
    learning_rate : float
    beta_1, beta_2 : float in [0, 1)
        Decay of the mean gradient and of the mean squared gradient, per step.
    epsilon : float
        Added to the root of the mean square.
    decay : float
        The rate falls as ``learning_rate / (1 + decay * iterations)``.

    References
    ----------
    .. [1] Kingma and Ba, "Adam: a method for stochastic optimization", ICLR (2015).
    """

    # Both are discounted sums, sum(beta**age * g): 1 / (1 - beta) times the means m and v.  The
    # update divides by that factor together with the bias correction.
    _slots = ("sum_gradient", "sum_square")

    def __init__(
        self,
        learning_rate: float = 0.001,
        *,
        beta_1: float = 0.9,
        beta_2: float = 0.999,
        epsilon: float = 1e-7,
        decay: float = 0.0,
    ) -> None:
        super().__init__(learning_rate, decay)
        if not (0.0 <= beta_1 < 1.0 and 0.0 <= beta_2 < 1.0):
            raise ValueError(f"beta_1 and beta_2 must be in [0, 1), got {beta_1!r}, {beta_2!r}")
        self.beta_1, self.beta_2, self.epsilon = beta_1, beta_2, epsilon

    def _update(self, parameters: Pairs) -> None:
        t = self.iterations + 1
        mean = (1.0 - self.beta_1) / (1.0 - self.beta_1**t)  # sum_gradient * mean = m
        root = math.sqrt((1.0 - self.beta_2) / (1.0 - self.beta_2**t))  # sqrt(sum_square) * root
        factor = self.current_learning_rate * mean / root
        epsilon = self.epsilon / root
        for (p, g), (m, v, temporary) in zip(parameters, self._arrays, strict=True):
            m *= self.beta_1
            m += g
            v *= self.beta_2
            np.multiply(g, g, out=temporary)
            v += temporary
            np.sqrt(v, out=temporary)
            temporary += epsilon
            np.divide(m, temporary, out=temporary)
            temporary *= factor
            p -= temporary

    def __repr__(self) -> str:
        return (
            f"Adam({self.learning_rate}, beta_1={self.beta_1}, beta_2={self.beta_2}, "
            f"epsilon={self.epsilon}, decay={self.decay})"
        )
