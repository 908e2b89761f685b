"""Gradients by finite differences, in float64."""

from __future__ import annotations

import numpy as np

STEP = 1e-6


def assert_gradients(layer, x, before=lambda: None):
    """Compare a layer's gradients with finite differences of ``sum(factor * y) + regularisation``.

    `before` is called before each forward; it makes the layer draw the same mask again.
    """
    before()
    y = layer.forward(x)
    factor = np.random.default_rng(3).standard_normal(y.shape)

    def loss():
        before()
        return float((factor * layer.forward(x)).sum()) + layer.regularization_loss()

    loss()
    dx = layer.backward(factor).copy()
    pairs = [(x, dx), *((p, g.copy()) for p, g in layer.parameters())]
    for values, gradient in pairs:
        assert gradient.shape == values.shape
        for i in np.ndindex(values.shape):
            value = values[i]
            values[i] = value + STEP
            above = loss()
            values[i] = value - STEP
            below = loss()
            values[i] = value
            # Central differences of a piecewise quadratic: what is left is rounding.
            assert abs((above - below) / (2 * STEP) - gradient[i]) < 1e-7 * max(1, abs(gradient[i]))


def gradient_by_differences(f, x, h=STEP):
    """The gradient of the number ``f()`` by the array `x`, which is changed in place and back."""
    gradient = np.zeros_like(x)
    for i in np.ndindex(x.shape):
        before = x[i]
        x[i] = before + h
        up = f()
        x[i] = before - h
        down = f()
        x[i] = before
        gradient[i] = (up - down) / (2 * h)
    return gradient
