"""What products cost: dense, and where zeros are skipped, against OpenBLAS at its best.

    python3 bench/products.py [--quick] [--threads 2]

OpenBLAS gets the matrix with the zeros in it and computes the product alone; our time contains all
that ours needs: reading the zeros, packing, scale, bias, ReLU and writing the dropped outputs.
Ratios are of minima.  "mask" zeros are those of dropout, "relu" those of dropout after a ReLU.
How well the choice between both strategies does is measured by tuning/choice.py.
"""

from __future__ import annotations

import argparse
import functools
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
from rich.table import Table

import dropwise as dw
import harness
import openblas
from dropwise._backends import active
from dropwise._backends.protocol import Product
from harness import Case, Contender, Goal, Question
from tuning import peak

SHAPES = (
    (64, 784, 512),
    (128, 512, 512),
    (256, 1024, 1024),
    (3000, 512, 512),
    (512, 2048, 2048),
    (1024, 4096, 1024),
)  # B, K, N
RATES = (0.1, 0.2, 0.5, 0.8, 0.9)
PRODUCTS = ("x @ W", "dW", "dX kept", "first outputs kept", "first dW", "first dX")

_native = harness.optional("dropwise._native")


class Operands:
    """The matrices of one shape.

    Their elements are whole numbers and all sums below 2**24: every order of summation is exact.
    """

    def __init__(self, shape: tuple[int, int, int]) -> None:
        rng = np.random.default_rng(0)
        b, k, n = shape
        self.x, self.w, self.dy = (
            rng.integers(1, 9, size).astype(np.float32) for size in ((b, k), (k, n), (b, n))
        )
        self.out = {size: np.empty(size, np.float32) for size in ((b, k), (k, n), (b, n))}

    def zeros(self, matrix: np.ndarray, rate: float, kind: str) -> tuple[np.ndarray, np.ndarray]:
        """A copy of the matrix with zeros, and the packed mask of where there are none."""
        rng = np.random.default_rng(1)
        density = (1 - rate) * (0.5 if kind == "relu" else 1)
        kept = rng.random(matrix.shape) < density
        return np.where(kept, matrix, np.float32(0)), np.packbits(kept, bitorder="little")


Call = Callable[[], np.ndarray]


def our_call(product: str, o: Operands, rate: float, kind: str) -> Call:
    """Our product with zeros."""
    if product == "x @ W":
        x, _ = o.zeros(o.x, rate, kind)
        return _matmul(x, o.w, o.out, "a")
    if product == "dW":
        x, _ = o.zeros(o.x, rate, kind)
        return _matmul(x.T, o.dy, o.out, "a")
    if product == "dX kept":
        _, bits = o.zeros(o.x, rate, kind)
        return _kept(o.dy, o.w.T, bits, o.out)
    if product == "first outputs kept":
        _, bits = o.zeros(o.dy, rate, kind)
        bias = np.ones(o.w.shape[1], np.float32)
        return _kept(o.x, o.w, bits, o.out, bias, True)
    dz, _ = o.zeros(o.dy, rate, kind)
    if product == "first dW":
        return _matmul(o.x.T, dz, o.out, "b")
    return _matmul(dz, o.w.T, o.out, "a")


def dense_operands(product: str, o: Operands) -> tuple[np.ndarray, np.ndarray]:
    """The factors of the same product without zeros."""
    return {
        "x @ W": (o.x, o.w),
        "dW": (o.x.T, o.dy),
        "dX kept": (o.dy, o.w.T),
        "first outputs kept": (o.x, o.w),
        "first dW": (o.x.T, o.dy),
        "first dX": (o.dy, o.w.T),
    }[product]


def _matmul(a: np.ndarray, b: np.ndarray, outs: Mapping[Any, np.ndarray], skip: str) -> Call:
    out = outs[a.shape[0], b.shape[1]]
    products = [Product(a, b, out, skip=skip)]

    def call() -> np.ndarray:
        active().multiply(products)
        return out

    return call


def _kept(
    a: np.ndarray,
    b: np.ndarray,
    bits: np.ndarray,
    outs: Mapping[Any, np.ndarray],
    bias: np.ndarray | None = None,
    relu: bool = False,
) -> Call:
    out = outs[a.shape[0], b.shape[1]]
    products = [Product(a, b, out, bias, relu, bits=bits, scale=2.0)]

    def call() -> np.ndarray:
        active().multiply(products)
        return out

    return call


