"""The network of an estimator: its layers, its first weights, what follows its scores."""

from __future__ import annotations

import copy
from collections.abc import Callable
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

import numpy as np
from scipy.special import expit, softmax

from dropwise import Dense, Dropout, ReLU, Sequential, Sigmoid, Tanh
from dropwise._backends.protocol import Array

_ACTIVATIONS: dict[str, Callable[[], Any] | None] = {
    "identity": None,
    "logistic": Sigmoid,
    "tanh": Tanh,
    "relu": ReLU,
}

# From the scores of a network to its predictions.
OUTPUT_ACTIVATIONS: dict[str, Callable[[Array], Array]] = {
    "identity": lambda scores: scores,
    "exp": np.exp,
    "logistic": expit,
    "softmax": lambda scores: softmax(scores, axis=-1),
}


@dataclass(frozen=True)
class Architecture:
    """What fixes the layers of a network, apart from their weights."""

    units: tuple[int, ...]  # columns of the input, of each hidden layer, of the output
    activation: str
    rates: tuple[float, ...]  # of the dropout after each hidden layer
    input_rate: float
    dtype: np.dtype[Any]

    @property
    def has_dropout(self) -> bool:
        """Whether any rate is positive."""
        return any((self.input_rate, *self.rates))

    def build(self, random_state: np.random.RandomState) -> Sequential:
        """A network with new dropout keys; the weights are not those of `random_state`.

        `random_state` is not used up, so that weights and the order of the rows do not depend on
        the rates.
        """
        layers: list[Any] = [Dropout(self.input_rate)] if self.input_rate else []
        for i, (fan_in, fan_out) in enumerate(pairwise(self.units)):
            layers.append(Dense(fan_in, fan_out, init=0.0, dtype=self.dtype))
            if i == len(self.rates):
                break
            activation = _ACTIVATIONS[self.activation]
            if activation is not None:
                layers.append(activation())
            if self.rates[i]:
                layers.append(Dropout(self.rates[i]))
        words = copy.deepcopy(random_state).randint(0, 1 << 32, 4, dtype=np.uint32)
        return Sequential(layers, seed=np.random.SeedSequence([int(word) for word in words]))


def draw_weights(network: Sequential, activation: str, random_state: np.random.RandomState) -> None:
    """Set the weights that scikit-learn would start with."""
    for dense in dense_layers(network):
        factor = 2.0 if activation == "logistic" else 6.0
        bound = np.sqrt(factor / (dense.in_features + dense.out_features))
        dense.weight = random_state.uniform(-bound, bound, dense.weight.shape)
        dense.bias = random_state.uniform(-bound, bound, dense.bias.shape)


def dense_layers(network: Sequential) -> list[Dense]:
    """The layers with parameters."""
    return [layer for layer in network if isinstance(layer, Dense)]


def copy_weights(source: Sequential, target: Sequential) -> None:
    """Set the parameters of `target` to those of `source`."""
    for old, new in zip(dense_layers(source), dense_layers(target), strict=True):
        new.weight, new.bias = old.weight, old.bias


def sampling_network(network: Sequential) -> Sequential:
    """The same weights with dropout keys of its own, which follow from those of `network`."""
    return Sequential(
        [layer.spawn(1)[0] if isinstance(layer, Dropout) else layer for layer in network]
    )


class Parameters(list[Array]):
    """Arrays of a network as a list: assigning an item sets the array's values."""

    def __setitem__(self, i: Any, value: Any) -> None:
        arrays = self[i] if isinstance(i, slice) else [self[i]]
        values = value if isinstance(i, slice) else [value]
        for array, new in zip(arrays, values, strict=True):
            array[...] = new

    def __reduce__(self) -> tuple[type[list[Array]], tuple[list[Array]]]:
        return list, (list(self),)  # a copy belongs to no network
