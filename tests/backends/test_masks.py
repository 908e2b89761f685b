"""Masks: every instruction set and backend gives the bits of the contract."""

from __future__ import annotations

import itertools
import json
import pathlib

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import mask_contract
from samples import CHUNK, pack, unpack

DATA = pathlib.Path(__file__).parents[1] / "data"
CASES = json.loads((DATA / "mask_vectors.json").read_text())["cases"]


def make_mask(kernels, key, stream, start, n, rate):
    """The packed mask; what lies around it stays as it is."""
    memory = np.full((n + 7) // 8 + 16, 0xA5, np.uint8)
    kernels.mask_bits(memory[8:-8], n, rate, key, stream, start)
    assert (memory[:8] == 0xA5).all()
    assert (memory[-8:] == 0xA5).all()
    return memory[8:-8]


def test_the_reference_gives_the_published_philox_answers():
    lines = (DATA / "philox4x32_10_kat.txt").read_text().splitlines()
    cases = [line.split("|") for line in lines if line and not line.startswith("#")]
    assert len(cases) == 3
    for case in cases:
        counter, key, want = ([int(word, 16) for word in part.split()] for part in case)
        assert mask_contract.philox4x32_10(counter, key) == tuple(want)


@pytest.mark.parametrize("case", [c for c in CASES if c["n"] <= 1000])
def test_both_references_give_the_vectors(case):
    args = {name: case[name] for name in ("key", "stream", "start", "n", "rate")}
    assert mask_contract.packed_mask(**args).hex() == case["mask"]
    assert pack(mask_contract.mask_array(**args)).tobytes().hex() == case["mask"]


KEYS = st.integers(0, 2**64 - 1)
STREAMS = st.integers(0, 2**56 - 1)
STARTS = st.one_of(st.integers(0, 300), st.integers(2**32 - 300, 2**32), st.integers(0, 2**63))
ANY_RATE = st.one_of(
    st.floats(0, 1),
    st.integers(0, 256).map(lambda k: k / 256),
    st.integers(1, 80).map(lambda k: 2.0**-k),
    st.sampled_from([5e-324, 2**-72, 1 - 2**-53, 0.5 + 2**-53, 0.5 - 2**-54, 1 / 3]),
)


@settings(max_examples=30)
@given(key=KEYS, stream=STREAMS, start=STARTS, n=st.integers(0, 300), rate=ANY_RATE)
def test_the_fast_reference_equals_the_slow_one(key, stream, start, n, rate):
    want = mask_contract.packed_mask(key, stream, start, n, rate)
    assert pack(mask_contract.mask_array(key, stream, start, n, rate)).tobytes() == want


def test_masks_are_the_vectors_at_any_number_of_threads(kernels, threads):
    for c in CASES:
        got = make_mask(kernels, c["key"], c["stream"], c["start"], c["n"], c["rate"])
        assert got.tobytes().hex() == c["mask"], {k: v for k, v in c.items() if k != "mask"}


@settings(max_examples=60)
@given(key=KEYS, stream=STREAMS, start=STARTS, n=st.integers(0, 200), rate=ANY_RATE)
def test_a_mask_is_that_of_the_slow_reference(kernels, key, stream, start, n, rate):
    want = mask_contract.packed_mask(key, stream, start, n, rate)
    assert make_mask(kernels, key, stream, start, n, rate).tobytes() == want


@settings(max_examples=40)
@given(key=KEYS, stream=STREAMS, start=STARTS, n=st.integers(0, 3 * CHUNK), rate=ANY_RATE)
def test_a_long_mask_is_that_of_the_fast_reference(kernels, key, stream, start, n, rate):
    want = pack(mask_contract.mask_array(key, stream, start, n, rate))
    assert make_mask(kernels, key, stream, start, n, rate).tobytes() == want.tobytes()


EDGES = [0, 1, 7, 8, 9, 63, 64, 65, 127, 128, 129, 511, 512, 513, 1023, 1024, 1025]


@pytest.mark.parametrize("rate", [0.5, 0.3])
def test_masks_at_every_boundary_of_length_and_offset(kernels, rate):
    key, stream = 99, 3
    whole = mask_contract.mask_array(key, stream, 0, 3 * CHUNK, rate)
    lengths = [*EDGES, CHUNK - 1, CHUNK, CHUNK + 1]
    for n in lengths:
        for start in EDGES:
            got = make_mask(kernels, key, stream, start, n, rate)
            assert got.tobytes() == pack(whole[start : start + n]).tobytes(), (start, n)


@pytest.mark.parametrize("boundary", [2**32, 2**39, 2**63, 3 * 2**39])
@pytest.mark.parametrize("rate", [0.25, 0.3])
def test_masks_cross_the_carries_of_the_counter(kernels, boundary, rate):
    for before in (1, 100, 128, 1000, CHUNK + 129, 2 * CHUNK):
        start, n = boundary - before, before + CHUNK + 77
        want = pack(mask_contract.mask_array(5, 2**40 + 1, start, n, rate))
        got = make_mask(kernels, 5, 2**40 + 1, start, n, rate)
        assert got.tobytes() == want.tobytes(), before


# More than any queue of tied elements holds: some 2700 elements are refined at a generic rate.
@pytest.mark.parametrize("rate", [0.5, 0.1, 1 - 1e-12])
def test_a_mask_of_700001_elements(kernels, threads, rate):
    want = pack(mask_contract.mask_array(2**63 + 1, 11, 12345, 700_001, rate))
    assert make_mask(kernels, 2**63 + 1, 11, 12345, 700_001, rate).tobytes() == want.tobytes()


def test_masks_are_nested_in_rate(kernels):
    rates = [0.0, 1e-9, 2**-9, 0.1, 0.125, 0.25, 0.3, 0.5, 0.500001, 0.75, 0.9, 1.0]
    masks = [unpack(make_mask(kernels, 1, 2, 3, 10_000, rate), 10_000) for rate in rates]
    for lower, higher in itertools.pairwise(masks):
        assert not (higher & ~lower).any()
    assert masks[0].all()
    assert not masks[-1].any()


@settings(max_examples=30)
@given(cuts=st.lists(st.integers(0, 20_000), max_size=6), offset=st.integers(0, 2**40))
def test_shards_are_slices_of_the_whole(kernels, cuts, offset):
    n = 20_000
    whole = unpack(make_mask(kernels, 8, 9, offset, n, 0.3), n)
    edges = [0, *sorted(cuts), n]
    shards = [
        unpack(make_mask(kernels, 8, 9, offset + a, b - a, 0.3), b - a)
        for a, b in itertools.pairwise(edges)
    ]
    np.testing.assert_array_equal(np.concatenate(shards), whole)
