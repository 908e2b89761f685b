"""What blocks of rows cost, and what a second rank brings: strong and weak scaling, in both modes.

    python3 bench/scale.py [--quick]          # needs mpi4py, mpirun and two cores

A contender is a job under mpirun that waits for its turn, a call some steps of it.  Each rank has
one thread.  *strong*: the same batch for one rank and two; *weak*: the same rows for each rank.
"""

from __future__ import annotations

import argparse
import json
import math
import os
import shutil
import subprocess
import sys
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from rich.table import Table

import harness
from harness import Case, Contender, Goal, Question
from scale_model import NETWORKS

ROWS = {"spiral": 3000}  # of a batch; others have
BATCH = 1024
STEPS = {"spiral": 100, "small": 100}  # that a call makes; of larger networks 8
_log: dict[str, dict[str, Any]] = {}  # what the last epoch of each contender took


class Job:
    """Ranks that run an epoch when they are told to."""

    def __init__(self, ranks: int, **spec: Any) -> None:
        program = shutil.which("mpirun", path=f"{Path(sys.executable).parent}:{os.environ['PATH']}")
        if program is None:
            raise SystemExit("mpirun is not installed: python3 -m pip install mpi4py mpich")
        script = Path(__file__).with_name("scale_rank.py")
        command = [program, "-n", str(ranks), sys.executable, str(script), json.dumps(spec)]
        threads = {f"{name}_NUM_THREADS": "1" for name in ("DROPWISE", "OMP", "OPENBLAS")}
        pipe = subprocess.PIPE
        self._process = subprocess.Popen(
            command, stdin=pipe, stdout=pipe, text=True, env=os.environ | threads
        )
        self.last: dict[str, Any] = {}

    def epoch(self) -> dict[str, Any]:
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._process.stdin.write("go on\n")
        self._process.stdin.flush()
        line = self._process.stdout.readline()
        if not line:
            raise RuntimeError(f"the job has ended with status {self._process.wait()}")
        self.last = json.loads(line)
        return self.last

    def close(self) -> None:
        self._process.communicate()


def _case(
    what: str, network: str, jobs: Mapping[str, tuple[int, int, str]], steps: int
) -> Iterator[Case]:
    """The case of some jobs: for each its ranks, the rows of its batch, its mode."""
    running = {
        name: Job(ranks, network=network, batch=batch, steps=steps, mode=mode)
        for name, (ranks, batch, mode) in jobs.items()
    }
    losses: dict[tuple[int, str], float] = {}

    def check(name: str, answer: Mapping[str, Any]) -> None:
        assert math.isfinite(answer["loss"])
        _, batch, mode = jobs[name]
        if mode == "exact":  # the same bits, whatever the number of ranks
            assert losses.setdefault((batch, mode), answer["loss"]) == answer["loss"]

    contenders = [
        Contender(name, job.epoch, lambda answer, name=name: check(name, answer))
        for name, job in running.items()
    ]
    labels = {"what": what, "network": network}
    try:
        yield Case(labels, contenders)
        for name, job in running.items():
            _log[f"{what}, {network}: {name}"] = job.last
    finally:
        for job in running.values():
            job.close()


def cases(args: argparse.Namespace) -> Iterator[Case]:
    names = ("small",) if args.quick else tuple(NETWORKS)
    for network in names:
        rows = ROWS.get(network, 256 if args.quick else BATCH)
        steps = 2 if args.quick else STEPS.get(network, 8)
        yield from _case(
            "strong",
            network,
            {
                "undivided": (1, rows, "whole"),
                "1 rank, exact": (1, rows, "exact"),
                "2 ranks, exact": (2, rows, "exact"),
                "2 ranks, allreduce": (2, rows, "reduced"),
            },
            steps,
        )
        if args.quick:
            continue
        yield from _case(
            "weak",
            network,
            {
                "1 rank, exact": (1, rows, "exact"),
                "2 ranks, exact": (2, 2 * rows, "exact"),
                "2 ranks, allreduce": (2, 2 * rows, "reduced"),
            },
            steps,
        )


def summary(result: Mapping[str, Any]) -> Iterator[Table]:
    """How much of the last epoch was communication, and what was sent in a step."""
    table = Table("", "communicating", "bytes a step", "calls", title="of the first rank")
    for name, took in result["extra"].items():
        if took["calls"]:
            share = took["communicating"] / took["seconds"]
            table.add_row(name, f"{share:.0%}", f"{took['bytes']:,}", str(took["calls"]))
    yield table


def _blocks(network: str | tuple[str, ...], floor: float, aim: float, name: str) -> Goal:
    where = {"what": "strong", "network": network}
    return Goal(f"a step in blocks of 256 rows, {name}", "undivided", "<=", floor, aim,
                "1 rank, exact", ("undivided",), where)  # fmt: skip


QUESTION = Question(
    "scale",
    __doc__.partition("\n")[0],
    cases,
    [
        _blocks(("784-1024-1024-10", "784-512-512-10"), 1.15, 1.1, "layers from 512 wide"),
        _blocks("spiral", 1.25, 1.15, "spiral run"),
    ],
    extra=lambda: _log,
    summary=summary,
    threads=2,
    rounds=7,
    seconds=8.0,
)

if __name__ == "__main__":
    harness.main(QUESTION)
