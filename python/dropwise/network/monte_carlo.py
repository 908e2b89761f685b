"""Monte Carlo dropout: mean and standard deviation of a network's results over random masks."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from dropwise._backends.protocol import Array
from dropwise.layers.activations import ReLU, Sigmoid, Tanh
from dropwise.layers.dense import Dense
from dropwise.layers.dropout import Dropout
from dropwise.layers.run import RunContext
from dropwise.network.blocks import FusedDense, SingleLayer
from dropwise.network.fused import ROWS_AT_ONCE, FusedLayers

# Layers of these classes do the same in training and at inference.
_WITHOUT_MASKS = (Dense, ReLU, Sigmoid, Tanh)


class _Moments:
    """Mean and standard deviation of samples that are added a few at a time."""

    def __init__(self) -> None:
        self._count = 0
        # Sums are of differences from the first sample: a large mean costs no digits.
        self._origin: Array = np.zeros(())
        self._sum: Array = np.zeros(())
        self._sum_of_squares: Array = np.zeros(())

    def add(self, samples: Array) -> None:
        """Add n samples, an array of shape [n, ...]."""
        if not self._count:
            self._origin = samples[0].astype(np.float64)
        difference = samples - self._origin
        self._sum = self._sum + difference.sum(axis=0)
        self._sum_of_squares = self._sum_of_squares + np.square(difference).sum(axis=0)
        self._count += len(samples)

    def mean_and_std(self) -> tuple[Array, Array]:
        """Mean and (population) standard deviation of the samples that were added."""
        shift = self._sum / self._count
        variance = np.maximum(self._sum_of_squares / self._count - shift**2, 0.0)
        return self._origin + shift, np.sqrt(variance)


def predict_mc(
    network: FusedLayers,
    x: Array,
    n_samples: int,
    transform: Callable[[Array], Array] | None,
    first_row: int = 0,
) -> tuple[Array, Array]:
    """What ``Sequential.predict_mc`` describes."""
    with RunContext(True, keep_records=False, samples=n_samples) as context:
        return sample(network, x, context, transform, first_row)


def sample(
    network: FusedLayers,
    x: Array,
    context: RunContext,
    transform: Callable[[Array], Array] | None,
    first_row: int,
) -> tuple[Array, Array]:
    """The mean and deviation of ``context.samples`` samples; the layers stay as they are.

    Rows are computed in blocks that end at multiples of `ROWS_AT_ONCE`, among others, so that a
    part of a batch that begins at one gives the bits that it has in the whole.
    """
    start, dropout, x = _before_dropout(network, x)
    n_samples = context.samples
    # In the whole batch, row r is there n_samples times from index r * n_samples on.  So a piece of
    # it can be any run of samples, and how it is cut shows in no result but by rounding.
    means, stds = [], []
    rows_at_once = 1 << max(1, ROWS_AT_ONCE // n_samples).bit_length() - 1
    for first in range(0, max(1, len(x)), rows_at_once):
        rows = x[first : first + rows_at_once]
        moments = _Moments()
        for done in range(0, n_samples, ROWS_AT_ONCE):
            n = min(n_samples - done, ROWS_AT_ONCE)
            context.first_row = (first_row + first) * n_samples + done
            inputs = np.repeat(rows, n, axis=0)
            if dropout is not None:
                inputs, _ = dropout._run(inputs, context)
            y = network.forward_from(start, inputs, context)
            y = y if transform is None else np.asarray(transform(y))
            moments.add(y.reshape(len(rows), n, *y.shape[1:]).swapaxes(0, 1))
        mean, std = moments.mean_and_std()
        dtype = y.dtype if y.dtype.kind == "f" else np.float64
        means.append(mean.astype(dtype))
        stds.append(std.astype(dtype))
    if len(means) == 1:
        return means[0], stds[0]
    return np.concatenate(means), np.concatenate(stds)


def _before_dropout(network: FusedLayers, x: Array) -> tuple[int, Dropout | None, Array]:
    """What no mask changes: the block to go on with, a dropout to start with, the values for it."""
    for i, block in enumerate(network.blocks):
        if isinstance(block, SingleLayer) and type(block.layer) in _WITHOUT_MASKS:
            continue
        if isinstance(block, FusedDense) and block.dropout is None:
            continue
        x = network.infer(x, i)
        if isinstance(block, FusedDense) and block.dropout and not block.dropout.noise_shape:
            return i + 1, block.dropout, network.without_dropout(i).infer(x, 1)
        return i, None, x
    return len(network.blocks), None, network.infer(x, len(network.blocks))
