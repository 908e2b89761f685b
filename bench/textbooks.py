"""What each class of three teaching texts costs, as the text has it and as this package has it.

The texts' classes are written anew in tests/texts.py, with the same operations of NumPy.
What is timed is one turn: forward and backward of a layer or loss, an update of an optimizer.
Whole scripts of the texts are timed by textbook_scripts.py.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np

import dropwise as dw
import harness
from dropwise.textbook import cs231n, dlfs, nnfs
from harness import Case, Contender, Goal, Question

sys.path.insert(0, str(Path(__file__).parents[1] / "tests"))
import texts

SIZES = ((3, 4), (32, 100), (100, 100))
CLASSES = 10  # of losses
LIMITS = {"3 x 4": 1.1, "32 x 100": 1.0, "100 x 100": 0.85}

Turn = Callable[[], list[np.ndarray]]


class Data:
    """The arrays of a case: what a layer in the middle of a network gets."""

    def __init__(self, rows: int, columns: int, dtype: type) -> None:
        rng = np.random.default_rng(0)

        def normal(*shape: int) -> np.ndarray:
            return rng.standard_normal(shape).astype(dtype)

        self.x = normal(rows, columns)
        self.hidden = np.maximum(self.x, 0)  # as ReLU leaves it
        self.dy = normal(rows, columns) * (rng.random((rows, columns)) < 0.5).astype(dtype)
        self.w, self.b = normal(columns, columns) / np.sqrt(columns).astype(dtype), normal(columns)
        self.scores = normal(rows, CLASSES)
        self.labels = rng.integers(0, CLASSES, rows)


def layer(make: Callable[[], Any], x: np.ndarray, dy: np.ndarray) -> Turn:
    """A layer whose methods return their results."""
    made = make()

    def turn() -> list[np.ndarray]:
        return [made.forward(x), made.backward(dy)]

    return turn


def step(make: Callable[[], Any], x: np.ndarray, dy: np.ndarray) -> Turn:
    """A layer whose results are attributes."""
    made = make()

    def turn() -> list[np.ndarray]:
        made.forward(x)
        made.backward(dy)
        return [made.output, made.dinputs]

    return turn


def dense(make: type, data: Data) -> Turn:
    made = make(data.x.shape[1], data.x.shape[1])
    made.weights, made.biases = data.w, data.b[None]

    def turn() -> list[np.ndarray]:
        made.forward(data.hidden)
        made.backward(data.dy)
        return [made.output, made.dinputs, made.dweights, made.dbiases]

    return turn


def affine(make: type, data: Data, second_volume: bool = False) -> Turn:
    made = make(data.w, data.b)
    gradients = made.grads if second_volume else None

    def turn() -> list[np.ndarray]:
        y = made.forward(data.hidden)
        dx = made.backward(data.dy)
        return [y, dx, *(gradients or (made.dW, made.db))]

    return turn


def dlfs_loss(make: type, data: Data) -> Turn:
    made = make()

    def turn() -> list[np.ndarray]:
        return [made.forward(data.scores, data.labels), made.backward()]

    return turn


def softmax_loss(make: type, data: Data) -> Turn:
    made = make()

    def turn() -> list[np.ndarray]:
        loss = made.forward(data.scores, data.labels)
        made.backward(made.output, data.labels)
        return [loss, made.dinputs]

    return turn


def crossentropy(make: type, data: Data) -> Turn:
    made, p = make(), texts.dlfs_softmax(data.scores)

    def turn() -> list[np.ndarray]:
        loss = made.calculate(p, data.labels)
        made.backward(p, data.labels)
        return [loss, made.dinputs]

    return turn


def optimizer(make: Callable[[], Any], data: Data) -> Turn:
    made, columns = make(), data.w.shape[1]
    stepped = SimpleNamespace(
        weights=data.w.copy(),
        biases=np.zeros((1, columns), data.w.dtype),
        dweights=data.w * 0.1,
        dbiases=data.b[None] * 0.1,
    )

    def turn() -> list[np.ndarray]:
        made.pre_update_params()
        made.update_params(stepped)
        made.post_update_params()
        return [stepped.weights, stepped.biases]

    return turn


def functions(of: Any, prefix: str, *args: Any, dy: np.ndarray) -> Turn:
    forward, backward = getattr(of, f"{prefix}_forward"), getattr(of, f"{prefix}_backward")

    def turn() -> list[np.ndarray]:
        y, cache = forward(*args)
        dx = backward(dy, cache)
        return [y, *dx] if isinstance(dx, tuple) else [y, dx]

    return turn


class ExactLoss(texts.DlfsSoftmaxWithLoss):
    """As in the first editions, whose loss ours is, with the operation that later ones add."""

    added = 0.0


OWN = SimpleNamespace(
    **{
        name.removeprefix("cs231n_"): value
        for name, value in vars(texts).items()
        if name.startswith("cs231n_")
    }
)


def turns(d: Data) -> dict[str, tuple[Turn, Turn]]:
    """For each class its turn by the text's own and by ours."""
    param = {"mode": "train", "p": 0.5}
    shape3 = (1, *d.x.shape)
    return {
        "dlfs.Dropout": (
            layer(texts.DlfsDropout, d.x, d.dy),
            layer(dlfs.Dropout, d.x, d.dy),
        ),
        "dlfs.TimeDropout": (
            layer(texts.DlfsTimeDropout, d.x.reshape(shape3), d.dy.reshape(shape3)),
            layer(dlfs.TimeDropout, d.x.reshape(shape3), d.dy.reshape(shape3)),
        ),
        "dlfs.Relu": (layer(texts.DlfsRelu, d.x, d.dy), layer(dlfs.Relu, d.x, d.dy)),
        "dlfs.Sigmoid": (layer(texts.DlfsSigmoid, d.x, d.dy), layer(dlfs.Sigmoid, d.x, d.dy)),
        "dlfs.Affine": (affine(texts.DlfsAffine, d), affine(dlfs.Affine, d)),
        "dlfs.Affine, grads": (affine(texts.Dlfs2Affine, d, True), affine(dlfs.Affine, d, True)),
        "dlfs.SoftmaxWithLoss": (
            dlfs_loss(ExactLoss, d),
            dlfs_loss(dlfs.SoftmaxWithLoss, d),
        ),
        "nnfs.Layer_Dropout": (
            step(lambda: texts.NnfsDropout(0.5), d.x, d.dy),
            step(lambda: nnfs.Layer_Dropout(0.5), d.x, d.dy),
        ),
        "nnfs.Activation_ReLU": (
            step(texts.NnfsReLU, d.x, d.dy),
            step(nnfs.Activation_ReLU, d.x, d.dy),
        ),
        "nnfs.Activation_Softmax": (
            step(texts.NnfsSoftmax, d.x, d.dy),
            step(nnfs.Activation_Softmax, d.x, d.dy),
        ),
        "nnfs.Layer_Dense": (dense(texts.NnfsDense, d), dense(nnfs.Layer_Dense, d)),
        "nnfs.Loss_CategoricalCrossentropy": (
            crossentropy(texts.NnfsCrossentropy, d),
            crossentropy(nnfs.Loss_CategoricalCrossentropy, d),
        ),
        "nnfs.Activation_Softmax_Loss": (
            softmax_loss(texts.NnfsSoftmaxCrossentropy, d),
            softmax_loss(nnfs.Activation_Softmax_Loss_CategoricalCrossentropy, d),
        ),
        "nnfs.Optimizer_SGD": (
            optimizer(lambda: texts.NnfsSGD(1e-3), d),
            optimizer(lambda: nnfs.Optimizer_SGD(1e-3), d),
        ),
        "nnfs.Optimizer_SGD, momentum": (
            optimizer(lambda: texts.NnfsSGD(1e-3, 0.0, 0.9), d),
            optimizer(lambda: nnfs.Optimizer_SGD(1e-3, 0.0, 0.9), d),
        ),
        "nnfs.Optimizer_Adam": (
            optimizer(lambda: texts.NnfsAdam(1e-5), d),
            optimizer(lambda: nnfs.Optimizer_Adam(1e-5), d),
        ),
        "cs231n.dropout": (
            functions(OWN, "dropout", d.x, param, dy=d.dy),
            functions(cs231n, "dropout", d.x, param, dy=d.dy),
        ),
        "cs231n.affine": (
            functions(OWN, "affine", d.hidden, d.w, d.b, dy=d.dy),
            functions(cs231n, "affine", d.hidden, d.w, d.b, dy=d.dy),
        ),
        "cs231n.relu": (
            functions(OWN, "relu", d.x, dy=d.dy),
            functions(cs231n, "relu", d.x, dy=d.dy),
        ),
    }


