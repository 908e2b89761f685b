"""Training: the step, the epochs made of steps, and the progress bar.

They work on any network that has what `Trainable` lists.
"""

from __future__ import annotations

import copy
import functools
import math
import os
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from typing import Any, NamedTuple, Protocol, TypeAlias

import numpy as np
from numpy.typing import NDArray

from dropwise._backends.protocol import Array
from dropwise.losses import Loss, accuracy_of
from dropwise.network import files
from dropwise.network.data import Data
from dropwise.network.history import Best, Epoch
from dropwise.network.workspace import Workspace
from dropwise.optimizers import Optimizer


class Trainable(files.Savable, Protocol):
    """What training needs of a network."""

    def forward(self, x: Array, training: bool = True) -> Array: ...

    def backward(self, dy: Array, *, input_grad: bool) -> Array | None: ...

    def predict(self, x: Array) -> Array: ...

    def parameters(self) -> list[tuple[Array, Array]]: ...

    def parameter_values(self) -> list[Array]: ...

    def regularization_loss(self) -> float: ...


class Division(Protocol):
    """How the steps of a training are divided, among blocks of rows and among ranks."""

    block_rows: int
    exact: bool
    sharded: bool

    def steps(self, network: Any, data: Data, settings: Settings) -> Iterator[Step]:
        """The weight of each batch of the next epoch, and its step."""

    def evaluate(self, network: Any, data: Data, loss: Loss) -> tuple[float, float | None]:
        """What `evaluate` gives."""

    def save(self, save: Callable[[], None]) -> None:
        """Call `save` in one rank, and return when that is done."""


@dataclass(frozen=True)
class Settings:
    """How to train: arguments of ``Sequential.fit``, which documents them."""

    loss: Loss
    optimizer: Optimizer
    epochs: int
    batch_size: int | None
    shuffle: bool
    patience: int | None
    restore_best: bool
    checkpoint: str | os.PathLike[str] | None
    every: int
    division: Division | None = None


class StepFigures(NamedTuple):
    """The figures of one step, with the parameters before its update."""

    data_loss: float
    regularization_loss: float
    accuracy: float | None


# The sum of the weights of a batch, and what updates the parameters by it.
Step: TypeAlias = "tuple[float, Callable[[], StepFigures]]"


def forward_step(network: Trainable, batch: Data, loss: Loss) -> StepFigures:
    """The first half of a step: what ``network.backward(loss.backward())`` goes back from."""
    data_loss = _loss_of(loss, network.forward(batch.x), batch)
    return StepFigures(data_loss, network.regularization_loss(), accuracy_of(loss))


def training_step(network: Trainable, batch: Data, loss: Loss, optimizer: Optimizer) -> StepFigures:
    """Update the parameters once, with the gradients of one batch."""
    figures = forward_step(network, batch, loss)
    if not math.isfinite(figures.data_loss + figures.regularization_loss):
        check_finite(figures, network, optimizer)
    network.backward(loss.backward(), input_grad=False)
    optimizer.step(network.parameters())
    return figures


def check_finite(figures: StepFigures, network: Trainable, optimizer: Optimizer) -> None:
    """Raise unless the loss is finite."""
    loss = figures.data_loss + figures.regularization_loss
    if not math.isfinite(loss):
        finite = all(bool(np.isfinite(p).all()) for p in network.parameter_values())
        raise FloatingPointError(
            f"the loss is {loss} (learning rate {optimizer.current_learning_rate:g}); this update "
            f"was not made, and the parameters are {'finite' if finite else 'not finite'}"
        )


def evaluate(network: Trainable, data: Data, loss: Loss) -> tuple[float, float | None]:
    """The loss and the accuracy (None if the loss has none) at inference."""
    loss = copy.copy(loss)  # the caller's own may be between its forward and its backward
    return _loss_of(loss, network.predict(data.x), data), accuracy_of(loss)


def _loss_of(loss: Any, y_pred: Array, data: Data) -> float:
    if data.weight is None:
        value = loss.forward(y_pred, data.y)
    else:
        value = loss.forward(y_pred, data.y, sample_weight=data.weight)
    return float(value)


