"""Chains of products: the bits of the products one by one, in pieces of any size."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest

from dropwise._backends.protocol import Product
from matrices import integers, native, pack, reference, same_bits


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


def test_many_small_products_are_dealt_out_to_threads(dtype):
    rng = np.random.default_rng(1)
    before = native.num_threads()
    operands = [
        (integers(rng, (70, 90), dtype), integers(rng, (90, 110), dtype)) for _ in range(40)
    ]
    products = [Product(a, b, np.empty((70, 110), dtype)) for a, b in operands]
    try:
        native.set_num_threads(4)
        native.multiply(products[:1])
        native.take_most_threads()
        native.multiply(products[:1])
        alone = native.take_most_threads()
        native.multiply(products)
        assert alone < native.take_most_threads() == 4
    finally:
        native.set_num_threads(before)
    for product in products:
        assert same_bits(product.out, product.a @ product.b)


@pytest.mark.parametrize("count", [2, 5, 17, 65, 129, 400])
@pytest.mark.parametrize(
    "shape", [(128, 32, 128), (130, 128, 5), (129, 1, 300), (65, 7, 40), (0, 3, 4), (9, 0, 4)]
)
def test_any_number_of_products_may_share_their_rows(shape, count, threads, dtype):
    rows, inner, cols = shape
    rng = np.random.default_rng(count)
    a, b = integers(rng, (rows, inner), dtype), integers(rng, (inner, cols), dtype)
    products = [Product(a, b, np.full((rows, cols), 77, dtype)) for _ in range(count)]
    native.multiply(products)
    for product in products:
        assert same_bits(product.out, a @ b)


def test_many_products_that_need_each_other_are_computed_in_order(threads, dtype):
    rng = np.random.default_rng(2)
    x = integers(rng, (64, 64), dtype)
    swap = np.eye(64, dtype=dtype)[rng.permutation(64)]
    products = [Product(x, swap, np.empty_like(x))]
    for _ in range(40):
        products.append(Product(products[-1].out, swap, np.empty_like(x)))
    native.multiply(products)
    assert same_bits(products[-1].out, x @ np.linalg.matrix_power(swap, 41).astype(dtype))
