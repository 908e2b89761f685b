"""The public annotations: code of a user passes `mypy --strict`, and mistakes do not."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

import dropwise as dw
from support import require

ROOT = Path(__file__).parents[1]
PACKAGE = Path(dw.__file__).parents[1]
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))]
TYPED = re.compile(r"<!-- typed: tests/test_typing\.py -->\n```python\n(.*?)```", re.DOTALL)
EXAMPLES = [block for page in PAGES for block in TYPED.findall(page.read_text(encoding="utf-8"))]

USER = """
from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

import dropwise as dw

Array = NDArray[Any]


class Scale(dw.Layer):
    def __init__(self, factor: float) -> None:
        self.factor = factor

    def forward(self, x: Array, training: bool = True) -> Array:
        y: Array = self.factor * x
        return y

    def backward(self, dy: Array) -> Array:
        dx: Array = self.factor * dy
        return dx


class AbsoluteError:
    def forward(self, y_pred: Array, y: Array) -> float:
        self.difference = y_pred - y
        return float(np.abs(self.difference).mean())

    def backward(self) -> Array:
        gradient: Array = np.sign(self.difference) / self.difference.size
        return gradient


x, y = dw.datasets.spiral_data(10, 3, seed=0)
net = dw.Sequential(
    [dw.Dense(2, 8), Scale(2.0), dw.ReLU(), dw.Sigmoid(), dw.Tanh(), dw.Dropout(0.1)], seed=1
)
dy = np.ones_like(net.forward(x))
rows, columns = net.backward(dy).shape
print(net.backward(dy.tolist()).shape, net.backward(dy, input_grad=True).shape)
maybe = net.backward(dy, input_grad=bool(rows))
if maybe is not None:
    print(maybe.shape)
for layer in net:
    print(layer.forward(x).shape, layer.backward(dy).shape, layer.predict(x).shape)
for drop in (dw.Dropout(0.5, noise_shape=(1, None)), *dw.Dropout().spawn(2)):
    print(drop.forward(x, out=np.empty_like(x)).shape, drop.backward(dy).shape, drop.mask.any())
family = [dw.SpatialDropout(0.1, data_format="channels_first"), dw.FeatureAlphaDropout(seed=1)]
for relative in (*family, dw.DropPath(0.1), *dw.AlphaDropout(save_mask=False).spawn(2)):
    print(relative.forward(x, out=np.empty_like(x)).shape, relative.mask.any(), relative.rate)
connect = dw.DropConnect(2, 3, 0.1, l2=0.1, seed=1)
print(connect.forward(x).shape, connect.mask.shape, connect.rate + 0.1)
dense = dw.Dense(2, 3, dtype=np.float64, seed=np.random.default_rng(1))
dense.weight = np.ones((2, 3))
print(dense.weight.T, dense.grad_bias.shape, dense.backward([[1.0, 2.0, 3.0]]).shape)

settings = dw.Adam(0.02, weight_decay=0.1)
history = net.fit(x, y, loss=dw.SoftmaxCrossEntropy(), optimizer=settings, batch_size=None)
net.fit(
    x.tolist(),
    y.tolist(),
    loss=AbsoluteError(),
    optimizer=dw.SGD(0.1, momentum=0.9),
    sample_weight=[1.0] * len(x),
    class_weight={0: 2.0},
    validation_data=(x, y, [1.0] * len(x)),
    patience=3,
)
for epoch in net.iter_fit(x, y, loss=dw.MeanSquaredError(), optimizer=settings):
    print(epoch.loss + 1.0, epoch.val_loss)
epochs: list[dw.Epoch] = net.history + history
mean, std = net.predict_mc(x, 3, transform=np.tanh)
print((mean + std).shape, net.predict(x).argmax(axis=-1))
loss, accuracy = net.evaluate(x, y, loss=dw.BinaryCrossEntropy())
print(loss + 1.0, None if accuracy is None else accuracy + 1.0)
for p, g in net.parameters():
    p -= 0.1 * g
settings.step(net.parameters())
nets: list[dw.Sequential] = net.spawn(3)
net.save("net.npz", settings)
loaded, optimizer = dw.load_checkpoint("net.npz")
print(loaded.predict(x).shape, dw.Sequential.load("net.npz").predict(x).shape)
if optimizer is not None:
    optimizer.step(loaded.parameters())
with dw.backend("numba"):
    print(dw.functional.dropout(x, 0.5, key=1).shape, dw.functional.relu(x).shape)
    print(dw.functional.dropout_mask((2, 3), 0.5, key=1).any())
print(dw.functional.matmul(x, x.T, bias=[1.0]).shape, dw.show_config("dicts")["backend"])
"""

WRONG = """
import dropwise as dw

net = dw.Sequential([dw.Dense(2, 3)])
net.backward([[1.0]], input_grad=False).shape
net.fit([[1.0]], [0], loss=dw.ReLU(), optimizer=dw.Adam())
dw.Dropout("0.5")
dw.Dense(2.5, 3)
"""


def mypy(code: str, folder: Path) -> tuple[int, str]:
    require("mypy")
    (folder / "user.py").write_text(code, encoding="utf-8")
    # Errors of the package itself are those of its own run of mypy.
    options = ["--strict", "--follow-imports=silent", "--no-error-summary"]
    environment = dict(os.environ)
    if PACKAGE.name != "site-packages":  # where mypy finds it by itself
        environment["MYPYPATH"] = str(PACKAGE)
    run = subprocess.run(
        [sys.executable, "-m", "mypy", *options, "--cache-dir", folder.parent / "mypy", "user.py"],
        cwd=folder,
        env=environment,
        capture_output=True,
        text=True,
    )
    return run.returncode, run.stdout + run.stderr


def test_code_of_a_user_and_the_pages_passes_mypy_strict(tmp_path):
    assert EXAMPLES
    for code in (USER, *EXAMPLES):
        assert mypy(code, tmp_path) == (0, "")


def test_mistakes_are_found(tmp_path):
    status, said = mypy(WRONG, tmp_path)
    assert status == 1
    lines = {int(line) for line in re.findall(r"user\.py:(\d+): error", said)}
    assert lines == {5, 6, 7, 8}


@pytest.mark.usefixtures("backend")
def test_the_examples_of_the_pages_run():
    for code in EXAMPLES:
        names: dict[str, object] = {}
        exec(code, names)
        net = dw.Sequential([dw.Dense(2, 8), dw.ReLU(), dw.Dropout(0.1), dw.Dense(8, 3)], seed=1)
        x, y = dw.datasets.spiral_data(10, 3, seed=0)
        values = [names["step"](net, x, y, dw.Adam(0.01)) for _ in range(2)]
        assert np.isfinite(values).all()
