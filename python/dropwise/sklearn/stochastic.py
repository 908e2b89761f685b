"""The solvers "adam" and "sgd": epochs of training steps, their schedules, and when to stop."""

from __future__ import annotations

import copy
import math
import warnings
from typing import Any

import numpy as np
from sklearn.exceptions import ConvergenceWarning
from sklearn.model_selection import train_test_split
from sklearn.utils import shuffle

from dropwise import SGD, Adam
from dropwise.losses import Loss
from dropwise.network.data import Data
from dropwise.network.training import training_step
from dropwise.network.workspace import Workspace
from dropwise.sklearn.architecture import dense_layers
from dropwise.sklearn.progress import Progress

# Adam takes none that is smaller.
_LEAST_EPSILON = 1e-30

# Below it, learning_rate="adaptive" stops rather than to divide the rate once more.
_LEAST_RATE = 1e-6


def new_optimizer(estimator: Any) -> Adam | SGD:
    """The optimizer that the parameters of an estimator describe."""
    rate = estimator.learning_rate_init
    if estimator.solver == "adam":
        return Adam(rate, beta_1=estimator.beta_1, beta_2=estimator.beta_2)
    momentum = min(float(estimator.momentum), math.nextafter(1.0, 0.0))  # SGD wants less than 1
    return SGD(
        rate, momentum=momentum, nesterov=bool(estimator.nesterovs_momentum) and momentum > 0
    )


def split(estimator: Any, data: Data, random_state: Any) -> tuple[Data, Data]:
    """Rows to train with, and rows to validate with."""
    # One column of classes only, as in scikit-learn: its own order of rows depends on it.
    one_column = estimator._has_classes and data.y.shape[1:] == (1,)
    train, validation = train_test_split(
        np.arange(data.x.shape[0]),
        random_state=random_state,
        test_size=estimator.validation_fraction,
        stratify=data.y if one_column else None,
    )
    if len(validation) < 2:
        raise ValueError(
            "The validation set is too small. Increase 'validation_fraction' or the size of your "
            "dataset."
        )

    def part(rows: Any) -> Data:
        weight = None if data.weight is None else data.weight[rows]
        return Data(data.x[rows], data.y[rows], weight)

    return part(train), part(validation)


def batch_rows(estimator: Any, rows: int) -> int:
    """Rows of a step."""
    if estimator.batch_size == "auto":
        return min(200, rows)
    if estimator.batch_size > rows:
        warnings.warn(
            "Got `batch_size` less than 1 or larger than sample size. It is going to be clipped",
            stacklevel=2,
        )
    return min(int(estimator.batch_size), rows)


class Epochs:
    """Training, epoch by epoch.

    Parameters
    ----------
    estimator : MLPClassifier or MLPRegressor
        With its network and its optimizer.
    data : Data
    loss : Loss
    size : int
        Rows of a step.
    """

    def __init__(self, estimator: Any, data: Data, loss: Loss, size: int) -> None:
        self._estimator, self._data, self._loss, self._size = estimator, data, loss, size
        self._dense = dense_layers(estimator._network)
        self._workspace = Workspace()

    def run(self, order: Any) -> float:
        """Do a step for each batch; the mean of their losses, weighted by their rows."""
        estimator, optimizer = self._estimator, self._estimator._optimizer
        total, rows = 0.0, 0
        for batch in self._data.batches(self._size, order, self._workspace):
            n = len(batch.x)
            weight = float(n if batch.weight is None else batch.weight.sum())
            if weight == 0.0:
                continue
            for dense in self._dense:
                dense.l2 = 0.5 * estimator.alpha / weight
            if isinstance(optimizer, Adam):
                # scikit-learn adds epsilon before the correction of the start, Adam after it.
                left = 1.0 - optimizer.beta_2 ** (optimizer.iterations + 1)
                optimizer.epsilon = max(estimator.epsilon / math.sqrt(left), _LEAST_EPSILON)
            figures = training_step(estimator._network, batch, self._loss, optimizer)
            total += n * estimator._reported(figures)
            rows += n
        if not rows:
            raise ValueError("The rows to train with must have at least one non-zero weight.")
        return total / rows


