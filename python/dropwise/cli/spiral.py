"""The spiral job: data, network in both wirings, training, history.

Apart from `AsPrinted`, it uses the public API only, so it can be read as an example.
"""

from __future__ import annotations

import math
import time
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from statistics import fmean
from typing import Any

import numpy as np

import dropwise as dw
from dropwise._arrays import make_bits
from dropwise._backends.protocol import Array
from dropwise.cli.errors import UserError
from dropwise.layers.dropout_base import DropoutPass
from dropwise.layers.run import RunContext
from dropwise.network import Epoch
from dropwise.network.fused import FusedLayers, NetworkPass
from dropwise.optimizers import Optimizer

SAMPLES_PER_CLASS = 2000
CLASSES = 3
TRAIN_ROWS = 3000
LAST = 100  # epochs whose mean the table shows


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

    def __init__(self, layers: Sequence[dw.Layer]) -> None:
        super().__init__(layers)
        self._fused = _BackwardDropout(layers)


class _BackwardDropout(FusedLayers):
    """The layers of `AsPrinted`, fused as those of the correct wiring are.

    Forward goes without the dropout, whose mask and scale are then put into what is left for
    backward.
    """

    def __init__(self, layers: Sequence[dw.Layer]) -> None:
        hidden, activation, dropout, output = layers
        assert isinstance(hidden, dw.Dense)
        assert isinstance(dropout, dw.Dropout)
        super().__init__([hidden, activation, output])
        self._hidden, self._dropout = hidden, dropout

    def forward(
        self, x: Array, context: RunContext, last: NetworkPass | None = None
    ) -> tuple[Array, NetworkPass | None]:
        y, this = super().forward(x, context, last)
        if this is not None and context.training:
            self._drop_in_backward(this, context)
        return y, this

    def forward_again(self, x: Array, last: NetworkPass) -> Array | None:
        y = super().forward_again(x, last)
        if y is not None:
            with RunContext(True, keep_records=True) as context:
                self._drop_in_backward(last, context)
        return y

    def _drop_in_backward(self, this: NetworkPass, context: RunContext) -> None:
        activated = this.records[0]
        shape, dtype = activated.y.values.shape, self._hidden.dtype
        noise = self._dropout.noise_in(context, shape, dtype)
        rate, scale, key, stream, offset, _, _, _ = noise
        kept = make_bits(math.prod(shape), rate, key, stream, offset)
        np.bitwise_and(activated.passed, kept, out=activated.passed)
        activated.scale = scale
        context.remember(self._dropout, DropoutPass(shape, dtype, kept, *noise))


