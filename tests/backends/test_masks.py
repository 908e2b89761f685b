"""Masks, dropout, ReLU and nonzero bits: every set and backend gives the bits of the contract."""

from __future__ import annotations

import importlib
import importlib.util
import itertools
import json
import pathlib

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import emulated
import mask_contract
from support import require

ml_dtypes = require("ml_dtypes")

DATA = pathlib.Path(__file__).parents[1] / "data"
CASES = json.loads((DATA / "mask_vectors.json").read_text())["cases"]
CHUNK = 32768  # of the native kernels
STREAM_BYTES = 24 << 20  # input and output beyond this bypass the cache

DTYPES = [np.float32, np.float64, np.float16, ml_dtypes.bfloat16]
RATES = [0.5, 0.25, 0.75, 0.125, 0.1, 0.3, 0.9, 3 / 256, 1e-3]


def _native_sets():
    if importlib.util.find_spec("dropwise._native") is None:
        return []
    return importlib.import_module("dropwise._native").available_isas()


@pytest.fixture(scope="session")
def programs(tmp_path_factory):
    """Commands of the emulated sets, compiled when they are first asked for."""
    commands = {}

    def get(name):
        if name not in commands:
            directory = tmp_path_factory.mktemp("emulated")
            commands[name] = emulated.compile_program(name, directory)
        return commands[name]

    return get


@pytest.fixture(params=[*_native_sets(), *emulated.SETS, "numba"])
def kernels(request, programs):
    """The functions of a backend, on every instruction set that there is."""
    if request.param == "numba":
        require("numba")
        yield importlib.import_module("dropwise._backends.numba").NumbaBackend()
    elif request.param in emulated.SETS:
        process = emulated.EmulatedKernels(programs(request.param))
        yield process
        process.close()
    else:
        native = require("dropwise._native")
        before = native.active_isa()
        native.set_isa(request.param)
        yield native
        native.set_isa(before)


@pytest.fixture(params=[1, 2, 7], ids="{}-threads".format)
def threads(request, kernels):
    before = kernels.num_threads()
    kernels.set_num_threads(request.param)
    yield request.param
    kernels.set_num_threads(before)


@pytest.fixture(params=DTYPES, ids=lambda dtype: np.dtype(dtype).name)
def dtype(request):
    return np.dtype(request.param)


