"""Monte Carlo dropout: mean and standard deviation of a network's results over random masks."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from dropwise._backends.protocol import Array
from dropwise.layers.activations import ReLU
from dropwise.layers.dense import Dense
from dropwise.layers.dropout import Dropout
from dropwise.network.blocks import FusedDense, SingleLayer
from dropwise.network.fused import ROWS_AT_ONCE, FusedLayers


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
    network: FusedLayers, x: Array, n_samples: int, transform: Callable[[Array], Array] | None
) -> tuple[Array, Array]:
    """Mean and standard deviation over masks, as ``Sequential.predict_mc`` documents them."""
    start, dropout, x = _before_dropout(network, x)
    rows = len(x)
    together = _samples_together(network, n_samples, rows)
    workspaces = network.new_workspaces()
    repeated = x if together == 1 else np.tile(x, (together,) + (1,) * (x.ndim - 1))
    moments = _Moments()
    for done in range(0, n_samples, together):
        n = min(together, n_samples - done)
        inputs = repeated[: n * rows]
        if dropout is not None:
            inputs = dropout.forward(inputs)
        y = network.forward_from(start, inputs, workspaces, training=True)
        y = (y if transform is None else transform(y)).reshape(n, rows, *y.shape[1:])
        moments.add(y)
    mean, std = moments.mean_and_std()
    dtype = y.dtype if y.dtype.kind == "f" else np.float64
    return mean.astype(dtype), std.astype(dtype)


def _samples_together(network: FusedLayers, n_samples: int, rows: int) -> int:
    """How many samples one run computes: they are put below each other in its batch."""
    for layer in network.layers:
        if isinstance(layer, Dropout) and layer.noise_shape is not None:
            return 1  # rows share a mask, so samples in one batch would share it, too
    return max(1, min(n_samples, ROWS_AT_ONCE // max(1, rows)))


def _before_dropout(network: FusedLayers, x: Array) -> tuple[int, Dropout | None, Array]:
    """What is the same in all samples, computed once.

    Returns the index of the first block that is left to run, the dropout that comes before that
    block (None if the block has it), and the values that are its input.
    """
    for i, block in enumerate(network.blocks):
        if isinstance(block, SingleLayer) and type(block.layer) in (Dense, ReLU):
            continue
        if isinstance(block, FusedDense) and block.dropout is None:
            continue
        x = network.infer(x, i)
        if isinstance(block, FusedDense) and block.dropout and not block.dropout.noise_shape:
            layers = (block.dense,) if block.relu is None else (block.dense, block.relu)
            without_dropout = FusedLayers(layers)
            workspaces = without_dropout.new_workspaces()
            x = without_dropout.forward_from(0, x, workspaces, training=False)
            return i + 1, block.dropout, x
        return i, None, x
    return len(network.blocks), None, network.infer(x, len(network.blocks))
