"""Which strategy a product takes: the clear cases, on every instruction set."""

from __future__ import annotations

import numpy as np
import pytest

from dropwise._backends.protocol import Product
from matrices import integers, pack
from support import require

native = require("dropwise._native")

SHAPES = [(128, 512, 512), (256, 256, 256), (512, 512, 128), (300, 700, 500)]


def operands(shape, dtype, a_density=1.0, b_density=1.0, transposed=()):
    m, k, n = shape
    rng = np.random.default_rng(7)
    a, b = integers(rng, (m, k), dtype, a_density), integers(rng, (k, n), dtype, b_density)
    if "a" in transposed:
        a = np.asfortranarray(a)
    if "b" in transposed:
        b = np.asfortranarray(b)
    return a, b, np.empty((m, n), dtype)


def bits(shape, density):
    return pack(np.random.default_rng(8).random((shape[0], shape[2])) < density)


@pytest.fixture(params=[1, 2], ids="{}-threads".format)
def threads(request):
    before = native.num_threads()
    native.set_num_threads(request.param)
    yield request.param
    native.set_num_threads(before)


LAYOUTS = ["", "a", "b", "ab"]


@pytest.mark.parametrize("shape", SHAPES)
def test_full_operands_are_multiplied_densely(isa, dtype, shape, threads):
    for transposed in LAYOUTS:
        a, b, out = operands(shape, dtype, transposed=transposed)
        for skip in ("", "a", "b", "ab"):
            assert native.strategy_of(Product(a, b, out, skip=skip)) == "dense"
        everything = bits(shape, 1.0)
        product = Product(a, b, out, None, True, "ab", bits=everything, scale=2.0)
        assert native.strategy_of(product) == "dense"


@pytest.mark.parametrize("density", [0.02, 0.1])
@pytest.mark.parametrize("shape", SHAPES)
def test_what_dropout_of_nine_in_ten_leaves_is_skipped(isa, dtype, shape, density, threads):
    for transposed in LAYOUTS:
        a, b, out = operands(shape, dtype, a_density=density, transposed=transposed)
        for skip in ("a", "ab"):
            assert native.strategy_of(Product(a, b, out, skip=skip)) == "skip_a", transposed
        # its transpose: what the gradient of the weights is made of
        for skip in ("b", "ab"):
            product = Product(b.T, a.T, np.empty(out.T.shape, dtype), skip=skip)
            assert native.strategy_of(product) == "skip_b", transposed


@pytest.mark.parametrize("density", [0.02, 0.1])
@pytest.mark.parametrize("shape", SHAPES)
def test_few_outputs_that_are_kept_are_computed_alone(isa, dtype, shape, density, threads):
    for transposed in LAYOUTS:
        a, b, out = operands(shape, dtype, transposed=transposed)
        for bias, relu, skip in [(None, False, ""), (np.ones(shape[2], dtype), True, "a")]:
            product = Product(a, b, out, bias, relu, skip, bits=bits(shape, density), scale=2.0)
            assert native.strategy_of(product) == "kept", transposed


@pytest.mark.parametrize("shape", SHAPES)
def test_zeros_that_must_not_be_skipped_are_multiplied(isa, dtype, shape):
    a, b, out = operands(shape, dtype, 0.1, 0.1)
    assert native.strategy_of(Product(a, b, out)) == "dense"
    a, b, out = operands(shape, dtype, 0.1, 1.0)
    assert native.strategy_of(Product(a, b, out, skip="b")) == "dense"
    assert native.strategy_of(Product(b.T, a.T, out.T.copy(), skip="a")) == "dense"


@pytest.mark.parametrize("shape", SHAPES[:2])
def test_the_sparser_of_two_operands_is_skipped(isa, dtype, shape):
    a, b, out = operands(shape, dtype, 0.5, 0.05)
    assert native.strategy_of(Product(a, b, out, skip="ab")) == "skip_b"
    a, b, out = operands(shape, dtype, 0.05, 0.5)
    assert native.strategy_of(Product(a, b, out, skip="ab")) == "skip_a"


def test_a_forced_strategy_is_the_one_that_is_taken(isa, dtype):
    a, b, out = operands((128, 128, 128), dtype, 0.05, 0.05)
    for strategy in ("dense", "skip_a", "skip_b", "kept"):
        product = Product(a, b, out, skip="ab", bits=bits((128, 128, 128), 0.5), strategy=strategy)
        if strategy == "skip_b":
            product.bits = None
        assert native.strategy_of(product) == strategy


def test_the_products_of_a_network_take_the_strategies_that_skip(isa, dtype, monkeypatch):
    import dropwise as dw
    from dropwise._backends import native as backend

    taken = []

    def multiply(products, block_rows=0):
        taken.extend((p.a.shape, p.b.shape, native.strategy_of(p)) for p in products)
        native.multiply(products, block_rows)

    monkeypatch.setattr(backend.NativeBackend, "multiply", staticmethod(multiply))
    layers = [
        dw.Dense(256, 512, dtype=dtype),
        dw.ReLU(),
        dw.Dropout(0.9),
        dw.Dense(512, 512, dtype=dtype),
        dw.ReLU(),
        dw.Dropout(0.9),
        dw.Dense(512, 256, dtype=dtype),
    ]
    net = dw.Sequential(layers, seed=0)
    x = np.ones((128, 256), dtype)
    net.forward(x)
    assert taken[0] == ((128, 256), (256, 512), "kept")
    dy = np.ones((128, 256), dtype)
    taken.clear()
    net.backward(dy)
    # a gradient is computed where the mask of the layer before lets it pass
    assert ((128, 256), (256, 512), "kept") in taken


def test_few_values_in_many_rows_are_read_from_lists(isa, dtype):
    """A list takes several words of a row at once, so that there are fewer to look at."""
    a, b, out = operands((512, 1024, 64), dtype, 0.02)
    product = Product(a, b, out, skip="a", strategy="skip_a")
    words = {d: native.product_terms(product, d)["words"] for d in (0.01, 0.5)}
    assert words[0.01] <= words[0.5] / 2