def make_mask(kernels, key, stream, start, n, rate):
    """The packed mask; what lies around it stays as it is."""
    memory = np.full((n + 7) // 8 + 16, 0xA5, np.uint8)
    kernels.mask_bits(memory[8:-8], n, rate, key, stream, start)
    assert (memory[:8] == 0xA5).all()
    assert (memory[-8:] == 0xA5).all()
    return memory[8:-8]


def pack(kept):
    return np.packbits(kept, bitorder="little")


def unpack(bits, n):
    return np.unpackbits(bits, count=n, bitorder="little").astype(bool)


# ---- the oracles ---------------------------------------------------------------------------------


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


# ---- masks ---------------------------------------------------------------------------------------


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


# ---- statistics: one set, since all give the same bits -------------------------------------------

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


# ---- elements ------------------------------------------------------------------------------------


def values(rng, n, dtype):
    """All kinds of floats: of any size and either sign, zeros, infinities, NaN."""
    x = rng.standard_normal(n) * 10.0 ** rng.integers(-9, 9, n)
    special = [0.0, -0.0, np.inf, -np.inf, np.nan, 1.0, -1.0, 5e-324, -1e-40, 6e-8, 65504.0]
    pick = rng.random(n) < 0.2
    x[pick] = rng.choice(special, np.count_nonzero(pick))
    with np.errstate(all="ignore"):
        return x.astype(dtype)


def bit_view(x):
    return x.view(f"u{x.itemsize}")


def assert_same(got, want):
    """The same bits; a NaN equals any NaN."""
    assert got.dtype == want.dtype
    with np.errstate(invalid="ignore"):  # signalling NaN
        nan = np.isnan(got.astype(np.float64))
        np.testing.assert_array_equal(nan, np.isnan(want.astype(np.float64)))
    np.testing.assert_array_equal(bit_view(got)[~nan], bit_view(want)[~nan])


class Guarded:
    """An array of some misalignment inside memory that must not change."""

    def __init__(self, n, dtype, shift):
        self._memory = np.full(n + 96, 77, dtype)
        self._inside = slice(40 + shift, 40 + shift + n)
        self.array = self._memory[self._inside]

    def check(self):
        assert (np.delete(self._memory, np.arange(len(self._memory))[self._inside]) == 77).all()


def scaled(x, kept, scale):
    with np.errstate(all="ignore"):
        product = (x * np.asarray(scale, x.dtype)).astype(x.dtype)
    return np.where(kept, product, np.zeros((), x.dtype))


def positive(x):
    with np.errstate(invalid="ignore"):  # ml_dtypes minds NaN
        return ~(x <= 0)


def nonzero(x):
    with np.errstate(invalid="ignore"):
        return x != 0


SHAPES = [(n, n % 5, n % 7) for n in range(70)] + [
    *((n, sx, so) for n in (127, 129, 1023, 1025) for sx in (0, 1, 3) for so in (0, 1, 2, 15)),
    *((n, 1, 3) for n in (CHUNK - 1, CHUNK, CHUNK + 1, 3 * CHUNK + 5, 10 * CHUNK + 77)),
]


def cases(dtype, seed):
    """x and a guarded output at every edge of length and alignment."""
    rng = np.random.default_rng(seed)
    for n, shift_x, shift_out in SHAPES:
        x = values(rng, n + 8, dtype)[shift_x : shift_x + n]
        yield x, Guarded(n, dtype, shift_out)


def test_forward_scales_what_the_mask_keeps_and_zeroes_the_rest(kernels, dtype):
    scale = float(np.asarray(1 / 0.7).astype(dtype))
    for x, out in cases(dtype, seed=1):
        before, n = x.copy(), x.size
        bits = Guarded((n + 7) // 8, np.uint8, 0)
        kernels.dropout_forward(x, out.array, bits.array, 0.3, scale, 5, 6, 7)
        kept = mask_contract.mask_array(5, 6, 7, n, 0.3)
        assert bits.array.tobytes() == pack(kept).tobytes()
        assert_same(out.array, scaled(x, kept, scale))
        assert_same(x, before)
        out.check()
        bits.check()


def test_forward_without_saved_bits_gives_the_same_values(kernels, dtype):
    x = values(np.random.default_rng(2), 40_000, dtype)
    with_bits, without, bits = np.empty_like(x), np.empty_like(x), np.empty(5000, np.uint8)
    kernels.dropout_forward(x, with_bits, bits, 0.1, 1.0, 1, 2, 3)
    kernels.dropout_forward(x, without, None, 0.1, 1.0, 1, 2, 3)
    assert_same(without, with_bits)


def test_apply_bits_scales_where_the_bit_is_set(kernels, dtype):
    rng = np.random.default_rng(3)
    for x, out in cases(dtype, seed=3):
        bits = rng.integers(0, 256, (x.size + 7) // 8, dtype=np.uint8)
        kernels.apply_bits(x, out.array, bits, 2.5)
        assert_same(out.array, scaled(x, unpack(bits, x.size), 2.5))
        out.check()


def test_relu_keeps_what_is_not_below_or_at_zero(kernels, dtype):
    for x, out in cases(dtype, seed=4):
        bits = Guarded((x.size + 7) // 8, np.uint8, 0)
        kernels.relu(x, out.array, bits.array)
        kept = positive(x)
        assert_same(out.array, np.where(kept, x, np.zeros((), dtype)))
        assert bits.array.tobytes() == pack(kept).tobytes()
        out.check()
        bits.check()


def test_nonzero_bits_count_nan_and_not_negative_zero(kernels, dtype):
    for x, _ in cases(dtype, seed=5):
        bits = Guarded((x.size + 7) // 8, np.uint8, 0)
        kernels.nonzero_bits(x, bits.array)
        assert bits.array.tobytes() == pack(nonzero(x)).tobytes()
        bits.check()


def test_a_dropped_value_becomes_positive_zero_whatever_it_was(kernels, dtype):
    x = np.array([np.nan, np.inf, -np.inf, -0.0, -1.0, 1.0, 0.0, -2.0] * 20, dtype)
    out = np.full_like(x, 7)
    kernels.apply_bits(x, out, np.zeros(20, np.uint8), 3.0)
    assert not bit_view(out).any()
    kernels.dropout_forward(x, out, None, 1.0, 0.0, 1, 2, 3)
    assert not bit_view(out).any()


def test_rate_zero_keeps_every_bit(kernels, dtype):
    x = values(np.random.default_rng(6), 1000, dtype)
    out, bits = np.empty_like(x), np.empty(125, np.uint8)
    kernels.dropout_forward(x, out, bits, 0.0, 1.0, 1, 2, 3)
    assert_same(out, x)
    assert (bits == 255).all()


def test_in_place_gives_the_same_values(kernels, dtype):
    x = values(np.random.default_rng(7), 3 * CHUNK + 5, dtype)
    bits, want = np.empty((x.size + 7) // 8, np.uint8), np.empty_like(x)
    kernels.dropout_forward(x, want, bits, 0.3, 1.5, 1, 2, 3)
    there = x.copy()
    kernels.dropout_forward(there, there, bits, 0.3, 1.5, 1, 2, 3)
    assert_same(there, want)
    kernels.apply_bits(there, there, bits, 1.0)
    assert_same(there, want)
    kernels.relu(there, there, bits)
    assert_same(there, np.where(positive(want), want, np.zeros((), dtype)))


def test_arrays_beyond_the_cache_are_written_whole(kernels, threads, dtype):
    n = STREAM_BYTES // (2 * dtype.itemsize) + CHUNK + 77
    x = np.resize(values(np.random.default_rng(8), 100_003, dtype), n)
    out, bits = Guarded(n, dtype, 3), np.empty((n + 7) // 8, np.uint8)
    kernels.dropout_forward(x, out.array, bits, 0.1, 1.5, 1, 2, 3)
    kept = mask_contract.mask_array(1, 2, 3, n, 0.1)
    want = scaled(x, kept, 1.5)
    assert_same(out.array, want)
    out.check()
    out.array[...] = 1
    kernels.apply_bits(x, out.array, bits, 1.5)
    assert_same(out.array, want)
    out.check()


@pytest.mark.parametrize("scale", [1.0, 1 / 0.7, 1 / 3, 1e-5, 1e4, 0.1])
@pytest.mark.parametrize("dtype", [np.float16, ml_dtypes.bfloat16])
def test_every_16_bit_number_is_scaled_as_numpy_does(kernels, dtype, scale):
    scale = float(np.asarray(scale).astype(dtype))
    x = np.arange(1 << 16, dtype=np.uint16).view(dtype)
    out, bits = np.empty_like(x), np.full(1 << 13, 255, np.uint8)
    kernels.apply_bits(x, out, bits, scale)
    assert_same(out, scaled(x, True, scale))


@pytest.mark.parametrize("dtype", [np.float16, ml_dtypes.bfloat16])
def test_every_16_bit_number_has_its_relu_and_nonzero_bit(kernels, dtype):
    x = np.arange(1 << 16, dtype=np.uint16).view(dtype)
    out, bits = np.empty_like(x), np.empty(1 << 13, np.uint8)
    kernels.relu(x, out, bits)
    assert bits.tobytes() == pack(positive(x)).tobytes()
    assert_same(out, np.where(positive(x), x, np.zeros((), dtype)))
    kernels.nonzero_bits(x, bits)
    assert bits.tobytes() == pack(nonzero(x)).tobytes()


# ---- the native module guards memory -------------------------------------------------------------


def test_the_native_functions_refuse_what_would_corrupt_memory():
    native = require("dropwise._native")
    x, bits = np.ones(100, np.float32), np.zeros(13, np.uint8)
    out = np.empty_like(x)
    read_only = np.empty_like(x)
    read_only.flags.writeable = False
    for bad_out in (out[:99], out.astype(np.float64), np.empty(200, np.float32)[::2], read_only):
        with pytest.raises(ValueError, match=r"out|contiguous|writ"):
            native.dropout_forward(x, bad_out, None, 0.5, 2.0, 1, 2, 3)
        with pytest.raises(ValueError, match=r"out|contiguous|writ"):
            native.apply_bits(x, bad_out, bits, 2.0)
        with pytest.raises(ValueError, match=r"out|contiguous|writ"):
            native.relu(x, bad_out, bits)
    for bad_bits in (bits[:12], np.zeros(26, np.uint8)[::2], np.zeros(13, np.uint16)):
        with pytest.raises(ValueError, match=r"bits|contiguous"):
            native.dropout_forward(x, out, bad_bits, 0.5, 2.0, 1, 2, 3)
        with pytest.raises(ValueError, match=r"bits|contiguous"):
            native.apply_bits(x, out, bad_bits, 2.0)
        with pytest.raises(ValueError, match=r"bits|contiguous"):
            native.mask_bits(bad_bits, 100, 0.5, 1, 2, 3)
        with pytest.raises(ValueError, match=r"bits|contiguous"):
            native.nonzero_bits(x, bad_bits)
    for other in (np.int32, np.uint16, np.complex64):
        with pytest.raises(TypeError, match="dtype"):
            native.relu(x.astype(other), out, bits)