def train_epochs(
    network: Trainable, data: Data, validation: Data | None, settings: Settings
) -> Iterator[Epoch]:
    """Train, and yield the figures of each epoch after it."""
    best, network.unfinished = network.unfinished or Best(), None
    if settings.restore_best and not best.parameters:  # of a run that was not to restore them
        best = Best()
    division = settings.division
    compares = settings.patience is not None or settings.restore_best
    workspace = Workspace()
    written = False  # whether the checkpoint is what this call leaves at its end
    for _ in range(settings.epochs):
        if _has_waited_enough(best, network.history, settings.patience):
            break
        epoch = _train_epoch(network, data, settings, workspace)
        network.epochs_done += 1
        network.history.append(epoch)
        if validation is not None:
            look = evaluate if division is None else division.evaluate
            val_loss, val_accuracy = look(network, validation, settings.loss)
            epoch = replace(epoch, val_loss=val_loss, val_accuracy=val_accuracy)
            network.history[-1] = epoch
        if compares:
            best.see(epoch, network.parameter_values() if settings.restore_best else [])
        written = settings.checkpoint is not None and network.epochs_done % settings.every == 0
        if settings.checkpoint is not None and written:
            _save(network, settings, best if compares else None)
            written = not compares
        yield epoch
    if settings.restore_best:
        best.restore(network.parameter_values())
    if settings.checkpoint is not None and not written:
        _save(network, settings)


def _save(network: Trainable, settings: Settings, best: Best | None = None) -> None:
    """Write the checkpoint."""
    assert settings.checkpoint is not None
    save = functools.partial(files.save, network, settings.checkpoint, settings.optimizer, best)
    if settings.division is None:
        save()
    else:
        settings.division.save(save)


def _has_waited_enough(best: Best, history: list[Epoch], patience: int | None) -> bool:
    """Whether training ends now: a run that goes on from a checkpoint may have ended there."""
    return patience is not None and bool(history) and best.epochs_since(history[-1]) >= patience


def _train_epoch(network: Trainable, data: Data, settings: Settings, workspace: Workspace) -> Epoch:
    """Do a step for each batch; the means of their figures, weighted as the rows are."""
    learning_rate = settings.optimizer.current_learning_rate
    data_loss = regularization_loss = accuracy = weights = 0.0
    has_accuracy = False
    if settings.division is None:
        steps = _whole_batches(network, data, settings, workspace)
    else:
        steps = settings.division.steps(network, data, settings)
    for i, (weight, step) in enumerate(steps):
        if weight == 0.0:
            continue
        try:
            figures = step()
        except FloatingPointError as error:
            where = f"epoch {network.epochs_done + 1}, batch {i + 1}"
            raise FloatingPointError(f"{where}: {error}") from None
        has_accuracy = figures.accuracy is not None
        data_loss += weight * figures.data_loss
        regularization_loss += weight * figures.regularization_loss
        accuracy += weight * (figures.accuracy or 0.0)
        weights += weight
    data_loss /= weights
    regularization_loss /= weights
    return Epoch(
        epoch=network.epochs_done + 1,
        loss=data_loss + regularization_loss,
        data_loss=data_loss,
        regularization_loss=regularization_loss,
        accuracy=accuracy / weights if has_accuracy else None,
        learning_rate=learning_rate,
    )


def batch_size_of(settings: Settings, rows: int) -> int:
    """Rows of each batch but the last."""
    return rows if settings.batch_size is None else min(settings.batch_size, rows)


def order_of_rows(
    network: Trainable, settings: Settings, rows: int, *seed: int
) -> NDArray[np.int64] | None:
    """The order of the rows in the next epoch; None: as they are."""
    if not settings.shuffle or batch_size_of(settings, rows) >= rows:
        return None
    rng = np.random.default_rng([network.shuffle_key, network.epochs_done, *seed])
    return rng.permutation(rows)


def _whole_batches(
    network: Trainable, data: Data, settings: Settings, workspace: Workspace
) -> Iterator[Step]:
    """The steps of the next epoch, none of them divided."""
    n = data.x.shape[0]
    size, order = batch_size_of(settings, n), order_of_rows(network, settings, n)
    loss, optimizer = settings.loss, settings.optimizer
    for batch in data.batches(size, order, workspace):
        weight = float(len(batch.y) if batch.weight is None else batch.weight.sum())
        yield weight, functools.partial(training_step, network, batch, loss, optimizer)


def collect_epochs(epochs: Iterator[Epoch], total: int, progress: bool) -> list[Epoch]:
    """A list of the epochs; shows a progress bar, if one is wanted and tqdm is installed."""
    bar = progress_bar(total) if progress else None
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


def progress_bar(total: int) -> Any:
    """A tqdm bar, or None if tqdm is not installed."""
    try:
        from tqdm.auto import tqdm
    except ImportError:
        return None
    return tqdm(total=total, unit="epoch")
