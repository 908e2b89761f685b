"""How much memory training needs beyond the interpreter, the libraries and the data.

    python3 bench/memory.py

Each library trains in a process of its own, first a tiny network, so that it has loaded what it
loads at first use, then five epochs of the largest network of fit.py.
"""

from __future__ import annotations

import argparse
import subprocess
import sys

import dropwise as dw
import harness
import trainers

SIZES, BATCH = (784, 1024, 1024, 10), 128
NAMES = ("native", "PyTorch")


def grown(name: str) -> float:
    """Mebibytes by which this process grows when it trains."""

    def train(problem: trainers.Problem, epochs: int) -> None:
        epoch = (
            trainers.torch_epoch(problem, 0.5, fused=True)
            if name == "PyTorch"
            else trainers.ours(problem, 0.5)
        )
        for _ in range(epochs):
            epoch()

    if name != "PyTorch":
        dw.set_backend(name)
    train(trainers.Problem((8, 8, 8, 10), 4, 2), 2)
    problem = trainers.Problem(SIZES, BATCH, 4)
    before = harness.mebibytes("VmRSS")
    train(problem, 5)
    return harness.mebibytes("VmHWM") - before


def peaks() -> dict[str, float]:
    """Mebibytes for each library that is installed."""
    found = {}
    for name in NAMES:
        if name == "PyTorch" and trainers._torch is None:
            continue
        command = [sys.executable, __file__, "--only", name]
        run = subprocess.run(command, capture_output=True, text=True, check=True)
        found[name] = float(run.stdout)
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--only", choices=NAMES, help="in this process")
    args = parser.parse_args()
    if args.only:
        print(f"{grown(args.only):.1f}")
        return
    for name, size in peaks().items():
        print(f"{name}: {size:.1f} MiB")


if __name__ == "__main__":
    main()
