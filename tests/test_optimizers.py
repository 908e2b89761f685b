"""Optimizers against their formulas."""

from __future__ import annotations

import copy

import numpy as np
import pytest

import dropwise as dw

OPTIMIZERS = [
    lambda: dw.SGD(0.1),
    lambda: dw.SGD(0.1, momentum=0.9, decay=0.01),
    lambda: dw.Adam(0.1),
    lambda: dw.Adam(0.05, beta_1=0.8, beta_2=0.99, epsilon=1e-4, decay=5e-2),
]


def gradients(steps=20, shape=(3, 4)):
    return np.random.default_rng(0).standard_normal((steps, *shape))


def run(optimizer, parameter, steps):
    for g in steps:
        optimizer.step([(parameter, g)])
    return parameter


def test_sgd_goes_down_the_gradient():
    w = run(dw.SGD(0.1), np.zeros((3, 4)), gradients())
    np.testing.assert_allclose(w, -0.1 * gradients().sum(axis=0), rtol=1e-12, atol=1e-15)


def test_sgd_with_momentum_and_decay_is_the_textbooks():
    w, velocity = np.zeros((3, 4)), np.zeros((3, 4))
    for t, g in enumerate(gradients()):
        rate = 0.1 * (1 / (1 + 0.01 * t))
        velocity = 0.9 * velocity - rate * g
        w = w + velocity
    got = run(dw.SGD(0.1, momentum=0.9, decay=0.01), np.zeros((3, 4)), gradients())
    np.testing.assert_allclose(got, w, rtol=1e-12)


@pytest.mark.parametrize("decay", [0.0, 0.05])
def test_adam_is_the_textbooks(decay):
    w, m, v = np.ones((3, 4)), np.zeros((3, 4)), np.zeros((3, 4))
    for t, g in enumerate(gradients()):
        rate = 0.1 * (1 / (1 + decay * t))
        m = 0.8 * m + 0.2 * g
        v = 0.99 * v + 0.01 * g**2
        m_hat, v_hat = m / (1 - 0.8 ** (t + 1)), v / (1 - 0.99 ** (t + 1))
        w = w - rate * m_hat / (np.sqrt(v_hat) + 1e-4)
    adam = dw.Adam(0.1, beta_1=0.8, beta_2=0.99, epsilon=1e-4, decay=decay)
    np.testing.assert_allclose(run(adam, np.ones((3, 4)), gradients()), w, rtol=1e-12)


def test_adam_stays_put_where_the_gradient_is_zero():
    w = run(dw.Adam(0.1), np.ones(3), np.zeros((5, 3)))
    np.testing.assert_array_equal(w, np.ones(3))


@pytest.mark.parametrize("make", OPTIMIZERS)
def test_each_parameter_is_on_its_own(make):
    both, one, two = make(), make(), make()
    a, b = np.zeros((3, 4)), np.ones(7)
    for g, h in zip(gradients(), gradients(shape=(7,)), strict=True):
        both.step([(a, g), (b, h)])
    np.testing.assert_array_equal(a, run(one, np.zeros((3, 4)), gradients()))
    np.testing.assert_array_equal(b, run(two, np.ones(7), gradients(shape=(7,))))


@pytest.mark.parametrize("make", OPTIMIZERS)
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_parameters_are_changed_in_place_and_gradients_not_at_all(make, dtype):
    w, g = np.ones(5, dtype), np.ones(5, dtype)
    make().step([(w, g)])
    assert (w < 1).all()
    assert w.dtype == dtype
    np.testing.assert_array_equal(g, np.ones(5))


@pytest.mark.parametrize("make", OPTIMIZERS)
def test_a_state_continues_where_it_was_taken(make):
    steps = gradients()
    whole, first, second = make(), make(), make()
    want = run(whole, np.ones((3, 4)), steps)
    w = run(first, np.ones((3, 4)), steps[:8])
    second.load_state_dict(first.state_dict())
    first.step([(w.copy(), steps[0])])  # the state is a copy
    assert second.iterations == 8
    np.testing.assert_array_equal(run(second, w, steps[8:]), want)
    assert second.current_learning_rate == whole.current_learning_rate


@pytest.mark.parametrize("make", OPTIMIZERS)
def test_a_copy_goes_on_by_itself(make):
    optimizer = make()
    w = run(optimizer, np.ones((3, 4)), gradients()[:5])
    other, w2 = copy.deepcopy(optimizer), w.copy()
    np.testing.assert_array_equal(run(other, w2, gradients()), run(optimizer, w, gradients()))


def test_the_learning_rate_falls_with_the_iterations():
    sgd = dw.SGD(0.5, decay=0.1)
    rates = []
    for _ in range(3):
        rates.append(sgd.current_learning_rate)
        sgd.step([(np.zeros(1), np.zeros(1))])
    assert rates == [0.5, 0.5 / 1.1, 0.5 / 1.2]


def test_another_number_of_parameters_is_an_error():
    adam = dw.Adam()
    adam.step([(np.ones(2), np.ones(2))])
    with pytest.raises(ValueError, match="has stepped 1 parameters before, got 2"):
        adam.step([(np.ones(2), np.ones(2))] * 2)


@pytest.mark.parametrize(
    "make",
    [
        lambda: dw.SGD(-0.1),
        lambda: dw.Adam(0.1, decay=-1),
        lambda: dw.Adam(0.1, beta_1=1.0),
        lambda: dw.Adam(0.1, beta_2=-0.1),
        lambda: dw.SGD(float("nan")),
    ],
)
def test_bad_arguments_are_errors_at_once(make):
    with pytest.raises(ValueError, match=r"must (not be negative|be in \[0, 1\))"):
        make()
