"""What training costs: epochs of `fit`, steps, optimizers; and Monte Carlo prediction.

    python3 bench/fit.py [--quick] [--threads 2]

An epoch goes from rows in NumPy arrays to updated weights and a mean loss; ours also counts what it
got right.  Before anybody is timed, the losses of its first epochs must be those of the others, to
what another seed changes in them.  scikit-learn has no dropout: its time at rate 0 stands beside
every rate.  The estimators of `dropwise.sklearn` stand there, too, an epoch a call of
`partial_fit`.  trainers.py has the epochs, step.py the forward and backward pass by itself,
memory.py the memory of training.
"""

from __future__ import annotations

import argparse
import functools
from collections.abc import Callable, Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
from rich.table import Table

import dropwise as dw
import harness
import memory
import step
import trainers
from harness import Case, Contender, Goal, Question

NETWORKS = (
    ((784, 1024, 1024, 10), 128, 16),
    ((784, 512, 512, 10), 64, 16),
    ((100, 100, 100, 10), 32, 32),
)  # sizes of layers, rows of a batch, batches of an epoch
RATES = (0.0, 0.5)
PICTURED_RATES = (0.0, 0.1, 0.25, 0.5, 0.75, 0.9)
COMPARED_EPOCHS = 3
SAMPLES = 20
FRESH_SIZES = (1 << 17, 1 << 18, 1 << 20, 1 << 22)

_native = harness.optional("dropwise._native")
_torch = harness.peer("torch")


def backends(threads: int) -> dict[str, Callable[[], object]]:
    """Ours by name, and what chooses each."""

    def choose(name: str) -> None:
        dw.set_backend(name)
        dw.set_num_threads(threads)

    names = ("native", "numba") if _native is not None else ("numba",)
    return {name: functools.partial(choose, name) for name in names}


# ---- epochs ------------------------------------------------------------------------------------


class Curve:
    """Losses of the first epochs of eight of our own runs: what a run of anybody must be like."""

    def __init__(self, p: trainers.Problem, rate: float) -> None:
        self.p, self.rate = p, rate

    @functools.cached_property
    def runs(self) -> np.ndarray:
        """The losses, a row for each run; none are trained until a check asks for them."""
        epochs = [trainers.ours(self.p, self.rate, seed) for seed in range(8)]
        return np.array([[epoch() for _ in range(COMPARED_EPOCHS)] for epoch in epochs])

    def check(self, epoch: trainers.Epoch) -> Callable[[float], None]:
        """The check of a first epoch: it and the next ones have these losses."""

        def check(first: float) -> None:
            losses = np.array([first, *(epoch() for _ in range(COMPARED_EPOCHS - 1))])
            mean = self.runs.mean(axis=0)
            # Five deviations: eight runs say little of the spread.
            limit = 5 * self.runs.std(axis=0, ddof=1) + 0.02 * mean
            assert (abs(losses - mean) < limit).all(), (
                f"the losses are {losses}, not {mean} within {limit}"
            )

        return check


def epochs(args: argparse.Namespace) -> Iterator[Case]:
    for sizes, batch, batches in NETWORKS[-1:] if args.quick else NETWORKS:
        p = trainers.Problem(sizes, batch, batches)
        rates = PICTURED_RATES if sizes == NETWORKS[0][0] else RATES
        curves = {rate: Curve(p, rate) for rate in {0.0, *rates, *RATES}}
        for rate in RATES[1:] if args.quick else rates:
            contenders = [
                Contender(name, epoch, curves[own].check(epoch))
                for name, epoch, own in trainers.peers(p, rate)
            ]
            for name, before in backends(args.threads).items():
                epoch = trainers.ours(p, rate)
                contenders.append(Contender(name, epoch, curves[rate].check(epoch), before))
            name, before = next(iter(backends(args.threads).items()))
            contenders += [
                Contender(f"{name}, estimator", epoch, curves[rate].check(epoch), before)
                for epoch in trainers.our_estimators(p, rate)
            ]
            yield Case({"what": "epoch", "sizes": title(sizes), "rate": rate}, contenders)


def title(sizes: tuple[int, ...]) -> str:
    return "-".join(map(str, sizes))


# ---- parts of an epoch -------------------------------------------------------------------------


