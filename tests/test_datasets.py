"""The spiral data."""

from __future__ import annotations

import numpy as np

from dropwise.datasets import spiral_data


def test_the_arms_lie_one_after_the_other():
    points, labels = spiral_data(50, 4, seed=0)
    assert points.shape == (200, 2)
    assert points.dtype == np.float32
    np.testing.assert_array_equal(labels, np.repeat(np.arange(4), 50))


def test_each_arm_runs_from_the_centre_to_the_rim():
    points, _ = spiral_data(50, 3, seed=0, dtype="float64")
    radius = np.hypot(*points.T).reshape(3, 50)
    np.testing.assert_allclose(radius, np.broadcast_to(np.linspace(0, 1, 50), (3, 50)), atol=1e-12)


def test_the_angle_is_linear_in_the_radius_but_for_noise():
    n = 20000
    points, _ = spiral_data(n, 3, seed=0, dtype="float64")
    radius = np.linspace(0, 1, n)[1:]
    for arm, p in enumerate(points.reshape(3, n, 2)):
        noise = np.arctan2(*p[1:].T) - 10 * (arm + radius)
        noise = (noise + np.pi) % (2 * np.pi) - np.pi
        # 5 sigma, 6e-7, of a mean and a deviation of n values
        assert abs(noise.mean()) < 5 * 0.5 / np.sqrt(n)
        assert abs(noise.std() - 0.5) < 5 * 0.5 / np.sqrt(2 * n)


def test_the_seed_fixes_the_points():
    a, b, c, d = (spiral_data(9, 2, seed=s)[0].tobytes() for s in (1, 1, 2, None))
    assert a == b
    assert len({b, c, d}) == 3
