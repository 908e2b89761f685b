"""Products: every path, instruction set and thread count gives the bits NumPy gives.

Operands are integers in [-8, 8], so that every order of summation is exact and bits compare.
"""

from __future__ import annotations

import dataclasses
import itertools
import subprocess

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

import emulated
from dropwise._backends.protocol import Product
from support import require

native = require("dropwise._native")

DTYPES = [np.float32, np.float64]


@pytest.fixture(params=DTYPES, ids=["f32", "f64"])
def dtype(request):
    return request.param


def integers(rng, shape, dtype, density=1.0):
    """Integers in [-8, 8]; about 1 - density of them are zeros of either sign."""
    x = rng.integers(1, 9, shape) * rng.choice([-1, 1], shape)
    kept = rng.random(shape) < density
    return np.where(kept, x, rng.choice([0.0, -0.0], shape)).astype(dtype)


def strided(x, layout):
    """The values of x in memory that is laid out in another way."""
    m, n = x.shape
    if layout == "C":
        return np.ascontiguousarray(x)
    if layout == "F":
        return np.asfortranarray(x)
    if layout == "odd":  # neither stride is one element
        big = np.full((2 * m, 3 * n), np.nan, x.dtype)
        view = big[::2, 1::3]
    elif layout == "wide":  # rows apart
        view = np.full((m, n + 5), np.nan, x.dtype)[:, 2 : n + 2]
    elif layout == "negative":
        view = np.full((m, n), np.nan, x.dtype)[::-1, ::-1]
    elif layout == "negative-rows-F":
        view = np.full((n, m), np.nan, x.dtype)[:, ::-1].T
    view[...] = x
    return view


LAYOUTS = ["C", "F", "odd", "wide", "negative", "negative-rows-F"]


def guarded(shape, dtype, layout="C"):
    """An output and the whole block of memory around it, all of it 77."""
    m, n = shape
    if layout == "C":
        memory = np.full(m * n + 64, 77, dtype)
        return memory, memory[32 : 32 + m * n].reshape(m, n)
    if layout == "F":
        memory = np.full(m * n + 64, 77, dtype)
        return memory, memory[32 : 32 + m * n].reshape(n, m).T
    memory = np.full((2 * m + 2, 3 * n + 2), 77, dtype)
    view = memory[1 : 2 * m + 1 : 2, 1 : 3 * n + 1 : 3]
    return memory, view[::-1] if layout == "negative" else view


def untouched(memory, out):
    """True if nothing but out was written: out is set to 77 on the way."""
    out[...] = 77
    return bool((memory == 77).all())


def same_bits(x, y):
    return x.shape == y.shape and x.tobytes() == np.ascontiguousarray(y, x.dtype).tobytes()


def reference(a, b, bias=None, relu=False, keep=None, scale=1.0):
    out = a.astype(np.float64) @ b.astype(np.float64) + 0.0
    if bias is not None:
        out = out + bias + 0.0
    if relu:
        out = np.where(out <= 0, 0.0, out)
    if keep is not None:
        out = np.where(keep, out * scale, 0.0)
    return out.astype(a.dtype)


def multiply(a, b, out, bias=None, relu=False, skip="", nonzero=None, **others):
    native.multiply([Product(a, b, out, bias, relu, skip, nonzero, **others)])


def pack(keep):
    return np.packbits(keep.ravel(), bitorder="little")


EDGES = [0, 1, 2, 3, 5, 6, 7, 8, 9, 13, 14, 15, 16, 17, 28, 31, 32, 33, 63, 64, 65, 127, 128, 129]


def edge_shapes():
    """Shapes from the edges: each edge once in every place, among a few small companions."""
    rng = np.random.default_rng(0)
    yield from itertools.product([1, 3, 17, 65], repeat=3)
    for edge in EDGES:
        for place in range(3):
            shape = list(rng.choice([2, 7, 30, 70, 131], 3))
            shape[place] = edge
            yield tuple(int(s) for s in shape)
    yield from [(300, 600, 3), (3, 600, 300), (600, 2, 70), (2, 600, 70), (150, 520, 1050)]


