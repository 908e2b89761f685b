"""The processes of an MPI communicator, and what they exchange in training.

Nothing here imports mpi4py: a communicator is used by the methods that those of mpi4py have.
"""

from __future__ import annotations

import contextlib
import os
import platform
import sys
import traceback
from collections.abc import Iterator, Sequence
from functools import lru_cache
from typing import Any, TypeVar

import numpy as np
from numpy.typing import NDArray

from dropwise._backends import active
from dropwise._backends.protocol import Array
from dropwise.network.tree import Node, add_up, nodes_of, share_of_rank
from dropwise.network.workspace import Workspace

T = TypeVar("T")
ErrorType = TypeVar("ErrorType", bound=Exception)

_METHODS = ("Get_rank", "Get_size", "Alltoallv", "Allgatherv", "Allreduce", "allgather", "Abort")


def as_communicator(comm: Any) -> Any:
    """`comm`, if it can be what the ranks of a training exchange their sums by."""
    wanted = "comm must be an intracommunicator of mpi4py"
    if isinstance(comm, type) or not all(callable(getattr(comm, m, None)) for m in _METHODS):
        raise TypeError(f"{wanted}, got {comm!r}")
    is_inter = getattr(comm, "Is_inter", None)
    if not comm or (is_inter is not None and is_inter()):
        raise ValueError(f"{wanted}, got {'an intercommunicator' if comm else 'COMM_NULL'}")
    return comm


# What the native backend says of a number of threads that nobody has asked for.
_CORES = ("CPUs this process may use", "cgroup cpu quota")


def _cores() -> set[int]:
    """The cores that this process may use: so many as there are threads, if a quota says so."""
    if active().name == "native":
        from dropwise import _native

        if _native.num_threads_source() == _CORES[1]:
            return set(range(_native.num_threads()))
    if hasattr(os, "sched_getaffinity"):
        return set(os.sched_getaffinity(0))
    return set(range(os.cpu_count() or 1))


class _OneRank:
    """The communicator of a process that is alone."""

    def Get_rank(self) -> int:
        return 0

    def Get_size(self) -> int:
        return 1

    def allgather(self, value: T) -> list[T]:
        return [value]


