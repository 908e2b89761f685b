"""The optimizer steps of the backends: bit for bit the formulas in NumPy, whatever the threads."""

from __future__ import annotations

import math

import ml_dtypes
import numpy as np
import pytest

import dropwise as dw
from dropwise._backends import active

REAL = [np.float32, np.float64]
HALF = [np.float16, ml_dtypes.bfloat16]
# None, one, and around the ends of vectors, blocks and pieces.
SIZES = [0, 1, 7, 33, 2047, 2048, 2049, 16384, 16389, 70001]


def arrays(n, dtype, count, seed=0):
    rng = np.random.default_rng(seed)
    made = [rng.standard_normal(n).astype(dtype) for _ in range(count)]
    return made


def adam_scalars(t, weight_decay=0.0, rate=0.01, beta_1=0.9, beta_2=0.999, epsilon=1e-7):
    corrections = 1.0 / (1.0 - beta_1**t), 1.0 / (1.0 - beta_2**t)
    return rate, beta_1, beta_2, *corrections, epsilon, weight_decay


def adam_in_numpy(p, g, m, v, scalars):
    rate, beta_1, beta_2, correction_1, correction_2, epsilon, weight_decay = scalars
    real, root = p.dtype.type, math.sqrt(correction_2)
    m = m * real(beta_1) + g * real(1 - beta_1)
    v = v * real(beta_2) + g * g * real(1 - beta_2)
    if weight_decay:
        p = p - p * real(rate * weight_decay)
    return p - m / (np.sqrt(v) + real(epsilon / root)) * real(rate * correction_1 / root), m, v


def sgd_in_numpy(p, g, velocity, scalars):
    rate, momentum, nesterov, weight_decay = scalars
    real = p.dtype.type
    step = g * real(rate)
    if weight_decay:
        p = p - p * real(rate * weight_decay)
    if velocity is None:
        return p - step, None
    velocity = velocity * real(momentum) - step
    if nesterov:
        return p - step + velocity * real(momentum), velocity
    return p + velocity, velocity


def same(got, want):
    """Equal, where NaN equals NaN in every dtype."""
    np.testing.assert_array_equal(got.astype(np.float32), want.astype(np.float32))


@pytest.mark.parametrize("n", SIZES)
@pytest.mark.parametrize("dtype", REAL)
@pytest.mark.parametrize("weight_decay", [0.0, 0.1])
def test_a_step_of_adam_has_the_bits_of_its_formula(backend, n, dtype, weight_decay):
    p, g, m, v = arrays(n, dtype, 4)
    v = np.abs(v)
    gradient = g.copy()
    for t in (1, 2, 50):
        scalars = adam_scalars(t, weight_decay)
        expected = adam_in_numpy(p, g, m, v, scalars)
        active().adam_step([(p, g, m, v, None)], scalars)
        for got, want in zip((p, m, v), expected, strict=True):
            np.testing.assert_array_equal(got, want)
    np.testing.assert_array_equal(g, gradient)


@pytest.mark.parametrize("n", SIZES)
@pytest.mark.parametrize("dtype", REAL)
@pytest.mark.parametrize("weight_decay", [0.0, 0.1])
@pytest.mark.parametrize(
    ("momentum", "nesterov"), [(None, False), (0.0, False), (0.9, False), (0.9, True)]
)
def test_a_step_of_sgd_has_the_bits_of_its_formula(
    backend, n, dtype, weight_decay, momentum, nesterov
):
    p, g, velocity = arrays(n, dtype, 3)
    if momentum is None:
        velocity = None
    scalars = (0.01, momentum or 0.0, nesterov, weight_decay)
    for _ in range(2):
        expected = sgd_in_numpy(p, g, velocity, scalars)
        active().sgd_step([(p, g, velocity, None)], scalars)
        np.testing.assert_array_equal(p, expected[0])
        if velocity is not None:
            np.testing.assert_array_equal(velocity, expected[1])


def test_adam_agrees_with_the_textbook_to_rounding(backend):
    p, g = arrays(1000, np.float64, 2)
    m, v, expected = np.zeros(1000), np.zeros(1000), p.copy()
    mean, square = np.zeros(1000), np.zeros(1000)
    for t in range(1, 20):
        rate, beta_1, beta_2, correction_1, correction_2, epsilon, decay = adam_scalars(t, 0.1)
        mean = beta_1 * mean + (1 - beta_1) * g
        square = beta_2 * square + (1 - beta_2) * g**2
        root = np.sqrt(square * correction_2)
        expected -= rate * (decay * expected + mean * correction_1 / (root + epsilon))
        active().adam_step([(p, g, m, v, None)], adam_scalars(t, 0.1))
        np.testing.assert_allclose(p, expected, rtol=1e-12, atol=1e-14)


