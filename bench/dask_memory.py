"""The memory in which a large array of Dask goes through dropout, chunk by chunk.

    python3 bench/dask_memory.py [--gib 16] [--threads 2]

A process of its own makes the array in chunks of 64 MiB, drops half of it, and counts what is left;
its peak is all that it takes, the interpreter included.
"""

from __future__ import annotations

import argparse
import math
import subprocess
import sys
from typing import Any

import numpy as np

import harness

SIDE = 4096  # of a chunk


def drop(gib: float, threads: int) -> float:
    """The peak in MiB of this process when it drops half of an array of that size."""
    import dask.array as da

    from dropwise.dask import dropout

    def new_chunk(block_id: Any = None) -> np.ndarray:
        return np.full((SIDE, SIDE), 2, np.float32)

    def count(y: np.ndarray) -> np.ndarray:
        return np.count_nonzero(y, keepdims=True)

    chunks = ((SIDE,) * math.ceil(4 * gib), (SIDE,) * 4)
    x = da.map_blocks(new_chunk, chunks=chunks, dtype="f4", meta=np.empty((0, 0), "f4"))
    kept = dropout(x, 0.5, key=1).map_blocks(
        count, chunks=(1, 1), dtype=np.intp, meta=np.empty((0, 0), np.intp)
    )
    left = int(kept.compute(scheduler="threads", num_workers=threads).sum())
    assert abs(left - x.size / 2) < 6 * math.sqrt(x.size / 4), f"{left} of {x.size} are left"
    return harness.mebibytes("VmHWM")


def peak(gib: float, threads: int) -> float:
    """The same in a process of its own."""
    command = [sys.executable, __file__, f"--gib={gib}", f"--threads={threads}", "--here"]
    run = subprocess.run(command, capture_output=True, text=True)
    if run.returncode:
        raise RuntimeError(run.stderr)
    return float(run.stdout)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--gib", type=float, default=16)
    parser.add_argument("--threads", type=int, default=2, help="of Dask")
    parser.add_argument("--here", action="store_true", help="in this process")
    args = parser.parse_args()
    if args.here:
        print(drop(args.gib, args.threads))
    else:
        print(f"{args.gib:g} GiB: at most {peak(args.gib, args.threads):.0f} MiB")


if __name__ == "__main__":
    main()
