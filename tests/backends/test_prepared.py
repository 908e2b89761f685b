"""Products that are read once and computed many times."""

from __future__ import annotations

import threading
import weakref

import numpy as np
import pytest

from dropwise._backends import active
from dropwise._backends.protocol import Product
from support import require

ROWS = 40
VARYING = [(0, "a"), (0, "scale"), (1, "out"), (2, "a"), (2, "b")]


def chain(dtype=np.float32):
    """Two layers and the sum over the rows for the first, whose weights change between calls."""
    rng = np.random.default_rng(0)
    w, v = rng.standard_normal((6, 16)).astype(dtype), rng.standard_normal((16, 3)).astype(dtype)
    bits = rng.integers(0, 256, ROWS * 2, np.uint8)
    x, h = np.zeros((ROWS, 6), dtype), np.zeros((ROWS, 16), dtype)
    y, g = np.zeros((ROWS, 3), dtype), np.zeros((6, 16), dtype)
    nonzero = np.zeros(ROWS * 2, np.uint8)
    return [
        Product(x, w, h, np.ones(16, dtype), relu=True, skip="a", nonzero=nonzero, bits=bits),
        Product(h, v, y, skip="a"),
        Product(x.T, h, g, skip="ab", over_rows=True),
    ]


def values(dtype=np.float32, seed=1):
    """What a call gives, for `VARYING`."""
    rng = np.random.default_rng(seed)
    x = rng.standard_normal((ROWS, 6)).astype(dtype)
    dh = rng.standard_normal((ROWS, 16)).astype(dtype)
    return x, float(seed), np.empty((ROWS, 3), dtype), x.T, dh


def results(products):
    return [products[0].out.copy(), products[0].nonzero.copy(), products[2].out.copy()]


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("block_rows", [0, 16])
def test_each_call_has_the_bits_of_the_products_with_its_values(backend, dtype, block_rows):
    prepared, plain = chain(dtype), chain(dtype)
    multiply = active().prepare(prepared, VARYING, block_rows)
    for seed in (1, 2, 3):
        given, same = values(dtype, seed), values(dtype, seed)
        for products in (prepared, plain):
            products[0].b[...] *= seed  # what does not vary is used as it is now
        multiply(given)
        for (i, name), value in zip(VARYING, same, strict=True):
            setattr(plain[i], name, value)
        active().multiply(plain, block_rows)
        for got, want in zip(results(prepared), results(plain), strict=True):
            np.testing.assert_array_equal(got, want)
        np.testing.assert_array_equal(given[2], same[2])


def test_changing_a_record_afterwards_changes_nothing(backend):
    products = chain()
    multiply = active().prepare(products, VARYING)
    multiply(values())
    want = results(products)
    products[1].a = products[0].b = None
    multiply(values())
    for got, before in zip(results(products), want, strict=True):
        np.testing.assert_array_equal(got, before)


def test_what_a_call_is_given_is_not_held(backend):
    given = values()
    products = chain()
    before = weakref.ref(products[1].out), weakref.ref(products[0].a)
    multiply = active().prepare(products, VARYING)
    multiply(given)
    watched = [weakref.ref(given[0]), weakref.ref(given[2]), weakref.ref(given[4])]
    del given, products
    assert [ref() for ref in (*watched, *before)] == [None] * 5


@pytest.mark.parametrize(
    ("place", "wrong"),
    [
        (0, np.zeros((ROWS, 5), np.float32)),
        (0, np.zeros((ROWS, 6))),
        (0, np.zeros(6, np.float32)),
        (0, None),
        (2, np.zeros((3, ROWS), np.float32).T),
        (2, np.zeros((ROWS + 1, 3), np.float32)),
        (3, np.zeros((ROWS, 6), np.float32)),
        (4, np.zeros((ROWS, 16), np.float32)[:, :8]),
    ],
)
def test_values_that_do_not_fit_are_refused(place, wrong):
    prepare = require("dropwise._native").PreparedProducts
    multiply = prepare(chain(), VARYING)
    given = [*values()]
    given[place] = wrong
    with pytest.raises(ValueError, match="must"):
        multiply(tuple(given))


def test_wrong_calls_are_refused():
    prepare = require("dropwise._native").PreparedProducts
    products = chain()
    multiply = prepare(products, VARYING)
    with pytest.raises(ValueError, match="a value for each"):
        multiply(values()[:4])
    frozen = values()
    frozen[2].flags.writeable = False
    with pytest.raises(ValueError, match="out"):
        multiply(frozen)
    with pytest.raises((TypeError, ValueError, RuntimeError)):
        multiply((values()[0], "much", *values()[2:]))
    products[2].out.flags.writeable = False
    with pytest.raises(ValueError, match="writeable"):
        multiply(values())
    for varying in ([(3, "a")], [(0, "bias")], [(0,)], ["a"], 1):
        with pytest.raises((TypeError, ValueError, RuntimeError)):
            prepare(chain(), varying)
    for wrong in ([], [None], None):
        with pytest.raises((TypeError, ValueError, AttributeError)):
            prepare(wrong, [])
    with pytest.raises(ValueError, match="multiple of 8"):
        prepare(chain(), VARYING, 12)


def test_threads_may_call_it_at_once(backend):
    """With results of their own: a record without varying results would be shared."""
    rng = np.random.default_rng(3)
    w = rng.standard_normal((50, 60)).astype(np.float32)
    zeros = np.zeros((30, 50), np.float32)
    multiply = active().prepare([Product(zeros, w, zeros @ w)], [(0, "a"), (0, "out")])
    wrong = []

    def work(seed):
        x = np.random.default_rng(seed).standard_normal((30, 50)).astype(np.float32)
        want = np.empty((30, 60), np.float32)
        multiply((x, want))
        for _ in range(200):
            out = np.empty_like(want)
            multiply((x, out))
            if not np.array_equal(out, want):
                wrong.append(seed)

    threads = [threading.Thread(target=work, args=(i,)) for i in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not wrong
