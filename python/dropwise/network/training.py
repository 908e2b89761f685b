"""Training: the step, the epochs made of steps, and the progress bar.

They work on any network that has what `Trainable` lists.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, NamedTuple, Protocol

import numpy as np
from numpy.typing import ArrayLike, NDArray

from dropwise._backends.protocol import Array
from dropwise.layers.base import Layer
from dropwise.layers.dense import Dense
from dropwise.losses import Loss, accuracy_of
from dropwise.network.workspace import Workspace
from dropwise.optimizers import Optimizer


class Trainable(Protocol):
    """What training needs of a network."""

    @property
    def layers(self) -> tuple[Layer, ...]: ...

    epochs_done: int
    shuffle_key: int

    def forward(self, x: ArrayLike, training: bool = True) -> Array: ...

    def backward(self, dy: ArrayLike, *, input_grad: bool = True) -> Array | None: ...

    def parameters(self) -> list[tuple[Array, Array]]: ...

    def regularization_loss(self) -> float: ...

    def evaluate(self, x: ArrayLike, y: ArrayLike, *, loss: Loss) -> tuple[float, float | None]: ...


@dataclass(frozen=True)
class Epoch:
    """The figures of one epoch: means over its batches, and of the validation data after it."""

    epoch: int  # 1, 2, ... over the life of the network
    loss: float  # data_loss + regularization_loss
    data_loss: float
    regularization_loss: float
    accuracy: float | None  # dropout is active, as in all training figures; None: the loss has none
    learning_rate: float
    val_loss: float | None = None  # data loss only
    val_accuracy: float | None = None


@dataclass(frozen=True)
class Settings:
    """How to train: arguments of ``Sequential.fit``, which documents them."""

    loss: Loss
    optimizer: Optimizer
    epochs: int
    batch_size: int | None
    shuffle: bool
    validation_data: tuple[ArrayLike, ArrayLike] | None


class StepFigures(NamedTuple):
    """The figures of one step, with the parameters before its update."""

    data_loss: float
    regularization_loss: float
    accuracy: float | None


def training_step(
    network: Trainable, x: Array, y: Array, loss: Loss, optimizer: Optimizer
) -> StepFigures:
    """Update the parameters once, with the gradients of one batch."""
    data_loss = loss.forward(network.forward(x), y)
    figures = StepFigures(data_loss, network.regularization_loss(), accuracy_of(loss))
    network.backward(loss.backward(), input_grad=False)
    optimizer.step(network.parameters())
    return figures


def train_epochs(
    network: Trainable, x: ArrayLike, y: ArrayLike, settings: Settings
) -> Iterator[Epoch]:
    """Train, and yield the figures of each epoch after it."""
    x, y = _as_input(network, x), np.asarray(y)
    n = len(x)
    if len(y) != n or n == 0:
        raise ValueError(f"x and y must have the same number of rows, got {n} and {len(y)}")
    size = n if settings.batch_size is None else min(settings.batch_size, n)
    if size < 1:
        raise ValueError(f"batch_size must be at least 1, got {settings.batch_size!r}")
    validation_data = settings.validation_data
    if validation_data is not None:
        validation_data = _as_input(network, validation_data[0]), np.asarray(validation_data[1])
    shuffled = settings.shuffle and size < n
    workspace = Workspace()
    for _ in range(settings.epochs):
        order = None
        if shuffled:
            order = np.random.default_rng([network.shuffle_key, network.epochs_done]).permutation(n)
        learning_rate = settings.optimizer.current_learning_rate
        batches = _batches(x, y, size, order, workspace)
        means = _train_on(network, batches, settings)
        network.epochs_done += 1
        val_loss = val_accuracy = None
        if validation_data is not None:
            val_loss, val_accuracy = network.evaluate(*validation_data, loss=settings.loss)
        yield Epoch(
            epoch=network.epochs_done,
            loss=means.data_loss + means.regularization_loss,
            data_loss=means.data_loss,
            regularization_loss=means.regularization_loss,
            accuracy=means.accuracy,
            learning_rate=learning_rate,
            val_loss=val_loss,
            val_accuracy=val_accuracy,
        )


def _train_on(
    network: Trainable, batches: Iterator[tuple[Array, Array]], settings: Settings
) -> StepFigures:
    """Do a step for each batch; the means of their figures, weighted by the rows."""
    sums, rows = np.zeros(3), 0
    has_accuracy = False
    for x, y in batches:
        figures = training_step(network, x, y, settings.loss, settings.optimizer)
        has_accuracy = figures.accuracy is not None
        sums += len(x) * np.array([*figures[:2], figures.accuracy or 0.0])
        rows += len(x)
    data_loss, regularization_loss, accuracy = (sums / rows).tolist()
    return StepFigures(data_loss, regularization_loss, accuracy if has_accuracy else None)


def _batches(
    x: Array, y: Array, size: int, order: NDArray[np.int64] | None, workspace: Workspace
) -> Iterator[tuple[Array, Array]]:
    """The rows in `order` (None: as they are), `size` at a time.

    The next batch may overwrite the x of this one.
    """
    for start in range(0, len(x), size):
        if order is None:
            yield x[start : start + size], y[start : start + size]
            continue
        rows = order[start : start + size]
        x_batch = workspace.array("x", (len(rows), *x.shape[1:]), x.dtype)
        np.take(x, rows, axis=0, out=x_batch, mode="clip")
        yield x_batch, y[rows]


def _as_input(network: Trainable, x: ArrayLike) -> Array:
    """`x` in the network's dtype, so that it is not converted in every step."""
    x = np.asarray(x)
    for layer in network.layers:
        if isinstance(layer, Dense):
            return x.astype(layer.dtype, copy=False)
    return x


def collect_epochs(epochs: Iterator[Epoch], total: int, progress: bool) -> list[Epoch]:
    """A list of the epochs; shows a progress bar, if one is wanted and tqdm is installed."""
    bar = _progress_bar(total) if progress else None
    history = []
    try:
        for epoch in epochs:
            history.append(epoch)
            if bar is not None:
                bar.set_postfix_str(_figures_text(epoch), refresh=False)
                bar.update()
    finally:
        if bar is not None:
            bar.close()
    return history


def _figures_text(epoch: Epoch) -> str:
    """An epoch in the few words that fit beside a progress bar."""
    text = f"loss {epoch.loss:.4f}"
    if epoch.accuracy is not None:
        text += f", acc {epoch.accuracy:.3f}"
    if epoch.val_loss is not None:
        text += f", val loss {epoch.val_loss:.4f}"
    if epoch.val_accuracy is not None:
        text += f", val acc {epoch.val_accuracy:.3f}"
    return text


def _progress_bar(total: int) -> Any:
    """A tqdm bar, or None if tqdm is not installed."""
    try:
        from tqdm.auto import tqdm
    except ImportError:
        return None
    return tqdm(total=total, unit="epoch")
