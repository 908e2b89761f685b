"""The command ``dropwise spiral``: train, report, write the files that were asked for."""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from contextlib import AbstractContextManager, nullcontext
from pathlib import Path

import dropwise as dw
from dropwise._backends import active
from dropwise.cli.errors import INSTALL_HINT, UserError
from dropwise.cli.progress import progress_bar
from dropwise.cli.spiral import Spiral
from dropwise.cli.spiral_plot import write_plot
from dropwise.cli.spiral_report import table, write_csv


def check_outputs(plot: Path | None, others: Sequence[Path | None]) -> None:
    """Raise before training if a file could not be written after it."""
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


def run(args: argparse.Namespace) -> int:
    """Check the files and the backend, then train, report and write."""
    check_outputs(args.plot, (args.csv, args.save))
    with _chosen_backend(args.backend):
        return _train_and_report(args)


def _chosen_backend(name: str | None) -> AbstractContextManager[object]:
    """A context in which this backend computes (None: the default one)."""
    try:
        return nullcontext() if name is None else dw.backend(name)
    except ImportError as error:
        raise UserError(str(error)) from None


def _train_and_report(args: argparse.Namespace) -> int:
    """Train; print the table; write the files that were asked for."""
    job = Spiral(
        rate=args.rate, wiring=args.wiring, seed=args.seed, hidden=args.hidden, dtype=args.dtype
    )
    with progress_bar(args.epochs, args.quiet) as bar:
        finished = job.run(args.epochs, bar)
    if not job.history:
        raise UserError("stopped before the first epoch was over; nothing to report")
    done = job.trained.epochs_done
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
