"""Optimizer steps: one pass over parameters, gradients and moments.

The operations and their order are those of the native kernels, so the bits are too.  16-bit
parameters go through a block of float32, in the first-level cache.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np
from numba import types
from numba.extending import overload

from dropwise._backends.numba.compilation import ieee_kernel, inlined
from dropwise._backends.numba.elements import flat, float_of_half, half_of_float
from dropwise._backends.protocol import Array

_BLOCK = 2048  # elements whose gradient is widened to a buffer


# ---- 16-bit elements -----------------------------------------------------------------------------


def _widened(x):
    """Return the element as a real number."""


@overload(_widened, inline="always")
def _widened_overload(x):
    if isinstance(x, types.Float):
        return lambda x: x
    if x == types.uint16:  # float16
        return lambda x: float_of_half(x)
    return lambda x: np.uint32(np.uint32(x) << np.uint32(16)).view(np.float32)


@inlined
def _bfloat16_of_float(value):
    """Return the bits of the nearest bfloat16, ties to even."""
    word = np.float32(value).view(np.uint32)
    nearest = word + np.uint32(0x7FFF) + (word >> np.uint32(16) & np.uint32(1))
    if word & np.uint32(0x7FFFFFFF) > np.uint32(0x7F800000):
        nearest = word | np.uint32(0x400000)  # rounding could end a NaN as infinity
    return np.int16(nearest >> np.uint32(16))


@ieee_kernel
def _widen(x, out):
    for i in range(out.size):
        out[i] = _widened(x[i])


@ieee_kernel
def _narrow_float16(x, out):
    for i in range(out.size):
        out[i] = half_of_float(x[i])


@ieee_kernel
def _narrow_bfloat16(x, out):
    for i in range(out.size):
        out[i] = _bfloat16_of_float(x[i])


# ---- steps ---------------------------------------------------------------------------------------


@ieee_kernel
def _adam(p, g, m, v, numbers):
    beta_1, rest_1, beta_2, rest_2, factor, epsilon, decay = numbers
    for i in range(p.size):
        gradient = g[i]
        mean = m[i] * beta_1 + gradient * rest_1
        square = v[i] * beta_2 + gradient * gradient * rest_2
        m[i] = mean
        v[i] = square
        start = p[i]
        if decay != 0:
            start -= start * decay
        p[i] = start - mean / (np.sqrt(square) + epsilon) * factor


@ieee_kernel
def _sgd(p, g, rate, decay):
    for i in range(p.size):
        start = p[i]
        if decay != 0:
            start -= start * decay
        p[i] = start - g[i] * rate


@ieee_kernel
def _sgd_momentum(p, g, velocity, rate, momentum, decay, nesterov):
    for i in range(p.size):
        step = g[i] * rate
        moving = velocity[i] * momentum - step
        velocity[i] = moving
        start = p[i]
        if decay != 0:
            start -= start * decay
        p[i] = start - step + moving * momentum if nesterov else start + moving


# ---- the functions of the protocol ---------------------------------------------------------------


def _blocks(p: Array, g: Array, beside: tuple[Array, ...], master: Array | None, step: Any) -> None:
    """Call ``step(p, g, *beside)`` on all elements, or on blocks of the master copy."""
    p, g = flat(p), flat(g)
    beside = tuple(x.reshape(-1) for x in beside)
    if master is None:
        step(p, g, *beside)
        return
    master = master.reshape(-1)
    narrow = _narrow_float16 if p.dtype == np.uint16 else _narrow_bfloat16
    buffer = np.empty(min(_BLOCK, p.size), master.dtype)
    for start in range(0, p.size, _BLOCK):
        part = slice(start, start + _BLOCK)
        value = master[part]
        gradient = buffer[: value.size]
        _widen(g[part], gradient)
        step(value, gradient, *(x[part] for x in beside))
        narrow(value, p[part])


def adam_step(
    parameters: Sequence[tuple[Array, Array, Array, Array, Array | None]],
    scalars: tuple[float, ...],
) -> None:
    rate, beta_1, beta_2, correction_1, correction_2, epsilon, weight_decay = scalars
    root = math.sqrt(correction_2)
    wide = (
        beta_1,
        1 - beta_1,
        beta_2,
        1 - beta_2,
        rate * correction_1 / root,
        epsilon / root,
        rate * weight_decay,
    )
    for p, g, m, v, master in parameters:
        numbers = tuple(m.dtype.type(number) for number in wide)
        _blocks(p, g, (m, v), master, lambda *x, numbers=numbers: _adam(*x, numbers))


def sgd_step(
    parameters: Sequence[tuple[Array, Array, Array | None, Array | None]],
    scalars: tuple[float, float, bool, float],
) -> None:
    for p, g, velocity, master in parameters:
        _sgd_step(p, g, velocity, master, *scalars)


def _sgd_step(
    p: Array,
    g: Array,
    velocity: Array | None,
    master: Array | None,
    rate: float,
    momentum: float,
    nesterov: bool,
    weight_decay: float,
) -> None:
    real = (p if master is None else master).dtype.type
    decay = real(rate * weight_decay)
    if velocity is None:
        _blocks(p, g, (), master, lambda *x: _sgd(*x, real(rate), decay))
        return
    numbers = (real(rate), real(momentum), decay, bool(nesterov))
    _blocks(p, g, (velocity,), master, lambda *x: _sgd_momentum(*x, *numbers))
