"""The command ``dropwise spiral``: train, report, write the files that were asked for."""

from __future__ import annotations

import argparse
import sys
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
from dropwise.network.archive import check_place


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
        try:
            if path.exists():
                path.open("ab").close()
            else:  # not even for a moment: a kill then would leave an empty file to resume from
                check_place(path)
        except OSError as error:
            raise UserError(f"cannot write {path}: {error.strerror}") from None


def run(args: argparse.Namespace) -> int:
    """Check the files and the backend, then train, report and write."""
    if args.resume and args.checkpoint is None:
        raise UserError("--resume needs --checkpoint FILE, the file to go on from")
    if args.checkpoint is not None and args.checkpoint in (args.save, args.csv, args.plot):
        raise UserError(f"{args.checkpoint}: the checkpoint needs a file of its own")
    check_outputs(args.plot, (args.csv, args.save, args.checkpoint))
    with _chosen_backend(args.backend):
        return _train_and_report(args)


def _chosen_backend(name: str | None) -> AbstractContextManager[object]:
    """A context in which this backend computes (None: the default one)."""
    try:
        return nullcontext() if name is None else dw.backend(name)
    except ImportError as error:
        raise UserError(str(error)) from None


def _make_job(args: argparse.Namespace) -> Spiral:
    """The job, as new or as the checkpoint has it; stderr says which, if there is a choice."""
    job = Spiral(
        rate=args.rate, wiring=args.wiring, seed=args.seed, hidden=args.hidden, dtype=args.dtype
    )
    path = args.checkpoint
    if path is None:
        return job
    if not args.resume:
        if path.exists():
            print(
                f"{path} is there; without --resume this run starts anew and replaces it",
                file=sys.stderr,
            )
        return job
    if not path.exists():
        print(f"{path} is not there; this run starts anew", file=sys.stderr)
        return job
    try:
        job.resume(path)
    except (OSError, ValueError) as error:
        raise UserError(f"cannot resume: {error}") from None
    if job.net.epochs_done > args.epochs:
        raise UserError(
            f"cannot resume: {path} has {job.net.epochs_done} epochs, more than --epochs "
            f"{args.epochs}"
        )
    print(f"going on from {path}, after epoch {job.net.epochs_done}", file=sys.stderr)
    return job


def _train_and_report(args: argparse.Namespace) -> int:
    """Train; print the table; write the files that were asked for."""
    job = _make_job(args)
    with progress_bar(args.epochs, args.quiet, job.net.epochs_done) as bar:
        finished = job.run(args.epochs, bar, args.checkpoint, args.every)
    if not job.history:
        raise UserError("stopped before the first epoch was over; nothing to report")
    done, new = job.trained.epochs_done, job.new_epochs
    each = f" ({job.seconds / new * 1e3:.2f} ms each)" if new else ""
    summary = (
        f"{done} epochs{'' if new == done else f', {new} of them'} in {job.seconds:.1f} s{each}, "
        f"rate {args.rate:g}, seed {args.seed}, {args.dtype}, backend {active().name}"
    )
    print(f"{'' if finished else 'Stopped by Ctrl-C. '}{summary}\n")
    if not finished and args.checkpoint is not None and args.checkpoint.exists():
        print(f"{args.checkpoint} goes on from its last checkpoint with --resume", file=sys.stderr)
    print(table(f"this run, {args.wiring}", job.history[-1], *job.mean_of_last()))
    if args.csv is not None:
        write_csv(args.csv, job.history)
    if args.save is not None:
        job.save(args.save)
    if args.plot is not None:
        title = f"{args.wiring} wiring, rate {args.rate:g}, seed {args.seed}: {done} epochs"
        write_plot(args.plot, job, title)
    return 0
