"""The options of the command line."""

from __future__ import annotations

import argparse
from collections.abc import Callable
from pathlib import Path
from typing import Any

import dropwise as dw
from dropwise.cli import info, spiral_command


def _number(kind: type[Any], low: float, high: float, what: str) -> Callable[[str], Any]:
    """An argument type: numbers of this kind from `low` to `high`, called `what` in errors."""

    def parse(text: str) -> Any:
        try:
            value = kind(text)
        except ValueError:
            value = None
        if value is None or not low <= value <= high:
            raise argparse.ArgumentTypeError(f"must be {what}, got {text!r}")
        return value

    return parse


def make_parser() -> argparse.ArgumentParser:
    """A parser whose result has the command as ``command``, a function of that result."""
    positive = _number(int, 1, 10**9, "a positive whole number")
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
    train.set_defaults(command=spiral_command.run)
    add = train.add_argument
    add("--epochs", type=positive, default=10001, help="full-batch epochs")
    add("--rate", type=_number(float, 0, 1, "in [0, 1]"), default=0.1, help="dropout rate")
    add(
        "--wiring",
        choices=("correct", "as-printed"),
        default="correct",
        help="as-printed: the second dense layer reads the activation, as in the listing",
    )
    add("--seed", type=_number(int, 0, 2**64 - 1, "a whole number from 0"), default=0)
    add("--backend", choices=("native", "numba"), help="what computes (default: the best there is)")
    add("--hidden", type=positive, default=512, help="neurons of the hidden layer")
    add("--dtype", choices=("float32", "float64"), default="float32")
    add("--plot", type=Path, metavar="FILE", help="write a picture: regions, loss, accuracy")
    add("--csv", type=Path, metavar="FILE", help="write the history")
    add("--save", type=Path, metavar="FILE", help="write the network (dropwise.Sequential.load)")
    add(
        "--checkpoint",
        type=Path,
        metavar="FILE",
        help="write all that the run goes on from, after every --every epochs and at the end",
    )
    add("--every", type=positive, default=100, metavar="N", help="epochs between checkpoints")
    add(
        "--resume",
        action="store_true",
        help="go on from --checkpoint, to --epochs in total, if the file is there",
    )
    add(
        "--distributed",
        action="store_true",
        help="train on all ranks of MPI (mpirun -n N python -m dropwise spiral --distributed); any "
        "number of them gives the same network",
    )
    add("--quiet", action="store_true", help="no progress bar")

    about = commands.add_parser("info", help="version, backends, instruction sets, threads")
    about.set_defaults(command=info.run)
    return top