class Ranks:
    """The ranks that train one network together.

    Parameters
    ----------
    comm : communicator of mpi4py, or None
        None: this process is alone.
    """

    def __init__(self, comm: Any = None) -> None:
        self._comm: Any = _OneRank() if comm is None else as_communicator(comm)
        self.rank: int = self._comm.Get_rank()
        self.size: int = self._comm.Get_size()
        self._workspace = Workspace()

    @property
    def is_first(self) -> bool:
        """Whether this rank is the one that prints and saves."""
        return self.rank == 0

    def share(self, count: int) -> range:
        """Those of `count` things that this rank takes."""
        return share_of_rank(count, self.rank, self.size)

    # ---- errors

    @contextlib.contextmanager
    def ending_all(self) -> Iterator[None]:
        """End the whole job if this block raises in one rank: the others would wait for ever.

        What is raised is printed first.  An error of all ranks, and of a process that is alone, is
        raised as always.
        """
        try:
            yield
        except GeneratorExit:  # the loop over the epochs was left, in all ranks alike
            raise
        except BaseException as error:
            if self.size > 1 and not _is_raised_by_all(error):
                self._abort(error)
            raise

    def _abort(self, error: BaseException) -> None:
        status = 130 if isinstance(error, KeyboardInterrupt) else 1
        if isinstance(error, SystemExit) and isinstance(error.code, int) and error.code:
            status = error.code
        with contextlib.suppress(Exception):  # a closed stderr must not keep the job alive
            lines = traceback.format_exception(type(error), error, error.__traceback__)
            text = "".join([f"rank {self.rank} of {self.size} ends the job:\n", *lines])
            print(text, end="", file=sys.stderr, flush=True)
        self._comm.Abort(status)

    @contextlib.contextmanager
    def checking(self) -> Iterator[None]:
        """Raise in all ranks if this block raises in one; no rank goes on alone."""
        own: Exception | None = None
        try:
            yield
        except Exception as error:
            own = error
        texts = self.gather(None if own is None else f"{type(own).__name__}: {own}")
        if own is not None:
            raise raised_by_all(own)
        for rank, text in enumerate(texts):
            if text is not None:
                raise raised_by_all(RuntimeError(f"rank {rank} of {self.size} raised {text}"))

    def share_cores(self) -> None:
        """Take this rank's share of the cores, unless it was told how many threads to use.

        Threads of all ranks that wait for the same cores would take longer than fewer threads.
        """
        if self.size == 1:
            return
        place = platform.node()
        every = self.gather((place, os.getpid(), _cores()))
        beside = {pid: cores for node, pid, cores in every if node == place}
        if active().name == "native":
            from dropwise import _native

            own = len(set().union(*beside.values())) // len(beside)
            if _native.num_threads_source() in _CORES and own < _native.num_threads():
                _native.set_num_threads(max(1, own))

    # ---- what is exchanged

    def gather(self, value: T) -> list[T]:
        """The values of all ranks, for each of them."""
        values: list[T] = self._comm.allgather(value)
        return values

    def wait(self) -> None:
        """Return when all ranks have come here."""
        self.gather(None)

    def gather_rows(self, mine: NDArray[np.float64], counts: Sequence[int]) -> NDArray[np.float64]:
        """The rows of all ranks, one after the other; rank r has ``counts[r]`` of them."""
        width = mine.shape[1]
        rows = np.empty((sum(counts), width))
        self._all_gather(mine, rows, [n * width for n in counts])
        return rows

    def sum_nodes(
        self, nodes: dict[Node, Array], count: int, length: int, dtype: np.dtype[Any]
    ) -> Array:
        """The sum over all `count` blocks, of which this rank has these nodes as flat arrays.

        Each rank adds up a slice of all nodes, in the order of the tree.  The next call may
        overwrite the result.
        """
        if self.size == 1:
            add_up(nodes, count)
            (total,) = nodes.values()
            return total
        held = _nodes_of_ranks(count, self.size)
        slices = [len(share_of_rank(length, rank, self.size)) for rank in range(self.size)]
        own = slices[self.rank]
        received: dict[Node, Array] = {}
        for j in range(max(map(len, held))):
            senders = [rank for rank in range(self.size) if j < len(held[rank])]
            parts = self._workspace.array(f"parts {j}, {dtype}", (len(senders), own), dtype)
            if self.rank in senders:
                sent, sizes = nodes[held[self.rank][j]], slices
            else:
                sent, sizes = np.empty(0, dtype), [0] * self.size
            taken = [own * (rank in senders) for rank in range(self.size)]
            self._comm.Alltoallv(_buffer(sent, sizes), _buffer(parts, taken))
            received |= {held[rank][j]: part for rank, part in zip(senders, parts, strict=True)}
        add_up(received, count)
        (root,) = received.values()
        total = self._workspace.array(f"total, {dtype}", (length,), dtype)
        self._all_gather(root, total, slices)
        return total

    def all_reduce(self, x: Array) -> Array:
        """The sum of the arrays of all ranks, in an order that MPI chooses.

        The next call may overwrite it.
        """
        if x.dtype.itemsize == 2:  # MPI has no sum of floats of 16 bits
            x = x.astype(np.float32)
        total = self._workspace.array(f"total, {x.dtype}", x.shape, x.dtype)
        self._comm.Allreduce(x, total)
        return total

    def _all_gather(self, mine: Array, whole: Array, counts: Sequence[int]) -> None:
        if self.size == 1:
            np.copyto(whole, mine)
        else:
            self._comm.Allgatherv(_transferable(mine), _buffer(whole, counts))


@lru_cache(maxsize=8)
def _nodes_of_ranks(count: int, size: int) -> list[list[Node]]:
    """The nodes of the tree over `count` blocks that each rank has."""
    return [nodes_of(share_of_rank(count, rank, size), count) for rank in range(size)]


def _transferable(x: Array) -> Array:
    """The memory of an array in a dtype that MPI knows: it has none for floats of 16 bits."""
    return x.view(np.uint16) if x.dtype.itemsize == 2 else x


def _buffer(x: Array, counts: Sequence[int]) -> list[Any]:
    """What mpi4py takes for an array of which each rank has so many elements."""
    starts = [0, *np.cumsum(counts)[:-1].tolist()]
    return [_transferable(x), (list(counts), starts)]


def raised_by_all(error: ErrorType) -> ErrorType:
    """`error`, which all ranks raise now: nobody will wait for one of them."""
    error.raised_by_all = True  # type: ignore[attr-defined]
    return error


def _is_raised_by_all(error: BaseException | None) -> bool:
    """Whether this is such an error, or was raised while one was handled."""
    while error is not None and not hasattr(error, "raised_by_all"):
        error = error.__context__
    return error is not None
