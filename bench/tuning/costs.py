"""What each strategy of a product costs here: the values in cpp/kernels/costs.inl.hpp.

    DROPWISE_ISA=avx2 python3 bench/tuning/costs.py [--products 3000]

Products of random shapes, layouts and densities are timed densely and skipping zeros, in turns.
The time of either strategy is explained by its terms, the counts that the choice works with: costs
that are not negative, with the least relative error.  Then costs are moved until the ratio of both
times comes out right, most of all where it is near 1.  The ratio is what decides, and a disturbance
of the machine, which meets both alike, cancels in it.
"""

from __future__ import annotations

import argparse
import dataclasses
import functools
import math
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
import scipy.optimize
from tqdm import tqdm

import dropwise as dw
from dropwise._backends.protocol import Product

sys.path.insert(0, str(Path(__file__).parents[1]))
import harness

_native = harness.optional("dropwise._native")
_SECONDS = 0.03  # for each product, at least
_NEAR = 0.15  # ratios this near to 1 count alike, others less
_OUTLIER = 0.2  # errors larger than that grow in proportion, not as squares
_STIFFNESS = 1.0  # how much costs hold on to where they started, against all products
_NEXT_TO_NOTHING = 1e-3  # of the time of a product: where costs that were zero start
_STRATEGIES = ("dense", "skip", "kept")  # names in the tables


def minima(calls: Sequence[Callable[[], object]]) -> list[float]:
    """Seconds of the fastest call of each, in turns."""
    for call in calls:
        call()
    best, end, rounds = [float("inf")] * len(calls), time.perf_counter() + _SECONDS, 0
    while rounds < 5 or time.perf_counter() < end:
        for i, call in enumerate(calls):
            start = time.perf_counter()
            call()
            best[i] = min(best[i], time.perf_counter() - start)
        rounds += 1
    return best


def shape(rng: np.random.Generator) -> tuple[int, int, int]:
    """Dimensions of a product; half of the time those of whole vectors."""
    step = rng.choice([1, 16])
    while True:
        m, k, n = (
            step * math.ceil(np.exp(rng.uniform(np.log(8), np.log(3000))) / step) for _ in range(3)
        )
        if 1e4 < m * k * n < 1.5e8:
            return m, k, n


class Sample(NamedTuple):
    """One product: how it skips zeros, and the terms and seconds of both strategies."""

    kind: str
    dense: dict[str, float]
    sparse: dict[str, float]
    dense_seconds: float
    sparse_seconds: float


def sample(rng: np.random.Generator, dtype: type) -> Sample:
    """Time a random product."""
    m, k, n = shape(rng)
    density = rng.uniform(0.1, 1)  # below, skipping is faster anyway
    order = rng.choice(["C", "F"], 2)
    a = np.array(rng.standard_normal((m, k)), dtype, order=order[0])
    b = np.array(rng.standard_normal((k, n)), dtype, order=order[1])
    out = np.empty((m, n), dtype)
    kept = rng.random() < 0.4
    if kept:
        strategy = "kept"
        bits = np.packbits(rng.random(m * n) < density, bitorder="little")
        product = Product(a, b, out, bits=bits, scale=2.0)
    else:
        zeros = "ab"[rng.integers(2)]
        strategy = f"skip_{zeros}"
        operand = a if zeros == "a" else b
        operand *= rng.random(operand.shape) < density
        product = Product(a, b, out, skip=zeros)

    both = [dataclasses.replace(product, strategy=name) for name in ("dense", strategy)]
    terms = [_native.product_terms(each, density) for each in both]
    seconds = minima([functools.partial(_native.multiply, [each]) for each in both])
    return Sample("kept" if kept else "skip", *terms, *seconds)


def fit(terms: np.ndarray, seconds: np.ndarray) -> np.ndarray:
    """Picoseconds for each term, above zero."""
    relative = terms / (seconds[:, None] * 1e12)
    scale = np.abs(relative).mean(axis=0)
    scale[scale == 0] = np.inf  # of a term that never occurs
    costs, _ = scipy.optimize.nnls(relative / scale, np.ones(len(seconds)))
    return np.maximum(costs, _NEXT_TO_NOTHING) / scale


def fit_ratios(samples: Sequence[Sample]) -> tuple[dict[str, np.ndarray], np.ndarray]:
    """Costs of each strategy, and the errors of the ratios that they give: natural logarithms."""
    seconds = np.array([(s.dense_seconds, s.sparse_seconds) for s in samples])
    dense = np.array([list(s.dense.values()) for s in samples])
    kinds = {kind: np.array([s.kind == kind for s in samples]) for kind in _STRATEGIES[1:]}
    sparse = {
        kind: np.array([list(s.sparse.values()) for s in samples if s.kind == kind])
        for kind in kinds
    }
    start = {"dense": fit(dense, seconds[:, 0])}
    start |= {kind: fit(sparse[kind], seconds[rows, 1]) for kind, rows in kinds.items()}
    measured = np.log(seconds[:, 0] / seconds[:, 1])
    weight = 1 / np.sqrt(_NEAR + np.abs(measured))

    def moved(steps: np.ndarray) -> dict[str, np.ndarray]:
        parts = np.split(steps, np.cumsum([len(start[name]) for name in _STRATEGIES])[:-1])
        each = zip(_STRATEGIES, parts, strict=True)
        return {name: start[name] * np.exp(part) for name, part in each}

    def errors(costs: dict[str, np.ndarray]) -> np.ndarray:
        past = np.empty(len(samples))
        for kind, rows in kinds.items():
            past[rows] = sparse[kind] @ costs[kind]
        # Far from all costs that make sense, what pairs save may exceed what there is to do.
        return np.log(dense @ costs["dense"] / np.maximum(past, 1)) - measured

    def residuals(steps: np.ndarray) -> np.ndarray:
        return np.append(weight * errors(moved(steps)), _STIFFNESS * steps)

    steps = np.zeros(sum(map(len, start.values())))
    found = scipy.optimize.least_squares(
        residuals, steps, bounds=(-5, 5), loss="soft_l1", f_scale=_OUTLIER
    )
    costs = moved(found.x)
    return costs, errors(costs)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--products", type=int, default=3000, help="for each dtype")
    parser.add_argument("--seed", type=int, default=0)
    args = parser.parse_args()
    dw.set_backend("native")
    dw.set_num_threads(1)
    for dtype in (np.float32, np.float64):
        rng = np.random.default_rng(args.seed)
        products = tqdm(range(args.products), np.dtype(dtype).name)
        samples = [sample(rng, dtype) for _ in products]
        costs, errors = fit_ratios(samples)
        names = {"dense": list(samples[0].dense)}
        names |= {s.kind: list(s.sparse) for s in samples}
        print(f"{np.dtype(dtype)}: 90 % of ratios within {np.quantile(abs(errors), 0.9):.0%}")
        for strategy, values in costs.items():
            for name, value in zip(names[strategy], values, strict=True):
                print(f"    {strategy}.{name} = {value:.4g}")


if __name__ == "__main__":
    main()
