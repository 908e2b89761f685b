"""A communicator whose ranks are threads of one process: quick, and each can be looked at."""

from __future__ import annotations

import contextvars
import threading
from collections.abc import Callable
from typing import Any

import numpy as np


class Aborted(BaseException):
    """What ends the other ranks when one has called Abort."""


class _World:
    def __init__(self, size: int) -> None:
        self.size = size
        self.barrier = threading.Barrier(size, timeout=60)
        self.slots: list[Any] = [None] * size
        self.aborted: list[tuple[int, int]] = []  # rank, status


class Communicator:
    """The methods of mpi4py's that training uses."""

    def __init__(self, world: _World, rank: int) -> None:
        self._world, self._rank = world, rank
        self.calls: list[tuple[str, int]] = []  # each with the bytes that go to other ranks

    def Get_rank(self) -> int:
        return self._rank

    def Get_size(self) -> int:
        return self._world.size

    def Is_inter(self) -> bool:
        return False

    def _swap(self, value: Any) -> list[Any]:
        world = self._world
        try:
            world.slots[self._rank] = value
            world.barrier.wait()
            values = list(world.slots)
            world.barrier.wait()
        except threading.BrokenBarrierError:
            raise Aborted from None
        return values

    def allgather(self, value: Any) -> list[Any]:
        return self._swap(value)

    def Allgatherv(self, sent: np.ndarray, received: list[Any]) -> None:
        into, (counts, starts) = received
        assert sent.size == counts[self._rank]
        assert sent.flags.c_contiguous
        self.calls.append(("Allgatherv", sent.nbytes * (self._world.size - 1)))
        flat = into.reshape(-1)
        for part, n, start in zip(self._swap(sent.reshape(-1)), counts, starts, strict=True):
            flat[start : start + n] = part
        self._swap(None)

    def Alltoallv(self, sent: list[Any], received: list[Any]) -> None:
        data, (counts, starts) = sent
        sizes = [n for rank, n in enumerate(counts) if rank != self._rank]
        self.calls.append(("Alltoallv", sum(sizes) * data.itemsize))
        every = self._swap((data.reshape(-1), counts, starts))
        into, (taken, places) = received
        flat = into.reshape(-1)
        for (source, n, first), expected, place in zip(every, taken, places, strict=True):
            assert n[self._rank] == expected
            begin = first[self._rank]
            flat[place : place + expected] = source[begin : begin + expected]
        self._swap(None)

    def Allreduce(self, sent: np.ndarray, received: np.ndarray) -> None:
        self.calls.append(("Allreduce", sent.nbytes))
        every = self._swap(sent)
        total = every[0].copy()
        for other in every[1:]:
            total += other
        self._swap(None)
        received[...] = total

    def Abort(self, status: int = 0) -> None:
        if not self._world.aborted:  # else this rank would have been ended by then
            self._world.aborted.append((self._rank, status))
        self._world.barrier.abort()
        raise Aborted


def results_of(size: int, body: Callable[[Communicator], Any]) -> list[Any]:
    """What `body` gives in each of `size` ranks, none of which may fail."""
    results = run_ranks(size, body)
    for result in results:
        if isinstance(result, BaseException) and not isinstance(result, Aborted):
            raise result
    return results


def run_ranks(size: int, body: Callable[[Communicator], Any]) -> list[Any]:
    """What `body` gives in each of `size` ranks; an exception in one is that rank's result."""
    world = _World(size)
    results: list[Any] = [None] * size

    def run(rank: int) -> None:
        try:
            results[rank] = body(Communicator(world, rank))
        except BaseException as error:
            results[rank] = error
            world.barrier.abort()

    # With the backend that is active here.
    contexts = [contextvars.copy_context() for _ in range(size)]
    threads = [
        threading.Thread(target=context.run, args=(run, rank), daemon=True)
        for rank, context in enumerate(contexts)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(120)
        assert not thread.is_alive(), "a rank waits for ever"
    return results
