"""Optimizers: the book's calls over this package's update rules.

The moments of a layer are attributes of the layer, as in the book: ``weight_momentums``,
``weight_cache``, ``bias_momentums``, ``bias_cache``.  They may be read, assigned and deleted, and
come from a pickle.  Unlike in the book a second optimizer has its own.
"""

from __future__ import annotations

import uuid
from typing import Any, ClassVar

import numpy as np

from dropwise import _updates
from dropwise._backends.protocol import Array
from dropwise._dtypes import F32, F64
from dropwise.textbook._compute import FEW_ELEMENTS
from dropwise.textbook._shared import TextObject

_MOMENTS = tuple(f"{p}_{kind}" for kind in ("momentums", "cache") for p in ("weight", "bias"))


class Optimizer(TextObject):
    """The book's three calls."""

    kinds: ClassVar[tuple[str, ...]]  # of moments; without those of the last kind, all start anew
    _identity: str | None = None

    def __init__(self, learning_rate: float, decay: float) -> None:
        self.learning_rate = learning_rate
        self.current_learning_rate = learning_rate
        self.decay = decay
        self.iterations = 0

    def pre_update_params(self) -> None:
        if self.decay:
            self.current_learning_rate = self.learning_rate * (
                1.0 / (1.0 + self.decay * self.iterations)
            )

    def update_params(self, layer: Any) -> None:
        raise NotImplementedError

    def post_update_params(self) -> None:
        self.iterations += 1

    def pre_update_param(self) -> None:
        self.pre_update_params()

    def update_param(self, layer: Any) -> None:
        self.update_params(layer)

    def post_update_param(self) -> None:
        self.post_update_params()

    def _take(self, layer: Any) -> None:
        """Make the moments that the layer has this optimizer's own."""
        known = layer.__dict__
        if self._identity is None:
            self._identity = uuid.uuid4().hex
        identity = self._identity
        last = known.get("_stepped_by")
        if last != identity:
            if (
                last is not None
            ):  # else they come from a pickle of the text's class, if from anywhere
                others = known.setdefault("_other_moments", {})
                others[last] = {name: known.pop(name) for name in _MOMENTS if name in known}
                known.update(others.pop(identity, {}))
            known["_stepped_by"] = identity
        if f"weight_{self.kinds[-1]}" not in known:
            for kind in self.kinds:
                known[f"weight_{kind}"] = np.zeros_like(layer.weights)
                known[f"bias_{kind}"] = np.zeros_like(layer.biases)


def _usable(value: Any, gradient: Array) -> Array:
    """`value` itself if a rule may change it in place, else a copy of the gradient's shape."""
    if (
        type(value) is np.ndarray
        and (value.dtype is F32 or value.dtype is F64)
        and value.flags.carray
        and value.shape == gradient.shape
    ):
        return value
    wide = np.result_type(np.asarray(value).dtype, np.float32)
    dtype = wide if wide == F32 else F64
    return np.array(np.broadcast_to(value, gradient.shape), dtype, order="C")


def _operands(value: Any, gradient: Any) -> tuple[Array, Array]:
    """What a rule may change in place of `value`, and the gradient in its dtype and order."""
    if type(value) is np.ndarray and type(gradient) is np.ndarray:
        dtype = value.dtype
        if (
            dtype is gradient.dtype
            and (dtype is F32 or dtype is F64)
            and value.shape == gradient.shape
            and value.flags.carray
            and gradient.flags.carray
        ):
            return value, gradient
    gradient = np.asarray(gradient)
    p = _usable(value, gradient)
    return p, np.ascontiguousarray(gradient, p.dtype)


def _moment(layer: Any, name: str, p: Array) -> Array:
    """The moment of that name; it stays an attribute of the layer."""
    moment = layer.__dict__[name]
    usable = _usable(moment, p)
    if usable.dtype is not p.dtype:
        usable = usable.astype(p.dtype)
    if usable is not moment:
        layer.__dict__[name] = usable
    return usable


def _put(layer: Any, name: str, value: Any, changed: Array) -> None:
    """Give the layer what a rule changed, in the array that it has where that fits."""
    if type(value) is np.ndarray and value.shape == changed.shape and value.dtype.kind == "f":
        value[...] = changed
    else:
        setattr(layer, name, changed)


