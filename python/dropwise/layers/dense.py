"""The Dense layer: ``x @ weight + bias``, with L1 and L2 regularisation."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, DTypeLike

from dropwise import _arguments, _arrays, _dtypes, functional
from dropwise._backends.protocol import Array
from dropwise.layers.base import Layer, check_gradient, no_forward, register
from dropwise.random import Seed, seed_sequence

# The standard deviation of the weights of a [fan_in, fan_out] matrix.
_DEVIATIONS = {
    "glorot": lambda fan_in, fan_out: math.sqrt(2.0 / (fan_in + fan_out)),
    "he": lambda fan_in, fan_out: math.sqrt(2.0 / fan_in),
    "lecun": lambda fan_in, fan_out: math.sqrt(1.0 / fan_in),
}
INITIALIZERS = tuple(f"{name}_{kind}" for name in _DEVIATIONS for kind in ("uniform", "normal"))


@register
class Dense(Layer):
    """A fully connected layer.

    Parameters
    ----------
    in_features, out_features : int
    l1, l2 : float
        Regularisation of the weights: adds ``l1 * sum(|w|) + l2 * sum(w**2)`` to the loss.
    bias_l1, bias_l2 : float
        The same for the bias.
    init : str or float
        "glorot_uniform", "glorot_normal", "he_uniform", "he_normal", "lecun_uniform",
        "lecun_normal", or a number: the standard deviation of normal weights.  Biases start at 0.
    dtype : dtype
        float32, float64, float16 or bfloat16; inputs are converted to it.
    seed : int, SeedSequence, Generator or None
        Fixes the initial weights.
    skip_zeros : bool
        Skip exact zeros, which come from dropout or ReLU, in products where that is faster.  A zero
        then contributes nothing even if the other factor is not finite; False gives IEEE results.

    Attributes
    ----------
    weight : ndarray, shape (in_features, out_features)
    bias : ndarray, shape (out_features,)
    grad_weight, grad_bias : ndarray
        Set by ``backward``, regularisation included.  The next one overwrites them in place.

    Examples
    --------
    >>> import numpy as np
    >>> import dropwise as dw
    >>> dense = dw.Dense(3, 2, seed=0)
    >>> dense.weight = np.ones((3, 2))
    >>> dense.forward([[1.0, 2.0, 3.0]])
    array([[6., 6.]], dtype=float32)
    """

    def __init__(
        self,
        in_features: int,
        out_features: int,
        *,
        l1: float = 0.0,
        l2: float = 0.0,
        bias_l1: float = 0.0,
        bias_l2: float = 0.0,
        init: str | float = "glorot_uniform",
        dtype: DTypeLike = "float32",
        seed: Seed = None,
        skip_zeros: bool = True,
    ) -> None:
        if in_features < 1 or out_features < 1:
            raise ValueError(f"features must be at least 1, got {in_features} and {out_features}")
        if isinstance(init, str) and init not in INITIALIZERS:
            names = ", ".join(INITIALIZERS)
            raise ValueError(f"init must be a standard deviation or one of {names}, got {init!r}")
        self.in_features = int(in_features)
        self.out_features = int(out_features)
        self.l1, self.l2, self.bias_l1, self.bias_l2 = l1, l2, bias_l1, bias_l2
        self.init = init
        self.dtype = _dtypes.float_dtype(dtype)
        self.skip_zeros = bool(skip_zeros)
        self._wide = np.dtype(np.float32) if self.dtype.itemsize == 2 else self.dtype  # for sums
        self._seed = None if seed is None else seed_sequence(seed)
        # One array has the weights and then the bias, so that an optimizer needs one pass for both.
        self._parameters: Array | None = None
        self.gradients = np.zeros((self.in_features + 1) * self.out_features, self.dtype)
        self._pass: tuple[Array, tuple[int, ...]] | None = None

    def _drawn(self) -> Array:
        """The parameters.  The weights are drawn at first use."""
        if self._parameters is None:
            rng = np.random.default_rng(self._seed)
            shape = (self.in_features, self.out_features)
            if isinstance(self.init, str):
                name, kind = self.init.split("_")
                deviation = _DEVIATIONS[name](*shape)
            else:
                kind, deviation = "normal", self.init
            if kind == "normal":
                weight = deviation * rng.standard_normal(shape)
            else:
                limit = math.sqrt(3.0) * deviation
                weight = rng.uniform(-limit, limit, shape)
            self._parameters = np.zeros(self.gradients.size, self.dtype)
            self._parameters[: weight.size] = weight.ravel()
        return self._parameters

    @property
    def weight(self) -> Array:
        """Shape (in_features, out_features).  Assigning copies the values in."""
        return self._as_weight(self._drawn())

    @weight.setter
    def weight(self, value: ArrayLike) -> None:
        self._assign(self.weight, value, "weight")

    @property
    def bias(self) -> Array:
        """Shape (out_features,).  Assigning copies the values in."""
        return self._as_bias(self._drawn())

    @bias.setter
    def bias(self, value: ArrayLike) -> None:
        self._assign(self.bias, value, "bias")

    @property
    def grad_weight(self) -> Array:
        """Shape (in_features, out_features)."""
        return self._as_weight(self.gradients)

    @property
    def grad_bias(self) -> Array:
        """Shape (out_features,)."""
        return self._as_bias(self.gradients)

    def _as_weight(self, flat: Array) -> Array:
        return flat[: -self.out_features].reshape(self.in_features, self.out_features)

    def _as_bias(self, flat: Array) -> Array:
        return flat[-self.out_features :]

    def _assign(self, target: Array, value: ArrayLike, name: str) -> None:
        value = np.asarray(value)
        if value.shape != target.shape:
            raise ValueError(f"{self}: {name} must have shape {target.shape}, got {value.shape}")
        target[...] = value

    def parameters(self) -> list[tuple[Array, Array]]:
        """One pair of flat arrays: the weights and then the bias, and their gradients."""
        return [(self._drawn(), self.gradients)]

    def reseed(self, sequence: np.random.SeedSequence) -> None:
        """Draw the weights from `sequence`, unless there is a seed or they have been drawn."""
        if self._seed is None and self._parameters is None:
            self._seed = sequence

    def forward(self, x: ArrayLike, training: bool = True) -> Array:
        """``x @ weight + bias``.

        Parameters
        ----------
        x : array_like, shape (..., in_features)
        training : bool
            Has no effect.

        Returns
        -------
        ndarray, shape (..., out_features)
        """
        rows, lead = _arguments.as_rows(x, self.dtype, self.in_features, self)
        y = self._product(rows)
        self._pass = (rows, lead)
        return y.reshape(*lead, self.out_features)

    def _product(self, rows: Array) -> Array:
        return functional.matmul(rows, self.weight, bias=self.bias, skip_zeros=self.skip_zeros)

    def predict(self, x: ArrayLike) -> Array:
        """Like ``forward``, but remembers nothing."""
        rows, lead = _arguments.as_rows(x, self.dtype, self.in_features, self)
        return self._product(rows).reshape(*lead, self.out_features)

    def backward(self, dy: ArrayLike) -> Array:
        """The gradient with respect to `x`; sets ``grad_weight`` and ``grad_bias``."""
        if self._pass is None:
            raise no_forward(self)
        rows, lead = self._pass
        shape = (*lead, self.out_features)
        dy = check_gradient(dy, shape, self.dtype, self).reshape(-1, self.out_features)
        functional.matmul(rows.T, dy, skip_zeros=self.skip_zeros, out=self.grad_weight)
        self.grad_bias[...] = _arrays.sum_rows(dy)
        self.add_penalties()
        dx = functional.matmul(dy, self.weight.T, skip_zeros=self.skip_zeros)
        return dx.reshape(*lead, self.in_features)

    def add_penalties(self) -> None:
        """Add the regularisation to ``grad_weight`` and ``grad_bias``."""
        for penalty_1, penalty_2, value, gradient in self._penalties():
            if penalty_2:
                gradient += (2.0 * penalty_2) * value
            if penalty_1:
                gradient += penalty_1 * np.sign(value)

    def regularization_loss(self) -> float:
        """``l1 * sum(|w|) + l2 * sum(w**2)`` over weights and bias."""
        loss = 0.0
        for penalty_1, penalty_2, value, _ in self._penalties():
            value = value.astype(self._wide, copy=False)
            if penalty_2:
                loss += penalty_2 * float(np.dot(value, value))
            if penalty_1:
                loss += penalty_1 * float(np.abs(value).sum())
        return loss

    def _penalties(self) -> list[tuple[float, float, Array, Array]]:
        """(l1, l2, parameters, gradient) as flat arrays; one entry where both have the same."""
        if not (self.l1 or self.l2 or self.bias_l1 or self.bias_l2):
            return []
        value, gradient = self._drawn(), self.gradients
        if (self.l1, self.l2) == (self.bias_l1, self.bias_l2):
            return [(self.l1, self.l2, value, gradient)]
        n = self.out_features
        return [
            (self.l1, self.l2, value[:-n], gradient[:-n]),
            (self.bias_l1, self.bias_l2, value[-n:], gradient[-n:]),
        ]

    def config(self) -> dict[str, Any]:
        """Constructor arguments that give an equal layer, JSON-safe."""
        config: dict[str, Any] = {
            "in_features": self.in_features,
            "out_features": self.out_features,
        }
        options = {
            "l1": (self.l1, 0.0),
            "l2": (self.l2, 0.0),
            "bias_l1": (self.bias_l1, 0.0),
            "bias_l2": (self.bias_l2, 0.0),
            "init": (self.init, "glorot_uniform"),
            "dtype": (self.dtype.name, "float32"),
            "skip_zeros": (self.skip_zeros, True),
        }
        return config | {name: v for name, (v, default) in options.items() if v != default}

    def state_dict(self) -> dict[str, Any]:
        """Copies of weight and bias."""
        return {"weight": self.weight.copy(), "bias": self.bias.copy()}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Set weight and bias."""
        self.weight = state["weight"]
        self.bias = state["bias"]

    def __repr__(self) -> str:
        options = "".join(f", {name}={value!r}" for name, value in list(self.config().items())[2:])
        return f"Dense({self.in_features}, {self.out_features}{options})"
