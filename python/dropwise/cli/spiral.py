"""The spiral job: data, network in both wirings, training, history.

It uses the public API only, so it can be read as an example.
"""

from __future__ import annotations

import time
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

import dropwise as dw
from dropwise.network import Epoch

SAMPLES_PER_CLASS = 2000
CLASSES = 3
TRAIN_ROWS = 3000


@dataclass(frozen=True)
class Record:
    """One row of the history.  Training figures are measured during the epoch, with dropout."""

    epoch: int
    train_acc: float
    loss: float
    data_loss: float
    reg_loss: float
    val_acc: float
    val_loss: float
    learning_rate: float


# Where the two logs published with the spiral listing end.
PUBLISHED = {
    "published log 1": Record(10001, 0.914, 0.277, 0.222, 0.055, 0.897, 0.299, 0.0333),
    "published log 2": Record(10001, 0.859, 0.468, 0.417, 0.051, 0.857, 0.397, 0.0333),
}


class AsPrinted(dw.Sequential):
    """Dense, ReLU, Dropout, Dense, with the error of the published listing.

    The second Dense reads the output of the ReLU instead of the Dropout's, so that dropout acts in
    the backward pass only.
    """

    def forward(self, x: ArrayLike, training: bool = True) -> NDArray[Any]:
        hidden, activation, dropout, output = self.layers
        a = activation.forward(hidden.forward(np.asarray(x)))
        dropout.forward(a, training)
        return output.forward(a)

    def backward(self, dy: ArrayLike, *, input_grad: bool = True) -> NDArray[Any]:
        gradient = np.asarray(dy)
        for layer in reversed(self.layers):
            gradient = layer.backward(gradient)
        return gradient


class Spiral:
    """The reference job: a network of one hidden layer learns three spiral arms, full batch.

    `seed` fixes the data, the initial weights and all masks.
    """

    def __init__(self, *, rate: float, wiring: str, seed: int, hidden: int, dtype: str) -> None:
        data_seed, net_seed = np.random.SeedSequence(seed).spawn(2)
        rng = np.random.default_rng(data_seed)
        x, y = dw.datasets.spiral_data(SAMPLES_PER_CLASS, CLASSES, seed=rng, dtype=dtype)
        rows = rng.permutation(len(x))
        self.train = x[rows[:TRAIN_ROWS]], y[rows[:TRAIN_ROWS]]
        self.test = x[rows[TRAIN_ROWS:]], y[rows[TRAIN_ROWS:]]
        self.net = dw.Sequential(
            [
                dw.Dense(2, hidden, l2=5e-4, bias_l2=5e-4, init=0.01, dtype=dtype),
                dw.ReLU(),
                dw.Dropout(rate),
                dw.Dense(hidden, CLASSES, init=0.01, dtype=dtype),
            ],
            seed=net_seed,
        )
        # Both have the same layers; inference is that of `net` in either wiring.
        self.trained = self.net if wiring == "correct" else AsPrinted(self.net.layers)
        self.history: list[Record] = []
        self.seconds = 0.0

    def run(self, epochs: int, bar: Any) -> bool:
        """Train, and evaluate about a hundred epochs including the last; False if Ctrl-C ended it.

        `bar` has the methods ``update`` and ``set_postfix_str`` of a tqdm bar.
        """
        loss = dw.SoftmaxCrossEntropy()
        epochs_run = self.trained.iter_fit(
            *self.train,
            loss=loss,
            optimizer=dw.Adam(0.05, decay=5e-5, epsilon=1e-7),
            epochs=epochs,
            batch_size=None,
        )
        every = max(1, epochs // 100)
        epoch = None
        start = time.perf_counter()
        try:
            for epoch in epochs_run:
                if epoch.epoch % every == 1 % every or epoch.epoch == epochs:
                    record = self._evaluate(epoch, loss)
                    bar.set_postfix_str(
                        f"loss {record.loss:.3f}, acc {record.train_acc:.3f}, "
                        f"val acc {record.val_acc:.3f}",
                        refresh=False,
                    )
                bar.update()
        except KeyboardInterrupt:
            if epoch is not None and (not self.history or self.history[-1].epoch < epoch.epoch):
                self._evaluate(epoch, loss)
            return False
        finally:
            self.seconds = time.perf_counter() - start
        return True

    def _evaluate(self, epoch: Epoch, loss: dw.SoftmaxCrossEntropy) -> Record:
        """Add a record to the history: the figures of this epoch and those of the test data."""
        val_loss, val_acc = self.net.evaluate(*self.test, loss=loss)
        assert epoch.accuracy is not None
        assert val_acc is not None
        record = Record(
            epoch=epoch.epoch,
            train_acc=epoch.accuracy,
            loss=epoch.loss,
            data_loss=epoch.data_loss,
            reg_loss=epoch.regularization_loss,
            val_acc=val_acc,
            val_loss=val_loss,
            learning_rate=epoch.learning_rate,
        )
        self.history.append(record)
        return record
