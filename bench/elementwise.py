"""What dropout costs: against copying memory, the textbook class, PyTorch and JAX.

    python3 bench/elementwise.py [--quick] [--threads 2]

Outputs are written to memory that is there ("out=") or that is allocated in the call ("fresh").
PyTorch draws its mask twice as fast at rate 0.1 as at 0.5: comparisons with it quote 0.1.
"""

from __future__ import annotations

import argparse
import functools
import math
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Any

import numpy as np

import dropwise as dw
import harness
from harness import Case, Contender, Goal, Question

SIZES = (64, 4096, 1 << 16, 1 << 20, 1 << 24)
RATES = (0.1, 0.25, 0.5)
KEY_SEED = 7

_native = harness.optional("dropwise._native")
_torch = harness.peer("torch")
_jax = harness.peer("jax")


class TextbookDropout:
    """The class of the teaching texts: a mask from uniform float64 numbers, kept as bool."""

    def __init__(self, ratio: float) -> None:
        self.ratio = ratio

    def forward(self, x: np.ndarray) -> np.ndarray:
        self.mask = np.random.rand(*x.shape) > self.ratio  # noqa: NPY002  # as in the texts
        return x * self.mask

    def backward(self, dout: np.ndarray) -> np.ndarray:
        return dout * self.mask


# ---- contenders --------------------------------------------------------------------------------


def variants(threads: int) -> dict[str, Callable[[], object]]:
    """Our backends and instruction sets, best first, and what chooses each."""

    def choose(backend: str, isa: str | None, n: int) -> None:
        dw.set_backend(backend)
        if isa is not None:
            _native.set_isa(isa)
        dw.set_num_threads(n)

    found = {}
    if _native is not None:
        active = _native.active_isa()
        found["native"] = functools.partial(choose, "native", active, threads)
        for isa in _native.available_isas():
            if isa != active:
                found[f"native {isa}"] = functools.partial(choose, "native", isa, threads)
    found["numba"] = functools.partial(choose, "numba", None, threads)
    return found


def anything(result: object) -> None:
    """The check of what cannot go wrong."""


def dropped(x: np.ndarray, y: np.ndarray, rate: float, scale: float) -> None:
    """Raise unless y is x with about a share `rate` of zeros, and the rest scaled."""
    y = np.asarray(y)
    zero = y == 0
    np.testing.assert_allclose(y[~zero], (x * np.float32(scale))[~zero], rtol=1e-6)
    deviation = math.sqrt(rate * (1 - rate) / x.size)
    assert abs(zero.mean() - rate) < 6 * deviation + 1e-9, f"dropped {zero.mean()}, not {rate}"


def cases(args: argparse.Namespace) -> Iterable[Case]:
    sizes, rates = (SIZES[1:3], RATES[:1]) if args.quick else (SIZES, RATES)
    for n in sizes:
        for rate in rates:
            rng = np.random.default_rng(n)
            x = (rng.random(n, dtype=np.float32) + 0.5) * rng.choice([-1, 1], n).astype(np.float32)
            dy = rng.random(n, dtype=np.float32) + 0.5
            yield from cases_of(x, dy, rate, args.threads)


