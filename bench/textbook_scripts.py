"""What the teaching texts' own scripts cost with their classes and with ours under the same names.

    python3 bench/textbook_scripts.py --nnfs-book DIR --dlfs DIR --cs231n DIR
    python3 bench/textbook_scripts.py ... --agree     # whole runs instead: do the results agree?

The folders are checkouts of public repositories (docs/textbooks-judged.md says which); a text whose
folder is not given is left out.  Nothing of them is part of this project.  *Neural Networks from
Scratch* also needs the package nnfs from PyPI, and the course's code the package future.

An epoch of each: chapter 15's loop body; three training steps of the overfitting experiment with
six hidden layers, and the evaluation on its test set; five steps of the dropout notebook's
experiment.  Dropout can be so small a part of it that swapping it alone is lost in the noise of the
rest.  So the calls of dropout that an epoch makes are timed by themselves, too, with their arrays.
"""

from __future__ import annotations

import argparse
import ast
import contextlib
import copy
import functools
import importlib
import importlib.util
import io
import pickle
import sys
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
from rich.console import Console
from rich.table import Table

import harness
from dropwise.textbook import cs231n, dlfs, nnfs
from harness import Case, Contender, Goal, Question

CHAPTER_15, SIX_LAYERS, NOTEBOOK = "nnfs chapter 15", "dlfs six layers", "cs231n notebook"


def _of(module: ModuleType, names: Sequence[str]) -> dict[str, Any]:
    return {name: getattr(module, name) for name in names}


# What each contender takes from this package: nothing, dropout alone, everything.
SWAPS: dict[str, dict[str, dict[str, Any]]] = {
    text: {"own": {}, "dropout": _of(module, dropout), "all": _of(module, module.__all__)}
    for text, module, dropout in (
        (CHAPTER_15, nnfs, ["Layer_Dropout"]),
        (SIX_LAYERS, dlfs, ["Dropout"]),
        (NOTEBOOK, cs231n, ["dropout_forward", "dropout_backward"]),
    )
}
SWAPPED = {"dropout": "dropout alone swapped", "all": "all classes swapped"}


class Run:
    """A text's training with some of its names swapped."""

    epochs: int  # of the text's run
    together = 1  # epochs that are timed as one
    names: dict[str, Any]  # where the script finds what may be swapped

    def epoch(self) -> None:
        raise NotImplementedError

    def figures(self) -> dict[str, float]:
        """Accuracies, and what else the script reports."""
        raise NotImplementedError


# ---- Neural Networks from Scratch ----------------------------------------------------------------


@functools.cache
def _patch_numpy() -> None:
    """``nnfs.init()``, which replaces functions of NumPy: twice would stack them."""
    importlib.import_module("nnfs").init()


class Chapter15(Run):
    epochs = 10001
    together = 20  # they follow each other in the caches, as in the script

    def __init__(self, checkout: Path, swapped: Mapping[str, Any], seed: int = 0) -> None:
        path = checkout / "Chapter_15" / "Ch15_Final.py"
        script = path.read_text().partition("\n>>>")[0]  # then comes what it prints
        nodes = ast.parse(script).body
        loop = next(i for i, node in enumerate(nodes) if isinstance(node, ast.For))
        last_class = max(i for i, node in enumerate(nodes) if isinstance(node, ast.ClassDef))
        self.names = {}
        with contextlib.redirect_stdout(io.StringIO()):
            _patch_numpy()
            np.random.seed(seed)  # noqa: NPY002  # what nnfs.init() does besides
            self._run([n for n in nodes[: last_class + 1] if not isinstance(n, ast.Expr)])
            own = "spiral_data"  # all learn the same points
            self.names |= {name: swapped[name] for name in swapped if name != own}
            self._run(nodes[last_class + 1 : loop])
        self._body = self._compile(nodes[loop].body)
        self._validation = self._compile(nodes[loop + 1 :])
        self._epoch = 0

    def _compile(self, nodes: list[ast.stmt]) -> Any:
        return compile(ast.Module(nodes, []), "Ch15_Final.py", "exec")

    def _run(self, nodes: list[ast.stmt]) -> None:
        exec(self._compile(nodes), self.names)

    def epoch(self) -> None:
        self.names["epoch"] = self._epoch
        self._epoch += 1
        with contextlib.redirect_stdout(io.StringIO()):
            exec(self._body, self.names)

    def figures(self) -> dict[str, float]:
        names = dict(self.names)
        with contextlib.redirect_stdout(io.StringIO()):
            exec(self._validation, names)
        return {
            "train acc": float(self.names["accuracy"]),
            "train loss": float(self.names["loss"]),
            "validation acc": float(names["accuracy"]),
            "validation loss": float(names["loss"]),
        }