def train(estimator: Any, data: Data, loss: Loss, random_state: Any, *, incremental: bool) -> None:
    """Train until the loss, or the validation score, gets no better; one epoch if incremental."""
    validation = None
    if estimator.early_stopping:
        data, validation = split(estimator, data, random_state)
    n = data.x.shape[0]
    epochs = Epochs(estimator, data, loss, batch_rows(estimator, n))
    order = np.arange(n)
    best = [p.copy() for p in estimator._parameters()] if estimator.early_stopping else []
    estimator.n_iter_ = 0
    with Progress(bool(estimator.verbose), 1 if incremental else estimator.max_iter) as progress:
        try:
            while estimator.n_iter_ < estimator.max_iter:
                if estimator.shuffle:
                    order = shuffle(order, random_state=random_state)
                estimator.loss_ = epochs.run(order if estimator.shuffle else None)
                estimator.n_iter_ += 1
                estimator.t_ += n
                estimator.loss_curve_.append(estimator.loss_)
                score = None
                if validation is not None:
                    score = _validate(estimator, validation, loss)
                    if score > estimator.best_validation_score_:
                        best = [p.copy() for p in estimator._parameters()]
                progress.iteration(estimator.n_iter_, estimator.loss_, score)
                _count_no_improvement(estimator)
                _schedule(estimator)
                if estimator._no_improvement_count > estimator.n_iter_no_change:
                    if _is_over(estimator, progress):
                        break
                    estimator._no_improvement_count = 0
                if incremental:
                    break
                if estimator.n_iter_ == estimator.max_iter:
                    warnings.warn(
                        f"Stochastic Optimizer: Maximum iterations ({estimator.max_iter}) reached "
                        "and the optimization hasn't converged yet.",
                        ConvergenceWarning,
                        stacklevel=2,
                    )
        except KeyboardInterrupt:
            if incremental:
                raise
            del estimator._optimizer  # it may have been in the middle of a step
            warnings.warn("Training interrupted by user.", stacklevel=2)
    for p, value in zip(estimator._parameters(), best, strict=False):
        p[...] = value


def _validate(estimator: Any, validation: Data, loss: Loss) -> float:
    """The score of the validation data; note their loss and the score in the curves."""
    scores = estimator._scores(validation.x)
    measure: Any = copy.copy(loss)
    value = measure.forward(scores, validation.y, sample_weight=validation.weight)
    estimator.validation_loss_curve_.append(estimator._unit * float(value))
    score = float("nan")
    if np.isfinite(scores).all():
        score = float(estimator._score_of(scores, validation.y, validation.weight))
    estimator.validation_scores_.append(score)
    return score


def _count_no_improvement(estimator: Any) -> None:
    """Note whether the last epoch was better by `tol`, and whether it was the best."""
    if estimator.early_stopping:
        last, best = estimator.validation_scores_[-1], estimator.best_validation_score_
        no_better = last < best + estimator.tol
        if last > best:
            estimator.best_validation_score_ = last
    else:
        last, best = estimator.loss_curve_[-1], estimator.best_loss_
        no_better = last > best - estimator.tol
        if last < best:
            estimator.best_loss_ = last
    estimator._no_improvement_count = estimator._no_improvement_count + 1 if no_better else 0


def _schedule(estimator: Any) -> None:
    """Set the rate of the next epoch."""
    if estimator.solver == "sgd" and estimator.learning_rate == "invscaling":
        rate = estimator.learning_rate_init / (estimator.t_ + 1) ** estimator.power_t
        estimator._optimizer.learning_rate = rate


def _is_over(estimator: Any, progress: Progress) -> bool:
    """Whether training ends, or goes on with a smaller rate."""
    what = "Validation score" if estimator.early_stopping else "Training loss"
    text = (
        f"{what} did not improve more than tol={estimator.tol:f} for "
        f"{estimator.n_iter_no_change} consecutive epochs."
    )
    if not (estimator.solver == "sgd" and estimator.learning_rate == "adaptive"):
        progress.message(f"{text} Stopping.")
        return True
    optimizer = estimator._optimizer
    if optimizer.learning_rate <= _LEAST_RATE:
        progress.message(f"{text} Learning rate too small. Stopping.")
        return True
    optimizer.learning_rate /= 5.0
    progress.message(f"{text} Setting learning rate to {optimizer.learning_rate:f}")
    return False
