"""What Dask adds to the time of dropout and of predictions.

    python3 bench/dask_door.py [--quick] [--threads 2]

The same chunks in memory, one call after the other, and as one array of Dask, building its graph
included.  Every chunk is the same block of memory, and of each result a few numbers are kept, so
that nothing but the calls is timed.  dask_memory.py measures what memory a large array takes.
"""

from __future__ import annotations

import argparse
import math
import sys
from collections.abc import Callable, Iterable, Mapping
from typing import Any

import numpy as np
from rich.table import Table

import dask_memory
import dropwise as dw
import harness
from dropwise import functional as F
from harness import Case, Contender, Goal, Question

if harness.optional("dask"):
    import dask.array as da

    import dropwise.dask as dd

RATE, KEY = 0.5, 1
SCALE = np.float32(1 / (1 - RATE))
CHUNKS = 16
SIDES = (512, 1024, 2048, 4096)  # chunks of 1, 4, 16 and 64 MiB
ROWS, SIZES = 1 << 14, (512, 512, 10)

IN_MEMORY, DASK = "in memory", "Dask"
NUMPY, NUMPY_DASK = "NumPy", "NumPy, Dask"


def few(y: np.ndarray) -> np.ndarray:
    """What is kept of a result."""
    return y[:1, :8].copy()


def numpy_dropout(x: np.ndarray) -> np.ndarray:
    """Dropout as most programs write it."""
    keep = np.float32(1 - RATE)
    return (np.random.default_rng().random(x.shape, np.float32) < keep) * x / keep


def array_of(block: np.ndarray, rows: int, columns: int) -> Any:
    """An array of Dask whose chunks are all this block."""
    one = da.from_array(block, chunks=block.shape)
    return da.block([[one] * columns] * rows)


def dropout_case(what: str, block: np.ndarray, rows: int, columns: int, threads: int) -> Case:
    """Chunks that span the whole rows of the array, or that do not."""
    height, width = block.shape
    x = array_of(block, rows, columns)
    places = [(i * height, j * width) for i in range(rows) for j in range(columns)]
    expected = [
        few(F.dropout(block, RATE, key=KEY, within=(place, x.shape))).ravel() for place in places
    ]

    def in_memory() -> list[np.ndarray]:
        return [few(F.dropout(block, RATE, key=KEY, within=(p, x.shape))) for p in places]

    def through(task: Callable[[Any], Any]) -> Callable[[], np.ndarray]:
        def call() -> np.ndarray:
            kept = task(x).map_blocks(few, chunks=(1, 8), dtype=x.dtype, meta=x._meta)
            result: np.ndarray = kept.compute(scheduler="threads", num_workers=threads)
            return result

        return call

    def same(results: Any) -> None:
        if isinstance(results, np.ndarray):  # [rows, 8 * columns]
            results = results.reshape(len(expected), 8)
        for found, wanted in zip(results, expected, strict=True):
            np.testing.assert_array_equal(found.ravel(), wanted)

    def dropped(results: Any) -> None:
        y = np.concatenate([np.ravel(r) for r in results])
        x = np.tile(few(block).ravel(), len(places))
        assert np.all((y == 0) | (y == x * SCALE))
        assert abs((y == 0).mean() - RATE) < 6 * math.sqrt(RATE * (1 - RATE) / y.size)

    def plain(x: Any) -> Any:
        return x.map_blocks(numpy_dropout, dtype=x.dtype, meta=x._meta)

    contenders = [
        Contender(IN_MEMORY, in_memory, same),
        Contender(DASK, through(lambda x: dd.dropout(x, RATE, key=KEY)), same),
        Contender(NUMPY, lambda: [few(numpy_dropout(block)) for _ in places], dropped),
        Contender(NUMPY_DASK, through(plain), dropped),
    ]
    return Case({"what": what, "MiB": block.nbytes >> 20}, contenders)


def predict_case(rows: int, chunks: int, threads: int) -> Case:
    """Rows for a network, in chunks that end where it begins with others in memory."""
    layers = [dw.Dense(SIZES[0], SIZES[1]), dw.ReLU(), dw.Dropout(0.5), dw.Dense(*SIZES[1:])]
    net = dw.Sequential(layers, seed=0)
    block = np.random.default_rng(0).standard_normal((rows, SIZES[0])).astype(np.float32)
    x = array_of(block, chunks, 1)
    expected = np.concatenate([few(net.predict(block))] * chunks)

    def in_memory() -> np.ndarray:
        return np.concatenate([few(net.predict(block)) for _ in range(chunks)])

    def by_dask() -> np.ndarray:
        scores = dd.predict(net, x)
        kept = scores.map_blocks(few, chunks=(1, 8), dtype=scores.dtype, meta=scores._meta)
        result: np.ndarray = kept.compute(scheduler="threads", num_workers=threads)
        return result

    def same(result: np.ndarray) -> None:
        np.testing.assert_array_equal(result, expected)

    return Case(
        {"what": "predict", "rows": rows},
        [Contender(IN_MEMORY, in_memory, same), Contender(DASK, by_dask, same)],
    )


def cases(args: argparse.Namespace) -> Iterable[Case]:
    for side in SIDES[:1] if args.quick else SIDES:
        block = np.random.default_rng(side).random((side, side), dtype=np.float32) + 0.5
        yield dropout_case("dropout, whole rows", block, CHUNKS, 1, args.threads)
        yield dropout_case("dropout, parts of rows", block, CHUNKS // 4, 4, args.threads)
    yield predict_case(ROWS >> 4 if args.quick else ROWS, 4, args.threads)


GOALS = [
    *(
        Goal(f"{what}, chunks of 64 MiB", IN_MEMORY, ">=", 0.8, 0.95, DASK, (IN_MEMORY,),
             {"what": what, "MiB": 64})
        for what in ("dropout, whole rows", "dropout, parts of rows")
    ),
    Goal("dropout, chunks of 64 MiB", NUMPY_DASK, ">=", 6, 12, DASK, (NUMPY_DASK,),
         {"what": "dropout, whole rows", "MiB": 64}),
    Goal("predict", IN_MEMORY, ">=", 0.8, 0.95, DASK, (IN_MEMORY,), {"what": "predict"}),
]  # fmt: skip


def memory() -> dict[str, Any]:
    """What an array of 16 GiB takes; left out with --quick, as it takes a while."""
    return {} if "--quick" in sys.argv else {"peak_mib_of_16_gib": dask_memory.peak(16, 2)}


def summary(result: Mapping[str, Any]) -> Iterable[Table]:
    """The memory."""
    if "peak_mib_of_16_gib" in result["extra"]:
        table = Table("16 GiB, two threads", title="peak memory")
        table.add_row(f"{result['extra']['peak_mib_of_16_gib']:.0f} MiB")
        yield table


QUESTION = Question(
    "dask_door",
    __doc__.partition("\n")[0],
    cases,
    GOALS,
    extra=memory,
    summary=summary,
    seconds=2.0,
)

if __name__ == "__main__":
    harness.main(QUESTION)
