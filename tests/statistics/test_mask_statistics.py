"""Masks look random, in every order in which their elements may be read.

Keys are fixed, so a test passes always or never.  Were they not, each p-value would be below 1e-7
with that probability (`bench/statistics/mask_counts.py` computes them).  All tests of this file
look at less than 1000, so one run in 10,000 would fail by chance.  On one instruction set, since
all give the same bits.
"""

from __future__ import annotations

import functools

import numpy as np
import pytest

from support import require

for needed in ("scipy", "rich", "tqdm", "dropwise._native"):
    require(needed)

from dropwise._arrays import make_bits
from mask_counts import BLOCK, MaskCounts
from samples import pack, unpack

N = 1 << 22
ALARM = 1e-7
LAGS = (1, 2, 4, 8, 32, 64, 128, 256, 1024, 1 << 15, 1 << 20)
RATES = [1e-3, 0.01, 0.05, 0.1, 0.2, 0.25, 0.3, 1 / 3, 0.5, 0.9]
KEY = 20240229


def blocks(rate, specs):
    """The first block of each (key, stream), one after the other."""
    return np.concatenate([make_bits(BLOCK, rate, key, stream, 0) for key, stream in specs])


def columns(rate):
    """A matrix of 2048 columns, column after column."""
    kept = unpack(make_bits(N, rate, KEY, 0, 0), N)
    return pack(kept.reshape(-1, 2048).T)


# What is counted: so many elements, in this order.
ORDERS = {
    "rows": lambda rate: make_bits(N, rate, KEY, 0, 0),
    "columns": columns,
    "far out": lambda rate: make_bits(N, rate, KEY, 2**56 - 1, 2**64 - N),
    "streams": lambda rate: blocks(rate, ((KEY, i) for i in range(N // 4 // BLOCK))),
    "keys": lambda rate: blocks(rate, ((i, 0) for i in range(N // 4 // BLOCK))),
    # A counter that was added to another would give both the same.
    "keys and streams": lambda rate: blocks(
        rate, (pair for i in range(N // 8 // BLOCK) for pair in ((KEY, i + 1), (KEY + 1, i)))
    ),
}


def p_values(packed, rate):
    lags = tuple(lag for lag in LAGS if 2 * lag <= 8 * packed.size)
    counts = MaskCounts(rate, lags)
    counts.add(packed)
    return counts.p_values()


def alarms(packed, rate):
    """The tests that a mask does not pass."""
    return {name: p for name, p in p_values(packed, rate).items() if p < ALARM}


@pytest.mark.parametrize("rate", RATES)
@pytest.mark.parametrize("order", ["rows", "columns", "far out"])
def test_a_mask_is_random_at_every_rate(order, rate):
    assert alarms(ORDERS[order](rate), rate) == {}


@pytest.mark.parametrize("rate", [0.1, 0.5])
@pytest.mark.parametrize("order", ["streams", "keys", "keys and streams"])
def test_streams_and_keys_are_random_together(order, rate):
    assert alarms(ORDERS[order](rate), rate) == {}


def test_p_values_are_spread_evenly():
    # 200 masks; by chance one in 10**7 such sets is that far from even (Kolmogorov-Smirnov).
    from scipy import stats

    found = {"frequency": [], "places": [], "patterns": [], "runs": [], "lag 1, differ": []}
    for stream in range(200):
        counts = MaskCounts(0.3, (1,))
        counts.add(make_bits(1 << 17, 0.3, KEY, stream, 0))
        for name, p in counts.p_values().items():
            if name in found:
                found[name].append(p)
    for name, p in found.items():
        assert stats.kstest(p, "uniform").pvalue > ALARM, name


# ---- what is not random is found ----------------------------------------------------------------


def dropped(rate, n=N):
    return np.random.default_rng(1).random(n) < rate


def too_many(rate):
    return dropped(rate * 1.05)


def wrong_place(rate):
    d = dropped(rate)
    d[5::BLOCK] |= dropped(0.1, N // BLOCK)
    return d


def repeated(lag, rate):
    """One element in 50 is that of a lag before."""
    d = dropped(rate)
    at = np.flatnonzero(np.random.default_rng(2).random(N) < 0.02)
    at = at[at >= lag]
    d[at] = d[at - lag]
    return d


def parity(rate):
    """Of eight elements the last follows from the others; any seven are independent."""
    d = dropped(0.5).reshape(-1, 8)
    d[:, 7] = np.bitwise_xor.reduce(d[:, :7], axis=1)
    return d.reshape(-1)


def short_runs(rate):
    """No run is longer than 12, which no eight neighbours show."""
    d = dropped(rate)
    long_run = np.lib.stride_tricks.sliding_window_view(d, 13).all(axis=1)
    d[np.flatnonzero(long_run) + 12] = False
    return d


@pytest.mark.parametrize(
    ("broken", "rate", "test"),
    [
        (too_many, 1e-2, "frequency"),
        (too_many, 1 / 3, "frequency"),
        (wrong_place, 0.3, "places"),
        *((functools.partial(repeated, lag), 0.5, f"lag {lag}, differ") for lag in LAGS),
        *((functools.partial(repeated, lag), 0.01, f"lag {lag}, both") for lag in LAGS),
        (parity, 0.5, "patterns"),
        (short_runs, 0.5, "runs"),
    ],
)
def test_what_is_not_random_sets_off_its_alarm(broken, rate, test):
    assert alarms(pack(~dropped(rate)), rate) == {}
    assert test in alarms(pack(~broken(rate)), rate)


def test_a_stream_that_continues_another_sets_off_an_alarm():
    rate = 0.5
    same = (pair for i in range(N // 8 // BLOCK) for pair in ((KEY + i, 0), (KEY + i, 0)))
    assert "lag 128, differ" in alarms(blocks(rate, same), rate)
