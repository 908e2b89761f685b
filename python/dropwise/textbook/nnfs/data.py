"""The book's data."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from dropwise._backends.protocol import Array


def spiral_data(samples: int, classes: int) -> tuple[Array, NDArray[np.uint8]]:
    """Points on spiral arms, and their classes: the book's own, number for number.

    Parameters
    ----------
    samples : int
        Points of each class.
    classes : int

    Returns
    -------
    points : ndarray, shape (samples * classes, 2)
        Of the dtype that ``np.zeros`` gives: float32 after ``nnfs.init()``.
    labels : ndarray of uint8, shape (samples * classes,)

    Notes
    -----
    The draws are those of the package nnfs, so that ``np.random.seed`` gives the same points, and
    whatever is drawn afterwards is the same, too.
    """
    points = np.zeros((samples * classes, 2))
    radius = np.linspace(0.0, 1.0, samples)
    for number in range(classes):
        noise = np.random.randn(samples) * 0.2  # noqa: NPY002
        angle = np.linspace(number * 4, (number + 1) * 4, samples) + noise
        arm = points[number * samples : (number + 1) * samples]
        arm[:, 0] = radius * np.sin(angle * 2.5)
        arm[:, 1] = radius * np.cos(angle * 2.5)
    return points, np.repeat(np.arange(classes, dtype=np.uint8), samples)