def test_matmul_equals_numpy_at_every_edge(isa, dtype):
    rng = np.random.default_rng(1)
    for m, k, n in edge_shapes():
        a, b = integers(rng, (m, k), dtype), integers(rng, (k, n), dtype)
        bias = integers(rng, n, dtype)
        for relu, given_bias in [(False, None), (True, bias)]:
            memory, out = guarded((m, n), dtype)
            multiply(a, b, out, given_bias, relu)
            assert same_bits(out, reference(a, b, given_bias, relu)), (m, k, n, relu)
            assert untouched(memory, out), (m, k, n)


@pytest.mark.parametrize("out_layout", ["C", "F", "odd", "negative"])
def test_matmul_takes_any_strides(isa, dtype, out_layout):
    rng = np.random.default_rng(2)
    shapes = [(1, 40, 5), (40, 7, 1), (33, 50, 3), (3, 50, 33), (29, 31, 37), (70, 2, 65)]
    shapes += [(70, 100, 24)]  # through the transpose, if a is in columns
    for m, k, n in shapes:
        a, b = integers(rng, (m, k), dtype), integers(rng, (k, n), dtype)
        bias = integers(rng, n, dtype)
        for a_layout, b_layout in itertools.product(LAYOUTS, repeat=2):
            memory, out = guarded((m, n), dtype, out_layout)
            multiply(strided(a, a_layout), strided(b, b_layout), out)
            assert same_bits(out, reference(a, b)), (m, k, n, a_layout, b_layout)
            assert untouched(memory, out)
            multiply(strided(a, a_layout), strided(b, b_layout), out, bias, True)
            assert same_bits(out, reference(a, b, bias, True)), (m, k, n, a_layout, b_layout)
            assert untouched(memory, out)


def test_matmul_takes_broadcast_operands(isa, dtype):
    rng = np.random.default_rng(3)
    row, column = integers(rng, (1, 70), dtype), integers(rng, (40, 1), dtype)
    for a in (np.broadcast_to(row, (40, 70)), np.broadcast_to(column, (40, 70))):
        for b in (np.broadcast_to(row[:, :1], (70, 35)), np.broadcast_to(row.T, (70, 35))):
            out = np.empty((40, 35), dtype)
            multiply(a, b, out)
            assert same_bits(out, reference(a, b))
            kept = np.empty((35, 40), dtype)
            multiply(b.T, a.T, kept)
            assert same_bits(kept, reference(b.T, a.T))


@given(st.data())
def test_matmul_kept_computes_where_the_bit_is_set(isa, dtype, data):
    m, k, n = (data.draw(st.integers(0, 140)) for _ in range(3))
    rng = np.random.default_rng(data.draw(st.integers(0, 999)))
    density = data.draw(st.sampled_from([0.0, 0.02, 0.3, 0.5, 0.9, 1.0]))
    skip = data.draw(st.sampled_from(["", "a", "b", "ab"]))
    a = integers(rng, (m, k), dtype, data.draw(st.sampled_from([0.0, 0.1, 0.5, 1.0])))
    b = integers(rng, (k, n), dtype)
    keep = rng.random((m, n)) < density
    bias = integers(rng, n, dtype) if data.draw(st.booleans()) else None
    relu = data.draw(st.booleans())
    memory, out = guarded((m, n), dtype)
    layouts = data.draw(st.tuples(st.sampled_from(LAYOUTS), st.sampled_from(LAYOUTS)))
    a, b = strided(a, layouts[0]), strided(b, layouts[1])
    multiply(a, b, out, bias, relu, skip, bits=pack(keep), scale=2.0)
    assert same_bits(out, reference(a, b, bias, relu, keep, 2.0))
    assert untouched(memory, out)


DENSITIES = [0.0, 0.02, 0.5, 1.0]  # far on either side of where skipping begins to pay


@given(st.data())
def test_matmul_skips_zeros_without_changing_a_bit(isa, dtype, data):
    m, n = data.draw(st.integers(1, 200)), data.draw(st.integers(1, 200))
    k = data.draw(st.integers(0, 300))
    rng = np.random.default_rng(data.draw(st.integers(0, 999)))
    a = integers(rng, (m, k), dtype, data.draw(st.sampled_from(DENSITIES)))
    b = integers(rng, (k, n), dtype, data.draw(st.sampled_from(DENSITIES)))
    bias = integers(rng, n, dtype) if data.draw(st.booleans()) else None
    relu = data.draw(st.booleans())
    layouts = data.draw(st.tuples(st.sampled_from(LAYOUTS), st.sampled_from(LAYOUTS)))
    a, b = strided(a, layouts[0]), strided(b, layouts[1])
    memory, out = guarded((m, n), dtype, data.draw(st.sampled_from(["C", "F", "odd", "negative"])))
    multiply(a, b, out, bias, relu, data.draw(st.sampled_from(["a", "b", "ab"])))
    assert same_bits(out, reference(a, b, bias, relu))
    assert untouched(memory, out)


