"""Small data sets, generated and not downloaded."""

from __future__ import annotations

import numpy as np
from numpy.typing import DTypeLike, NDArray

from dropwise._backends.protocol import Array
from dropwise.random import Seed, seed_sequence


def spiral_data(
    samples: int, classes: int, *, seed: Seed = None, dtype: DTypeLike = "float32"
) -> tuple[Array, NDArray[np.int64]]:
    """Points on interleaved spiral arms, one arm per class.

    Parameters
    ----------
    samples : int
        Points of each class.
    classes : int
    seed : int, SeedSequence, Generator or None
    dtype : dtype

    Returns
    -------
    points : ndarray, shape (samples * classes, 2)
        In the unit disc, sorted by class and then from the centre outwards.
    labels : ndarray of int64, shape (samples * classes,)

    Examples
    --------
    >>> from dropwise.datasets import spiral_data
    >>> points, labels = spiral_data(100, 3, seed=0)
    >>> points.shape, labels[::100].tolist()
    ((300, 2), [0, 1, 2])
    """
    rng = np.random.default_rng(seed_sequence(seed))
    labels = np.repeat(np.arange(classes, dtype=np.int64), samples)
    radius = np.tile(np.linspace(0.0, 1.0, samples), classes)
    # In radians: an arm turns by 10 from the centre to the rim, arm i starts at 10 * i, and the
    # noise has a standard deviation of 0.5.
    angle = 10.0 * (labels + radius) + 0.5 * rng.standard_normal(labels.size)
    points = radius[:, None] * np.stack([np.sin(angle), np.cos(angle)], axis=1)
    return points.astype(dtype), labels
