"""What bench/statistics gives to batteries of tests: the words of Philox, and fair bits."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from mask_contract import philox4x32_10
from support import require

for needed in ("numba", "scipy", "rich", "tqdm"):
    require(needed)

from mask_counts import chi_square
from pipe import fair_bits

BENCH = Path(__file__).parents[2] / "bench" / "statistics"
KEY = 20240229


def piped(n, *options):
    """The first `n` bytes, from a reader that closes its end then; and what is said about it."""
    command = [sys.executable, str(BENCH / "pipe.py"), *options]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE) as process:
        data = process.stdout.read(n)
        process.stdout.close()
        said = process.stderr.read().decode()
        assert process.wait(60) == 0, said
    return data, said


def words_of(stream, position):
    """The output of Philox for the first plane of a mask: all that rate 1/2 takes."""
    counter = (position, 0, stream, 1 << 24)
    return b"".join(w.to_bytes(4, "little") for w in philox4x32_10(counter, (KEY, 0)))


def test_raw_words_are_the_output_of_philox():
    data, said = piped(1600)
    assert data == b"".join(words_of(0, i) for i in range(100))
    assert "bytes in" in said


def test_words_may_come_from_stream_after_stream():
    data, _ = piped(1600, "--across", "streams")
    assert data == b"".join(words_of(i, 0) for i in range(100))


def test_fair_bits_are_the_first_of_each_two_that_differ():
    rng = np.random.default_rng(0)
    kept = rng.random(1 << 14) < 0.9
    pairs = kept.reshape(-1, 2)
    want = pairs[pairs[:, 0] != pairs[:, 1], 0]
    got = np.unpackbits(fair_bits(np.packbits(kept, bitorder="little")), bitorder="little")
    np.testing.assert_array_equal(got, want[: want.size // 32 * 32])
    assert got.size > 1000


def test_a_mask_of_another_rate_gives_fair_bits():
    data, _ = piped(1 << 16, "--rate", "0.1")
    counts = np.bincount(np.frombuffer(data, np.uint8), minlength=256)
    assert chi_square(counts, np.full(256, 1 / 256)) > 1e-6


def test_elements_are_counted_and_judged():
    command = [sys.executable, str(BENCH / "mask_counts.py"), "--elements", "2**22"]
    run = subprocess.run(command, capture_output=True, text=True, timeout=300)
    assert run.returncode == 0, run.stderr
    assert "2**22 elements at rate 0.3" in run.stdout
    assert "28 p-values, the smallest is" in run.stdout


@pytest.mark.parametrize("elements", ["1000", "2**22+1", "3**15"])
def test_a_number_of_elements_that_cannot_be_counted_is_refused(elements):
    command = [sys.executable, str(BENCH / "mask_counts.py"), "--elements", elements]
    run = subprocess.run(command, capture_output=True, text=True, timeout=300)
    assert run.returncode == 2
    assert f"must be 2**22 or a higher power, got {elements}" in run.stderr


def test_chi_square_is_that_of_scipy_and_exact_for_two_cells():
    from scipy import stats

    probabilities = np.full(10, 0.1)
    observed = np.array([1010, 985, 1003, 1047, 950, 1000, 1001, 1020, 987, 997])
    above = stats.chisquare(observed).pvalue
    assert chi_square(observed, probabilities) == pytest.approx(2 * min(above, 1 - above))
    rare = np.array([1e-3, 1 - 1e-3])
    few = np.array([20, 9980])
    exact = stats.binom(10_000, 1e-3)
    assert chi_square(few, rare) == pytest.approx(2 * exact.sf(19))