def optimizers(args: argparse.Namespace) -> Iterator[Case]:
    """Steps over the parameters of a network, beside copying them."""
    sizes = NETWORKS[-1 if args.quick else 0][0]
    rng = np.random.default_rng(0)
    start = [w for weight in trainers.Problem(sizes, 1, 1).weights for w in (weight, weight[0])]
    gradients = [rng.standard_normal(w.shape, np.float32) for w in start]
    copies = [w.copy() for w in start]

    def copy() -> None:
        for target, source in zip(copies, start, strict=True):
            np.copyto(target, source)

    rules: tuple[tuple[str, Callable[[], Any], Any], ...] = (
        ("Adam", lambda: dw.Adam(1e-3, epsilon=1e-7), lambda g: g / (np.abs(g) + 1e-7)),
        ("SGD", lambda: dw.SGD(1e-3), np.asarray),
        ("SGD, momentum 0.9", lambda: dw.SGD(1e-3, momentum=0.9), np.asarray),
    )
    for rule, make, first in rules:

        def moved(values: list[np.ndarray], first: Any = first) -> None:
            for value, w, g in zip(values, start, gradients, strict=True):
                np.testing.assert_allclose(value, w - np.float32(1e-3) * first(g), atol=2e-5)

        contenders = [Contender("np.copyto", copy, lambda result: None)]
        for name, before in backends(args.threads).items():
            pairs = [(w.copy(), g) for w, g in zip(start, gradients, strict=True)]
            call = functools.partial(our_step, make(), pairs)
            contenders.append(Contender(name, call, moved, before))
        if _torch is not None:
            contenders.append(Contender("PyTorch", torch_step(rule, start, gradients), moved))
        yield Case({"what": "optimizer step", "rule": rule, "sizes": title(sizes)}, contenders)


def our_step(rule: Any, pairs: list[tuple[np.ndarray, np.ndarray]]) -> list[np.ndarray]:
    rule.step(pairs)
    return [p for p, _ in pairs]


def torch_step(
    rule: str, start: list[np.ndarray], gradients: list[np.ndarray]
) -> Callable[[], list[np.ndarray]]:
    """Its fused step, the fastest that it has on a CPU."""
    tensors = [_torch.from_numpy(w.copy()).requires_grad_() for w in start]
    for tensor, g in zip(tensors, gradients, strict=True):
        tensor.grad = _torch.from_numpy(g)
    if rule == "Adam":
        optimizer = _torch.optim.Adam(tensors, lr=1e-3, eps=1e-7, fused=True)
    else:
        momentum = 0.9 if "momentum" in rule else 0.0
        optimizer = _torch.optim.SGD(tensors, lr=1e-3, momentum=momentum, fused=True)

    def call() -> list[np.ndarray]:
        optimizer.step()
        return [tensor.detach().numpy() for tensor in tensors]

    return call


def fresh_results(args: argparse.Namespace) -> Iterator[Case]:
    """A dropout layer that returns new arrays, and one that writes to arrays that are there."""
    for n in FRESH_SIZES[:1] if args.quick else FRESH_SIZES:
        for name, before in backends(args.threads).items():
            yield fresh_case(n, name, before)


def fresh_case(n: int, backend: str, before: Callable[[], object]) -> Case:
    x = np.random.default_rng(0).random(n, np.float32) + 1
    y, dx = np.empty_like(x), np.empty_like(x)
    layer = dw.Dropout(0.1, seed=0)

    def both(out: bool) -> np.ndarray:
        layer.forward(x, out=y if out else None)
        return layer.backward(x, out=dx if out else None)

    def check(result: np.ndarray) -> None:
        np.testing.assert_allclose(result, x * layer.mask / np.float32(0.9), rtol=1e-6)

    return Case(
        {"what": "fresh results", "n": n, "backend": backend},
        [
            Contender(label, functools.partial(both, out), check, before)
            for label, out in (("out=", True), ("fresh", False))
        ],
    )


def monte_carlo(args: argparse.Namespace) -> Iterator[Case]:
    """The mean and the spread of 20 predictions under dropout."""
    sizes = NETWORKS[-1 if args.quick else 0][0]
    for rows in (1, 16):
        p = trainers.Problem(sizes, rows, 1)
        net = trainers.our_net(p, 0.5)
        mean, std = net.predict_mc(p.x, 1000)

        def check(result: Any, mean: np.ndarray = mean, std: np.ndarray = std) -> None:
            far = abs(np.asarray(result[0]) - mean) / (std / SAMPLES**0.5)
            assert far.max() < 6, f"a mean is {far.max()} standard errors away"

        contenders = []
        if _torch is not None:
            contenders = [
                Contender(name, call, check) for name, call in torch_monte_carlo(p, 0.5).items()
            ]
        contenders += [
            Contender(name, functools.partial(net.predict_mc, p.x, SAMPLES), check, before)
            for name, before in backends(args.threads).items()
        ]
        yield Case({"what": "Monte Carlo, 20 samples", "rows": rows}, contenders)


def torch_monte_carlo(p: trainers.Problem, rate: float) -> dict[str, Callable[[], Any]]:
    """One pass for each sample, and all samples as rows of one batch."""
    net, x = trainers.torch_net(p, rate).train(), _torch.from_numpy(p.x)

    def by_passes() -> Any:
        with _torch.no_grad():
            samples = _torch.stack([net(x) for _ in range(SAMPLES)])
            return samples.mean(0), samples.std(0)

    def in_one_batch() -> Any:
        with _torch.no_grad():
            samples = net(x.repeat(SAMPLES, 1)).reshape(SAMPLES, len(x), -1)
            return samples.mean(0), samples.std(0)

    return {"PyTorch, a pass a sample": by_passes, "PyTorch, one batch": in_one_batch}


def cases(args: argparse.Namespace) -> Iterable[Case]:
    for part in (epochs, step.cases, optimizers, fresh_results, monte_carlo):
        yield from part(args)


# ---- goals, tables and picture -----------------------------------------------------------------

