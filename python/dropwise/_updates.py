"""The update rules of the optimizers, on arrays that are given.

A rule changes `p` and what it keeps beside it, in place.  All arrays of a call are 1-D,
C-contiguous, of one floating dtype (not a 16-bit one) and one size, and share no memory.  `scratch`
may hold anything before and after; `BLOCK` elements are enough.  Nothing here checks, allocates or
remembers.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from dropwise._backends.protocol import Array

# Elements that go through a whole rule at a time: what a rule touches of so many stays in cache.
BLOCK = 1 << 16


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
    *,
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


def adam(p: Array, g: Array, m: Array, v: Array, scalars: AdamScalars, scratch: Array) -> None:
    """Adam with decoupled weight decay.

    ``m = beta_1 * m + (1 - beta_1) * g``, ``v = beta_2 * v + (1 - beta_2) * g**2``, and
    ``p -= learning_rate * (weight_decay * p + m * correction_1 / (sqrt(v * correction_2) +
    epsilon))``.
    """
    if p.size > BLOCK:
        for start in range(0, p.size, BLOCK):
            part = slice(start, start + BLOCK)
            adam(p[part], g[part], m[part], v[part], scalars, scratch)
        return
    scratch = scratch[: p.size]
    # sqrt(v * c) + epsilon = sqrt(c) * (sqrt(v) + epsilon / sqrt(c)) saves a pass.
    root = scalars.correction_2**0.5
    factor = scalars.learning_rate * scalars.correction_1 / root
    epsilon = scalars.epsilon / root
    # Apart from the rest: p *= 1 - decay would round a small decay away in float32.
    decay = scalars.learning_rate * scalars.weight_decay
    np.multiply(g, 1.0 - scalars.beta_1, out=scratch)
    m *= scalars.beta_1
    m += scratch
    np.multiply(g, g, out=scratch)
    scratch *= 1.0 - scalars.beta_2
    v *= scalars.beta_2
    v += scratch
    if decay:
        np.multiply(p, decay, out=scratch)
        p -= scratch
    np.sqrt(v, out=scratch)
    scratch += epsilon
    np.divide(m, scratch, out=scratch)
    scratch *= factor
    p -= scratch


def sgd(p: Array, g: Array, velocity: Array | None, scalars: SGDScalars, scratch: Array) -> None:
    """Stochastic gradient descent with decoupled weight decay.

    ``velocity = momentum * velocity - learning_rate * g``, and ``p += velocity`` after
    ``p -= learning_rate * weight_decay * p``; with `nesterov` it is
    ``p += momentum * velocity - learning_rate * g``.  No `velocity`: no momentum.
    """
    if p.size > BLOCK:
        for start in range(0, p.size, BLOCK):
            part = slice(start, start + BLOCK)
            sgd(
                p[part], g[part], velocity if velocity is None else velocity[part], scalars, scratch
            )
        return
    scratch = scratch[: p.size]
    rate, momentum = scalars.learning_rate, scalars.momentum
    decay = rate * scalars.weight_decay
    if decay:
        np.multiply(p, decay, out=scratch)
        p -= scratch
    np.multiply(g, rate, out=scratch)
    if velocity is None:
        p -= scratch
        return
    velocity *= momentum
    velocity -= scratch
    if scalars.nesterov:
        p -= scratch
        np.multiply(velocity, momentum, out=scratch)
        p += scratch
    else:
        p += velocity
