"""What an epoch of the spiral run costs, and how accurate its networks get.

    python3 bench/spiral.py [--quick] [--threads 2]
    python3 bench/spiral.py --accuracy        # ten whole runs: 10001 epochs, 5 seeds, both wirings

An epoch is one full-batch step on 3000 points: forward, loss, accuracy, penalty, backward, Adam.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import statistics
import sys
from collections.abc import Callable, Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
from rich.console import Console
from rich.progress import track
from rich.table import Table

import dropwise as dw
import harness
from dropwise.cli.spiral import Spiral
from harness import Case, Contender, Goal, Question

HIDDEN, RATE = 512, 0.1
L2, LEARNING_RATE, DECAY, EPSILON, BETAS = 5e-4, 0.05, 5e-5, 1e-7, (0.9, 0.999)
# Mean accuracy over seeds, training and validation, of reference runs in NumPy and JAX, and how far
# from them a mean of ours may be.
REFERENCE = {"correct": (0.857, 0.867, 0.015), "as-printed": (0.895, 0.882, 0.03)}

_native = harness.optional("dropwise._native")
_torch = harness.peer("torch")
_jax = harness.peer("jax")


# ---- the network as the texts write it ---------------------------------------------------------


class TextbookDense:
    def __init__(self, inputs: int, outputs: int, l2: float) -> None:
        rng = np.random.default_rng(0)
        self.weights = np.float32(0.01) * rng.standard_normal((inputs, outputs), np.float32)
        self.biases = np.zeros((1, outputs), np.float32)
        self.l2 = np.float32(l2)

    def forward(self, inputs: np.ndarray) -> np.ndarray:
        self.inputs = inputs
        return np.dot(inputs, self.weights) + self.biases

    def backward(self, dvalues: np.ndarray) -> np.ndarray:
        self.dweights = np.dot(self.inputs.T, dvalues) + 2 * self.l2 * self.weights
        self.dbiases = np.sum(dvalues, axis=0, keepdims=True) + 2 * self.l2 * self.biases
        return np.dot(dvalues, self.weights.T)

    def penalty(self) -> float:
        return self.l2 * (np.sum(self.weights**2) + np.sum(self.biases**2))


class TextbookReLU:
    def forward(self, inputs: np.ndarray) -> np.ndarray:
        self.inputs = inputs
        return np.maximum(0, inputs)

    def backward(self, dvalues: np.ndarray) -> np.ndarray:
        dinputs = dvalues.copy()
        dinputs[self.inputs <= 0] = 0
        return dinputs


class TextbookDropout:
    def forward(self, inputs: np.ndarray) -> np.ndarray:
        kept = np.random.rand(*inputs.shape) > RATE  # noqa: NPY002  # as in the texts
        self.mask = kept * np.float32(1 / (1 - RATE))
        return inputs * self.mask

    def backward(self, dvalues: np.ndarray) -> np.ndarray:
        return dvalues * self.mask


class TextbookAdam:
    def __init__(self) -> None:
        self.iterations = 0
        self.moments: dict[tuple[int, str], list[np.ndarray]] = {}

    def update(self, layers: Iterable[TextbookDense]) -> None:
        rate = np.float32(LEARNING_RATE / (1 + DECAY * self.iterations))
        self.iterations += 1
        for i, layer in enumerate(layers):
            for name in ("weights", "biases"):
                value, gradient = getattr(layer, name), getattr(layer, "d" + name)
                zeros = [np.zeros_like(value), np.zeros_like(value)]
                m, v = self.moments.get((i, name), zeros)
                m = BETAS[0] * m + (1 - BETAS[0]) * gradient
                v = BETAS[1] * v + (1 - BETAS[1]) * gradient**2
                self.moments[i, name] = [m, v]
                m = m / (1 - BETAS[0] ** self.iterations)
                v = v / (1 - BETAS[1] ** self.iterations)
                setattr(layer, name, value - rate * m / (np.sqrt(v) + EPSILON))


def textbook(x: np.ndarray, y: np.ndarray) -> Callable[[], float]:
    first, last = TextbookDense(2, HIDDEN, L2), TextbookDense(HIDDEN, 3, 0.0)
    relu, dropout, adam = TextbookReLU(), TextbookDropout(), TextbookAdam()
    rows = np.arange(len(y))

    def epoch() -> float:
        scores = last.forward(dropout.forward(relu.forward(first.forward(x))))
        exponentials = np.exp(scores - scores.max(axis=1, keepdims=True))
        probabilities = exponentials / exponentials.sum(axis=1, keepdims=True)
        loss = -np.log(np.clip(probabilities[rows, y], 1e-7, 1 - 1e-7)).mean()
        epoch.accuracy = np.mean(probabilities.argmax(axis=1) == y)
        epoch.penalty = first.penalty()
        gradient = probabilities.copy()
        gradient[rows, y] -= 1
        gradient /= len(y)
        first.backward(relu.backward(dropout.backward(last.backward(gradient))))
        adam.update([first, last])
        return float(loss)

    return epoch


# ---- the peers ---------------------------------------------------------------------------------


def ours(x: np.ndarray, y: np.ndarray) -> Callable[[], float]:
    net = dw.Sequential(
        [
            dw.Dense(2, HIDDEN, l2=L2, bias_l2=L2, init=0.01),
            dw.ReLU(),
            dw.Dropout(RATE),
            dw.Dense(HIDDEN, 3, init=0.01),
        ],
        seed=0,
    )
    adam = dw.Adam(LEARNING_RATE, decay=DECAY, epsilon=EPSILON, beta_1=BETAS[0], beta_2=BETAS[1])
    epochs = net.iter_fit(
        x, y, loss=dw.SoftmaxCrossEntropy(), optimizer=adam, epochs=1 << 40, batch_size=None
    )
    return lambda: next(epochs).data_loss


def torch_epoch(x: np.ndarray, y: np.ndarray) -> Callable[[], float]:
    nn = _torch.nn
    _torch.manual_seed(0)
    net = nn.Sequential(nn.Linear(2, HIDDEN), nn.ReLU(), nn.Dropout(RATE), nn.Linear(HIDDEN, 3))
    for linear in (net[0], net[3]):
        nn.init.normal_(linear.weight, std=0.01)
        nn.init.zeros_(linear.bias)
    # PyTorch's weight decay is the gradient of decay / 2 * w**2, and costs less than a penalty.
    groups = [
        {"params": net[0].parameters(), "weight_decay": 2 * L2},
        {"params": net[3].parameters()},
    ]
    adam = _torch.optim.Adam(groups, lr=LEARNING_RATE, eps=EPSILON, betas=BETAS)
    slower = _torch.optim.lr_scheduler.LambdaLR(adam, lambda step: 1 / (1 + DECAY * step))
    inputs, targets = _torch.from_numpy(x), _torch.from_numpy(y)
    cross_entropy = nn.CrossEntropyLoss()

    def epoch() -> float:
        adam.zero_grad()
        scores = net(inputs)
        loss = cross_entropy(scores, targets)
        with _torch.no_grad():
            epoch.accuracy = (scores.argmax(1) == targets).float().mean().item()
            epoch.penalty = L2 * sum((p**2).sum() for p in net[0].parameters()).item()
        loss.backward()
        adam.step()
        slower.step()
        return loss.item()

    return epoch


def jax_epoch(x: np.ndarray, y: np.ndarray) -> Callable[[], float]:
    jnp = _jax.numpy
    key = _jax.random.key(0)
    inputs, targets = jnp.asarray(x), jnp.asarray(y)

    def losses(parameters: Any, inputs: Any, targets: Any, count: Any) -> Any:
        w0, b0, w1, b1 = parameters
        h = jnp.maximum(inputs @ w0 + b0, 0)
        kept = _jax.random.bernoulli(_jax.random.fold_in(key, count), 1 - RATE, h.shape)
        scores = jnp.where(kept, h / (1 - RATE), 0) @ w1 + b1
        logs = _jax.nn.log_softmax(scores)
        data = -jnp.take_along_axis(logs, targets[:, None], 1).mean()
        penalty = L2 * ((w0**2).sum() + (b0**2).sum())
        return data + penalty, (data, penalty, (scores.argmax(1) == targets).mean())

    @_jax.jit
    def step(state: Any, inputs: Any, targets: Any) -> Any:
        count, parameters, means, squares = state
        (_, figures), gradients = _jax.value_and_grad(losses, has_aux=True)(
            parameters, inputs, targets, count
        )
        rate = LEARNING_RATE / (1 + DECAY * count)
        t = count + 1.0

        def update(p: Any, g: Any, m: Any, v: Any) -> Any:
            m = BETAS[0] * m + (1 - BETAS[0]) * g
            v = BETAS[1] * v + (1 - BETAS[1]) * g**2
            root = jnp.sqrt(v / (1 - BETAS[1] ** t)) + EPSILON
            return p - rate * m / (1 - BETAS[0] ** t) / root, m, v

        parameters, means, squares = zip(
            *map(update, parameters, gradients, means, squares), strict=True
        )
        return (count + 1, parameters, means, squares), figures

    rng = np.random.default_rng(0)
    parameters = tuple(
        jnp.asarray(np.float32(0.01) * rng.standard_normal(shape, np.float32))
        if len(shape) == 2
        else jnp.zeros(shape)
        for shape in ((2, HIDDEN), (HIDDEN,), (HIDDEN, 3), (3,))
    )
    zeros = tuple(jnp.zeros_like(p) for p in parameters)
    state = (0, parameters, zeros, zeros)

    def epoch() -> float:
        nonlocal state
        state, figures = _jax.block_until_ready(step(state, inputs, targets))
        return float(figures[0])

    return epoch


# ---- cases -------------------------------------------------------------------------------------


def learns(epoch: Callable[[], float]) -> Callable[[float], None]:
    """The check of an epoch: the first loss is that of guessing, and 40 epochs lower it."""

    def check(first: float) -> None:
        assert abs(first - np.log(3)) < 0.01, f"the first loss is {first}"
        for _ in range(40):
            loss = epoch()
        assert 0.7 < loss < 1.0, f"the loss after 40 epochs is {loss}"

    return check


def cases(args: argparse.Namespace) -> Iterator[Case]:
    x, y = Spiral(rate=RATE, wiring="correct", seed=0, hidden=HIDDEN, dtype="float32").train
    makers: dict[str, Callable[..., Callable[[], float]]] = {"NumPy textbook": textbook}
    if _torch is not None:
        makers["PyTorch"] = torch_epoch
    if _jax is not None:
        makers["JAX jit"] = jax_epoch
    contenders = []
    for name, maker in makers.items():
        epoch = maker(x, y)
        contenders.append(Contender(name, epoch, learns(epoch)))

    def choose(backend: str, isa: str | None, threads: int) -> Callable[[], object]:
        def before() -> None:
            dw.set_backend(backend)
            dw.set_num_threads(threads)
            if isa is not None:
                _native.set_isa(isa)

        return before

    variants = {"numba": choose("numba", None, args.threads)}
    if _native is not None:
        best, *others = _native.available_isas()
        variants["native"] = choose("native", best, args.threads)
        if not args.quick:
            variants |= {f"native {isa}": choose("native", isa, args.threads) for isa in others}
    for name, before in variants.items():
        epoch = ours(x, y)
        contenders.append(Contender(name, epoch, learns(epoch), before))
    yield Case({"what": "epoch", "rows": len(x)}, contenders)


GOALS = [
    Goal("one epoch of the spiral run", against, ">=", floor, aim, "native", (against,), {})
    for against, floor, aim in (
        ("NumPy textbook", 10, 20),
        ("PyTorch", 10, 20),
        ("JAX jit", 5, 10),
    )
]


def picture(result: Mapping[str, Any], path: Path) -> None:
    """Bars: the time of an epoch."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(7, 3.2), layout="constrained")
    axis = figure.subplots()
    times = {
        name: t["median"] * 1e3 for case in result["cases"] for name, t in case["times"].items()
    }
    names = sorted(times, key=times.__getitem__, reverse=True)
    bars = axis.barh(names, [times[name] for name in names])
    axis.bar_label(bars, [f" {times[name]:.2f}" for name in names])
    axis.set(xlabel="ms an epoch", title="spiral run, full batch of 3000")
    axis.margins(x=0.12)
    figure.savefig(path, metadata={"Date": None})  # the same picture gives the same file


