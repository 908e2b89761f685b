"""Masks look random.  On one instruction set, since all give the same bits."""

from __future__ import annotations

import numpy as np
import pytest

from samples import CHUNK, pack
from support import require

N_STAT = 1 << 24


@pytest.fixture(scope="module")
def draw():
    """Bool masks of N_STAT elements from a fixed key."""
    native = require("dropwise._native")

    def get(rate, stream=0):
        bits = np.empty(N_STAT // 8, np.uint8)
        native.mask_bits(bits, N_STAT, rate, 20240229, stream, 0)
        return np.unpackbits(bits, bitorder="little").view(bool)

    return get


# Each z is normal(0, 1) for independent elements; |z| > 5 happens by chance once in 1.7 million.
STAT_RATES = [0.5, 0.25, 0.1, 0.3, 0.9, 1e-3]


def z_score(hits, n, p):
    return abs(hits - n * p) / np.sqrt(n * p * (1 - p))


@pytest.mark.parametrize("rate", STAT_RATES)
def test_the_share_of_dropped_elements_is_the_rate(draw, rate):
    assert z_score(np.count_nonzero(~draw(rate)), N_STAT, rate) < 5


@pytest.mark.parametrize("rate", STAT_RATES)
@pytest.mark.parametrize("lag", [1, 2, 32, 64, 127, 128, 1024, CHUNK])
def test_elements_are_dropped_independently_of_their_neighbours(draw, rate, lag):
    dropped = ~draw(rate)
    # Centred products of neighbours: mean 0, variance (p (1 - p))**2, uncorrelated with each other.
    p = rate
    both = np.count_nonzero(dropped[lag:] & dropped[:-lag])
    single = np.count_nonzero(dropped[lag:]) + np.count_nonzero(dropped[:-lag])
    n = N_STAT - lag
    assert abs(both - p * single + n * p * p) / (np.sqrt(n) * p * (1 - p)) < 5


@pytest.mark.parametrize("rate", [0.5, 0.1])
def test_streams_are_independent(draw, rate):
    a, b = ~draw(rate, stream=1), ~draw(rate, stream=2)
    both, single = np.count_nonzero(a & b), np.count_nonzero(a) + np.count_nonzero(b)
    p, n = rate, N_STAT
    assert abs(both - p * single + n * p * p) / (np.sqrt(n) * p * (1 - p)) < 5


def test_all_bytes_of_a_mask_at_rate_one_half_are_as_likely(draw):
    counts = np.bincount(pack(draw(0.5)), minlength=256)
    want = N_STAT / 8 / 256
    chi2 = ((counts - want) ** 2 / want).sum()
    # Wilson-Hilferty at 5 sigma, 6e-7 (both sides), 255 degrees of freedom.
    low, high = (255 * (1 - 2 / (9 * 255) + z * np.sqrt(2 / (9 * 255))) ** 3 for z in (-5, 5))
    assert low < chi2 < high
