"""A loss times a number, and half the Poisson deviance."""

from __future__ import annotations

import copy

import numpy as np
import pytest

import dropwise as dw
from dropwise.losses import HalfPoissonDeviance, ScaledLoss, accuracy_of, takes_sample_weight
from gradients import gradient_by_differences


def scores(shape=(5, 3), dtype=np.float64):
    return np.random.default_rng(0).standard_normal(shape).astype(dtype)


@pytest.mark.parametrize("weight", [None, np.array([1.0, 0.0, 2.0, 0.5, 3.0])])
def test_value_and_gradient_are_multiplied(weight):
    y_pred, y = scores(), scores() > 0
    plain, scaled = dw.BinaryCrossEntropy(), ScaledLoss(dw.BinaryCrossEntropy(), 3.0)
    assert scaled.forward(y_pred, y, weight) == 3.0 * plain.forward(y_pred, y, weight)
    np.testing.assert_allclose(scaled.backward(), 3.0 * plain.backward())
    assert scaled.accuracy == plain.accuracy
    assert accuracy_of(ScaledLoss(dw.MeanSquaredError(), 0.5)) is None
    assert takes_sample_weight(scaled)


def test_a_scaled_loss_keeps_dtypes_and_checks_and_has_copies_of_its_own():
    scaled = ScaledLoss(dw.MeanSquaredError(), 0.5)
    scaled.forward(scores(dtype=np.float32), scores())
    assert scaled.backward().dtype == np.float32
    other = copy.copy(scaled)
    other.forward(scores((2, 1)), scores((2, 1)))
    assert scaled.backward().shape == (5, 3)
    with pytest.raises(ValueError, match="shape of y_pred"):
        scaled.check(np.zeros(4), (5, 3))
    with pytest.raises(ValueError, match="factor"):
        ScaledLoss(dw.MeanSquaredError(), -1.0)


def test_a_network_learns_by_either():
    rng = np.random.default_rng(0)
    x = rng.standard_normal((200, 3)).astype(np.float32)
    y = rng.poisson(np.exp(x[:, :1]))
    for loss in (HalfPoissonDeviance(), ScaledLoss(HalfPoissonDeviance(), 2.0)):
        net = dw.Sequential([dw.Dense(3, 1)], seed=0)
        history = net.fit(x, y, loss=loss, optimizer=dw.Adam(0.05), epochs=30, progress=False)
        assert history[-1].loss < 0.8 * history[0].loss


@pytest.mark.parametrize("weight", [None, np.array([1.0, 0.0, 2.0, 0.5, 3.0])])
def test_the_gradient_of_the_deviance(weight):
    y_pred, y = scores(), np.random.default_rng(1).integers(0, 3, (5, 3))
    loss = HalfPoissonDeviance()
    loss.forward(y_pred, y, weight)
    expected = gradient_by_differences(
        lambda: HalfPoissonDeviance().forward(y_pred, y, weight), y_pred
    )
    np.testing.assert_allclose(loss.backward(), expected, rtol=1e-5, atol=1e-8)


def test_the_deviance_is_0_where_the_mean_is_the_count():
    assert HalfPoissonDeviance().forward(np.log([1.0, 2.0, 7.0]), [1, 2, 7]) == pytest.approx(0)
    assert HalfPoissonDeviance().forward([-np.inf], [0]) == 0
    assert HalfPoissonDeviance().forward([-1000.0], [1]) == pytest.approx(999)


@pytest.mark.parametrize(
    ("y", "message"), [([-1.0, 2.0], "negative, got -1.0 in row 0"), ([1.0, np.nan], "finite")]
)
def test_counts_are_checked(y, message):
    with pytest.raises(ValueError, match=message):
        HalfPoissonDeviance().forward([0.0, 0.0], y)
    with pytest.raises(ValueError, match=message):
        HalfPoissonDeviance().check(y, (2,))
