"""Training whose batches are divided: into blocks of rows, and among the ranks of a communicator.

In exact mode the gradients of a batch are those of blocks of rows, which begin at multiples of
`block_rows` in the batch, added up in a tree that follows from their number alone (`tree`).  It
makes no difference then which rank computes which blocks.  Otherwise each rank computes the
gradients of its rows in one piece, and MPI adds them up.
"""

from __future__ import annotations

import contextlib
import copy
import functools
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Protocol, TypeAlias

import numpy as np
from numpy.typing import NDArray

from dropwise import _arguments
from dropwise._backends.protocol import Array
from dropwise.layers.base import Layer, class_to_run, layers_within
from dropwise.layers.dense import Dense
from dropwise.layers.run import RunContext
from dropwise.losses import Loss, PartialLoss, check_mean_of_rows, is_mean_of_rows
from dropwise.network.agreement import description, differences
from dropwise.network.data import Data
from dropwise.network.fused import ROWS_AT_ONCE
from dropwise.network.history import Epoch
from dropwise.network.ranks import Ranks, raised_by_all
from dropwise.network.training import (
    Settings,
    Step,
    StepFigures,
    Trainable,
    batch_size_of,
    check_finite,
    order_of_rows,
)
from dropwise.network.tree import Node, add_up, blocks_under, nodes_of, share_of_rank
from dropwise.network.workspace import Workspace

BLOCK_ROWS = 256


class Divisible(Trainable, Protocol):
    """What the training of a network on parts of a batch needs of it besides."""

    @property
    def heeds_block_rows(self) -> bool: ...

    @property
    def _run(self) -> Callable[[Array, RunContext], tuple[Array, Any]]: ...

    @property
    def _gradient(self) -> Callable[..., Any]: ...


# What `fit` has checked: the settings, the data, the validation data.
Arguments: TypeAlias = "tuple[Settings, Data, Data | None]"


@dataclass
class _Batch:
    """The rows of one step, as far as this rank can read them."""

    data: Data
    rows: slice | NDArray[np.int64]  # of `data`
    first: int  # index, in the batch, of the first of them
    count: int  # rows of the whole batch, in all ranks
    total: float  # the sum of their weights

    @property
    def here(self) -> int:
        """How many rows this rank can read."""
        rows = self.rows
        return rows.stop - rows.start if isinstance(rows, slice) else len(rows)

    def part(self, start: int, stop: int, workspace: Workspace) -> Data:
        """The rows from `start` to `stop`, as the batch counts them."""
        start, stop = start - self.first, stop - self.first
        if isinstance(self.rows, slice):
            begin = self.rows.start
            return self.data.take(slice(begin + start, begin + stop), workspace)
        return self.data.take(self.rows[start:stop], workspace)


class _Gradients:
    """The gradients of a network as flat arrays, one for each dtype."""

    def __init__(self, network: Divisible) -> None:
        self._network = network
        self.dense = [layer for layer in layers_within(network) if isinstance(layer, Dense)]
        values = network.parameter_values()
        self._dtypes = list(dict.fromkeys(value.dtype for value in values))
        self._of_dtype = [
            [i for i, value in enumerate(values) if value.dtype == dtype] for dtype in self._dtypes
        ]
        self.kinds = [
            (sum(values[i].size for i in members), dtype)
            for dtype, members in zip(self._dtypes, self._of_dtype, strict=True)
        ]

    def copies(self, workspace: Workspace, name: str) -> list[Array]:
        """What the last backward has left, in arrays of this name."""
        gradients = [gradient for _, gradient in self._network.parameters()]
        flat = [workspace.array(f"{name}, {dtype}", (n,), dtype) for n, dtype in self.kinds]
        for array, members in zip(flat, self._of_dtype, strict=True):
            np.concatenate([gradients[i] for i in members], out=array)
        return flat

    def assign(self, kind: int, flat: Array) -> None:
        """Take these gradients of one of the kinds."""
        gradients = [gradient for _, gradient in self._network.parameters()]
        start = 0
        for i in self._of_dtype[kind]:
            stop = start + gradients[i].size
            gradients[i][...] = flat[start:stop]
            start = stop


