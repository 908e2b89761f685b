"""The command line: train the spiral network, show what this installation has.

The extra ``cli`` brings the progress bar (tqdm) and the picture (matplotlib); training runs without
them, too.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Sequence

from dropwise.cli.errors import UserError
from dropwise.cli.parser import make_parser


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command line `argv` (None: that of the process) and return its exit status."""
    args = make_parser().parse_args(argv)
    try:
        status: int = args.command(args)
        _flush()
    except UserError as error:
        if error.shown:
            print(f"dropwise: {error}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        return 130
    except OSError as error:
        if not isinstance(error, BrokenPipeError):  # which says that the reader has gone
            print(f"dropwise: {error}", file=sys.stderr)
        try:
            _flush()
        except OSError:  # Python would try again at the end
            os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 1
    return status


def _flush() -> None:
    if sys.stdout is not None:  # as it is where the process was given none
        sys.stdout.flush()
