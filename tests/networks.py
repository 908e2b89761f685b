"""Networks for tests, and their layers called one by one to compare with."""

from __future__ import annotations

import numpy as np

import dropwise as dw
from dropwise.layers.dropout_base import DropoutBase

# The relatives of Dropout, by the name of their class: each takes and gives so many columns.
FAMILY = {
    "SpatialDropout": lambda columns, **options: dw.SpatialDropout(**options),
    "DropPath": lambda columns, **options: dw.DropPath(**options),
    "AlphaDropout": lambda columns, **options: dw.AlphaDropout(**options),
    "FeatureAlphaDropout": lambda columns, **options: dw.FeatureAlphaDropout(**options),
    "DropConnect": lambda columns, **options: dw.DropConnect(
        columns, columns, dtype="float64", **options
    ),
}


def family(columns, **options):
    """What makes each of the relatives, by name; once more where it makes its masks again."""
    options = {"rate": 0.4, "seed": 1} | options
    makers = {}
    for name, make in FAMILY.items():
        makers[name] = lambda make=make: make(columns, **options)
        makers[f"{name}, replayed"] = lambda make=make: make(columns, save_mask=False, **options)
    return makers


def dropouts(layer):
    """The layers in a layer that have masks, in any depth."""
    if isinstance(layer, dw.Sequential):
        return [d for part in layer for d in dropouts(part)]
    return [layer] if isinstance(layer, (DropoutBase, dw.DropConnect)) else []


def sample(rows, columns, dtype=np.float64, seed=0):
    return np.random.default_rng(seed).standard_normal((rows, columns)).astype(dtype)


def one_by_one(layers, x, dy, training=True):
    """Forward and backward through the layers themselves."""
    for layer in layers:
        x = layer.forward(x, training)
    for layer in reversed(layers):
        dy = layer.backward(dy)
    return x, dy


def chain(spec, *, dtype="float64", seed=0, **dropout):
    """Layers from a string: the first number is the input's columns, each further one a Dense with
    so many outputs; R is a ReLU, D a Dropout.
    """
    columns, *parts = spec.split()
    layers, width = [], int(columns)
    for i, part in enumerate(parts):
        if part == "R":
            layers.append(dw.ReLU())
        elif part == "D":
            layers.append(dw.Dropout(**({"rate": 0.4, "seed": (seed + 1) * 100 + i} | dropout)))
        else:
            layer = dw.Dense(width, int(part), dtype=dtype, seed=i, l2=0.01)
            layer.bias = 0.1 * np.arange(int(part)) - 0.2
            layers.append(layer)
            width = int(part)
    return layers


SPECS = [
    "5 7",
    "5 7 R",
    "5 7 D",
    "5 7 R D",
    "5 7 R D 3",
    "5 7 D 3",
    "5 7 R 3",
    "5 7 3",
    "5 70 R D 65 R D 9 R D 3",
    "5 70 D 65 R 9 D 3 R",
    "5 D 7 R D 3",
    "5 R D 7 R",
    "5 7 D R 3",
    "5 7 R R D D 3",
    "5 D",
]


def network(seed=None, rate=0.4, **options):
    return dw.Sequential(
        [dw.Dense(2, 32, **options), dw.ReLU(), dw.Dropout(rate), dw.Dense(32, 3, **options)],
        seed=seed,
    )


def train(net, epochs=3, **options):
    x, y = dw.datasets.spiral_data(60, 3, seed=0)
    settings = {"loss": dw.SoftmaxCrossEntropy(), "optimizer": dw.Adam(0.02), "progress": False}
    return net.fit(x, y, epochs=epochs, **(settings | options))