_PEERS = {
    "PyTorch, fused Adam": "PyTorch, fused Adam",
    "PyTorch, Adam": "PyTorch, default Adam",
    "JAX jit": "JAX jit",
    "scikit-learn, no dropout": "scikit-learn, without dropout",
}
_LIMITS = {  # floor and aim for each peer, by network
    NETWORKS[0][0]: ((1.9, 2.1), (2.4, 2.7), (1.9, 2.1), (3.8, 4.5)),
    NETWORKS[1][0]: ((1.7, 1.7), (2.3, 2.3), (1.7, 1.7), (3.8, 4.5)),
    NETWORKS[2][0]: ((3.6, 4.2), (4.6, 5.2), (2.7, 3.0), (3.8, 4.5)),
}


def _where(what: str, **labels: Any) -> dict[str, Any]:
    return {"what": what} | labels


GOALS = [
    *step.GOALS,
    *(
        Goal(f"epoch of fit, ({', '.join(map(str, sizes))}), rate 0.5", against, ">=", floor, aim,
             "native", (peer,), _where("epoch", sizes=title(sizes), rate=0.5))
        for sizes, limits in _LIMITS.items()
        for (peer, against), (floor, aim) in zip(_PEERS.items(), limits, strict=True)
    ),
    Goal("epoch of fit, no dropout", "scikit-learn", ">=", 3, 3.5, "native",
         ("scikit-learn, no dropout",), _where("epoch", rate=0.0)),
    *(
        Goal(f"epoch of an estimator, {words}", "scikit-learn, without dropout", ">=", floor, aim,
             "native, estimator", ("scikit-learn, no dropout",), _where("epoch", rate=rate))
        for words, rate, floor, aim in (("no dropout", 0.0, 2.8, 3.5), ("rate 0.5", 0.5, 3.5, 4.5))
    ),
    *(
        Goal(f"{rule} step, 1.9 M parameters", "np.copyto", "<=", floor, aim, "native",
             ("np.copyto",), _where("optimizer step", rule=rule, sizes=title(NETWORKS[0][0])))
        for rule, floor, aim in (("Adam", 2.4, 2.1), ("SGD", 1.2, 1.0),
                                 ("SGD, momentum 0.9", 1.7, 1.5))
    ),
    Goal("forward + backward, fresh results, 128 K to 4 M", "the same with out=", "<=", 1.25, 1.1,
         "fresh", ("out=",), _where("fresh results", backend="native")),
    *(
        Goal(f"Monte Carlo prediction, 20 samples, {rows}", against, ">=", floor, floor, "native",
             (against,), _where("Monte Carlo, 20 samples", rows=n))
        for rows, n in (("1 row", 1), ("16 rows", 16))
        for against, floor in (("PyTorch, a pass a sample", 10), ("PyTorch, one batch", 1))
    ),
]  # fmt: skip


def summary(result: Mapping[str, Any]) -> Iterable[Table]:
    """The memory of training."""
    sizes = result["extra"].get("peak_memory_mib", {})
    if sizes:
        table = Table("", "MiB", title=f"peak memory of training {title(memory.SIZES)}")
        for name, size in sizes.items():
            table.add_row(name, f"{size:.1f}")
        yield table


def picture(result: Mapping[str, Any], path: Path) -> None:
    """Time over the rate, of a step and of an epoch: as far as they were measured."""
    from matplotlib.figure import Figure

    panels = [
        (f"step, {step.MAIN}", "ms a step", {"what": "step", "shape": step.MAIN}),
        (
            f"fit, {title(NETWORKS[0][0])}, 16 batches of 128",
            "ms an epoch",
            _where("epoch", sizes=title(NETWORKS[0][0])),
        ),
    ]
    found = [
        (name, unit, cases)
        for name, unit, where in panels
        if (cases := [c for c in result["cases"] if harness.matches(c["labels"], where)])
    ]
    if not found:
        return
    figure = Figure(figsize=(6.5 * len(found), 4.2), layout="constrained")
    axes = figure.subplots(1, len(found), squeeze=False)[0]
    for axis, (name, unit, cases) in zip(axes, found, strict=True):
        for contender in cases[0]["times"]:
            ours = contender.startswith(("native", "numba"))
            axis.plot(
                [case["labels"]["rate"] for case in cases],
                [case["times"][contender]["median"] * 1e3 for case in cases],
                marker="o",
                linestyle="-" if ours else "--",
                label=f"dropwise, {contender}" if ours else contender,
            )
        axis.set(xlabel="dropout rate", ylabel=unit, ylim=(0, None), xlim=(-0.02, 1), title=name)
        axis.grid(alpha=0.3)
        axis.legend(fontsize="small")
    figure.savefig(path, metadata={"Date": None})  # the same picture gives the same file


QUESTION = Question(
    "fit",
    __doc__.partition("\n")[0],
    cases,
    GOALS,
    picture,
    extra=lambda: {"peak_memory_mib": memory.peaks()},
    summary=summary,
    rounds=7,
    seconds=3.0,
)

if __name__ == "__main__":
    harness.main(QUESTION)
