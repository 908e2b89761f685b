"""Monte Carlo dropout."""

from __future__ import annotations

import numpy as np
import pytest

import dropwise as dw
from networks import chain, sample

pytestmark = pytest.mark.usefixtures("backend")


@pytest.mark.parametrize("spec", ["5 64 R D 3", "5 64 R D 64 R D 3", "5 D 64 R D 3", "5 64 R D"])
@pytest.mark.parametrize("noise_shape", [None, (1, None)])
@pytest.mark.parametrize("rows", [1, 300])
def test_predict_mc_has_the_mean_and_deviation_of_many_training_forwards(spec, noise_shape, rows):
    n = 400
    net = dw.Sequential(chain(spec, noise_shape=noise_shape))
    x = sample(rows, 5)
    mean, std = net.predict_mc(x, n)
    samples = np.stack([net.forward(x) for _ in range(n)])
    assert mean.shape == std.shape == samples.shape[1:]
    error = samples.std(axis=0) * np.sqrt(2 / n)
    # 6 sigma of the difference of two means, 2e-9 for each of up to 20000 values
    assert (abs(mean - samples.mean(axis=0)) <= 6 * error + 1e-12).all()
    # Estimates of a deviation vary, more so where the values have heavy tails.
    assert abs(std.mean() / samples.std(axis=0).mean() - 1) < 0.2


def test_predict_mc_with_the_same_seed_is_the_same():
    x = sample(7, 5)
    a, b = (dw.Sequential(chain("5 64 R D 3")).predict_mc(x, 50) for _ in range(2))
    np.testing.assert_array_equal(a, b)


def test_predict_mc_of_a_network_without_dropout_does_not_vary():
    net = dw.Sequential(chain("5 7 R 3"))
    mean, std = net.predict_mc(sample(4, 5), 10)
    np.testing.assert_allclose(mean, net.predict(sample(4, 5)), rtol=1e-12)
    np.testing.assert_array_equal(std, np.zeros((4, 3)))


def test_predict_mc_transforms_each_sample():
    net = dw.Sequential(chain("5 64 R D 3"))
    mean, std = net.predict_mc(sample(4, 5), 30, transform=lambda y: y > 0)
    assert ((mean >= 0) & (mean <= 1)).all()
    np.testing.assert_allclose(std**2, mean * (1 - mean), atol=1e-12)


def test_predict_mc_keeps_the_digits_of_a_large_mean():
    net = dw.Sequential(chain("5 64 R D 3"))
    small = net.predict_mc(sample(4, 5), 64)[1]
    shifted = dw.Sequential(chain("5 64 R D 3"))
    shifted.layers[-1].bias += 1e8
    np.testing.assert_allclose(shifted.predict_mc(sample(4, 5), 64)[1], small, rtol=1e-5)


def test_predict_mc_does_not_come_between_forward_and_backward():
    net = dw.Sequential(chain("5 7 D 3"))
    net.forward(sample(4, 5))
    mask = net.layers[1].mask
    dx = net.backward(np.ones((4, 3)))
    net.predict_mc(sample(4, 5), 2)
    np.testing.assert_array_equal(net.backward(np.ones((4, 3))), dx)
    np.testing.assert_array_equal(net.layers[1].mask, mask)


@pytest.mark.parametrize("spec", ["5 64 R D 3", "5 D 64 R D 3", "5 7 R 3"])
@pytest.mark.parametrize("noise_shape", [None, (1, None)])
def test_parts_of_the_rows_have_the_samples_of_the_whole(spec, noise_shape):
    x = sample(11, 5)
    whole, *parts = (dw.Sequential(chain(spec, noise_shape=noise_shape)) for _ in range(3))
    expected = whole.predict_mc(x, 20)
    first = parts[0].predict_mc(x[:4], 20)
    second = parts[1].predict_mc(x[4:], 20, first_row=4)
    for a, b, c in zip(expected, first, second, strict=True):
        np.testing.assert_allclose(np.concatenate([b, c]), a, rtol=1e-10, atol=1e-14)
    with pytest.raises(ValueError, match="first_row must be at least 0"):
        whole.predict_mc(x, 20, first_row=-1)


def test_first_row_may_not_lead_past_the_masks():
    net = dw.Sequential(chain("5 8 R D 3"))
    x = sample(4, 5)
    for call in (net.forward, lambda x, first_row: net.predict_mc(x, 20, first_row=first_row)):
        with pytest.raises(ValueError, match="offset must be in"):
            call(x, first_row=2**63)
    assert net[2].state_dict()["next_stream"] == 0