SKIPPING_SHAPES = [
    (1, 1, 1),
    (3, 5, 2),
    (1, 200, 300),
    (300, 200, 1),
    (16, 32, 16),
    (17, 63, 95),
    (100, 64, 96),
    (129, 65, 97),
    (64, 130, 200),
    (1030, 70, 33),  # more rows than share one packing of a tile
    (33, 70, 1030),
    (19, 4200, 24),  # more words than are found together
    (2100, 1100, 40),  # more rows than are taken on at once
]


@pytest.mark.parametrize("density", [0.0, 0.02, 0.3, 0.6, 1.0])
def test_every_strategy_gives_the_same_bits_at_its_edges(isa, dtype, density):
    rng = np.random.default_rng(6)
    for (m, k, n), at, bt in itertools.product(SKIPPING_SHAPES, [False, True], [False, True]):
        a, b = integers(rng, (m, k), dtype, density), integers(rng, (k, n), dtype)
        bias = integers(rng, n, dtype)
        keep = rng.random((m, n)) < density
        given_a = strided(a, "F" if at else "C")
        given_b = strided(b, "F" if bt else "C")
        keep_bits = pack(keep)
        where = (m, k, n, at, bt)
        for strategy in ("", "dense", "skip_a"):
            memory, out = guarded((m, n), dtype)
            multiply(given_a, given_b, out, bias, True, "a", strategy=strategy)
            assert same_bits(out, reference(a, b, bias, True)), (where, strategy)
            assert untouched(memory, out)
        for strategy in ("", "dense", "skip_b"):
            memory, out = guarded((n, m), dtype)
            multiply(given_b.T, given_a.T, out, None, False, "b", strategy=strategy)
            assert same_bits(out, reference(b.T, a.T)), (where, strategy)
            assert untouched(memory, out)
        for strategy in ("", "dense", "kept", "skip_a"):
            memory, out = guarded((m, n), dtype)
            multiply(
                given_a, given_b, out, bias, True, "a", bits=keep_bits, scale=4.0, strategy=strategy
            )
            assert same_bits(out, reference(a, b, bias, True, keep, 4.0)), (where, strategy)
            assert untouched(memory, out)


def test_the_strategy_follows_the_density_unless_it_is_forced(dtype):
    rng = np.random.default_rng(9)
    dense, sparse = integers(rng, (256, 256), dtype), integers(rng, (256, 256), dtype, 0.05)
    out, few = np.empty((256, 256), dtype), pack(rng.random((256, 256)) < 0.05)
    for product, strategy in [
        (Product(sparse, sparse, out), "dense"),  # nothing may be skipped
        (Product(dense, dense, out, skip="ab"), "dense"),
        (Product(sparse, dense, out, skip="ab"), "skip_a"),
        (Product(dense, sparse, out, skip="ab"), "skip_b"),
        (Product(dense, dense, out, bits=few), "kept"),
        (Product(dense, dense, out, bits=few, strategy="dense"), "dense"),
    ]:
        assert native.strategy_of(product) == strategy


def test_the_terms_of_a_strategy_have_names():
    x = np.ones((64, 64), np.float32)
    product = Product(x, x, x.copy(), skip="a", strategy="skip_a")
    terms = native.product_terms(product, 0.5)
    assert terms["calls"] == 1
    assert terms["outputs"] == 64 * 64
    assert terms["multiply_adds"] == 64**3 / 2
    with pytest.raises(ValueError, match="strategy must be given"):
        native.product_terms(dataclasses.replace(product, strategy=""), 0.5)


def test_a_strategy_that_the_operands_do_not_allow_is_refused():
    a, b, out = (np.ones((2, 2), np.float32) for _ in range(3))
    refused = [("", "skip_a"), ("a", "skip_b"), ("b", "skip_a"), ("ab", "kept"), ("ab", "sparse")]
    for skip, strategy in refused:
        with pytest.raises(ValueError, match="strategy must be"):
            multiply(a, b, out, None, False, skip, strategy=strategy)
    with pytest.raises(ValueError, match="strategy must be"):
        multiply(a, b, out, bits=pack(a > 0), strategy="skip_a")


