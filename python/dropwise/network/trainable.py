"""The methods of a network that train it."""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import ArrayLike

from dropwise import _arguments
from dropwise._backends.protocol import Array
from dropwise.layers.base import Layer
from dropwise.losses import Loss
from dropwise.network import archive, files, training
from dropwise.network.data import Data, check_has, checked_data, checked_validation_data
from dropwise.network.division import as_division
from dropwise.network.history import Best, Epoch
from dropwise.network.ranks import Ranks
from dropwise.optimizers import Optimizer


class TrainableNetwork(Layer):
    """A container of layers that can be trained.

    Attributes
    ----------
    history : list of Epoch
        The figures of all epochs over the life of the network.
    epochs_done : int
        How many epochs it has been trained for.
    notes : dict
        Yours: whatever JSON can hold.  Files keep it with the network.
    """

    layers: tuple[Layer, ...]
    history: list[Epoch]
    notes: dict[str, Any]
    unfinished: Best | None  # of the fit that the checkpoint was written in that this comes from
    epochs_done: int
    shuffle_key: int  # with epochs_done: fixes the order of the rows

    @property
    def input_dtype(self) -> np.dtype[Any] | None:
        """The dtype that inputs are converted to; None if the first layer takes several."""
        raise NotImplementedError

    @property
    def out_features(self) -> int | None:
        """Columns of the result; None if the last layers do not say."""
        raise NotImplementedError

    @property
    def heeds_block_rows(self) -> bool:
        """Whether all products of a run are computed in the blocks that its context asks for."""
        raise NotImplementedError

    def check_input(self, x: ArrayLike) -> Array:
        """`x` as an array that the network takes; every method raises the same if it is none."""
        raise NotImplementedError

    def backward(self, dy: ArrayLike, *, input_grad: bool = True) -> Array | None:  # type: ignore[override]
        """Set the gradients of all parameters."""
        raise NotImplementedError

    def fit(
        self,
        x: ArrayLike,
        y: ArrayLike,
        *,
        loss: Loss,
        optimizer: Optimizer,
        epochs: int = 1,
        batch_size: int | None = 128,
        shuffle: bool = True,
        sample_weight: ArrayLike | None = None,
        class_weight: Mapping[int, float] | str | None = None,
        validation_data: Sequence[ArrayLike] | None = None,
        patience: int | None = None,
        restore_best: bool = False,
        checkpoint: str | os.PathLike[str] | None = None,
        every: int = 1,
        progress: bool = True,
        comm: Any = None,
        exact: bool = True,
        sharded: bool = False,
        block_rows: int | None = None,
    ) -> list[Epoch]:
        """Train for `epochs` further epochs.

        Parameters
        ----------
        x : array_like, shape (n, ..., features)
            Real numbers.
        y : array_like, shape (n, ...)
            What `loss` compares with: classes, or values.
        loss : SoftmaxCrossEntropy, BinaryCrossEntropy, MeanSquaredError, or one of your own
            One of your own needs two methods, ``forward(y_pred, y) -> float`` and
            ``backward() -> ndarray``; see `losses.Loss`.
        optimizer : Adam or SGD
        epochs : int
            How many further epochs.
        batch_size : int or None
            Rows of a step; None: all of them.
        shuffle : bool
            Take the rows in a new order in each epoch (where there are several batches).
        sample_weight : array_like, shape (n,), optional
            Weights of the rows; losses are means over them.  A batch whose weights are all 0 makes
            no step.
        class_weight : mapping of class to weight, or "balanced", optional
            Further weights by the class in `y` (integers, perhaps in a column, or one-hot; what is
            neither is refused); classes that are not named have 1.  "balanced" gives each class
            the same sum of weights; not with `sharded`.
        validation_data : (x, y) or (x, y, sample_weight), optional
            Evaluated after each epoch.
        patience : int, optional
            Stop after so many epochs without a better validation loss, or training loss if there is
            no `validation_data`.
        restore_best : bool
            End with the parameters of the epoch that was best by that measure.
        checkpoint : path, optional
            Write network, optimizer and history to this file after every `every` epochs, and at the
            end.  A network from `load_checkpoint`, trained with the same arguments for the epochs
            that are left, ends bit for bit as if nothing had happened.
        every : int
            Epochs from one checkpoint to the next.
        progress : bool
            Show a progress bar, if tqdm is installed.
        comm : communicator of mpi4py, optional
            All its ranks call `fit` together, with the same network and arguments, and share out
            the rows of each batch (`docs/scale.md`).  The first rank shows progress and writes
            checkpoints.
        exact : bool
            Any number of ranks ends in the same bits.  False: they end in the same values to
            rounding, with less to send.
        sharded : bool
            `x`, `y` and validation data are this rank's own rows, perhaps none, and the other ranks
            have others; `exact` is then off.  A batch of `batch_size` rows has the same part of
            the rows of each rank, which are shuffled there.
        block_rows : int, optional
            A multiple of 8: compute gradients for so many rows of a batch at a time, and add them
            up in an order that follows from the number of rows alone.  With `comm` it is 256,
            without it off, unless given.

        Returns
        -------
        list of Epoch
            The figures of the epochs of this call.  `history` has those of all calls, also when a
            call ends by an exception.

        Raises
        ------
        TypeError, ValueError
            If an argument does not fit, or ranks differ in what decides the result; the message
            says in what.  Nothing has changed then.
        FloatingPointError
            If a loss is not finite.  The update that would follow is not made; the message says in
            which epoch and batch that was, and whether the parameters are finite.

        See Also
        --------
        iter_fit : the same, epoch by epoch.

        Notes
        -----
        The bits of exact mode are those of one process with ``block_rows=256``, for one backend,
        instruction set and kind of CPU.  Without `exact`, gradients are added up in another order:
        the parameters after a step differ by a few units of the last place of its gradients (in
        float32 by less than 1e-5 of the largest one), and training goes on from there.

        With more than one rank, an error in one of them is printed and ends the job
        (``comm.Abort``), since the others would wait for ever; errors that all ranks have alike are
        raised.  Losses have to be means over rows, and layers those of this package.
        """
        run = self.iter_fit(
            x,
            y,
            loss=loss,
            optimizer=optimizer,
            epochs=epochs,
            batch_size=batch_size,
            shuffle=shuffle,
            sample_weight=sample_weight,
            class_weight=class_weight,
            validation_data=validation_data,
            patience=patience,
            restore_best=restore_best,
            checkpoint=checkpoint,
            every=every,
            comm=comm,
            exact=exact,
            sharded=sharded,
            block_rows=block_rows,
        )
        if comm is None:
            return training.collect_epochs(run, epochs, progress)
        ranks = Ranks(comm)
        with ranks.ending_all():
            return training.collect_epochs(run, epochs, progress and ranks.is_first)

    def iter_fit(
        self,
        x: ArrayLike,
        y: ArrayLike,
        *,
        loss: Loss,
        optimizer: Optimizer,
        epochs: int = 1,
        batch_size: int | None = 128,
        shuffle: bool = True,
        sample_weight: ArrayLike | None = None,
        class_weight: Mapping[int, float] | str | None = None,
        validation_data: Sequence[ArrayLike] | None = None,
        patience: int | None = None,
        restore_best: bool = False,
        checkpoint: str | os.PathLike[str] | None = None,
        every: int = 1,
        comm: Any = None,
        exact: bool = True,
        sharded: bool = False,
        block_rows: int | None = None,
    ) -> Iterator[Epoch]:
        """Train as `fit` does, giving the figures after each epoch; stop by leaving the loop.

        Between two epochs the network can be used as always: evaluated, saved, changed.  Arguments
        are checked at the call, before the first epoch.

        Parameters
        ----------
        x, y, loss, optimizer, epochs, batch_size, shuffle : as for `fit`
        sample_weight, class_weight, validation_data : as for `fit`
        patience, restore_best, checkpoint, every : as for `fit`
        comm, exact, sharded, block_rows : as for `fit`

        Yields
        ------
        Epoch
        """
        division = as_division(comm, exact, sharded, block_rows)
        as_integer = _arguments.as_integer

        def checked() -> tuple[training.Settings, Data, Data | None]:
            check_has(optimizer, "optimizer", "step")
            settings = training.Settings(
                loss,
                optimizer,
                as_integer(epochs, "epochs", least=0),
                None if batch_size is None else as_integer(batch_size, "batch_size", least=1),
                bool(shuffle),
                None if patience is None else as_integer(patience, "patience", least=1),
                bool(restore_best),
                checkpoint,
                as_integer(every, "every", least=1),
                division,
            )
            if checkpoint is not None:
                files.check_savable(self, optimizer)
                if division is None or division.ranks.is_first:
                    archive.check_place(checkpoint)
            may_be_empty = division is not None and division.sharded
            if may_be_empty and isinstance(class_weight, str):
                raise ValueError(
                    f"class_weight={class_weight!r} would count the classes of all ranks, and with "
                    "sharded=True each knows its own rows only; give a mapping"
                )
            options: Any = {"may_be_empty": may_be_empty}
            data = checked_data(self, x, y, loss, sample_weight, class_weight, **options)
            validation = None
            if validation_data is not None:
                validation = checked_validation_data(self, validation_data, loss, **options)
            return settings, data, validation

        if division is None:
            settings, data, validation = checked()
            return training.train_epochs(self, data, validation, settings)
        settings, data, validation = division.begin(self, checked)
        return division.run(training.train_epochs(self, data, validation, settings))

    def evaluate(
        self, x: ArrayLike, y: ArrayLike, *, loss: Loss, sample_weight: ArrayLike | None = None
    ) -> tuple[float, float | None]:
        """Data loss and accuracy (None if the loss has none) at inference; nothing is remembered.

        Parameters
        ----------
        x : array_like, shape (n, ..., features)
        y : array_like, shape (n, ...)
        loss : as in `fit`
        sample_weight : array_like, shape (n,), optional
        """
        data = checked_data(self, x, y, loss, sample_weight)
        return training.evaluate(self, data, loss)

    def summary(self) -> str:
        """A table of the layers and the number of their parameters."""
        rows = [(str(i), repr(layer), f"{_count(layer):,}") for i, layer in enumerate(self.layers)]
        rows.append(("", "total", f"{_count(self):,}"))
        widths = [max(len(row[k]) for row in rows) for k in range(3)]
        return "\n".join(
            f"{i:>{widths[0]}}  {name:<{widths[1]}}  {count:>{widths[2]}}"
            for i, name, count in rows
        )


def _count(layer: Layer) -> int:
    values = layer.state_dict().values()
    return sum(v.size for v in values if isinstance(v, np.ndarray))
