"""How many threads take part in a call, out of 64: as many as its work is worth, some 20 us each.

The counts follow from the costs that products are chosen by, which differ between CPUs, so tests
give ranges.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest

from dropwise._backends.protocol import Product
from support import require

native = require("dropwise._native")

MANY = 64


@pytest.fixture(autouse=True)
def many_threads():
    before = native.num_threads()
    native.set_num_threads(MANY)
    yield
    native.set_num_threads(before)


def threads_of(call: Callable[[], None]) -> int:
    call()  # memory, and a pool of that size
    native.take_most_threads()
    call()
    return native.take_most_threads()


def product(m: int, k: int, n: int, strategy: str = "dense", density: float = 0.3) -> Product:
    rng = np.random.default_rng(0)
    a, b = rng.standard_normal((m, k)), rng.standard_normal((k, n))
    a[rng.random(a.shape) >= density] = 0
    bits = np.packbits(rng.random(m * n) < density, bitorder="little")
    return Product(
        a.astype(np.float32),
        b.astype(np.float32),
        np.empty((m, n), np.float32),
        skip="a" if strategy == "skip_a" else "",
        bits=bits if strategy == "kept" else None,
        strategy=strategy,
    )


@pytest.mark.parametrize(
    ("shape", "strategy", "fewest", "most"),
    [
        ((8, 64, 8), "dense", 1, 1),
        ((64, 128, 64), "dense", 1, 1),
        ((64, 128, 64), "skip_a", 1, 1),
        ((64, 128, 64), "kept", 1, 1),
        ((128, 784, 10), "dense", 1, 2),
        ((128, 128, 128), "dense", 1, 4),
        ((64, 512, 512), "dense", 3, 20),
        ((64, 512, 512), "skip_a", 2, 20),
        ((64, 512, 512), "kept", 2, 20),
        ((128, 1024, 1024), "dense", 8, MANY),
        ((128, 1024, 1024), "skip_a", 8, MANY),
        ((128, 1024, 1024), "kept", 8, MANY),
        ((1024, 1024, 1024), "dense", MANY, MANY),
        ((1024, 1024, 1024), "skip_a", MANY, MANY),
        ((1024, 1024, 1024), "kept", MANY, MANY),
    ],
)
def test_products_take_the_threads_they_are_worth(shape, strategy, fewest, most):
    p = product(*shape, strategy)
    assert fewest <= threads_of(lambda: native.multiply((p,))) <= most


def test_less_to_do_takes_fewer_threads():
    counts = []
    for density in (0.05, 0.3, 0.9):
        products = (product(256, 512, 512, "skip_a", density),)
        counts.append(threads_of(lambda given=products: native.multiply(given)))
    assert counts == sorted(counts)
    assert counts[0] < counts[-1]


def test_the_strategy_does_not_depend_on_the_threads():
    for shape in ((64, 128, 64), (128, 784, 1024), (1024, 1024, 10)):
        p = product(*shape, "skip_a")
        p.strategy = ""
        names = []
        for count in (1, 2, MANY):
            native.set_num_threads(count)
            names.append(native.strategy_of(p))
        assert len(set(names)) == 1


ELEMENTWISE = {
    "mask_bits": lambda x, bits: native.mask_bits(bits, x.size, 0.3, 1, 0, 0),
    "dropout_forward": lambda x, bits: native.dropout_forward(x, x, bits, 0.3, 1.0, 1, 0, 0),
    "apply_bits": lambda x, bits: native.apply_bits(x, x, bits, 1.0),
    "relu": lambda x, bits: native.relu(x, x, bits),
    "nonzero_bits": lambda x, bits: native.nonzero_bits(x, bits),
}


@pytest.mark.parametrize("name", list(ELEMENTWISE))
@pytest.mark.parametrize(
    ("n", "fewest", "most"), [(1000, 1, 1), (100_000, 1, 1), (1 << 20, 2, 12), (1 << 24, 16, MANY)]
)
def test_masks_and_elementwise_calls_take_the_threads_they_are_worth(name, n, fewest, most):
    x, bits = np.ones(n, np.float32), np.zeros((n + 7) // 8, np.uint8)
    assert fewest <= threads_of(lambda: ELEMENTWISE[name](x, bits)) <= most


@pytest.mark.parametrize(
    ("n", "fewest", "most"), [(1000, 1, 1), (20_000, 1, 1), (1 << 19, 2, 16), (1 << 24, 32, MANY)]
)
@pytest.mark.parametrize("name", ["adam", "sgd", "momentum"])
def test_optimizer_steps_take_the_threads_they_are_worth(name, n, fewest, most):
    p, g, m, v = (np.zeros(n, np.float32) for _ in range(4))
    steps = {
        "adam": lambda: native.adam_step(
            [(p, g, m, v, None)], (0.1, 0.9, 0.99, 1.0, 1.0, 1e-7, 0.0)
        ),
        "sgd": lambda: native.sgd_step([(p, g, None, None)], (0.1, 0.0, False, 0.0)),
        "momentum": lambda: native.sgd_step([(p, g, v, None)], (0.1, 0.9, False, 0.0)),
    }
    assert fewest <= threads_of(steps[name]) <= most
