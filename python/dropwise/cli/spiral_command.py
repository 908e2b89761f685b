"""The command ``dropwise spiral``: train, report, write the files that were asked for."""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager, nullcontext
from pathlib import Path
from typing import Any, TypeVar, cast

import dropwise as dw
from dropwise._backends import active
from dropwise.cli.errors import INSTALL_HINT, MPI_HINT, UserError
from dropwise.cli.progress import progress_bar
from dropwise.cli.spiral import Spiral
from dropwise.cli.spiral_plot import write_plot
from dropwise.cli.spiral_report import table, write_csv
from dropwise.network.archive import check_place
from dropwise.network.ranks import Ranks, raised_by_all

T = TypeVar("T")


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
    comm = _communicator() if args.distributed else None
    ranks = Ranks(comm)
    with ranks.ending_all():
        _agreed(ranks, lambda: _check_files(args, ranks))
        with _agreed(ranks, lambda: _chosen_backend(args.backend)):
            job = _agreed(ranks, lambda: _make_job(args, ranks))
            return _train_and_report(args, job, ranks, comm)


def _communicator() -> Any:
    """All ranks that mpirun has started, or the only one."""
    try:
        from mpi4py import MPI
    except (ImportError, RuntimeError) as error:  # RuntimeError: no library of MPI
        raise UserError(f"--distributed needs MPI ({error}): {MPI_HINT}") from None
    return MPI.COMM_WORLD


def _agreed(ranks: Ranks, function: Callable[[], T]) -> T:
    """What `function` gives; if it raises a UserError in one rank, all ranks raise it."""
    problem, result = None, None
    try:
        result = function()
    except UserError as error:
        problem = str(error)
    for found in ranks.gather(problem):
        if found is not None:
            raise raised_by_all(UserError(found, shown=ranks.is_first))
    return cast(T, result)


def _check_files(args: argparse.Namespace, ranks: Ranks) -> None:
    """Raise before training if the files that are asked for do not go together."""
    if args.resume and args.checkpoint is None:
        raise UserError("--resume needs --checkpoint FILE, the file to go on from")
    outputs = [os.path.realpath(p) for p in (args.save, args.csv, args.plot) if p is not None]
    if args.checkpoint is not None and os.path.realpath(args.checkpoint) in outputs:
        raise UserError(f"{args.checkpoint}: the checkpoint needs a file of its own")
    if len(set(outputs)) < len(outputs):
        raise UserError("--save, --csv and --plot need a file each")
    if ranks.is_first:  # which writes them
        check_outputs(args.plot, (args.csv, args.save, args.checkpoint))


def _chosen_backend(name: str | None) -> AbstractContextManager[object]:
    """A context in which this backend computes (None: the default one)."""
    try:
        return nullcontext() if name is None else dw.backend(name)
    except ImportError as error:
        raise UserError(str(error)) from None


def _make_job(args: argparse.Namespace, ranks: Ranks) -> Spiral:
    """The job, as new or as the checkpoint has it; stderr says which, if there is a choice."""

    def say(text: str) -> None:
        if ranks.is_first:
            print(text, file=sys.stderr)

    job = Spiral(
        rate=args.rate, wiring=args.wiring, seed=args.seed, hidden=args.hidden, dtype=args.dtype
    )
    path = args.checkpoint
    if path is None:
        return job
    if not args.resume:
        if path.exists():
            say(f"{path} is there; without --resume this run starts anew and replaces it")
        return job
    if not path.exists():
        say(f"{path} is not there; this run starts anew")
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
    say(f"going on from {path}, after epoch {job.net.epochs_done}")
    return job


def _ranks_text(args: argparse.Namespace, ranks: Ranks) -> str:
    if not args.distributed:
        return ""
    return f", {ranks.size} rank{'' if ranks.size == 1 else 's'}"


def _train_and_report(args: argparse.Namespace, job: Spiral, ranks: Ranks, comm: Any) -> int:
    """Train; the first rank prints the table and writes the files that were asked for."""
    quiet = args.quiet or not ranks.is_first
    with progress_bar(args.epochs, quiet, job.net.epochs_done) as bar:
        finished = job.run(args.epochs, bar, args.checkpoint, args.every, comm)
    if not ranks.is_first:
        return 0
    if not job.history:
        raise UserError("stopped before the first epoch was over; nothing to report")
    done, new = job.trained.epochs_done, job.new_epochs
    failures = _write_files(args, job)  # first: whoever reads the report may have gone
    each = f" ({job.seconds / new * 1e3:.2f} ms each)" if new else ""
    summary = (
        f"{done} epochs{'' if new == done else f', {new} of them'} in {job.seconds:.1f} s{each}, "
        f"rate {args.rate:g}, seed {args.seed}, {args.dtype}, backend {active().name}"
        f"{_ranks_text(args, ranks)}"
    )
    print(f"{'' if finished else 'Stopped by Ctrl-C. '}{summary}\n")
    if not finished and args.checkpoint is not None and args.checkpoint.exists():
        print(f"{args.checkpoint} goes on from its last checkpoint with --resume", file=sys.stderr)
    print(table(f"this run, {args.wiring}", job.history[-1], *job.mean_of_last()))
    if failures:
        raise UserError("; ".join(failures))
    return 0


def _write_files(args: argparse.Namespace, job: Spiral) -> list[str]:
    """Write the files that were asked for, each whatever becomes of the others."""
    done = job.trained.epochs_done
    title = f"{args.wiring} wiring, rate {args.rate:g}, seed {args.seed}: {done} epochs"
    failures = []
    for path, write in (
        (args.save, job.save),
        (args.csv, lambda path: write_csv(path, job.history)),
        (args.plot, lambda path: write_plot(path, job, title)),
    ):
        try:
            if path is not None:
                write(path)
        except OSError as error:
            failures.append(f"cannot write {path}: {error.strerror or error}")
    return failures
