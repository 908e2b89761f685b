"""One rank of a job that bench/scale.py times; nothing is measured unless that asks for it.

    mpirun -n 2 python3 bench/scale_rank.py '{"network": "spiral", "batch": 3000, "mode": "exact"}'

Answers each line of its input with a line of JSON: what some steps took the first rank.
"""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Callable
from typing import Any

import numpy as np
from mpi4py import MPI

import dropwise as dw
from dropwise.cli.spiral import Spiral
from scale_model import NETWORKS
from trainers import Problem, our_net

COMM = MPI.COMM_WORLD
_NAP = 2e-4  # seconds between two looks of a rank that waits for the next epoch


class Meter:
    """A communicator that notes what is sent to other ranks, and how long it takes."""

    def __init__(self, comm: Any) -> None:
        self._comm = comm
        self.reset()

    def reset(self) -> None:
        self.seconds, self.bytes, self.calls = 0.0, 0, 0

    def __getattr__(self, name: str) -> Any:
        return getattr(self._comm, name)

    def _timed(self, method: Callable[..., None], sent_bytes: int, *buffers: Any) -> None:
        start = time.perf_counter()
        method(*buffers)
        self.seconds += time.perf_counter() - start
        self.bytes += sent_bytes
        self.calls += 1

    def Alltoallv(self, sent: Any, received: Any) -> None:
        data, (counts, _) = sent
        others = sum(counts) - counts[COMM.rank]
        self._timed(self._comm.Alltoallv, others * data.itemsize, sent, received)

    def Allgatherv(self, sent: np.ndarray, received: Any) -> None:
        self._timed(self._comm.Allgatherv, sent.nbytes * (COMM.size - 1), sent, received)

    def Allreduce(self, sent: np.ndarray, received: np.ndarray) -> None:
        # Reduce-scatter and allgather: what each rank of a ring sends.
        share = 2 * (COMM.size - 1) * sent.nbytes // COMM.size
        self._timed(self._comm.Allreduce, share, sent, received)


class TimedAdam(dw.Adam):
    seconds = 0.0

    def step(self, parameters: Any) -> None:
        start = time.perf_counter()
        super().step(parameters)
        self.seconds += time.perf_counter() - start


def told_to_go_on() -> bool:
    """Whether the first rank has read a line.  The others sleep until then."""
    flag = np.zeros(1, np.int8)
    if COMM.rank == 0:
        flag[0] = bool(sys.stdin.readline())
    request = COMM.Ibcast(flag)
    while not request.Test():
        time.sleep(_NAP)
    return bool(flag[0])


def job_of(network: str, rows: int) -> tuple[dw.Sequential, np.ndarray, np.ndarray]:
    """The network and a batch of rows."""
    if network == "spiral":
        spiral = Spiral(rate=0.1, wiring="correct", seed=0, hidden=512, dtype="float32")
        x, y = (np.concatenate(pair)[:rows] for pair in zip(spiral.train, spiral.test, strict=True))
        return spiral.net, x, y
    stated = NETWORKS[network]
    problem = Problem(stated.sizes, rows, 1)
    return our_net(problem, stated.rate), problem.x, problem.y


def main(network: str, batch: int, steps: int, mode: str) -> None:
    """Make so many steps, each an epoch of one batch, for each line of the input."""
    net, x, y = job_of(network, batch)
    adam, meter = TimedAdam(1e-3), Meter(COMM)
    options = {} if mode == "whole" else {"comm": meter, "exact": mode == "exact"}
    epochs = net.iter_fit(
        x, y, loss=dw.SoftmaxCrossEntropy(), optimizer=adam, epochs=1 << 40, batch_size=None,
        **options,
    )  # fmt: skip
    while told_to_go_on():
        meter.reset()
        adam.seconds = 0.0
        start = time.perf_counter()
        for _ in range(steps):
            epoch = next(epochs)
        answer = {
            "loss": epoch.loss,
            "rows": batch,
            "steps": steps,
            "seconds": time.perf_counter() - start,
            "communicating": meter.seconds,
            "optimizer": adam.seconds,
            "bytes": meter.bytes // steps,  # of each
            "calls": meter.calls // steps,
        }
        if COMM.rank == 0:
            print(json.dumps(answer), flush=True)


if __name__ == "__main__":
    main(**json.loads(sys.argv[1]))
