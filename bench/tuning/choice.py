"""Whether the way that a product takes is the faster one: dense, or past the zeros.

    python3 bench/tuning/choice.py [--quick]

Both ways are forced, with the same work asked for (bias, ReLU and mask where there are any), and
compared with what is chosen by the measured density, around the densities where they cost the same.
The ratios are medians over rounds in which each of the three has its turn, because minima of what
is chosen and of the same thing, forced, differ by more than there is to see.
`DROPWISE_ISA` says for which instruction set.
"""

from __future__ import annotations

import argparse
import dataclasses
import functools
import sys
from collections.abc import Callable, Iterable
from pathlib import Path

import numpy as np

import dropwise as dw
from dropwise._backends.protocol import Product

sys.path.insert(0, str(Path(__file__).parents[1]))
import harness
import products
from harness import Case, Contender, Goal, Question

SHAPES = (
    (1, 512, 512),
    (8, 512, 512),
    (16, 64, 40),
    (32, 784, 32),
    (64, 64, 64),
    (100, 100, 100),
    (256, 256, 40),
    *products.SHAPES,
)  # B, K, N
DENSITIES = (0.95, 0.85, 0.75, 0.6, 0.3)

_native = harness.optional("dropwise._native")


def call_of(product: str, o: products.Operands, density: float) -> Callable[[str], np.ndarray]:
    """The product as a function of the way to take; `skip` stands for the one that skips."""
    a, b = products.dense_operands(product, o)
    if "kept" in product:
        _, bits = o.zeros(o.x if product == "dX kept" else o.dy, 1 - density, "mask")
        first = product == "first outputs kept"
        bias = np.ones(b.shape[1], np.float32) if first else None
        out = np.empty((a.shape[0], b.shape[1]), np.float32)
        whole = Product(a, b, out, bias, first, bits=bits, scale=2.0)

        def kept(way: str) -> np.ndarray:
            way = "kept" if way == "skip" else way
            _native.multiply([dataclasses.replace(whole, strategy=way)])
            return out

        return kept
    zeros = "b" if product == "first dW" else "a"
    matrix = {"x @ W": o.x, "dW": o.x}.get(product, o.dy)
    matrix, _ = o.zeros(matrix, 1 - density, "mask")
    a, b = {"x @ W": (matrix, b), "dW": (matrix.T, b), "first dX": (matrix, b)}.get(
        product, (a, matrix)
    )
    out = np.empty((a.shape[0], b.shape[1]), np.float32)

    def skipped(way: str) -> np.ndarray:
        way = f"skip_{zeros}" if way == "skip" else way
        _native.multiply([Product(a, b, out, skip=zeros, strategy=way)])
        return out

    return skipped


def cases(args: argparse.Namespace) -> Iterable[Case]:
    for shape in SHAPES[2:4] if args.quick else SHAPES:
        operands = products.Operands(shape)
        for product in products.PRODUCTS:
            for density in DENSITIES[::4] if args.quick else DENSITIES:
                call = call_of(product, operands, density)
                check = products.equals(call("dense").copy())
                labels = dict(zip("BKN", shape, strict=True))
                yield Case(
                    {"what": product, **labels, "density": density},
                    [
                        Contender(name, functools.partial(call, way), check)
                        for name, way in (("chosen", ""), ("dense", "dense"), ("skipping", "skip"))
                    ],
                )


QUESTION = Question(
    "choice",
    __doc__.partition("\n")[0],
    cases,
    [
        Goal("the way chosen, any product, density and shape", "the better of both", ">=",
             0.95, 1.0, "chosen", ("dense", "skipping"), {}, "paired")
    ],
    rounds=15,  # ratios of fewer are noise
    seconds=0.2,
)  # fmt: skip

if __name__ == "__main__":
    dw.set_backend("native")
    harness.main(QUESTION)