def cases_of(x: np.ndarray, dy: np.ndarray, rate: float, threads: int) -> Iterable[Case]:
    labels = {"n": x.size, "rate": rate}
    scale = 1 / (1 - rate)
    y, dx = np.empty_like(x), np.empty_like(x)
    ours = variants(threads)
    layers = {name: dw.Dropout(rate, seed=KEY_SEED) for name in ours}

    def check(name: str, values: np.ndarray) -> Callable[[np.ndarray], None]:
        """The check of a result: `values` under the mask that Numba gives for the last stream."""

        def right(result: np.ndarray) -> None:
            state = layers[name].state_dict()
            with dw.backend("numba"):
                mask = dw.functional.dropout_mask(
                    x.shape, rate, key=int(state["key"], 0), stream=state["next_stream"] - 1
                )
            expected = np.where(mask, values * np.float32(scale), np.float32(0))
            assert result.tobytes() == expected.tobytes()

        return right

    def both(layer: dw.Dropout, out: bool) -> Callable[[], np.ndarray]:
        def call() -> np.ndarray:
            layer.forward(x, out=y if out else None)
            return layer.backward(dy, out=dx if out else None)

        return call

    yield Case(
        {"what": "forward, out="} | labels,
        [Contender("np.copyto", lambda: np.copyto(y, x), anything)]
        + [
            Contender(name, functools.partial(layers[name].forward, x, out=y), check(name, x), use)
            for name, use in ours.items()
        ],
    )
    yield Case(
        {"what": "backward, out="} | labels,
        [Contender("np.copyto", lambda: np.copyto(dx, dy), anything)]
        + [
            Contender(
                name, functools.partial(layers[name].backward, dy, out=dx), check(name, dy), use
            )
            for name, use in ours.items()
        ],
    )
    textbook = TextbookDropout(rate)
    main = {name: use for name, use in ours.items() if name in ("native", "numba")}
    peers = [
        Contender("x.copy()", x.copy, anything),
        Contender(
            "NumPy textbook", lambda: textbook.forward(x), lambda r: dropped(x, r, rate, 1.0)
        ),
    ]
    if _torch is not None:
        peers.append(torch_forward(x, rate))
    if _jax is not None:
        peers.append(jax_forward(x, rate))
    yield Case(
        {"what": "forward, fresh"} | labels,
        peers
        + [
            Contender(name, functools.partial(layers[name].forward, x), check(name, x), use)
            for name, use in main.items()
        ],
    )

    def textbook_both() -> np.ndarray:
        textbook.forward(x)
        return textbook.backward(dy)

    peers = [Contender("NumPy textbook", textbook_both, lambda r: dropped(dy, r, rate, 1.0))]
    if _torch is not None:
        peers.append(torch_both(x, dy, rate))
    yield Case(
        {"what": "forward + backward"} | labels,
        peers
        + [
            Contender(name + suffix, both(layers[name], bool(suffix)), check(name, dy), use)
            for name, use in main.items()
            for suffix in ("", ", out=")
        ],
    )


def torch_forward(x: np.ndarray, rate: float) -> Contender:
    tensor = _torch.from_numpy(x)

    def call() -> Any:
        with _torch.no_grad():
            return _torch.nn.functional.dropout(tensor, rate, training=True)

    return Contender("PyTorch", call, lambda r: dropped(x, r.numpy(), rate, 1 / (1 - rate)))


def torch_both(x: np.ndarray, dy: np.ndarray, rate: float) -> Contender:
    tensor = _torch.from_numpy(x).requires_grad_()
    gradient = _torch.from_numpy(dy)

    def call() -> Any:
        tensor.grad = None
        _torch.nn.functional.dropout(tensor, rate, training=True).backward(gradient)
        return tensor.grad

    return Contender("PyTorch", call, lambda r: dropped(dy, r.numpy(), rate, 1 / (1 - rate)))


def jax_forward(x: np.ndarray, rate: float) -> Contender:
    array = _jax.numpy.asarray(x)
    key = _jax.random.key(0)

    @_jax.jit
    def forward(array: Any, step: Any) -> Any:
        kept = _jax.random.bernoulli(_jax.random.fold_in(key, step), 1 - rate, array.shape)
        return _jax.numpy.where(kept, array / (1 - rate), 0)

    step = iter(range(1 << 62))
    return Contender(
        "JAX jit",
        lambda: forward(array, next(step)).block_until_ready(),
        lambda r: dropped(x, np.asarray(r), rate, 1 / (1 - rate)),
    )


# ---- goals and picture -------------------------------------------------------------------------

_BIG, _MEDIUM, _SMALL = 1 << 24, 1 << 20, 1 << 16
_RANGE = (_SMALL, _MEDIUM, _BIG)
_COPY = ("np.copyto",)


