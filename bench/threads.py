"""What a second core brings to dropout of 16 M elements, a training step and an epoch of `fit`.

    python3 bench/threads.py [--quick]

A question of its own, without other libraries: their idle threads go on spinning on the second core
for some time after a call, and would take it away from ours.
"""

from __future__ import annotations

import argparse
import functools
from collections.abc import Iterable
from typing import Any

import numpy as np

import dropwise as dw
import elementwise
import harness
import step
import trainers
from harness import Case, Contender, Goal, Question

SIZE = 1 << 24
RATES = (0.1, 0.5)
BATCHES = (128, 1024)  # rows, of an epoch of 4096


def cases(args: argparse.Namespace) -> Iterable[Case]:
    rng = np.random.default_rng(0)
    x = rng.random(SIZE >> 8 if args.quick else SIZE, dtype=np.float32)
    y = np.empty_like(x)
    problem = step.Problem(step.SHAPES[0] if args.quick else step.PICTURED)
    turns = {f"{n} threads": functools.partial(dw.set_num_threads, n) for n in (1, args.threads)}
    for rate in RATES:
        layers = {name: dw.Dropout(rate, seed=0) for name in turns}

        def check(result: np.ndarray, rate: float = rate) -> None:
            elementwise.dropped(x, result, rate, 1 / (1 - rate))

        yield Case(
            {"what": "forward, out=", "rate": rate},
            [
                Contender(name, functools.partial(layers[name].forward, x, out=y), check, use)
                for name, use in turns.items()
            ],
        )
        yield Case(
            {"what": "step", "rate": rate},
            [step.ours(name, problem, rate, use) for name, use in turns.items()],
        )
    for batch in BATCHES:
        sizes = (784, 1024, 1024, 10)
        rows = trainers.Problem(sizes, batch, 1 if args.quick else 4096 // batch)
        yield Case(
            {"what": "epoch", "batch": batch, "rate": 0.5},
            [
                Contender(name, trainers.ours(rows, 0.5), lambda loss: None, use)
                for name, use in turns.items()
            ],
        )


def _goal(what: str, floor: float, aim: float, where: dict[str, Any]) -> Goal:
    return Goal(f"two threads, {what}", "one thread", ">=", floor, aim, "2 threads",
                ("1 threads",), where)  # fmt: skip


QUESTION = Question(
    "threads",
    __doc__.partition("\n")[0],
    cases,
    [
        _goal("forward 16 M", 1.3, 1.6, {"what": "forward, out="}),
        _goal("step (256, 1024, 1024, 1024), rate 0.5", 1.7, 1.9, {"what": "step", "rate": 0.5}),
        _goal("fit (784, 1024, 1024, 10), batch 128", 1.55, 1.7, {"what": "epoch", "batch": 128}),
        _goal("fit (784, 1024, 1024, 10), batch 1024", 1.75, 1.9, {"what": "epoch", "batch": 1024}),
    ],
    threads=2,
    rounds=15,
    seconds=2.0,
)

if __name__ == "__main__":
    harness.main(QUESTION)
