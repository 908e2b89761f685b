"""One step without an optimizer: Dense, ReLU, Dropout, Dense, forward and backward; for fit.py.

Everything a step needs is timed: the mask is drawn in it, gradients of all weights and biases come
out of it; the gradient of the input is not asked for.  NumPy runs with each of OpenBLAS' kernel
sets, into memory that is there, with single-precision uniforms for its masks: as fast as it goes.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable, Iterable, Mapping
from typing import Any

import numpy as np

import dropwise as dw
import harness
import openblas
from harness import Case, Contender, Goal

SHAPES = (
    (128, 784, 512, 10),
    (128, 512, 512, 512),
    (256, 1024, 1024, 1024),
    (512, 2048, 2048, 2048),
)  # batch, inputs, hidden, outputs
RATES = (0.1, 0.5, 0.8)
PICTURED = (256, 1024, 1024, 1024)
PICTURED_RATES = (0.1, 0.2, 0.35, 0.5, 0.65, 0.8, 0.9)

_native = harness.optional("dropwise._native")
_torch = harness.peer("torch")
_jax = harness.peer("jax")


class Problem:
    """Weights, a batch, and the gradient of the result."""

    def __init__(self, shape: tuple[int, int, int, int]) -> None:
        rng = np.random.default_rng(0)
        batch, inputs, hidden, outputs = shape
        self.shape = shape
        self.x = rng.standard_normal((batch, inputs), np.float32)
        self.w0 = rng.standard_normal((inputs, hidden), np.float32) / np.float32(inputs**0.5)
        self.w1 = rng.standard_normal((hidden, outputs), np.float32) / np.float32(hidden**0.5)
        self.dy = rng.standard_normal((batch, outputs), np.float32)

    def gradients(self, mask: np.ndarray | float = 1.0) -> tuple[np.ndarray, np.ndarray]:
        """Those of both weights in float64, with a mask of zeros and scales."""
        x, w0, w1, dy = (a.astype(np.float64) for a in (self.x, self.w0, self.w1, self.dy))
        z = x @ w0
        h = np.maximum(z, 0) * mask
        return x.T @ (dy @ w1.T * mask * (z > 0)), h.T @ dy


Gradients = tuple[np.ndarray, np.ndarray]


class NumpyNet:
    """The same step with NumPy, all results in memory that is kept."""

    def __init__(self, p: Problem, rate: float, matmul: Callable[..., Any]) -> None:
        self.p, self.rate, self.matmul = p, rate, matmul
        batch, _, hidden, outputs = p.shape
        self.h, self.dh, self.mask = np.empty((3, batch, hidden), np.float32)
        self.y = np.empty((batch, outputs), np.float32)
        self.dw0, self.dw1 = np.empty_like(p.w0), np.empty_like(p.w1)
        self.b0, self.b1 = np.zeros(hidden, np.float32), np.zeros(outputs, np.float32)
        self.rng = np.random.default_rng(0)

    def step(self) -> Gradients:
        p, h, dh, mask = self.p, self.h, self.dh, self.mask
        self.matmul(p.x, p.w0, h)
        np.add(h, self.b0, out=h)
        self.rng.random(out=mask, dtype=np.float32)
        np.greater_equal(mask, self.rate, out=mask)
        mask *= np.float32(1 / (1 - self.rate))
        mask *= h > 0
        h *= mask
        self.matmul(h, p.w1, self.y)
        np.add(self.y, self.b1, out=self.y)
        self.matmul(h.T, p.dy, self.dw1)
        self.db1 = p.dy.sum(axis=0)
        self.matmul(p.dy, p.w1.T, dh)
        dh *= mask
        self.matmul(p.x.T, dh, self.dw0)
        self.db0 = dh.sum(axis=0)
        return self.dw0, self.dw1


def our_net(p: Problem, rate: float) -> dw.Sequential:
    _, inputs, hidden, outputs = p.shape
    net = dw.Sequential(
        [dw.Dense(inputs, hidden), dw.ReLU(), dw.Dropout(rate), dw.Dense(hidden, outputs)], seed=0
    )
    net.layers[0].weight, net.layers[3].weight = p.w0, p.w1
    return net


def ours(name: str, p: Problem, rate: float, before: Callable[[], object]) -> Contender:
    net = our_net(p, rate)
    hidden, _, dropout, output = net.layers

    def step() -> Gradients:
        net.forward(p.x)
        net.backward(p.dy, input_grad=False)
        return hidden.grad_weight, output.grad_weight

    def check(result: Gradients) -> None:
        for got, expected in zip(result, p.gradients(dropout.mask / (1 - rate)), strict=True):
            error = np.abs(got - expected).max() / np.abs(expected).max()
            # A unit whose sum is all but 0 may pass the ReLU in one precision and not in the other.
            assert error < 1e-3, f"relative error {error}"

    return Contender(name, step, check, before)


def torch_contender(p: Problem, rate: float) -> Contender:
    _, inputs, hidden, outputs = p.shape
    nn = _torch.nn
    net = nn.Sequential(
        nn.Linear(inputs, hidden), nn.ReLU(), nn.Dropout(rate), nn.Linear(hidden, outputs)
    )
    with _torch.no_grad():
        for linear, weight in ((net[0], p.w0), (net[3], p.w1)):
            linear.weight.copy_(_torch.from_numpy(weight.T.copy()))
            linear.bias.zero_()
    x, dy = _torch.from_numpy(p.x), _torch.from_numpy(p.dy)

    def step() -> Gradients:
        net.zero_grad(set_to_none=True)
        net(x).backward(dy)
        return net[0].weight.grad, net[3].weight.grad

    return Contender("PyTorch", step, lambda r: plausible([g.numpy().T for g in r], p, rate))


def jax_contender(p: Problem, rate: float) -> Contender:
    jnp = _jax.numpy
    key = _jax.random.key(0)
    parameters = (
        jnp.asarray(p.w0), jnp.zeros(p.shape[2]), jnp.asarray(p.w1), jnp.zeros(p.shape[3])
    )  # fmt: skip
    x, dy = jnp.asarray(p.x), jnp.asarray(p.dy)

    @_jax.jit
    def gradients(parameters: Any, x: Any, dy: Any, count: Any) -> Any:
        def network(w0: Any, b0: Any, w1: Any, b1: Any) -> Any:
            h = jnp.maximum(x @ w0 + b0, 0)
            kept = _jax.random.bernoulli(_jax.random.fold_in(key, count), 1 - rate, h.shape)
            return jnp.where(kept, h / (1 - rate), 0) @ w1 + b1

        y, pull = _jax.vjp(network, *parameters)
        return y, pull(dy)

    count = iter(range(1 << 62))

    def step() -> Gradients:
        _, found = _jax.block_until_ready(gradients(parameters, x, dy, next(count)))
        return found[0], found[2]

    return Contender("JAX jit", step, lambda r: plausible([np.asarray(g) for g in r], p, rate))


def plausible(found: Iterable[np.ndarray], p: Problem, rate: float) -> None:
    """Raise unless these are the gradients without dropout, and the noise that dropout adds."""
    for got, expected in zip(found, p.gradients(), strict=True):
        along = np.vdot(got, expected) / np.vdot(expected, expected)
        length = np.vdot(got, got) / np.vdot(expected, expected)
        assert abs(along - 1) < 0.1, f"the mean gradient is off by a factor {along}"
        assert abs(length * (1 - rate) - 1) < 0.3, f"the noise of the gradient is {length}"


def cases(args: argparse.Namespace) -> Iterable[Case]:
    libraries = openblas.configurations(args.threads)
    for shape in SHAPES[:1] if args.quick else SHAPES:
        p = Problem(shape)
        rates = PICTURED_RATES if shape == PICTURED else RATES
        for rate in rates[1:2] if args.quick else rates:
            yield case_of(p, rate, libraries, args.threads)


def case_of(
    p: Problem, rate: float, libraries: Mapping[str, openblas.OpenBlas], threads: int
) -> Case:
    matmuls: dict[str, Callable[..., Any]] = {
        f"NumPy, {name}": library.matmul for name, library in libraries.items()
    } or {"NumPy": lambda a, b, out: np.matmul(a, b, out=out)}
    contenders = [
        Contender(name, NumpyNet(p, rate, matmul).step, lambda r: plausible(r, p, rate))
        for name, matmul in matmuls.items()
    ]
    if _torch is not None:
        contenders.append(torch_contender(p, rate))
    if _jax is not None:
        contenders.append(jax_contender(p, rate))

    def choose(backend: str, isa: str | None = None) -> Callable[[], object]:
        def before() -> None:
            dw.set_backend(backend)
            dw.set_num_threads(threads)
            if isa is not None:
                _native.set_isa(isa)

        return before

    contenders.append(ours("numba", p, rate, choose("numba")))
    if _native is not None:
        best = _native.available_isas()[0]
        contenders.append(ours("native", p, rate, choose("native", best)))
        if "avx2" in _native.available_isas() and best != "avx2":
            contenders.append(ours("native avx2", p, rate, choose("native", "avx2")))
    return Case({"what": "step", "shape": "x".join(map(str, p.shape)), "rate": rate}, contenders)


# ---- goals -----------------------------------------------------------------------------------

_NUMPY = ("NumPy", *(f"NumPy, {name}" for name in openblas.CONFIGURATIONS))
MAIN = "x".join(map(str, PICTURED))
_STEP = f"step, ({', '.join(map(str, PICTURED))}), rate 0.5"

GOALS = [
    Goal(_STEP, against, ">=", floor, aim, "native", theirs, {"shape": MAIN, "rate": 0.5})
    for against, theirs, floor, aim in (
        ("PyTorch", ("PyTorch",), 4, 5),
        ("JAX jit", ("JAX jit",), 2, 2.6),
        ("NumPy, best OpenBLAS", _NUMPY, 1.8, 2.2),
    )
]