# ---- Deep Learning from Scratch ------------------------------------------------------------------


@functools.cache
def digits(checkout: Path) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """MNIST as the book's loader keeps it, or made-up data of the same shape and share of zeros."""
    pickled = checkout / "dataset" / "mnist.pkl"
    if pickled.exists():
        data = pickle.loads(pickled.read_bytes())
        parts = [data["train_img"][:300], data["train_label"][:300]]
        parts += [data["test_img"], data["test_label"]]
        print(f"MNIST: {len(parts[2])} test images")
    else:
        rng = np.random.default_rng(0)
        print("no dataset/mnist.pkl: made-up images instead")
        means = rng.integers(0, 256, (10, 784)) * (rng.random((10, 784)) < 0.19)
        labels = rng.integers(0, 10, 10300).astype(np.uint8)
        images = (means[labels] * rng.random((10300, 784))).astype(np.uint8)
        parts = [images[:300], labels[:300], images[300:], labels[300:]]
    scaled = [part.astype(np.float32) / 255 if part.ndim == 2 else part for part in parts]
    return tuple(scaled)  # type: ignore[return-value]


class SixLayers(Run):
    epochs = 301

    def __init__(self, checkout: Path, swapped: Mapping[str, Any], seed: int = 0) -> None:
        with _on_path(checkout, "common"):
            net = importlib.import_module("common.multi_layer_net_extend")
            trainer = importlib.import_module("common.trainer")
        self.names = vars(net)
        self.names |= swapped
        np.random.seed(seed)  # noqa: NPY002
        network = net.MultiLayerNetExtend(
            input_size=784,
            hidden_size_list=[100] * 6,
            output_size=10,
            use_dropout=True,
            dropout_ration=0.2,
        )
        self._trainer = trainer.Trainer(
            network,
            *digits(checkout),
            epochs=self.epochs,
            mini_batch_size=100,
            optimizer="sgd",
            optimizer_param={"lr": 0.01},
            verbose=False,
        )

    def epoch(self) -> None:
        for _ in range(3):
            self._trainer.train_step()

    def figures(self) -> dict[str, float]:
        return {
            "train acc": float(self._trainer.train_acc_list[-1]),
            "test acc": float(self._trainer.test_acc_list[-1]),
        }


# ---- CS231n --------------------------------------------------------------------------------------


@functools.cache
def pictures() -> dict[str, np.ndarray]:
    """Made-up data of the shape of the notebook's: 500 images to train, 1000 to validate."""
    rng = np.random.default_rng(0)
    means = 2 * rng.standard_normal((10, 3, 32, 32))
    data = {}
    for name, n in (("train", 500), ("val", 1000)):
        data[f"y_{name}"] = labels = rng.integers(0, 10, n)
        data[f"X_{name}"] = means[labels] + 12 * rng.standard_normal((n, 3, 32, 32))
    return data


class Notebook(Run):
    epochs = 25

    def __init__(self, checkout: Path, swapped: Mapping[str, Any], seed: int = 0) -> None:
        assignment = checkout / "assignment2"
        with _on_path(assignment, "cs231n"), contextlib.redirect_stdout(io.StringIO()):
            modules = [
                importlib.import_module(f"cs231n.{name}")
                for name in ("layers", "layer_utils", "classifiers.fc_net")
            ]
            solver = importlib.import_module("cs231n.solver")
        for module in modules:
            vars(module).update(swapped)
        self.names = vars(modules[-1])
        np.random.seed(231 + seed)  # noqa: NPY002
        self._solver = solver.Solver(
            modules[-1].FullyConnectedNet([500], dropout_keep_ratio=0.25),
            pictures(),
            num_epochs=self.epochs,
            batch_size=100,
            update_rule="adam",
            optim_config={"learning_rate": 5e-4},
            verbose=False,
        )

    def epoch(self) -> None:
        for _ in range(5):
            self._solver._step()

    def figures(self) -> dict[str, float]:
        data = pictures()
        return {
            f"{name} acc": float(self._solver.check_accuracy(data[f"X_{name}"], data[f"y_{name}"]))
            for name in ("train", "val")
        }