def _forward(n: int, rate: Any = RATES) -> dict[str, Any]:
    return {"what": "forward, out=", "n": n, "rate": rate}


GOALS = [
    Goal("forward, 16 M, out=, any rate", "np.copyto", "<=", 1.1, 0.9, "native", _COPY,
         _forward(_BIG)),
    Goal("backward from bits, 16 M", "np.copyto", "<=", 0.95, 0.75, "native", _COPY,
         {"what": "backward, out=", "n": _BIG}),
    Goal("forward 1 M, generic rate", "np.copyto", "<=", 2.3, 1.7, "native", _COPY,
         _forward(_MEDIUM, 0.1)),
    Goal("forward 1 M, rate 0.5", "np.copyto", "<=", 1.4, 1.1, "native", _COPY,
         _forward(_MEDIUM, 0.5)),
    Goal("forward 64 K, generic rate", "np.copyto", "<=", 3.0, 2.2, "native", _COPY,
         _forward(_SMALL, 0.1)),
    Goal("forward 64 K, rate 0.5", "np.copyto", "<=", 1.7, 1.3, "native", _COPY,
         _forward(_SMALL, 0.5)),
    Goal("forward 16 M, fresh output", "x.copy()", "<=", 1.3, 1.1, "native", ("x.copy()",),
         {"what": "forward, fresh", "n": _BIG}),
    Goal("forward 16 M, AVX2", "np.copyto", "<=", 2, 1.5, "native avx2", _COPY, _forward(_BIG)),
    Goal("forward 16 M, scalar set", "np.copyto", "<=", 5, 3, "native scalar", _COPY,
         _forward(_BIG)),
    Goal("forward + backward, 64 elements", "NumPy textbook class", "<=", 1.0, 0.5, "native",
         ("NumPy textbook",), {"what": "forward + backward", "n": 64}),
    Goal("forward + backward, 64 K to 16 M, rate 0.1", "PyTorch eager", ">=", 10, 20, "native",
         ("PyTorch",), {"what": "forward + backward", "n": _RANGE, "rate": 0.1}),
    Goal("forward + backward, 64 K to 16 M", "NumPy textbook class", ">=", 6, 12, "native",
         ("NumPy textbook",), {"what": "forward + backward", "n": _RANGE}),
    Goal("forward, 64 K to 16 M", "JAX jit", ">=", 12, 20, "native", ("JAX jit",),
         {"what": "forward, fresh", "n": _RANGE}),
    Goal("Numba, 1 M", "native", "<=", 2.5, 1.5, "numba", ("native",),
         {"what": ("forward, out=", "backward, out="), "n": _MEDIUM}),
    Goal("Numba, 16 M", "native", "<=", 3.5, 2, "numba", ("native",),
         {"what": ("forward, out=", "backward, out="), "n": _BIG}),
]  # fmt: skip


def picture(result: Mapping[str, Any], path: Path) -> None:
    """Time an element over the size, at rate 0.1."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(11, 4.2), layout="constrained")
    for axis, what in zip(
        figure.subplots(1, 2, sharey=True), ("forward, out=", "forward + backward"), strict=True
    ):
        cases = [
            case
            for case in result["cases"]
            if harness.matches(case["labels"], {"what": what, "rate": 0.1})
        ]
        for name in cases[0]["times"]:
            sizes = [case["labels"]["n"] for case in cases]
            times = [case["times"][name]["median"] / case["labels"]["n"] * 1e9 for case in cases]
            axis.plot(sizes, times, marker="o", label=name)
        axis.set(xscale="log", yscale="log", xlabel="elements", title=f"{what}, rate 0.1")
        axis.grid(alpha=0.3)
        axis.legend(fontsize="small")
        if axis.get_subplotspec().is_first_col():
            axis.set_ylabel("ns an element")
    figure.savefig(path, metadata={"Date": None})  # the same picture gives the same file


QUESTION = Question("elementwise", __doc__.partition("\n")[0], cases, GOALS, picture, seconds=0.7)

if __name__ == "__main__":
    harness.main(QUESTION)