@pytest.mark.parametrize("density", [0.0, 0.3, 0.95])
@pytest.mark.parametrize("shape", [(3, 4, 5), (40, 64, 50), (70, 200, 130), (1, 70, 300)])
def test_a_skipped_zero_contributes_nothing_even_against_inf(isa, dtype, density, shape):
    # At any density, so that the choice between skipping and dense does not show.
    m, k, n = shape
    rng = np.random.default_rng(7)
    a = integers(rng, (m, k), dtype, density)
    b = integers(rng, (k, n), dtype)
    a[:, 1] = 0
    b[1] = rng.choice([np.inf, -np.inf, np.nan], n)
    b[2, n // 2] = np.nan  # meets a zero in some rows only
    keep = rng.random((m, n)) < 0.7
    finite = np.where(np.isnan(b) | np.isinf(b), 0, b)
    expected = reference(a, finite)
    expected[a[:, 2] != 0, n // 2] = np.nan
    out, other = np.empty((m, n), dtype), np.empty((n, m), dtype)
    for strategy in ("", "dense", "skip_a"):
        multiply(a, b, out, None, False, "a", strategy=strategy)
        np.testing.assert_array_equal(out, expected)
        multiply(a, b, out, np.zeros(n, dtype), True, "ab", strategy=strategy)
        np.testing.assert_array_equal(out, np.where(expected <= 0, 0, expected))
    for strategy in ("", "dense", "skip_a", "kept"):
        multiply(a, b, out, skip="a", bits=pack(keep), scale=2.0, strategy=strategy)
        np.testing.assert_array_equal(out, np.where(keep, expected * 2, 0))
    for strategy in ("", "dense", "skip_b"):
        multiply(b.T, a.T, other, None, False, "b", strategy=strategy)
        np.testing.assert_array_equal(other, expected.T)


@pytest.mark.parametrize("strategy", ["", "dense", "skip_a", "skip_b"])
def test_skipped_zeros_of_both_operands_contribute_nothing(isa, dtype, strategy):
    m, k, n = 40, 70, 50
    rng = np.random.default_rng(8)
    a, b = integers(rng, (m, k), dtype, 0.6), integers(rng, (k, n), dtype, 0.6)
    a[3:, 5], b[6, :-4] = np.inf, -np.inf
    a[-1], b[:, 0] = np.nan, 0
    expected = np.zeros((m, n))
    with np.errstate(invalid="ignore"):
        for p in range(k):
            term = np.outer(a[:, p].astype(np.float64), b[p].astype(np.float64))
            expected += np.where(np.outer(a[:, p] != 0, b[p] != 0), term, 0)
    out = np.empty((m, n), dtype)
    multiply(a, b, out, None, False, "ab", strategy=strategy)
    np.testing.assert_array_equal(out, expected)
    keep = rng.random((m, n)) < 0.5
    ones = np.ones(n, dtype)
    multiply(a, b, out, ones, True, "ab", bits=pack(keep), scale=2.0, strategy=strategy)
    np.testing.assert_array_equal(
        out, np.where(keep, np.where(expected + 1 <= 0, 0, expected + 1) * 2, 0)
    )


def test_threads_do_not_change_a_bit(isa, dtype, threads):
    rng = np.random.default_rng(4)
    for m, k, n in [
        (200, 300, 150),
        (3, 3000, 700),
        (3000, 70, 3),
        (700, 3, 900),
        (1, 900, 900),
        (90, 330, 523),
    ]:
        for at, bt in itertools.product([False, True], repeat=2):
            a = rng.standard_normal((k, m) if at else (m, k)).astype(dtype)
            b = rng.standard_normal((n, k) if bt else (k, n)).astype(dtype)
            a, b = a.T if at else a, b.T if bt else b
            out, alone = np.empty((m, n), dtype), np.empty((m, n), dtype)
            keep = pack(rng.random((m, n)) < 0.4)
            a[rng.random((m, k)) < 0.6] = 0
            for product in (
                lambda to, a=a, b=b: multiply(a, b, to),
                lambda to, a=a, b=b: multiply(a, b, to, None, True, "a"),
                lambda to, a=a, b=b: multiply(a, b, to, None, True, "b"),
                lambda to, a=a, b=b, keep=keep: multiply(a, b, to, bits=keep),
            ):
                native.set_num_threads(threads)
                product(out)
                native.set_num_threads(1)
                product(alone)
                assert same_bits(out, alone)


def test_rounding_errors_are_those_of_a_sum_of_k_terms(isa, dtype):
    rng = np.random.default_rng(5)
    eps = np.finfo(dtype).eps
    for m, k, n in [(37, 1000, 45), (20, 5000, 3), (2, 5000, 100), (100, 64, 100)]:
        a, b = rng.standard_normal((m, k)).astype(dtype), rng.standard_normal((k, n)).astype(dtype)
        exact = a.astype(np.longdouble) @ b.astype(np.longdouble)
        bound = k * eps * (np.abs(a).astype(np.longdouble) @ np.abs(b).astype(np.longdouble))
        out = np.empty((m, n), dtype)
        multiply(a, b, out)
        assert (np.abs(out - exact) <= bound).all()


def test_ieee_rules_hold_without_skipping(isa, dtype):
    a = np.array([[0.0, 1.0], [1.0, 0.0], [1.0, 1.0]], dtype)
    b = np.array([[np.inf, 1.0, np.nan], [1.0, -np.inf, 2.0]], dtype)
    out = np.empty((3, 3), dtype)
    multiply(a, b, out)
    with np.errstate(invalid="ignore"):
        np.testing.assert_array_equal(out, a @ b)
    multiply(a, b, out, None, True)
    np.testing.assert_array_equal(out[2], np.array([np.inf, 0, np.nan], dtype))


@pytest.mark.parametrize("bad", ["shape", "out shape", "dtype", "out dtype", "skip", "bias"])
def test_a_call_that_could_touch_foreign_memory_is_refused(bad):
    f4 = np.float32
    a, b, out, bias = (np.ones(shape, f4) for shape in ((2, 3), (3, 4), (2, 4), 4))
    skip = ""
    if bad == "shape":
        b = np.ones((2, 4), f4)
    elif bad == "out shape":
        out = np.empty((2, 5), f4)
    elif bad == "dtype":
        a = a.astype(np.float64)
    elif bad == "out dtype":
        out = out.astype(np.float16)
    elif bad == "skip":
        skip = "c"
    elif bad == "bias":
        bias = np.ones(3, f4)
    with pytest.raises((ValueError, TypeError)):
        multiply(a, b, out, bias, False, skip)


@pytest.mark.parametrize("name", emulated.SETS)
def test_sets_that_cannot_run_here_pass_a_program_of_checks(name, tmp_path):
    command = emulated.compile_program(name, tmp_path, "check_products.cpp")
    result = subprocess.run(command, capture_output=True, text=True, check=False)
    assert result.returncode == 0, result.stdout
    assert result.stdout.strip() == emulated.SETS[name][0]


@pytest.mark.parametrize(
    "shape",
    [(5, 3, 64), (37, 2, 40), (37, 8, 17), (70, 90, 72), (40, 64, 104), (1, 99, 8), (90, 330, 520)],
)
def test_the_bits_of_what_is_not_zero_come_with_the_product(isa, threads, dtype, shape):
    m, k, n = shape
    rng = np.random.default_rng(5)
    a = integers(rng, (m, k), dtype, 0.4)
    b = strided(integers(rng, (k, n), dtype), "F")
    bias = integers(rng, n, dtype)
    kept = rng.random((m, n)) < 0.6
    product = np.maximum(a @ b + bias, 0)
    plain = np.empty((m, n), dtype)
    nonzero = np.full(-(-m * n // 8), 255, np.uint8)
    multiply(a, b, plain, None, False, "a", nonzero)
    assert np.array_equal(nonzero, np.packbits(a @ b != 0, bitorder="little"))
    for expected, bits in ((product, None), (np.where(kept, 2 * product, 0), kept)):
        out = np.empty((m, n), dtype)
        nonzero = np.full(-(-m * n // 8), 255, np.uint8)
        if bits is None:
            multiply(a, b, out, bias, True, "a", nonzero)
        else:
            mask = np.packbits(bits, bitorder="little")
            multiply(a, b, out, bias, True, "a", nonzero, bits=mask, scale=2.0)
        assert np.array_equal(out, expected)
        assert np.array_equal(nonzero, np.packbits(expected != 0, bitorder="little"))


def step_of_training(rows, hidden, dtype):
    """The products of a step through two layers as a chain, and what they should write.

    No unit passes column 5, whose weight is infinite.
    """
    rng = np.random.default_rng(6)
    x, dy = integers(rng, (rows, 3), dtype), integers(rng, (rows, 4), dtype)
    w, v = integers(rng, (3, hidden), dtype), integers(rng, (hidden, 4), dtype)
    bias = integers(rng, hidden, dtype)
    kept = rng.random((rows, hidden)) < 0.6
    kept[:, 5] = False
    h = reference(x, w, bias, True, kept, 2.0)
    dh = reference(dy, v.T, keep=h != 0, scale=2.0)
    expected = [h, h @ v, h.T @ dy, dy.sum(axis=0)[None], x.T @ dh]
    v[5] = np.inf
    out = [np.empty_like(e) for e in expected]
    passed = np.empty(-(-kept.size // 8), np.uint8)
    products = [
        Product(x, w, out[0], bias, True, "a", passed, pack(kept), 2.0),
        Product(out[0], v, out[1], skip="a"),
        Product(out[0].T, dy, out[2], skip="ab", over_rows=True),
        Product(np.ones((1, rows), dtype), dy, out[3], over_rows=True),
        Product(dy, v.T, temporary := np.full_like(h, 77), None, False, "a", None, passed, 2.0),
        Product(x.T, temporary, out[4], skip="ab", over_rows=True),
    ]
    products[4] = dataclasses.replace(products[4], temporary=True)
    return products, out, expected


def check_chain(rows, hidden, dtype):
    """True if rows went through all products in pieces: the temporary matrix is then elsewhere."""
    products, out, expected = step_of_training(rows, hidden, dtype)
    native.multiply(products)
    for got, want in zip(out, expected, strict=True):
        assert same_bits(got + 0.0, want + 0.0)
    return bool((products[4].out == 77).all())


@pytest.mark.parametrize(("rows", "hidden"), [(1, 7), (130, 41), (1501, 401)])
def test_a_chain_gives_what_its_products_give(isa, threads, dtype, rows, hidden):
    assert check_chain(rows, hidden, dtype) == (rows > 1000)


def test_a_chain_may_have_no_rows(dtype):
    check_chain(0, 8, dtype)


def test_a_chain_may_have_more_pieces_than_are_summed_at_once():
    assert check_chain(4200, 1000, np.float32)


def test_a_chain_writes_what_is_not_temporary():
    products, _, _ = step_of_training(1501, 401, np.float32)
    native.multiply([dataclasses.replace(p, temporary=False) for p in products])
    assert not (products[4].out == 77).any()


def test_threads_do_not_change_a_bit_of_a_chain(threads, dtype):
    rng = np.random.default_rng(7)
    x, w = rng.standard_normal((3000, 3)).astype(dtype), rng.standard_normal((3, 500)).astype(dtype)
    results = []
    for n in (threads, 1):
        native.set_num_threads(n)
        h, gradient = np.empty((3000, 500), dtype), np.empty((3, 500), dtype)
        native.multiply([Product(x, w, h), Product(x.T, h, gradient, over_rows=True)])
        results.append((h, gradient))
    for got, want in zip(*results, strict=True):
        assert same_bits(got, want)


def test_a_chain_of_nothing_computes_nothing():
    native.multiply([])


@pytest.mark.parametrize(
    "bad",
    [
        {"bias": np.ones(4, np.float32), "over_rows": True},
        {"temporary": True, "over_rows": True},
        {"temporary": True, "out": np.ones((4, 2), np.float32).T},
        {"out": np.ones((2, 4), np.float64)},
        {"a": np.ones((2, 2), np.float32)},
    ],
)
def test_a_chain_that_makes_no_sense_is_refused(bad):
    f4 = np.float32
    good = Product(np.ones((2, 3), f4), np.ones((3, 4), f4), np.ones((2, 4), f4))
    for products in (
        [dataclasses.replace(good, **bad)],
        [good, dataclasses.replace(good, **bad)],
        [(good.a, good.b, good.out)],
    ):
        with pytest.raises((ValueError, TypeError, AttributeError)):
            native.multiply(products)
    wide = Product(*(np.ones(shape) for shape in ((2, 3), (3, 4), (2, 4))))
    with pytest.raises(ValueError, match="one dtype"):
        native.multiply([good, wide])
