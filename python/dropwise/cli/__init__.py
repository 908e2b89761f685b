"""The command line: train the spiral network, say what this installation has.

Written over the public API only, so that it doubles as an example.  The extra ``cli`` brings the
progress bar (tqdm) and the picture (matplotlib); training runs without it, too.
"""

from __future__ import annotations

import argparse
import csv
import sys
import time
from collections.abc import Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import astuple, dataclass, fields
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

import dropwise as dw
from dropwise._backends import active
from dropwise.network import Epoch

SAMPLES_PER_CLASS = 2000
CLASSES = 3
TRAIN_ROWS = 3000
INSTALL_HINT = "python3 -m pip install 'dropwise[cli]'"


class UserError(Exception):
    """A message for the user, not a traceback."""


# ---- the job -----------------------------------------------------------------------------------


@dataclass(frozen=True)
class Record:
    """One row of the history.  Training figures are those of the epoch's own forward pass."""

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
    """Dense, ReLU, Dropout, Dense with the slip of the published listing.

    The second Dense reads the activation and not what the dropout layer made of it, so that dropout
    acts in the backward pass only.
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
    """The reference job: a network with one hidden layer learns three spiral arms, full batch.

    `seed` decides the data, the first weights and all masks.
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
        self.wired = self.net if wiring == "correct" else AsPrinted(self.net.layers)
        self.history: list[Record] = []
        self.seconds = 0.0

    def run(self, epochs: int, bar: Any) -> bool:
        """Train; False if Ctrl-C ended it.  Some hundred epochs are evaluated, the last among them.

        `bar` has the methods ``update`` and ``set_postfix_str`` of a tqdm bar.
        """
        loss = dw.SoftmaxCrossEntropy()
        steps = self.wired.iter_fit(
            *self.train,
            loss=loss,
            optimizer=dw.Adam(0.05, decay=5e-5, epsilon=1e-7),
            epochs=epochs,
            batch_size=None,
        )
        every = max(1, epochs // 100)
        step = None
        start = time.perf_counter()
        try:
            for step in steps:
                if step.epoch % every == 1 % every or step.epoch == epochs:
                    record = self._evaluate(step, loss)
                    bar.set_postfix_str(
                        f"loss {record.loss:.3f}, acc {record.train_acc:.3f}, "
                        f"val acc {record.val_acc:.3f}",
                        refresh=False,
                    )
                bar.update()
        except KeyboardInterrupt:
            if step is not None and (not self.history or self.history[-1].epoch < step.epoch):
                self._evaluate(step, loss)
            return False
        finally:
            self.seconds = time.perf_counter() - start
        return True

    def _evaluate(self, step: Epoch, loss: dw.SoftmaxCrossEntropy) -> Record:
        """Add the test figures to those of a step, and both to the history."""
        val_loss, val_acc = self.net.evaluate(*self.test, loss=loss)
        assert step.accuracy is not None
        assert val_acc is not None
        record = Record(
            step.epoch,
            step.accuracy,
            step.loss,
            step.data_loss,
            step.regularization_loss,
            val_acc,
            val_loss,
            step.learning_rate,
        )
        self.history.append(record)
        return record


# ---- what comes out of it ----------------------------------------------------------------------


def table(title: str, last: Record) -> str:
    """The run's last figures beside those of the published logs."""
    lines = [f"{'':22}{'train acc':>9}  {'loss (data + reg)':21}  {'val acc':>7}  {'val loss':>8}"]
    for name, r in {title: last, **PUBLISHED}.items():
        parts = f"{r.loss:.3f} ({r.data_loss:.3f} + {r.reg_loss:.3f})"
        lines.append(
            f"{name:22}{r.train_acc:9.3f}  {parts:21}  {r.val_acc:7.3f}  {r.val_loss:8.3f}"
        )
    lines.append("Log 1 is the listing as printed: dropout acts in the backward pass only.")
    lines.append("Log 2 is dropout at work in both passes, the correct wiring.")
    return "\n".join(lines)


def write_csv(path: Path, history: Sequence[Record]) -> None:
    """One row for each evaluated epoch."""
    with path.open("w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file)
        writer.writerow([f.name for f in fields(Record)])
        writer.writerows(astuple(record) for record in history)


def write_plot(path: Path, job: Spiral, title: str) -> None:
    """Decision regions with the test points; loss and accuracy over the epochs."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.colors import ListedColormap
    from matplotlib.figure import Figure

    colors = ["#4477aa", "#ee6677", "#228833"]  # told apart also by colour-blind readers
    figure = Figure(figsize=(12, 5.4), layout="constrained")
    FigureCanvasAgg(figure)
    figure.suptitle(title)
    grid = figure.add_gridspec(2, 2, width_ratios=[1.15, 1])
    regions, losses, accuracies = (
        figure.add_subplot(grid[place]) for place in (np.s_[:, 0], np.s_[0, 1], np.s_[1, 1])
    )

    x, y = job.test
    axis = np.linspace(-1.1, 1.1, 300)
    points = np.stack(np.meshgrid(axis, axis), axis=-1).reshape(-1, 2).astype(x.dtype)
    classes = job.net.predict(points).argmax(axis=1).reshape(axis.size, axis.size)
    regions.pcolormesh(
        axis, axis, classes, cmap=ListedColormap(colors), alpha=0.25, rasterized=True
    )
    regions.scatter(x[:, 0], x[:, 1], s=4, c=[colors[k] for k in y], linewidths=0)
    regions.set(title="decision regions and test points", aspect="equal", xticks=[], yticks=[])

    epochs = [r.epoch for r in job.history]
    losses.plot(epochs, [r.loss for r in job.history], label="train (data + reg)")
    losses.plot(epochs, [r.data_loss for r in job.history], label="train (data)")
    losses.plot(epochs, [r.val_loss for r in job.history], label="validation")
    losses.set(ylabel="loss", ylim=(0, None))
    accuracies.plot(epochs, [r.train_acc for r in job.history], label="train")
    accuracies.plot(epochs, [r.val_acc for r in job.history], label="validation")
    accuracies.set(xlabel="epoch", ylabel="accuracy")
    for axes in (losses, accuracies):
        axes.grid(alpha=0.3)
        axes.legend()
    figure.savefig(path, dpi=110)


# ---- commands ----------------------------------------------------------------------------------


class PlainProgress:
    """Stands in for tqdm: a line for each tenth of the epochs (none if quiet)."""

    def __init__(self, total: int, quiet: bool) -> None:
        self.every = 0 if quiet else max(1, total // 10)
        self.total, self.done, self.text = total, 0, ""
        self.start = time.perf_counter()

    def __enter__(self) -> PlainProgress:
        return self

    def __exit__(self, *_: object) -> None:
        pass

    def set_postfix_str(self, text: str, refresh: bool = False) -> None:
        self.text = text

    def update(self) -> None:
        self.done += 1
        if self.every and self.done % self.every == 0:
            left = (time.perf_counter() - self.start) * (self.total / self.done - 1)
            print(
                f"epoch {self.done} of {self.total}, {self.text}, {left:.0f} s left",
                file=sys.stderr,
                flush=True,
            )


def progress_bar(total: int, quiet: bool) -> Any:
    """A tqdm bar; plain lines where tqdm is not installed."""
    if not quiet:
        try:
            from tqdm import tqdm
        except ImportError:
            print(f"plain progress, as tqdm is not installed: {INSTALL_HINT}", file=sys.stderr)
        else:
            return tqdm(total=total, unit="epoch", smoothing=0.05)
    return PlainProgress(total, quiet)


def check_outputs(plot: Path | None, others: Sequence[Path | None]) -> None:
    """Raise now what would go wrong after all epochs."""
    if plot is not None:
        try:
            from matplotlib.backends.backend_agg import FigureCanvasAgg
        except ImportError:
            raise UserError(f"--plot needs matplotlib: {INSTALL_HINT}") from None
        known = FigureCanvasAgg.get_supported_filetypes()
        if plot.suffix[1:].lower() not in known:
            raise UserError(
                f"--plot {plot}: the name must end in one of .{', .'.join(sorted(known))}"
            )
    for path in (plot, *others):
        if path is None:
            continue
        existed = path.exists()
        try:
            path.open("ab").close()
        except OSError as error:
            raise UserError(f"cannot write {path}: {error.strerror}") from None
        if not existed:
            path.unlink()


def spiral(args: argparse.Namespace) -> int:
    """Train, report, write."""
    check_outputs(args.plot, (args.csv, args.save))
    with use_backend(args.backend):
        return train_and_report(args)


def use_backend(name: str | None) -> AbstractContextManager[object]:
    """Compute with that backend (None: the default) in a ``with`` block."""
    try:
        return nullcontext() if name is None else dw.use_backend(name)
    except ImportError as error:
        raise UserError(str(error)) from None


def train_and_report(args: argparse.Namespace) -> int:
    """The whole of the `spiral` command, once its arguments are known to be good."""
    job = Spiral(
        rate=args.rate, wiring=args.wiring, seed=args.seed, hidden=args.hidden, dtype=args.dtype
    )
    with progress_bar(args.epochs, args.quiet) as bar:
        finished = job.run(args.epochs, bar)
    if not job.history:
        raise UserError("stopped before the first epoch was over; nothing to report")
    done = job.net.epochs_done if job.wired is job.net else job.wired.epochs_done
    summary = (
        f"{done} epochs in {job.seconds:.1f} s ({job.seconds / done * 1e3:.2f} ms each), "
        f"rate {args.rate:g}, seed {args.seed}, {args.dtype}, backend {active().name}"
    )
    print(f"{'' if finished else 'Stopped by Ctrl-C. '}{summary}\n")
    print(table(f"this run, {args.wiring}", job.history[-1]))
    if args.csv is not None:
        write_csv(args.csv, job.history)
    if args.save is not None:
        job.net.save(args.save)
    if args.plot is not None:
        title = f"{args.wiring} wiring, rate {args.rate:g}, seed {args.seed}: {done} epochs"
        write_plot(args.plot, job, title)
    return 0


def info(_: argparse.Namespace) -> int:
    """Print what this installation has."""
    dw.show_config()
    return 0


def parser() -> argparse.ArgumentParser:
    """The options."""

    def number(kind: type[Any], low: float, high: float, what: str) -> Any:
        def parse(text: str) -> Any:
            try:
                value = kind(text)
            except ValueError:
                value = None
            if value is None or not low <= value <= high:
                raise argparse.ArgumentTypeError(f"must be {what}, got {text!r}")
            return value

        return parse

    positive = number(int, 1, 10**9, "a positive whole number")
    top = argparse.ArgumentParser(prog="dropwise", description=dw.__doc__)
    top.add_argument("--version", action="version", version=f"dropwise {dw.__version__}")
    commands = top.add_subparsers(title="commands", required=True, metavar="COMMAND")

    train = commands.add_parser(
        "spiral",
        help="train the spiral network with dropout",
        description="Train 2 -> 512 -> ReLU -> dropout -> 3 on three spiral arms, as in the "
        "published listing, and compare with its two logs.  Ctrl-C stops early and still reports.",
        formatter_class=argparse.ArgumentDefaultsHelpFormatter,
    )
    train.set_defaults(command=spiral)
    add = train.add_argument
    add("--epochs", type=positive, default=10001, help="full-batch epochs")
    add("--rate", type=number(float, 0, 1, "in [0, 1]"), default=0.1, help="dropout rate")
    add(
        "--wiring",
        choices=("correct", "as-printed"),
        default="correct",
        help="as-printed: the second dense layer reads the activation, as in the listing",
    )
    add("--seed", type=number(int, 0, 2**64 - 1, "a whole number from 0"), default=0)
    add("--backend", choices=("native", "numba"), help="what computes (default: the best there is)")
    add("--hidden", type=positive, default=512, help="neurons of the hidden layer")
    add("--dtype", choices=("float32", "float64"), default="float32")
    add("--plot", type=Path, metavar="FILE", help="write a picture: regions, loss, accuracy")
    add("--csv", type=Path, metavar="FILE", help="write the history")
    add("--save", type=Path, metavar="FILE", help="write the network (dropwise.Sequential.load)")
    add("--quiet", action="store_true", help="no progress bar")

    about = commands.add_parser("info", help="version, backends, instruction sets, threads")
    about.set_defaults(command=info)
    return top


def main(argv: Sequence[str] | None = None) -> int:
    """Run a command line; the exit status."""
    args = parser().parse_args(argv)
    try:
        status: int = args.command(args)
    except UserError as error:
        print(f"dropwise: {error}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        return 130
    return status