def equals(expected: np.ndarray) -> Callable[[np.ndarray], None]:
    """The check that a product is this one."""
    return lambda result: np.testing.assert_array_equal(result, expected)


def cases(args: argparse.Namespace) -> Iterable[Case]:
    libraries = openblas.configurations(args.threads)
    for shape in SHAPES[:1] if args.quick else SHAPES:
        operands = Operands(shape)
        for product in PRODUCTS:
            yield case_of(shape, product, operands, libraries, args)


def case_of(
    shape: tuple[int, int, int],
    product: str,
    o: Operands,
    libraries: Mapping[str, openblas.OpenBlas],
    args: argparse.Namespace,
) -> Case:
    a, b = dense_operands(product, o)
    exact = a @ b
    out = o.out[exact.shape]
    contenders = [
        Contender(name, functools.partial(library.matmul, a, b, out), equals(exact))
        for name, library in libraries.items()
    ]
    if not libraries:
        contenders.append(
            Contender("NumPy", functools.partial(np.matmul, a, b, out=out), equals(exact))
        )
    sets = [isa for isa in ("avx512", "avx2", "neon") if isa in _native.available_isas()]
    for isa in sets:

        def before(isa: str = isa) -> None:
            _native.set_isa(isa)

        contenders.append(
            Contender(f"{isa} dense", _matmul(a, b, o.out, ""), equals(exact), before)
        )
        # The other sets are there for the rates that have a goal.
        kinds, rates = (args.zeros, RATES) if isa == sets[0] else (("mask",), RATES[2:])
        for kind in kinds:
            for rate in rates[::2] if args.quick else rates:
                if kind == "relu" and product == "first outputs kept":
                    continue  # which outputs are negative is not known before
                call = our_call(product, o, rate, kind)
                contenders.append(
                    Contender(f"{isa} {kind} {rate}", call, right(product, o, rate, kind), before)
                )
    return Case({"what": product, "B": shape[0], "K": shape[1], "N": shape[2]}, contenders)


def right(product: str, o: Operands, rate: float, kind: str) -> Callable[[np.ndarray], None]:
    """The check of our product with zeros."""

    def check(result: np.ndarray) -> None:
        x, dz = o.zeros(o.x, rate, kind), o.zeros(o.dy, rate, kind)
        a, b = {
            "x @ W": (x[0], o.w),
            "dW": (x[0].T, o.dy),
            "first dW": (o.x.T, dz[0]),
            "first dX": (dz[0], o.w.T),
        }.get(product, dense_operands(product, o))
        expected = a @ b
        if "kept" in product:
            bits = x[1] if product == "dX kept" else dz[1]
            kept = np.unpackbits(bits, count=result.size, bitorder="little").reshape(result.shape)
            expected = 2 * kept * np.maximum(expected + ("first" in product), 0)
        np.testing.assert_array_equal(result, expected)

    return check


# ---- goals and picture -------------------------------------------------------------------------

_BLAS = ("NumPy", *openblas.CONFIGURATIONS)
_SKIPPING = {  # floors, then aims, at rates 0.5, 0.8, 0.9
    "skipping x @ W": (("x @ W",), (1.35, 2.4, 3.2), (1.6, 2.9, 4.3)),
    "skipping dW": (("dW", "first dW"), (1.20, 1.9, 2.4), (1.5, 2.5, 3.4)),
    "skipping dX and first-layer outputs": (
        ("dX kept", "first outputs kept"),
        (1.25, 2.1, 2.6),
        (1.5, 2.6, 3.6),
    ),
}


def _goals(isa: str, best: tuple[str, ...], against: str) -> list[Goal]:
    goals = [
        Goal(f"dense product, {isa}", against, ">=", 0.95, 1.05, f"{isa} dense", best, {},
             "minimum")
    ]  # fmt: skip
    for what, (products, floors, aims) in _SKIPPING.items():
        goals += [
            Goal(f"{what} at rate {rate}, {isa}", f"{against}, dense", ">=", floor, aim,
                 f"{isa} mask {rate}", best, {"what": products}, "minimum")
            for rate, floor, aim in zip((0.5, 0.8, 0.9), floors, aims, strict=True)
        ]  # fmt: skip
    ours = tuple(f"{isa} {kind} {rate}" for kind in ("mask", "relu") for rate in RATES)
    goals.append(
        Goal(f"any product at any density, {isa}", "dense, ours", ">=", 0.95, 1.0, ours,
             (f"{isa} dense",), {}, "minimum")
    )  # fmt: skip
    return goals