@contextlib.contextmanager
def _on_path(folder: Path, package: str) -> Iterator[None]:
    """Import `package` anew from a checkout: each contender swaps names in modules of its own."""
    if not (folder / package).is_dir():
        raise SystemExit(f"{folder} has no folder {package!r}")
    for name in [n for n in sys.modules if n.partition(".")[0] == package]:
        del sys.modules[name]
    sys.path.insert(0, str(folder))
    try:
        yield
    finally:
        sys.path.remove(str(folder))


# ---- the calls of dropout by themselves ----------------------------------------------------------


class FunctionsAsLayer:
    """The course's two functions in the form of the other texts' classes."""

    def __init__(self, forward: Callable[..., Any], backward: Callable[..., Any]) -> None:
        self._forward, self._backward = forward, backward

    def forward(self, x: np.ndarray, dropout_param: Mapping[str, Any]) -> np.ndarray:
        out, self.cache = self._forward(x, dropout_param)
        return out

    def backward(self, dout: np.ndarray) -> np.ndarray:
        return self._backward(dout, self.cache)


Maker = Callable[..., Any]  # a class, or what stands for one


def as_layer(found: Sequence[Any]) -> Maker:
    """A class as it is, or two functions as a class."""
    return found[0] if len(found) == 1 else functools.partial(FunctionsAsLayer, *found)


class Calls:
    """The calls of dropout in an epoch of a script, to be made again by other classes."""

    def __init__(self, run: type[Any], checkout: Path, names: Sequence[str]) -> None:
        self._arguments: list[tuple[Any, ...]] = []  # of each layer that is made
        self._calls: list[tuple[int, str, tuple[Any, ...]]] = []  # layer, method, arguments
        found = run(checkout, {}).names
        self.own: Maker = as_layer([found[name] for name in names])
        run(checkout, dict(zip(names, self._recording(len(names)), strict=True))).epoch()

    def _recording(self, count: int) -> list[Any]:
        """What a script gets instead of a class, or of two functions."""
        arguments, calls, make = self._arguments, self._calls, self.own

        class Recording:
            def __init__(self, *args: Any, **kwargs: Any) -> None:
                self._number = len(arguments)
                arguments.append((args, kwargs))
                self._layer = make(*args, **kwargs)

            def _record(self, name: str, args: tuple[Any, ...]) -> Any:
                calls.append((self._number, name, copy.deepcopy(args)))
                return getattr(self._layer, name)(*args)

            def forward(self, *args: Any) -> Any:
                return self._record("forward", args)

            def backward(self, *args: Any) -> Any:
                return self._record("backward", args)

            def __getattr__(self, name: str) -> Any:
                return getattr(self._layer, name)

        if count == 1:
            return [Recording]
        layer = Recording()  # the script hands on the cache, of which there is one
        return [
            lambda x, param: (layer.forward(x, param), None),
            lambda dout, cache: layer.backward(dout),
        ]

    def again(self, make: Maker) -> Callable[[], list[np.ndarray]]:
        """All calls in their order, on layers of that kind; gives what backward gave."""
        layers = [make(*args, **kwargs) for args, kwargs in self._arguments]
        calls = [
            (layers[number], getattr(layers[number], name), name == "backward", args)
            for number, name, args in self._calls
        ]

        def call() -> list[np.ndarray]:
            gradients = []
            for layer, method, is_backward, args in calls:
                result = method(*args)
                if is_backward:  # which one of the texts leaves in an attribute
                    gradients.append(layer.dinputs if result is None else result)
            return gradients

        return call

    def check(self, ours: list[np.ndarray]) -> None:
        """As much is dropped as by the text's own, but for chance."""
        for theirs, mine in zip(self.again(self.own)(), ours, strict=True):
            assert mine.shape == theirs.shape
            difference = np.count_nonzero(mine) - np.count_nonzero(theirs)
            assert abs(difference) < 5 * np.sqrt(mine.size / 2)  # 5 sigma or more


