"""Counts of the elements of a mask, and how probable they are if its elements are independent.

    python3 bench/statistics/mask_counts.py --rate 0.3 --elements 2**36

Counted are the dropped elements, in all and at each place in an output of Philox; pairs of elements
a lag apart, each element in one pair; patterns of 8 elements; and how long runs of dropped elements
are.  Numbers of elements and of pairs are binomial, patterns and lengths are judged by chi-square.
A p-value is that of both sides: of a sound mask it is below a with probability a.
"""

from __future__ import annotations

import argparse
import sys
import time
from typing import Any

import numpy as np
import scipy.stats
from numpy.typing import NDArray
from rich.console import Console
from rich.table import Table
from tqdm import tqdm

import dropwise as dw
from dropwise._arrays import make_bits
from dropwise._backends.protocol import Bits

CHUNK = 1 << 22  # elements
BLOCK = 128  # elements of an output of Philox
LAGS = (1, 2, 4, 8, 16, 32, 64, 128, 256, 1024, 1 << 14, 1 << 20)
LENGTHS = 256  # of runs: longer ones count as that long
ENOUGH = 100  # expected in a cell of chi-square, where that is a good approximation
ALARM = 1e-6


def both_sides(distribution: Any, value: float) -> float:
    """The p-value of what is as far out on either side."""
    below = distribution.cdf(value)
    above = distribution.sf(value - 1 if hasattr(distribution, "pmf") else value)
    return float(min(1.0, 2 * min(below, above)))


def chi_square(observed: NDArray[Any], probabilities: NDArray[Any]) -> float:
    """The p-value of counts; cells of which too little is expected are put together."""
    order = np.argsort(probabilities)
    observed, probabilities = observed[order], probabilities[order]
    total = int(observed.sum())
    rare = int(np.searchsorted(total * probabilities, ENOUGH))
    if rare and total * probabilities[:rare].sum() < ENOUGH and rare < probabilities.size - 1:
        rare += 1
    if rare:
        observed = np.append(observed[:rare].sum(), observed[rare:])
        probabilities = np.append(probabilities[:rare].sum(), probabilities[rare:])
    if observed.size == 2:  # exactly, which may need few
        return both_sides(scipy.stats.binom(total, probabilities[0]), int(observed[0]))
    deviations = (observed - total * probabilities) ** 2 / (total * probabilities)
    return both_sides(scipy.stats.chi2(observed.size - 1), float(deviations.sum()))


class MaskCounts:
    """Counts of masks of one rate, added up over runs of elements.

    Parameters
    ----------
    rate : float in (0, 1)
    lags : sequence of int
        Powers of two.
    """

    def __init__(self, rate: float, lags: tuple[int, ...] = LAGS) -> None:
        self.rate = rate
        self.elements = 0
        self.bytes = np.zeros((BLOCK // 8, 256), np.int64)  # which byte, at each place in a block
        self.both = dict.fromkeys(lags, 0)  # pairs of which both elements are dropped
        self.differ = dict.fromkeys(lags, 0)
        self.lengths = np.zeros(LENGTHS + 1, np.int64)

    def add(self, packed: Bits) -> None:
        """Count a packed mask, of a multiple of twice the longest lag of elements."""
        self.elements += 8 * packed.size
        places = np.arange(0, self.bytes.size, 256, dtype=np.int64)
        cells = packed.reshape(-1, len(self.bytes)) + places
        self.bytes += np.bincount(cells.ravel(), minlength=self.bytes.size).reshape(-1, 256)
        dropped = np.unpackbits(~packed, bitorder="little").view(np.bool_)
        for lag in self.both:
            first, second = np.moveaxis(dropped.reshape(-1, 2, lag), 1, 0)
            self.both[lag] += np.count_nonzero(first & second)
            self.differ[lag] += np.count_nonzero(first ^ second)
        changes = np.flatnonzero(dropped[1:] != dropped[:-1])
        lengths = np.diff(changes)[int(dropped[0]) :: 2]  # whole runs: of dropped ones every other
        self.lengths += np.bincount(np.minimum(lengths, LENGTHS), minlength=LENGTHS + 1)

    def p_values(self) -> dict[str, float]:
        """The p-value of each test."""
        p, q = self.rate, 1 - self.rate
        n_dropped = 8 - np.array([bin(byte).count("1") for byte in range(256)])
        is_dropped = ~np.arange(256)[:, None] >> np.arange(8) & 1  # [256, 8]
        each = self.elements // BLOCK
        at_places = self.bytes @ is_dropped
        deviations = (at_places - each * p) ** 2 / (each * p * q)
        found = {
            "frequency": both_sides(
                scipy.stats.binom(self.elements, p), int(self.bytes.sum(0) @ n_dropped)
            ),
            "places": both_sides(scipy.stats.chi2(BLOCK), float(deviations.sum())),
            "patterns": chi_square(self.bytes.sum(0), p**n_dropped * q ** (8 - n_dropped)),
        }
        pairs = self.elements // 2
        for lag in self.both:
            found[f"lag {lag}, both"] = both_sides(scipy.stats.binom(pairs, p * p), self.both[lag])
            differing = scipy.stats.binom(pairs, 2 * p * q)
            found[f"lag {lag}, differ"] = both_sides(differing, self.differ[lag])
        lengths = q * p ** np.arange(LENGTHS)
        lengths[-1] /= q
        found["runs"] = chi_square(self.lengths[1:], lengths)
        return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--rate", type=float, default=0.3)
    parser.add_argument("--elements", default="2**32", help="2**22 or a higher power")
    parser.add_argument("--key", type=int, default=20240229)
    args = parser.parse_args()
    base, _, exponent = args.elements.partition("**")
    power = int(exponent) if base == "2" and exponent.isdecimal() else 0
    if power < 22:
        parser.error(f"--elements must be 2**22 or a higher power, got {args.elements}")
    elements = 1 << power
    started = time.monotonic()
    counts = MaskCounts(args.rate)
    for first in tqdm(range(0, elements, CHUNK), unit="chunk", mininterval=1, disable=None):
        counts.add(make_bits(CHUNK, args.rate, args.key, 0, first))
    p_values = counts.p_values()
    table = Table("test", "p-value")
    for name, p_value in p_values.items():
        table.add_row(name, f"{p_value:.4f}" if p_value >= 1e-4 else f"{p_value:.1e}")
    Console().print(table)
    smallest = min(p_values.values())
    print(
        f"{args.elements} elements at rate {args.rate}, key {args.key}, dropwise {dw.__version__}, "
        f"{time.monotonic() - started:.0f} s\n"
        f"{len(p_values)} p-values, the smallest is {smallest:.2g}"
    )
    if smallest < ALARM:
        sys.exit(f"below {ALARM}: such a mask is one in a million")


if __name__ == "__main__":
    main()
