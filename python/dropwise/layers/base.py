"""What every layer has, so that a container can run, train and save it."""

from __future__ import annotations

import copy
from collections.abc import Iterator, Mapping
from typing import Any, TypeVar

import numpy as np

from dropwise import _arguments
from dropwise._backends.protocol import Array
from dropwise.layers.run import RunContext


class Layer:
    """A function of an array with a gradient.

    A layer of your own overrides `forward` and `backward`; ``backward`` is the gradient of the last
    ``forward``, whatever that was called with.  What backward needs belongs into ``self._pass``,
    set when the result is computed: copies and pickles leave that one attribute out, so that they
    hold no batch and do not disturb the original.  A layer that keeps it elsewhere works too, but
    its copies share it.

    Notes
    -----
    A container does not use ``_pass``.  It runs layers through `_run` and `_gradient`, which hand
    the record of a forward from the one to the other, so that several containers, and direct calls
    in between, never mix their records up.
    """

    _pass: Any = None  # what the last forward left for backward
    _last_run: object = None

    def forward(self, x: Array, training: bool = True) -> Array:
        """The layer's result for `x`; what ``backward`` needs is remembered.

        Parameters
        ----------
        x : ndarray
        training : bool
            Whether elements are dropped.

        Returns
        -------
        ndarray
        """
        raise NotImplementedError

    def backward(self, dy: Array) -> Array:
        """The gradient with respect to the input of the last ``forward``.

        Parameters
        ----------
        dy : ndarray, shape of what ``forward`` returned

        Returns
        -------
        ndarray, shape of the input
        """
        raise NotImplementedError

    def predict(self, x: Array) -> Array:
        """The layer's result at inference; nothing is remembered.

        Parameters
        ----------
        x : ndarray

        Returns
        -------
        ndarray
        """
        return copy.copy(self).forward(x, training=False)

    def __init_subclass__(cls, **arguments: Any) -> None:
        super().__init_subclass__(**arguments)
        if "forward" in cls.__dict__ and "predict" not in cls.__dict__:
            cls.predict = Layer.predict  # type: ignore[method-assign]  # not that of another forward
        if "load_state_dict" in cls.__dict__ and "_checked_state" not in cls.__dict__:
            # Not the check of another state, nor a way around this method.
            cls._checked_state = Layer._checked_state  # type: ignore[method-assign]
            cls._set_state = Layer._set_state  # type: ignore[method-assign]

    # ---- how containers call layers

    def _run(self, x: Array, context: RunContext) -> tuple[Array, Any]:
        """The result for `x`, and a record of the call for `_gradient`.

        A layer that knows only `forward` remembers the call itself.  The record then tells whether
        it still remembers this one.
        """
        layer = self if context.keep_records else context.stand_in(self)
        y = layer.forward(x, context.training)
        layer._last_run = token = object()
        return y, token

    def _gradient(self, record: Any, dy: Array) -> Array:
        """The gradient with respect to the `x` of the call that left `record`."""
        if self._last_run is not record:
            raise RuntimeError(
                f"{self}: another network has called this layer since; it remembers one forward"
            )
        return self.backward(dy)

    def _go_on_from(self, stand_in: Layer) -> None:
        """Take over what a copy has used up in a run that has ended well."""

    # ---- parameters and state

    def has_parameters(self) -> bool:
        """Whether training changes anything in the layer."""
        return bool(self.parameters())

    def parameters(self) -> list[tuple[Array, Array]]:
        """Pairs (parameters, gradient) of arrays that an optimizer changes in place."""
        return []

    def parameter_values(self) -> list[Array]:
        """The arrays of `parameters` alone, whatever became of their gradients."""
        return [p for p, _ in self.parameters()]

    def regularization_loss(self) -> float:
        """What the layer's parameters add to the loss."""
        return 0.0

    def reseed(self, sequence: np.random.SeedSequence) -> None:
        """Take the randomness from `sequence`, unless the layer was given a seed.

        Parameters
        ----------
        sequence : SeedSequence
        """

    def spawn(self: LayerType, n: int) -> list[LayerType]:
        """Make `n` copies with masks that are independent of this layer's and of each other's.

        Copies of a layer, and workers that a process forks, continue with the same masks.  Give
        each worker one of these instead.  They follow from the layer's key and next stream.

        Parameters
        ----------
        n : int

        Returns
        -------
        list of layers of this class
        """
        copies = []
        for i in range(_arguments.as_integer(n, "n", least=0)):
            other = copy.deepcopy(self)
            other._become_child(i)
            copies.append(other)
        return copies

    def _become_child(self, i: int) -> None:
        """Replace what is random by what follows from it and `i`."""

    def config(self) -> dict[str, Any]:
        """Arguments that make such a layer again: JSON-safe."""
        return {}

    def state_dict(self) -> dict[str, Any]:
        """What training changes: plain ints and strings, or arrays."""
        return {}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Set what `state_dict` gave; after an error nothing is set.

        Parameters
        ----------
        state : mapping
            What `state_dict` gave.
        """
        _arguments.check_names(state, (), f"{self}: state")

    def _checked_state(self, state: Mapping[str, Any]) -> Any:
        """What `_set_state` takes, once all of `state` is known to fit.

        A container checks all of its layers before it sets the first.
        """
        if type(self).load_state_dict is Layer.load_state_dict:
            _arguments.check_names(state, (), f"{self}: state")
        return state

    def _set_state(self, checked: Any) -> None:
        """Set a state that was checked."""
        self.load_state_dict(checked)

    def __getstate__(self) -> dict[str, Any]:
        return {k: v for k, v in self.__dict__.items() if k not in ("_pass", "_last_run")}

    def __repr__(self) -> str:
        arguments = ", ".join(f"{name}={value!r}" for name, value in self.config().items())
        return f"{type(self).__name__}({arguments})"


LayerType = TypeVar("LayerType", bound=Layer)
LayerClass = TypeVar("LayerClass", bound=type[Layer])

_REGISTERED: dict[str, type[Layer]] = {}


def register(layer_class: LayerClass) -> LayerClass:
    """Class decorator: layers of this class, but not of its subclasses, can be saved in files."""
    _REGISTERED[layer_class.__name__] = layer_class
    return layer_class


def registered_class(name: str) -> type[Layer] | None:
    """The registered class of this name."""
    return _REGISTERED.get(name)


def is_registered(layer: Layer) -> bool:
    """Whether the layer is of a registered class itself, not of a subclass."""
    return _REGISTERED.get(type(layer).__name__) is type(layer)


def class_to_run(layer: Layer) -> type[Layer]:
    """The class whose `_run` and `_gradient` are those of the layer.

    A subclass may override what its users call; then that is what runs, as `Layer` does it.
    """
    for base in type(layer).__mro__:
        if _REGISTERED.get(base.__name__) is base:
            public = ("forward", "backward", "predict")
            if all(getattr(type(layer), name) is getattr(base, name) for name in public):
                return base
            break
    return Layer


def layers_within(container: Any) -> Iterator[Layer]:
    """The layers that a container holds, in any depth; none for another layer."""
    for layer in getattr(container, "layers", ()):
        yield layer
        yield from layers_within(layer)


def no_forward(who: object) -> RuntimeError:
    """The error of a backward call without a forward call."""
    return RuntimeError(f"{who}: backward was called before forward, or after one that failed")
