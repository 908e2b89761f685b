"""Scratch memory that cannot be had: a MemoryError each time, and nothing is lost by it.

`_native.fail_allocations(n)` lets the n-th request fail.  Every request of every strategy has its
turn, those inside parallel tasks too: a failure there that went unnoticed would leave part of the
result as it was.
"""

from __future__ import annotations

import numpy as np
import pytest

import dropwise as dw
from dropwise._backends.protocol import Product
from support import require

native = require("dropwise._native")


@pytest.fixture(autouse=True)
def as_it_was_before():
    threads = native.num_threads()
    yield
    native.fail_allocations(-1)
    native.set_num_threads(threads)


def random(shape, order="C", density=1.0):
    rng = np.random.default_rng(0)
    x = rng.standard_normal(shape) * (rng.random(shape) < density)
    return np.array(x, np.float32, order=order)


def product(shape, orders="CCC", density=1.0, **options):
    """A product [M, K] by [K, N] whose a, b and out have these orders."""
    m, k, n = shape
    out = np.empty((m, n), np.float32, order=orders[2])
    a = random((m, k), orders[0], density)
    return [Product(a, random((k, n), orders[1]), out, **options)]


def kept(shape, orders="CCC", **options):
    bits = np.packbits(np.random.default_rng(1).random(shape[0] * shape[2]) < 0.5)
    return product(shape, orders, bits=bits, strategy="kept", **options)


def skipped_b(shape, **options):
    (p,) = product(shape, density=0.5)
    return [Product(p.b.T, p.a.T, p.out.T, skip="b", strategy="skip_b", **options)]


def chain():
    """Two layers and a gradient, with more rows than go through all products at once."""
    x, w, v = random((1300, 3)), random((3, 400)), random((400, 4))
    h, y, dw = (np.empty(shape, np.float32) for shape in ((1300, 400), (1300, 4), (400, 4)))
    bias = random(400)
    return [
        Product(x, w, h, bias, relu=True, temporary=True),
        Product(h, v, y, skip="a"),
        Product(h.T, y, dw, skip="ab", over_rows=True),
    ]


BIAS = {"bias": random(130), "relu": True}
CASES = {
    "dense": lambda: product((300, 200, 130), **BIAS),
    "dense, bands of columns": lambda: product((64, 400, 520), **{**BIAS, "bias": random(520)}),
    "dense, B in place": lambda: product((3, 900, 400)),
    "dense, few terms": lambda: product((900, 3, 400), "CFC"),
    "dense, dots": lambda: product((300, 700, 5), "CCC", bias=random(5)),
    "dense, transposed": lambda: product((900, 200, 20), "FCC"),
    "dense, strided out": lambda: product((300, 200, 130), "CCF", **BIAS),
    "skip_a": lambda: product((300, 200, 130), "CCC", 0.5, skip="a", strategy="skip_a", **BIAS),
    "skip_a, columns": lambda: product((300, 200, 130), "FCC", 0.5, skip="a", strategy="skip_a"),
    "skip_a, lists": lambda: product((300, 600, 130), "CCC", 0.02, skip="a", strategy="skip_a"),
    "skip_b": lambda: skipped_b((300, 200, 130)),
    "skip_b, bias": lambda: skipped_b((30, 600, 130), bias=random(30)),
    "kept": lambda: kept((300, 200, 130), **BIAS),
    "kept, columns": lambda: kept((300, 203, 130), "FCC"),
    "chain": chain,
}


def results(products):
    return [p.out.copy() for p in products if not p.temporary]


def clear(products):
    for p in products:
        p.out[...] = np.nan


@pytest.mark.parametrize("threads", [1, 2])
@pytest.mark.parametrize("name", CASES)
def test_every_request_that_fails_is_a_memory_error(name, threads):
    products = CASES[name]()
    native.set_num_threads(threads)
    native.multiply(products)
    expected = results(products)
    failures = 0
    while True:
        clear(products)
        native.fail_allocations(failures)
        try:
            native.multiply(products)
        except MemoryError:
            assert native.fail_allocations(-1) < 0
        else:
            assert native.fail_allocations(-1) >= 0, f"failure {failures} was not noticed"
            break
        clear(products)
        native.multiply(products)
        for got, want in zip(results(products), expected, strict=True):
            np.testing.assert_array_equal(got, want)
        failures += 1
    assert failures > 0
    for got, want in zip(results(products), expected, strict=True):
        np.testing.assert_array_equal(got, want)


def test_a_failure_reaches_the_caller_of_a_public_function():
    a, b = random((300, 200), density=0.5), random((200, 130))
    with dw.use_backend("native"):
        expected = dw.functional.matmul(a, b)
        native.fail_allocations(0)
        with pytest.raises(MemoryError):
            dw.functional.matmul(a, b)
        np.testing.assert_array_equal(dw.functional.matmul(a, b), expected)


def test_masks_and_elementwise_functions_need_no_scratch_memory():
    x = random(500_000)
    out, bits = np.empty_like(x), np.empty((x.size + 7) // 8, np.uint8)
    native.set_num_threads(2)
    native.fail_allocations(0)
    native.mask_bits(bits, x.size, 0.3, 1, 0, 0)
    native.dropout_forward(x, out, bits, 0.3, 1.5, 1, 0, 0)
    native.apply_bits(x, out, bits, 1.5)
    native.relu(x, out, bits)
    native.nonzero_bits(x, bits)
    assert native.fail_allocations(-1) == 0