GOALS = _goals("avx512", _BLAS, "best OpenBLAS") + _goals(
    "avx2", ("OpenBLAS Haswell",), "OpenBLAS Haswell"
)


def peaks() -> dict[str, Any]:
    """The limits of each instruction set, for dense products and for skipping ones."""
    lanes = {isa: peak.LANES[isa] for isa in _native.available_isas()}
    return {
        "peak_gflops": {isa: peak.peak_gflops(n) for isa, n in lanes.items()},
        "loaded_gflops": {isa: peak.peak_gflops(n, loaded=True) for isa, n in lanes.items()},
        "peak_method": "chains of fused multiply-adds in registers, one core; "
        "loaded: with one factor from the first-level cache",
    }


def picture(result: Mapping[str, Any], path: Path) -> None:
    """Speed-up over the best OpenBLAS by rate: geometric mean of the shapes, by product."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(11, 4.2), layout="constrained")
    axes = figure.subplots(1, 2, sharey=True)
    for axis, kind in zip(axes, ("mask", "relu"), strict=True):
        for product in PRODUCTS:
            points = [
                (rate, ratio)
                for rate in RATES
                if (ratio := typical(result, f"avx512 {kind} {rate}", _BLAS, product))
            ]
            if points:
                axis.plot(*zip(*points, strict=True), marker="o", label=product)
        axis.axhline(1, color="black", linewidth=0.8)
        axis.set(xlabel="dropout rate", title=f"zeros of {kind}")
        axis.grid(alpha=0.3)
    axes[0].set_ylabel("times as fast as the best dense OpenBLAS")
    axes[0].legend(fontsize="small")
    figure.savefig(path, metadata={"Date": None})  # the same picture gives the same file


def typical(
    result: Mapping[str, Any], ours: str, theirs: tuple[str, ...], product: str
) -> float | None:
    """How many times as fast as they we are: the geometric mean over the shapes."""
    goal = Goal("", "", ">=", 0, 0, ours, theirs, {"what": product}, "minimum")
    ratios = goal.ratios(result)
    return float(np.exp(np.mean(np.log(ratios)))) if ratios else None


def summary(result: Mapping[str, Any]) -> Iterable[Table]:
    """Typical speed-ups, and the share of the peak that useful operations reach."""
    for isa, theirs, against in (
        ("avx512", _BLAS, "best OpenBLAS"),
        ("avx2", ("OpenBLAS Haswell",), "OpenBLAS Haswell"),
    ):
        limit = result["extra"]["peak_gflops"].get(isa)
        if limit is None:
            continue
        table = Table(
            "",
            *PRODUCTS,
            title=f"{isa}: times as fast as dense {against}, geometric mean; "
            f"share of {limit:.0f} GF/s by what is not skipped "
            f"({result['extra']['loaded_gflops'][isa]:.0f} GF/s if a factor of each is loaded)",
        )
        names = dict.fromkeys(name for case in result["cases"] for name in case["times"])
        for name in names:
            if not name.startswith((isa, "OpenBLAS", "NumPy")):
                continue
            cells = []
            for product in PRODUCTS:
                ratio = typical(result, name, theirs, product)
                shares = [
                    2 * np.prod([case["labels"][d] for d in "BKN"]) * _density(name)
                    / case["times"][name]["minimum"] / limit / 1e9
                    for case in result["cases"]
                    if case["labels"]["what"] == product and name in case["times"]
                ]  # fmt: skip
                cells.append(f"{ratio:.2f}  {np.mean(shares):4.0%}" if ratio else "")
            table.add_row(name, *cells)
        yield table


def _density(name: str) -> float:
    """Of the matrix that a contender of this name multiplies."""
    _, _, tail = name.partition(" ")
    kind, _, rate = tail.partition(" ")
    return (1 - float(rate)) * {"mask": 1.0, "relu": 0.5}[kind] if rate else 1.0


def arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--zeros", nargs="+", choices=("mask", "relu"), default=("mask", "relu"))


QUESTION = Question(
    "products",
    __doc__.partition("\n")[0],
    cases,
    GOALS,
    picture,
    arguments,
    peaks,
    summary,
    rounds=25,  # minima of few are noise
    seconds=1.0,
)

if __name__ == "__main__":
    dw.set_backend("native")
    harness.main(QUESTION)
