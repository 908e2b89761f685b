"""The base of all layers: what a container needs to run, train and save them."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, TypeVar

import numpy as np

from dropwise._backends.protocol import Array


class Layer:
    """A function of an array, with its gradient.

    A layer of your own overrides `forward` and `backward`.  ``backward`` always gives the gradient
    of the last ``forward``, in training and at inference.
    """

    def forward(self, x: Array, training: bool = True) -> Array:
        """The layer's result for `x`; remembers what ``backward`` needs."""
        raise NotImplementedError

    def backward(self, dy: Array) -> Array:
        """The gradient with respect to the input of the last ``forward``."""
        raise NotImplementedError

    def predict(self, x: Array) -> Array:
        """The layer's result at inference; remembers nothing."""
        return self.forward(x, training=False)

    def parameters(self) -> list[tuple[Array, Array]]:
        """Pairs (parameters, gradient); an optimizer changes the parameters in place."""
        return []

    def regularization_loss(self) -> float:
        """What the layer's parameters add to the loss."""
        return 0.0

    def reseed(self, sequence: np.random.SeedSequence) -> None:
        """Take all randomness from `sequence`, unless the layer was given a seed."""

    def config(self) -> dict[str, Any]:
        """Constructor arguments that give an equal layer, JSON-safe."""
        return {}

    def state_dict(self) -> dict[str, Any]:
        """What training changes: plain ints and strings, or arrays."""
        return {}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """The inverse of `state_dict`."""

    def __repr__(self) -> str:
        arguments = ", ".join(f"{name}={value!r}" for name, value in self.config().items())
        return f"{type(self).__name__}({arguments})"


LayerClass = TypeVar("LayerClass", bound=type[Layer])

_REGISTERED: dict[str, type[Layer]] = {}


def register(layer_class: LayerClass) -> LayerClass:
    """Class decorator: layers of this class, but not of its subclasses, can be saved in files."""
    _REGISTERED[layer_class.__name__] = layer_class
    return layer_class


def registered_class(name: str) -> type[Layer] | None:
    """The registered class of this name."""
    return _REGISTERED.get(name)


def check_gradient(dy: Any, shape: tuple[int, ...], dtype: np.dtype[Any], who: object) -> Array:
    """`dy` as an array; raises unless it has the shape and dtype of what `who` returned."""
    gradient: Array = np.asarray(dy)
    same = gradient.dtype == dtype or gradient.dtype.newbyteorder("=") == dtype
    if gradient.shape != shape or not (same or dtype.kind in "biu"):
        raise ValueError(
            f"{who} returned {dtype} of shape {shape}, got dy {gradient.dtype} of {gradient.shape}"
        )
    return gradient


def no_forward(who: object) -> RuntimeError:
    """The error for a backward without a forward."""
    return RuntimeError(f"{who}: backward was called before forward")