class Spiral:
    """The reference job: a network of one hidden layer learns three spiral arms, full batch.

    `seed` fixes the data, the initial weights and all masks.
    """

    def __init__(self, *, rate: float, wiring: str, seed: int, hidden: int, dtype: str) -> None:
        self.options = {
            "rate": rate,
            "wiring": wiring,
            "seed": seed,
            "hidden": hidden,
            "dtype": dtype,
        }
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
        self.net.notes = {"spiral": self.options}
        self.optimizer: Optimizer = dw.Adam(0.05, decay=5e-5, epsilon=1e-7)
        self._wire()
        self.new_epochs = 0  # of `run`; there are more in a job that goes on
        self.seconds = 0.0

    def _wire(self) -> None:
        # Both have the same layers; inference is that of `net` in either wiring.
        correct = self.options["wiring"] == "correct"
        self.trained = self.net if correct else AsPrinted(self.net.layers)
        self.trained.history, self.trained.epochs_done = self.net.history, self.net.epochs_done

    @property
    def history(self) -> list[Record]:
        """The epochs that were evaluated."""
        records = (_record(epoch) for epoch in self.trained.history)
        return [record for record in records if record is not None]

    # ---- files

    def save(self, path: Path) -> None:
        """Write the network; it is the plain one in either wiring."""
        self.net.history, self.net.epochs_done = self.trained.history, self.trained.epochs_done
        self.net.save(path)

    def save_checkpoint(self, path: Path) -> None:
        """Write all that the job goes on from."""
        self.net.history, self.net.epochs_done = self.trained.history, self.trained.epochs_done
        self.net.save(path, self.optimizer)

    def resume(self, path: Path) -> None:
        """Go on from the file of `save_checkpoint`; raises if its job had other options."""
        net, optimizer = dw.load_checkpoint(path)
        notes = net.notes.get("spiral")
        if not isinstance(notes, dict) or notes.keys() != self.options.keys() or optimizer is None:
            raise ValueError(f"{path} holds no spiral job that can go on")
        differ = [
            f"--{name} was {notes[name]}, not {value}"
            for name, value in self.options.items()
            if notes[name] != value
        ]
        if differ:
            raise ValueError(f"{path} is of a run with other options: {'; '.join(differ)}")
        if net.config() != self.net.config() or optimizer.config() != self.optimizer.config():
            raise ValueError(f"{path} holds another network than a spiral job of these options")
        self.net, self.optimizer = net, optimizer
        self._wire()

    # ---- training

    def run(
        self,
        epochs: int,
        bar: Any,
        checkpoint: Path | None = None,
        every: int = LAST,
        comm: Any = None,
    ) -> bool:
        """Train until there are so many epochs; False if Ctrl-C ended it.

        About a hundred epochs are evaluated, and the last hundred.  `bar` has the methods
        ``update`` and ``set_postfix_str`` of a tqdm bar.  The checkpoint is written after every
        `every` epochs and after the last, by the first rank of `comm` if there is one; Ctrl-C then
        ends all ranks at once.
        """
        loss = dw.SoftmaxCrossEntropy()
        done = self.trained.epochs_done
        epochs_run = self.trained.iter_fit(
            *self.train,
            loss=loss,
            optimizer=self.optimizer,
            epochs=max(0, epochs - done),
            batch_size=None,
            comm=comm,
        )
        first = comm is None or comm.Get_rank() == 0
        step = max(1, epochs // 100)
        start = time.perf_counter()
        try:
            for epoch in epochs_run:
                number = epoch.epoch
                if number % step == 1 % step or number > epochs - LAST:
                    record = self._evaluate(loss)
                    bar.set_postfix_str(
                        f"loss {record.loss:.3f}, acc {record.train_acc:.3f}, "
                        f"val acc {record.val_acc:.3f}",
                        refresh=False,
                    )
                if checkpoint is not None and first and (number % every == 0 or number == epochs):
                    try:
                        self.save_checkpoint(checkpoint)
                    except OSError as error:
                        why = error.strerror or error
                        raise UserError(f"cannot write {checkpoint}: {why}") from None
                bar.update()
            finished = True
        except KeyboardInterrupt:
            if comm is not None and comm.Get_size() > 1:
                raise
            finished = False
        self.seconds = time.perf_counter() - start
        self.new_epochs = self.trained.epochs_done - done
        if self.trained.history:
            self._evaluate(loss)
        return finished

    def _evaluate(self, loss: dw.SoftmaxCrossEntropy) -> Record:
        """Add the figures of the test data to those of the last epoch, unless they are there."""
        history = self.trained.history
        if history[-1].val_loss is None:
            val_loss, val_acc = self.net.evaluate(*self.test, loss=loss)
            history[-1] = replace(history[-1], val_loss=val_loss, val_accuracy=val_acc)
        record = _record(history[-1])
        assert record is not None
        return record

    def mean_of_last(self) -> tuple[int, Record]:
        """How many epochs the last hundred are, and their mean.

        Figures of the test data are means over those of them that were evaluated: all in a job that
        has come to its end.
        """
        last = self.trained.history[-LAST:]
        evaluated = [record for record in map(_record, last) if record is not None]
        return len(last), Record(
            epoch=last[-1].epoch,
            train_acc=fmean(epoch.accuracy or 0.0 for epoch in last),
            loss=fmean(epoch.loss for epoch in last),
            data_loss=fmean(epoch.data_loss for epoch in last),
            reg_loss=fmean(epoch.regularization_loss for epoch in last),
            val_acc=fmean(record.val_acc for record in evaluated),
            val_loss=fmean(record.val_loss for record in evaluated),
            learning_rate=last[-1].learning_rate,
        )


def _record(epoch: Epoch) -> Record | None:
    """The figures of an epoch in the order of the table; None if it was not evaluated."""
    if epoch.accuracy is None or epoch.val_accuracy is None or epoch.val_loss is None:
        return None
    return Record(
        epoch=epoch.epoch,
        train_acc=epoch.accuracy,
        loss=epoch.loss,
        data_loss=epoch.data_loss,
        reg_loss=epoch.regularization_loss,
        val_acc=epoch.val_accuracy,
        val_loss=epoch.val_loss,
        learning_rate=epoch.learning_rate,
    )