def same_as(expected: list[np.ndarray], name: str) -> Callable[[list[np.ndarray]], None]:
    """The same numbers to rounding; of dropout, whose masks differ, the share that is dropped."""

    def check(found: list[np.ndarray]) -> None:
        assert len(found) == len(expected)
        for theirs, mine in zip(expected, found, strict=True):
            assert np.shape(theirs) == np.shape(mine), name
            if "ropout" in name:  # 6 sigma
                difference = np.count_nonzero(mine) - np.count_nonzero(theirs)
                allowed = 6 * np.sqrt(np.size(mine) / 2) + 1
                assert abs(difference) <= allowed, (name, difference, allowed)
            else:
                short = np.float32 in (mine.dtype, theirs.dtype)  # NumPy 1.26 and 2 promote apart
                tolerance = 1e-4 if short else 1e-9
                np.testing.assert_allclose(mine, theirs, tolerance, tolerance, err_msg=name)

    return check


def cases(args: Any) -> Iterable[Case]:
    for dtype in (np.float64, np.float32):
        for rows, columns in SIZES[: 1 if args.quick else None]:
            for name in turns(Data(rows, columns, dtype)):
                # Data of its own for each class: the book's Relu changes what it gets.
                data = Data(rows, columns, dtype)
                expected = [np.array(each) for each in turns(data)[name][0]()]
                check = same_as(expected, name)
                contenders = [Contender("own", turns(data)[name][0], check)]
                contenders += [
                    Contender(
                        backend,
                        turns(data)[name][1],
                        check,
                        lambda backend=backend: dw.set_backend(backend),
                    )
                    for backend in dw.available_backends()
                ]
                labels = {
                    "what": name,
                    "size": f"{rows} x {columns}",
                    "dtype": np.dtype(dtype).name,
                }
                yield Case(labels, contenders)


QUESTION = Question(
    name="textbooks",
    text=(__doc__ or "").partition("\n")[0],
    cases=cases,
    goals=[
        Goal(f"every class, {size}", "the text's own", "<=", limit, limit, "native", ("own",),
             {"size": size})
        for size, limit in LIMITS.items()
    ],
    rounds=15,
    seconds=0.15,
)  # fmt: skip


if __name__ == "__main__":
    harness.main(QUESTION)
