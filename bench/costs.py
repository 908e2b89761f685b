"""What each way to compute a product costs here: the tables of cpp/kernels/costs.inl.hpp.

    DROPWISE_ISA=avx2 python3 bench/costs.py [--products 3000]

Products of random shapes, layouts and densities are timed in every way they allow.  Each way's time
is then explained by its terms, the counts that the choice of a way works with: costs that are not
negative, with the least relative error.
"""

from __future__ import annotations

import argparse
import time
from collections import defaultdict
from collections.abc import Callable, Iterator

import numpy as np
import scipy.optimize
from tqdm import tqdm

import dropwise as dw
import harness

_native = harness.optional("dropwise._native")
_SECONDS = 4e-3  # for each way of each product, at least
_WAYS = ("dense", "skipping", "keeping")


def minimum(call: Callable[[], object]) -> float:
    """Seconds of the fastest of some calls."""
    call()
    best, end, calls = float("inf"), time.perf_counter() + _SECONDS, 0
    while calls < 5 or time.perf_counter() < end:
        start = time.perf_counter()
        call()
        best = min(best, time.perf_counter() - start)
        calls += 1
    return best


def size(rng: np.random.Generator, largest: float) -> int:
    return int(np.exp(rng.uniform(np.log(8), np.log(largest))))


def product(rng: np.random.Generator, dtype: type) -> Iterator[tuple[str, list[float], float]]:
    """One product's ways: which kind, its terms, its time in seconds."""
    while True:
        m, k, n = (size(rng, 3000) for _ in range(3))
        if 1e4 < m * k * n < 2e8:
            break
    density = rng.uniform(0.02, 1)
    order = rng.choice(["C", "F"], 2)
    a = np.array(rng.standard_normal((m, k)), dtype, order=order[0])
    b = np.array(rng.standard_normal((k, n)), dtype, order=order[1])
    out = np.empty((m, n), dtype)
    if rng.random() < 0.4:
        kept = rng.random(m * n) < density
        bits = np.packbits(kept, bitorder="little")

        def call(way: str) -> None:
            _native.matmul_kept(a, b, bits, out, None, False, 2.0, "", way=way)

        ways = {"dense": "dense", "kept": "keeping"}
    else:
        bits = None
        zeros = "ab"[rng.integers(2)]
        operand = a if zeros == "a" else b
        operand *= rng.random(operand.shape) < density

        def call(way: str) -> None:
            _native.matmul(a, b, out, None, False, zeros, way=way)

        ways = {"dense": "dense", zeros: "skipping"}
    for way, kind in ways.items():
        terms = _native.product_terms(a, b, out, way, bits is not None, density)
        yield kind, terms, minimum(lambda way=way: call(way))


def fit(terms: np.ndarray, seconds: np.ndarray) -> np.ndarray:
    """Picoseconds for each term."""
    relative = terms / (seconds[:, None] * 1e12)
    scale = np.abs(relative).mean(axis=0)
    scale[scale == 0] = 1
    costs, _ = scipy.optimize.nnls(relative / scale, np.ones(len(seconds)))
    return costs / scale


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--products", type=int, default=3000, help="for each dtype")
    parser.add_argument("--seed", type=int, default=0)
    args = parser.parse_args()
    dw.use_backend("native")
    dw.set_num_threads(1)
    for dtype in (np.float32, np.float64):
        rng = np.random.default_rng(args.seed)
        samples = defaultdict(list)
        for _ in tqdm(range(args.products), np.dtype(dtype).name):
            for kind, terms, seconds in product(rng, dtype):
                samples[kind].append((terms, seconds))
        print(np.dtype(dtype))
        for kind in _WAYS:
            terms = np.array([t for t, _ in samples[kind]])
            seconds = np.array([s for _, s in samples[kind]])
            costs = fit(terms, seconds)
            error = terms @ costs / (seconds * 1e12) - 1
            values = ", ".join(f"{c:.4g}" for c in costs)
            print(f"    {{{values}}},  // {kind}: 90 % within {np.quantile(abs(error), 0.9):.0%}")


if __name__ == "__main__":
    main()