def calls_title(text: str) -> str:
    return f"{text}: the calls of dropout"


def calls_of(text: str, run: type[Any], checkout: Path) -> Case:
    """The text's dropout against ours, with the arrays of an epoch."""
    swapped = SWAPS[text]["dropout"]
    calls = Calls(run, checkout, list(swapped))
    makers = {"own": calls.own, "dropout": as_layer(list(swapped.values()))}
    return Case(
        {"what": calls_title(text), "epochs": 1},
        [Contender(who, calls.again(make), calls.check) for who, make in makers.items()],
    )


# ---- the question --------------------------------------------------------------------------------

RUNS: dict[str, tuple[str, type[Any]]] = {
    CHAPTER_15: ("nnfs_book", Chapter15),
    SIX_LAYERS: ("dlfs", SixLayers),
    NOTEBOOK: ("cs231n", Notebook),
}


def arguments(parser: argparse.ArgumentParser) -> None:
    for text, (option, _) in RUNS.items():
        parser.add_argument(
            f"--{option.replace('_', '-')}", type=Path, metavar="DIR", help=f"for: {text}"
        )
    parser.add_argument("--agree", action="store_true", help="whole runs; print where they end")
    parser.add_argument("--seeds", type=int, default=3, help="of each whole run (default: 3)")


def given(args: argparse.Namespace) -> Iterator[tuple[str, type[Any], Path]]:
    """The texts that there is a checkout for."""
    for text, (option, run) in RUNS.items():
        checkout = getattr(args, option)
        if checkout is not None:
            yield text, run, checkout.resolve()


def agree(args: argparse.Namespace) -> None:
    """Train to the end with each set of classes and some seeds, and print what scripts report."""
    for text, run, checkout in given(args):
        table = Table(title=f"{text}: after {run.epochs} epochs")
        for who, swapped in SWAPS[text].items():
            ends = []
            for seed in range(args.seeds):
                trained = run(checkout, swapped, seed)
                for _ in range(run.epochs):
                    trained.epoch()
                ends.append(trained.figures())
            if not table.columns:
                for name in ("classes", *ends[0]):
                    table.add_column(name)
            columns = ([end[name] for end in ends] for name in ends[0])
            table.add_row(who, *(" ".join(f"{v:.3f}" for v in values) for values in columns))
        Console().print(table)


def cases(args: argparse.Namespace) -> Iterable[Case]:
    if not any(given(args)):
        options = ", ".join(f"--{option.replace('_', '-')}" for option, _ in RUNS.values())
        raise SystemExit(f"give a checkout of at least one text: {options}")
    if args.agree:
        agree(args)
        raise SystemExit
    for text, run, checkout in given(args):

        def contender(who: str, swapped: Mapping[str, Any]) -> Contender:
            training = run(checkout, swapped)  # noqa: B023 - used at once

            def call() -> Run:
                for _ in range(training.together):
                    training.epoch()
                return training

            return Contender(who, call, check)

        yield Case(
            {"what": text, "epochs": run.together},
            [contender(who, swapped) for who, swapped in SWAPS[text].items()],
        )
        yield calls_of(text, run, checkout)


def check(training: Run) -> None:
    """After one epoch a script can say little: its figures are numbers, accuracies are shares."""
    for name, value in training.figures().items():
        assert np.isfinite(value), name
        assert not name.endswith("acc") or 0 <= value <= 1, name


def goal(what: str, ours: str, floor: float, aim: float, title: str = "") -> Goal:
    title = title or f"{what}, {SWAPPED[ours]}"
    where = {"what": what}
    return Goal(title, "the text's own", ">=", floor, aim, ours, ("own",), where)


QUESTION = Question(
    name="textbook_scripts",
    text=(__doc__ or "").partition("\n")[0],
    cases=cases,
    arguments=arguments,
    goals=[
        goal(CHAPTER_15, "all", 8, 8),
        goal(SIX_LAYERS, "all", 2, 2),
        *(goal(text, "dropout", 0.97, 1) for text in RUNS),  # never slower, but for noise
        *(goal(what, "dropout", 1, 1, title=what) for what in map(calls_title, RUNS)),
    ],
    rounds=9,
    seconds=8.0,
)


if __name__ == "__main__":
    harness.main(QUESTION)
