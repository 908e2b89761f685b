"""The update rules of the optimizers, on arrays that are given.

A rule changes `p` and what it keeps beside it, in place, in one pass.  All arrays of a call are
C-contiguous, of one dtype (float32 or float64) and one size, and share no memory.  Where `p` and
`g` are of 16 bits the rest is float32: a master copy of `p` moves, and `p` becomes it, rounded.
Nothing here checks or remembers; the backends compute.
"""

from __future__ import annotations

from typing import NamedTuple

from dropwise._backends import active
from dropwise._backends.protocol import Array


class AdamScalars(NamedTuple):
    """The numbers of one step of Adam."""

    learning_rate: float
    beta_1: float
    beta_2: float
    correction_1: float  # 1 / (1 - beta_1**t) in step t = 1, 2, ...
    correction_2: float  # 1 / (1 - beta_2**t)
    epsilon: float
    weight_decay: float


class SGDScalars(NamedTuple):
    """The numbers of one step of stochastic gradient descent."""

    learning_rate: float
    momentum: float
    nesterov: bool
    weight_decay: float


def adam_scalars(
    t: int,
    learning_rate: float,
    beta_1: float,
    beta_2: float,
    epsilon: float,
    weight_decay: float = 0.0,
) -> AdamScalars:
    """The numbers of step `t`, which counts from 1."""
    return AdamScalars(
        learning_rate,
        beta_1,
        beta_2,
        1.0 / (1.0 - beta_1**t),
        1.0 / (1.0 - beta_2**t),
        epsilon,
        weight_decay,
    )


def adam(
    p: Array, g: Array, m: Array, v: Array, scalars: AdamScalars, master: Array | None = None
) -> None:
    """Adam with decoupled weight decay.

    ``m = beta_1 * m + (1 - beta_1) * g``, ``v = beta_2 * v + (1 - beta_2) * g**2``, and
    ``p -= learning_rate * (weight_decay * p + m * correction_1 / (sqrt(v * correction_2) +
    epsilon))``.
    """
    active().adam_step([(p, g, m, v, master)], scalars)


def sgd(
    p: Array,
    g: Array,
    velocity: Array | None,
    scalars: SGDScalars,
    master: Array | None = None,
) -> None:
    """Stochastic gradient descent with decoupled weight decay.

    ``velocity = momentum * velocity - learning_rate * g``, and ``p += velocity`` after
    ``p -= learning_rate * weight_decay * p``; with `nesterov` it is
    ``p += momentum * velocity - learning_rate * g``.  No `velocity`: no momentum.
    """
    active().sgd_step([(p, g, velocity, master)], scalars)