class Optimizer_SGD(Optimizer):
    """Stochastic gradient descent, with momentum and a learning rate that decays."""

    kinds = ("momentums",)

    def __init__(
        self, learning_rate: float = 1.0, decay: float = 0.0, momentum: float = 0.0
    ) -> None:
        super().__init__(learning_rate, decay)
        self.momentum = momentum

    def update_params(self, layer: Any) -> None:
        momentum = self.momentum
        if momentum:
            known = layer.__dict__
            if known.get("_stepped_by", "") != self._identity or "weight_momentums" not in known:
                self._take(layer)
        if layer.weights.size <= FEW_ELEMENTS:
            rate = -self.current_learning_rate
            weights, biases = rate * layer.dweights, rate * layer.dbiases
            if momentum:
                weights += momentum * known["weight_momentums"]
                biases += momentum * known["bias_momentums"]
                known["weight_momentums"], known["bias_momentums"] = weights, biases
            layer.weights += weights
            layer.biases += biases
            return
        scalars = _updates.SGDScalars(self.current_learning_rate, momentum, False, 0.0)
        self._step(layer, "weights", layer.weights, layer.dweights, "weight_momentums", scalars)
        self._step(layer, "biases", layer.biases, layer.dbiases, "bias_momentums", scalars)

    def _step(
        self,
        layer: Any,
        name: str,
        value: Any,
        gradient: Array,
        moments: str,
        scalars: _updates.SGDScalars,
    ) -> None:
        p, gradient = _operands(value, gradient)
        velocity = _moment(layer, moments, p) if scalars.momentum else None
        _updates.sgd(p, gradient, velocity, scalars)
        if p is not value:
            _put(layer, name, value, p)


class Optimizer_Adam(Optimizer):
    """Adam."""

    kinds = ("momentums", "cache")

    def __init__(
        self,
        learning_rate: float = 0.001,
        decay: float = 0.0,
        epsilon: float = 1e-7,
        beta_1: float = 0.9,
        beta_2: float = 0.999,
    ) -> None:
        super().__init__(learning_rate, decay)
        self.epsilon, self.beta_1, self.beta_2 = epsilon, beta_1, beta_2

    def update_params(self, layer: Any) -> None:
        known = layer.__dict__
        if known.get("_stepped_by", "") != self._identity or "weight_cache" not in known:
            self._take(layer)
        if layer.weights.size <= FEW_ELEMENTS:
            self._few(layer, known)
            return
        scalars = _updates.adam_scalars(
            self.iterations + 1,
            self.current_learning_rate,
            beta_1=self.beta_1,
            beta_2=self.beta_2,
            epsilon=self.epsilon,
        )
        self._step(layer, "weights", layer.weights, layer.dweights, "weight", scalars)
        self._step(layer, "biases", layer.biases, layer.dbiases, "bias", scalars)

    def _few(self, layer: Any, known: dict[str, Any]) -> None:
        """The formula as it stands."""
        t = self.iterations + 1
        beta_1, beta_2, epsilon = self.beta_1, self.beta_2, self.epsilon
        rate = -self.current_learning_rate / (1 - beta_1**t)
        correction = 1 / (1 - beta_2**t)
        for parameter, value, g in (
            ("weight", layer.weights, layer.dweights),
            ("bias", layer.biases, layer.dbiases),
        ):
            m = beta_1 * known[f"{parameter}_momentums"]
            m += (1 - beta_1) * g
            v = g * g
            v *= 1 - beta_2
            v += beta_2 * known[f"{parameter}_cache"]
            known[f"{parameter}_momentums"], known[f"{parameter}_cache"] = m, v
            root = np.sqrt(v * correction)
            root += epsilon
            value += rate * m / root
            if parameter == "weight":
                layer.weights = value
            else:
                layer.biases = value

    def _step(
        self,
        layer: Any,
        name: str,
        value: Any,
        gradient: Array,
        of: str,
        scalars: _updates.AdamScalars,
    ) -> None:
        p, gradient = _operands(value, gradient)
        m, v = _moment(layer, f"{of}_momentums", p), _moment(layer, f"{of}_cache", p)
        _updates.adam(p, gradient, m, v, scalars)
        if p is not value:
            _put(layer, name, value, p)