class Division:
    """How the steps of a training are divided.

    Parameters
    ----------
    ranks : Ranks
    block_rows : int
        A multiple of 8.
    exact : bool
        Whether the result is that of one rank, bit for bit.
    sharded : bool
        Whether each rank has rows of its own.
    """

    def __init__(self, ranks: Ranks, block_rows: int, exact: bool, sharded: bool) -> None:
        self.ranks = ranks
        self.block_rows = block_rows
        self.exact = exact
        self.sharded = sharded
        self._workspace = Workspace()
        self._gradients: _Gradients | None = None  # of the network that is trained
        self._shards: list[int] = []  # rows of each rank
        self._has_weights = False  # any rank

    # ---- before the first step

    def begin(self, network: Divisible, checked: Callable[[], Arguments]) -> Arguments:
        """What `checked` gives, if all ranks have all in common that decides the result."""
        with self.ranks.ending_all():
            self.ranks.share_cores()
            with self.ranks.checking():
                settings, data, validation = checked()
                self._check_rows_apart(network, data, settings.loss)
            mine = description(network, data, validation, settings)
            found = differences(self.ranks.gather(mine))
            if found is not None:
                raise raised_by_all(ValueError(f"the ranks do not agree: {found}"))
            if self.sharded:
                shards = self.ranks.gather((len(data.y), data.weight is not None))
                self._shards = [rows for rows, _ in shards]
                self._has_weights = any(weighted for _, weighted in shards)
                if not any(self._shards):
                    raise raised_by_all(ValueError("no rank has any rows"))
        return settings, data, validation

    def _check_rows_apart(self, network: Divisible, data: Data, loss: Loss) -> None:
        """Raise unless network and loss treat each row by itself."""
        for layer in layers_within(network):
            if class_to_run(layer) is Layer:
                raise TypeError(
                    f"{layer!r} cannot be trained on parts of a batch: only layers of dropwise "
                    "know which rows of it they are given"
                )
            rows = (getattr(layer, "noise_shape", None) or (None,))[0]
            if rows not in (None, 1):
                raise ValueError(
                    f"{layer!r} cannot be trained on parts of a batch: its noise_shape names the "
                    "rows of the whole; say None"
                )
        few = data.take(slice(0, 64), self._workspace)
        if len(few.y) and not is_mean_of_rows(loss):
            check_mean_of_rows(loss, network.predict(few.x), few.y)

    # ---- an epoch

    def run(self, epochs: Iterator[Epoch]) -> Iterator[Epoch]:
        """The epochs; an error in one rank ends the others, too."""
        with self.ranks.ending_all():
            yield from epochs

    def steps(self, network: Divisible, data: Data, settings: Settings) -> Iterator[Step]:
        """The weight of each batch of the next epoch, and its step."""
        gradients = self._gradients
        if gradients is None:
            gradients = self._gradients = _Gradients(network)
        loss = PartialLoss(settings.loss, self.block_rows)
        batches = self._sharded_batches if self.sharded else self._batches
        for batch in batches(network, data, settings):
            step = functools.partial(self._step, network, batch, loss, gradients, settings)
            yield batch.total, step

    def _batches(self, network: Divisible, data: Data, settings: Settings) -> Iterator[_Batch]:
        n = len(data.y)
        size, order = batch_size_of(settings, n), order_of_rows(network, settings, n)
        for start in range(0, n, size):
            stop = min(start + size, n)
            rows = slice(start, stop) if order is None else order[start:stop]
            weight = data.weight
            total = float(stop - start if weight is None else weight[rows].sum())
            yield _Batch(data, rows, 0, stop - start, total)

    def _sharded_batches(
        self, network: Divisible, data: Data, settings: Settings
    ) -> Iterator[_Batch]:
        """Batches of which each rank has the same part of its rows, to within one."""
        n, own = sum(self._shards), self._shards[self.ranks.rank]
        steps = -(-n // batch_size_of(settings, n))
        order = np.arange(own)
        if settings.shuffle and steps > 1:
            seed = network.shuffle_key, network.epochs_done, self.ranks.rank
            order = np.random.default_rng(seed).permutation(own)
        shares = [share_of_rank(own, step, steps) for step in range(steps)]
        mine = [order[share.start : share.stop] for share in shares]
        totals = None
        if self._has_weights:
            weight = np.ones(own) if data.weight is None else data.weight
            totals = np.sum(self.ranks.gather([float(weight[rows].sum()) for rows in mine]), axis=0)
        for step, rows in enumerate(mine):
            counts = [len(share_of_rank(shard, step, steps)) for shard in self._shards]
            first, count = sum(counts[: self.ranks.rank]), sum(counts)
            total = float(count if totals is None else totals[step])
            yield _Batch(data, rows, first, count, total)

    # ---- a step

    def _step(
        self,
        network: Divisible,
        batch: _Batch,
        loss: PartialLoss,
        gradients: _Gradients,
        settings: Settings,
    ) -> StepFigures:
        compute = self._exact_gradients if self.exact else self._reduced_gradients
        with _sums_of_parts(gradients.dense):
            figures = compute(network, batch, loss, gradients)
        for layer in gradients.dense:
            layer.add_penalties()
        optimizer = settings.optimizer
        try:
            check_finite(figures, network, optimizer)
        except FloatingPointError as error:
            raise raised_by_all(error) from None
        optimizer.step(network.parameters())
        return figures

    def _exact_gradients(
        self, network: Divisible, batch: _Batch, loss: PartialLoss, gradients: _Gradients
    ) -> StepFigures:
        """Set the gradients to the sum of those of the blocks."""
        size, count = self.block_rows, -(-batch.count // self.block_rows)
        by_blocks = network.heeds_block_rows
        mine = self.ranks.share(count)
        nodes = nodes_of(mine, count) if by_blocks else [(0, i) for i in mine]
        sums: list[dict[Node, Array]] = [{} for _ in gradients.kinds]
        run = _Run(network, loss, batch.total, size if by_blocks else 0)
        with run.context:
            for i, node in enumerate(nodes):
                blocks = blocks_under(node, count)
                start, stop = blocks.start * size, min(blocks.stop * size, batch.count)
                run.rows(start, batch.part(start, stop, self._workspace))
                if self.ranks.size == 1 and len(blocks) == count:
                    break  # the gradients are where they belong
                # Of single blocks, sums are added in place: their arrays are still needed.
                kept = gradients.copies(self._workspace if by_blocks else Workspace(), f"sum {i}")
                for of_dtype, flat in zip(sums, kept, strict=True):
                    of_dtype[node] = flat
                    if not by_blocks:
                        add_up(of_dtype, count)
            run.finish(batch.data)
        if self.ranks.size > 1 or any(sums):
            for i, (length, dtype) in enumerate(gradients.kinds):
                gradients.assign(i, self.ranks.sum_nodes(sums[i], count, length, dtype))
        return self._figures(network, run, count)

    def _reduced_gradients(
        self, network: Divisible, batch: _Batch, loss: PartialLoss, gradients: _Gradients
    ) -> StepFigures:
        """Set the gradients to the sum of those of the ranks."""
        run = _Run(network, loss, batch.total, 0)
        mine = self.ranks.share(batch.count)
        if self.sharded:
            mine = range(batch.first, batch.first + batch.here)
        with run.context:
            if mine:
                run.rows(mine.start, batch.part(mine.start, mine.stop, self._workspace))
            run.finish(batch.data)
        if self.ranks.size > 1:
            for i, flat in enumerate(gradients.copies(self._workspace, "sum")):
                gradients.assign(i, self.ranks.all_reduce(flat))
        return self._figures(network, run, None)

    def _figures(self, network: Divisible, run: _Run, count: int | None) -> StepFigures:
        """The figures of the batch, over so many blocks."""
        regularization = network.regularization_loss() if self.ranks.is_first else 0.0
        return self._added_up(run.figures, run.has_accuracy, count, regularization)

    def _added_up(
        self,
        figures: list[NDArray[np.float64]],
        has_accuracy: bool,
        count: int | None,
        regularization: float = 0.0,
    ) -> StepFigures:
        """The sums over the figures that all ranks have, and the first rank's regularisation loss.

        They are added up in the order of the blocks; if it is not known how many of them each rank
        has, by rank.
        """
        rows = figures[0] if len(figures) == 1 else np.concatenate([np.empty((0, 2)), *figures])
        size = self.ranks.size
        with np.errstate(all="ignore"):
            if size > 1:
                if count is None:
                    rows = rows.sum(axis=0, keepdims=True)
                    lengths = [1] * size
                else:
                    lengths = [len(share_of_rank(count, rank, size)) for rank in range(size)]
                # Before its figures, each rank says what does not belong to a block.
                rows = np.concatenate([[[regularization, has_accuracy]], rows])
                every = self.ranks.gather_rows(rows, [length + 1 for length in lengths])
                heads = np.cumsum([0, *(length + 1 for length in lengths[:-1])])
                regularization = float(every[0, 0])
                has_accuracy = bool(every[heads, 1].any())
                rows = np.delete(every, heads, axis=0)
            data_loss, accuracy = np.add.reduce(rows, axis=0).tolist()
        return StepFigures(data_loss, regularization, accuracy if has_accuracy else None)

    # ---- beside the steps

    def evaluate(self, network: Divisible, data: Data, loss: Loss) -> tuple[float, float | None]:
        """The loss and the accuracy at inference, of rows that the ranks share out."""
        size, n = self.block_rows, len(data.y)
        count = None if self.sharded else -(-n // size)
        mine = range(-(-n // size)) if count is None else self.ranks.share(count)
        total = float(n if data.weight is None else data.weight.sum())
        if self.sharded:
            total = sum(self.ranks.gather(total))
        if total == 0.0:
            raise raised_by_all(ValueError("no rank has any rows to evaluate"))
        partial, figures = PartialLoss(copy.copy(loss), size), []
        step = max(1, ROWS_AT_ONCE // size) if network.heeds_block_rows else 1
        for first in range(mine.start, mine.stop, step):
            start, stop = first * size, min(first + step, mine.stop) * size
            part = data.take(slice(start, stop), self._workspace)
            context = RunContext(False, keep_records=False)
            context.block_rows = size
            y_pred, _ = network._run(part.x, context)
            figures.append(partial.forward(y_pred, part.y, part.weight, total))
        sums = self._added_up(figures, partial.has_accuracy, count)
        return sums.data_loss, sums.accuracy

    def save(self, save: Callable[[], None]) -> None:
        """Call `save` in one rank, and return when that is done."""
        if self.ranks.is_first:
            save()
        self.ranks.wait()


class _Run:
    """The forward and the backward of one batch, some rows at a time.

    It takes one stream of each dropout, also if this rank has no rows.
    """

    def __init__(
        self, network: Divisible, loss: PartialLoss, total: float, block_rows: int
    ) -> None:
        self._network, self._loss, self._total = network, loss, total
        self.context = RunContext(True, keep_records=True)
        self.context.block_rows = block_rows
        self.figures: list[NDArray[np.float64]] = []  # of each block
        self.has_accuracy = False

    def rows(self, first: int, part: Data) -> None:
        """Set the gradients to what these rows, from row `first` of the batch on, give."""
        y_pred, record = self._forward(first, part.x)
        self.figures.append(self._loss.forward(y_pred, part.y, part.weight, self._total))
        self.has_accuracy = self._loss.has_accuracy
        self._network._gradient(record, self._loss.backward(), input_grad=False)

    def finish(self, data: Data) -> None:
        """The batch has been computed."""
        if not self.figures:  # not a row of it here: gradients of 0
            none = data.take(slice(0, 0), Workspace())
            y_pred, record = self._forward(0, none.x)
            self._network._gradient(record, y_pred, input_grad=False)

    def _forward(self, first: int, x: Array) -> tuple[Array, Any]:
        self.context.first_row = first
        return self._network._run(x, self.context)


@contextlib.contextmanager
def _sums_of_parts(dense: Sequence[Dense]) -> Iterator[None]:
    """Gradients in this block are those of parts of a batch, without penalties."""
    for layer in dense:
        layer.sums_parts = True
    try:
        yield
    finally:
        for layer in dense:
            layer.sums_parts = False


def as_division(comm: Any, exact: bool, sharded: bool, block_rows: int | None) -> Division | None:
    """The division that these arguments of ``fit`` ask for; None: none."""
    if block_rows is not None:
        block_rows = _arguments.as_integer(block_rows, "block_rows", least=8)
        if block_rows % 8:
            raise ValueError(f"block_rows must be a multiple of 8, got {block_rows}")
    if comm is None:
        if sharded or not exact:
            raise ValueError("exact=False and sharded=True need comm, whose ranks share the rows")
        if block_rows is None:
            return None
    ranks = Ranks(comm)
    return Division(ranks, block_rows or BLOCK_ROWS, bool(exact) and not sharded, bool(sharded))