@pytest.mark.parametrize("dtype", HALF)
@pytest.mark.parametrize("n", [0, 1, 2049, 16389])
def test_sixteen_bit_parameters_follow_their_master_copy(backend, dtype, n):
    (p, g), (m, v) = arrays(n, dtype, 2), arrays(n, np.float32, 2, seed=1)
    master, v = p.astype(np.float32), np.abs(v)
    velocity = m.copy()
    for t in (1, 2):
        wide = g.astype(np.float32)
        expected = adam_in_numpy(master, wide, m, v, adam_scalars(t))
        active().adam_step([(p, g, m, v, master)], adam_scalars(t))
        for got, want in zip((master, m, v), expected, strict=True):
            np.testing.assert_array_equal(got, want)
        np.testing.assert_array_equal(p, master.astype(dtype))
    for moving in (velocity, None):
        scalars = (0.01, 0.9, True, 0.1)
        expected = sgd_in_numpy(master, g.astype(np.float32), moving, scalars)
        active().sgd_step([(p, g, moving, master)], scalars)
        np.testing.assert_array_equal(master, expected[0])
        np.testing.assert_array_equal(p, master.astype(dtype))


@pytest.mark.parametrize("dtype", HALF)
def test_sixteen_bit_parameters_take_every_value_that_there_is(backend, dtype):
    g = np.arange(1 << 16, dtype=np.uint16).view(dtype)
    p, master = np.zeros(g.size, dtype), np.zeros(g.size, np.float32)
    with np.errstate(all="ignore"):
        active().sgd_step([(p, g, None, master)], (-1.0, 0.0, False, 0.0))  # p = 0 + g
        np.testing.assert_array_equal(master, g.astype(np.float32))
        same(p, g)
        # What lies between two neighbours is rounded to the even one, and around it to the nearest.
        for factor in (1 + 2.0**-11, 1 + 2.0**-10, 1 + 2.0**-8, 1 + 2.0**-9 + 2.0**-20, 0.77):
            master[:] = 0
            active().sgd_step([(p, g, None, master)], (-factor, 0.0, False, 0.0))
            same(p, master.astype(dtype))


def test_steps_do_not_depend_on_the_threads(threads):
    p, g, m, v = arrays(200_003, np.float32, 4)
    v = np.abs(v)
    expected = adam_in_numpy(p, g, m, v, adam_scalars(3))
    active().adam_step([(p, g, m, v, None)], adam_scalars(3))
    for got, want in zip((p, m, v), expected, strict=True):
        np.testing.assert_array_equal(got, want)


def test_what_does_not_fit_is_refused_before_memory_is_touched():
    pytest.importorskip("dropwise._native")
    with dw.backend("native"):
        p, g, m, v = arrays(10, np.float32, 4)
        frozen = p.copy()
        frozen.flags.writeable = False
        step, scalars = active().adam_step, adam_scalars(1)
        good, before = (p, g, m, v, None), p.copy()
        for wrong in (
            (p, g[:9], m, v, None),
            (p, g.astype(np.float64), m, v, None),
            (p, g, m[:9], v, None),
            (p, g, m, v.astype(np.float64), None),
            (p, g, m, None, None),
            (p, g, m, v),
            (p, g, m, v, None, None),
            (p[::2], g[::2], m[::2], v[::2], None),
            (frozen, g, m, v, None),
            (p, g, m, v, m),
            (p.astype(np.float16), g.astype(np.float16), m, v, None),
            (None, g, m, v, None),
            [p, g, m, v, None],
        ):
            with pytest.raises(ValueError, match=r"must|have a master|not writeable"):
                step([good, wrong], scalars)
        with pytest.raises(ValueError, match="must be the 7"):
            step([good], scalars[:6])
        np.testing.assert_array_equal(p, before)


def test_parameters_may_come_from_a_generator(backend):
    p, g = np.ones((3, 4), np.float32), np.ones((3, 4), np.float32)
    active().sgd_step(((p[i], g[i].copy(), None, None) for i in range(3)), (0.5, 0.0, False, 0.0))
    np.testing.assert_array_equal(p, 0.5)