# ---- accuracy ----------------------------------------------------------------------------------


class _NoBar:
    def update(self) -> None: ...

    def set_postfix_str(self, text: str, refresh: bool) -> None: ...


def accuracy(folder: Path, epochs: int = 10001, seeds: range = range(5)) -> None:
    """Whole runs in both wirings: mean accuracy beside that of the reference runs."""
    runs = [(wiring, seed) for wiring in REFERENCE for seed in seeds]
    ends: dict[str, list[Any]] = {wiring: [] for wiring in REFERENCE}
    seconds = {}
    for wiring, seed in track(runs, description="training"):
        job = Spiral(rate=RATE, wiring=wiring, seed=seed, hidden=HIDDEN, dtype="float32")
        job.run(epochs, _NoBar())
        ends[wiring].append(job.history[-1])
        seconds[f"{wiring}, seed {seed}"] = round(job.seconds, 1)
    table = Table("wiring", "train", "reference", "validation", "reference", "within", "each")
    figures = {}
    for wiring, records in ends.items():
        train = [record.train_acc for record in records]
        validation = [record.val_acc for record in records]
        means = statistics.mean(train), statistics.mean(validation)
        *reference, limit = REFERENCE[wiring]
        far = max(abs(a - b) for a, b in zip(means, reference, strict=True))
        each = "  ".join(f"{a:.3f}/{b:.3f}" for a, b in zip(train, validation, strict=True))
        verdict = f"{limit}: {'yes' if far <= limit else 'NO'}"
        shown = [f"{v:.3f}" for pair in zip(means, reference, strict=True) for v in pair]
        table.add_row(wiring, *shown, verdict, each)
        figures[wiring] = {"train": train, "validation": validation}
    Console().print(table)
    folder.mkdir(parents=True, exist_ok=True)
    result = {
        "bench": "spiral-accuracy",
        "machine": harness.machine(dw.get_num_threads()),
        "epochs": epochs,
        "accuracy": figures,
        "seconds": seconds,
    }
    (folder / "spiral-accuracy.json").write_text(json.dumps(result, indent=1) + "\n")


def arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--accuracy", action="store_true", help="train in full instead (minutes)")


QUESTION = Question(
    "spiral", __doc__.partition("\n")[0], cases, GOALS, picture, arguments, seconds=20.0
)

if __name__ == "__main__":
    if "--accuracy" in sys.argv:
        parser = argparse.ArgumentParser(description=QUESTION.text)
        arguments(parser)
        parser.add_argument("--results", type=Path, default=harness.machine_folder() / "raw")
        with contextlib.suppress(KeyboardInterrupt):
            accuracy(parser.parse_args().results)
    else:
        harness.main(QUESTION)
