"""The Dense layer: ``x @ weight + bias``, with regularisation in its gradients."""

from __future__ import annotations

import math
from collections.abc import Mapping
from threading import get_ident
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import ArrayLike, DTypeLike

from dropwise import _arguments, _arrays, _dtypes, functional
from dropwise._backends.protocol import Array
from dropwise.layers.base import Layer, no_forward, register
from dropwise.layers.dropout_base import DropoutPass
from dropwise.layers.run import RunContext
from dropwise.random import Seed, seed_sequence

# The standard deviation of the weights of a [fan_in, fan_out] matrix.
_DEVIATIONS = {
    "glorot": lambda fan_in, fan_out: math.sqrt(2.0 / (fan_in + fan_out)),
    "he": lambda fan_in, fan_out: math.sqrt(2.0 / fan_in),
    "lecun": lambda fan_in, fan_out: math.sqrt(1.0 / fan_in),
}
INITIALIZERS = tuple(f"{name}_{kind}" for name in _DEVIATIONS for kind in ("uniform", "normal"))


# In the place of the backward that wrote gradients, while one writes and after one that failed.
INCOMPLETE = object()

# What copies start without.
_OF_THIS_OBJECT = (
    "gradients",
    "gradients_from",
    "sums_parts",
    "_writer",
)


class DensePass(NamedTuple):
    """What a forward leaves for backward."""

    rows: Array  # the input as a matrix [B, in_features]
    lead: tuple[int, ...]  # the dimensions that B stands for
    drop: DropoutPass | None = None  # of the weights, in DropConnect


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
        Leave out products with exact zeros, from dropout or ReLU, where that is faster.  A zero
        then contributes nothing even against a non-finite value; False gives IEEE results.

    Attributes
    ----------
    weight : ndarray, shape (in_features, out_features)
    bias : ndarray, shape (out_features,)
    grad_weight, grad_bias : ndarray
        What the last ``backward`` computed, regularisation included.  Overwritten in place.

    Examples
    --------
    >>> import numpy as np
    >>> import dropwise as dw
    >>> dense = dw.Dense(3, 2, seed=0)
    >>> dense.weight = np.ones((3, 2))
    >>> dense.forward([[1.0, 2.0, 3.0]])
    array([[6., 6.]], dtype=float32)
    """

    _parameters: Array | None = None
    _pass: DensePass | None = None
    # Which backward of a network wrote them; None: the layer's own.
    gradients_from: object = None
    sums_parts = False  # while gradients are those of parts of a batch: the penalties come last

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
        self.in_features = _arguments.as_integer(in_features, "in_features", least=1)
        self.out_features = _arguments.as_integer(out_features, "out_features", least=1)
        self.l1 = _arguments.check_number(l1, "l1")
        self.l2 = _arguments.check_number(l2, "l2")
        self.bias_l1 = _arguments.check_number(bias_l1, "bias_l1")
        self.bias_l2 = _arguments.check_number(bias_l2, "bias_l2")
        if not isinstance(init, str):
            init = _arguments.check_number(init, "init")
        elif init not in INITIALIZERS:
            names = ", ".join(INITIALIZERS)
            raise ValueError(f"init must be a standard deviation or one of {names}, got {init!r}")
        self.init = init
        self.dtype = _dtypes.float_dtype(dtype)
        self.skip_zeros = bool(skip_zeros)
        # Without a seed, too, the weights are decided here: copies draw the same ones.
        self._seed = seed_sequence(seed)
        self._seeded = seed is not None
        self.gradients = self._zeros()

    # ---- parameters

    def _zeros(self) -> Array:
        # Weights and, after them, the bias lie in one array: an optimizer needs one pass for both.
        return np.zeros((self.in_features + 1) * self.out_features, self.dtype)

    def _drawn(self) -> Array:
        """The parameters; the weights are drawn when someone first asks for them."""
        if self._parameters is not None:
            return self._parameters
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
        drawn = self._zeros()
        drawn[: weight.size] = weight.ravel()
        # One step: of several threads that draw at once, all get the array of the first.
        parameters: Array = self.__dict__.setdefault("_parameters", drawn)
        return parameters

    @property
    def weight(self) -> Array:
        """Shape (in_features, out_features).  Assigning copies the values in."""
        return self._as_weight(self._drawn())

    @weight.setter
    def weight(self, value: ArrayLike) -> None:
        shape = (self.in_features, self.out_features)
        values = _arguments.as_values(value, shape, f"{self}: weight")
        # Weights that nobody has seen need not be drawn.
        if self._parameters is None:
            self.__dict__.setdefault("_parameters", self._zeros())
        self.weight[...] = values

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
        return self._as_weight(self._complete_gradients())

    @property
    def grad_bias(self) -> Array:
        """Shape (out_features,)."""
        return self._as_bias(self._complete_gradients())

    def _as_weight(self, flat: Array) -> Array:
        return flat[: -self.out_features].reshape(self.in_features, self.out_features)

    def _as_bias(self, flat: Array) -> Array:
        return flat[-self.out_features :]

    def _assign(self, target: Array, value: ArrayLike, name: str) -> None:
        target[...] = _arguments.as_values(value, target.shape, f"{self}: {name}")

    def has_parameters(self) -> bool:
        """Always."""
        return True

    def parameters(self) -> list[tuple[Array, Array]]:
        """One pair of flat arrays: weights then bias, and their gradients."""
        if self.gradients_from is INCOMPLETE:
            raise self._incomplete()
        values = self._parameters
        return [(self._drawn() if values is None else values, self.gradients)]

    def parameter_values(self) -> list[Array]:
        """One flat array: weights then bias."""
        return [self._drawn()]

    def _complete_gradients(self) -> Array:
        if self.gradients_from is INCOMPLETE:
            raise self._incomplete()
        return self.gradients

    def _incomplete(self) -> RuntimeError:
        return RuntimeError(
            f"{self}: the last backward failed, and has left its gradients incomplete"
        )

    def reseed(self, sequence: np.random.SeedSequence) -> None:
        """Draw from `sequence`, unless a seed was given or weights are there already.

        Parameters
        ----------
        sequence : SeedSequence
        """
        if not self._seeded and self._parameters is None:
            self._seed = sequence

    # ---- computation

    def forward(self, x: ArrayLike, training: bool = True) -> Array:
        """``x @ weight + bias``.

        Parameters
        ----------
        x : array_like, shape (..., in_features)
        training : bool
            Makes no difference.

        Returns
        -------
        ndarray, shape (..., out_features)
        """
        y, self._pass = self._compute(x)
        return y

    def _compute(self, x: ArrayLike, weight: Array | None = None) -> tuple[Array, DensePass]:
        rows, lead = _arguments.as_rows(x, self.dtype, self.in_features, self)
        weight = self.weight if weight is None else weight
        y = functional.matmul(rows, weight, bias=self.bias, skip_zeros=self.skip_zeros)
        return y.reshape(*lead, self.out_features), DensePass(rows, lead)

    def predict(self, x: ArrayLike) -> Array:
        """Like ``forward``, but remembers nothing.

        Parameters
        ----------
        x : array_like, shape (..., in_features)

        Returns
        -------
        ndarray, shape (..., out_features)
        """
        return self._compute(x)[0]

    def backward(self, dy: ArrayLike) -> Array:
        """The gradient with respect to `x`; sets ``grad_weight`` and ``grad_bias``.

        Parameters
        ----------
        dy : array_like, shape of what ``forward`` returned
            Real numbers; cast to the dtype of the layer.

        Notes
        -----
        Uses the `x` of the last forward as it is now: change it only afterwards.
        """
        if self._pass is None:
            raise no_forward(self)
        return self._gradient(self._pass, dy)

    def _run(self, x: Array, context: RunContext) -> tuple[Array, DensePass | None]:
        return self._compute(x)

    def _gradient(self, record: DensePass, dy: ArrayLike) -> Array:
        lead = record.lead
        shape = (*lead, self.out_features)
        dy = _arguments.as_gradient(dy, shape, self.dtype, self).reshape(-1, self.out_features)
        dx = functional.matmul(dy, self._weight_of(record).T, skip_zeros=self.skip_zeros)
        if np.may_share_memory(dy, self.gradients):
            dy = dy.copy()
        self.begin_gradients()
        try:
            weight, bias = self._as_weight(self.gradients), self._as_bias(self.gradients)
            self._weight_gradient(record, dy, weight)
            bias[...] = _arrays.sum_rows(dy)
            self.complete_gradients()
        except BaseException:
            self.leave_gradients()
            raise
        return dx.reshape(*lead, self.in_features)

    def _weight_of(self, record: DensePass) -> Array:
        """The weights that the forward used."""
        return self.weight

    def _weight_gradient(self, record: DensePass, dy: Array, out: Array) -> None:
        """Write the gradient of the weights."""
        functional.matmul(record.rows.T, dy, skip_zeros=self.skip_zeros, out=out)

    def begin_gradients(self) -> None:
        """Begin to write the gradients; `complete_gradients` or `leave_gradients` has to follow."""
        thread = get_ident()
        # One step: of several threads that begin at once, one goes on.
        if self.__dict__.setdefault("_writer", thread) != thread:
            raise RuntimeError(f"{self}: another thread computes its gradients at this moment")
        self.gradients_from = INCOMPLETE

    def leave_gradients(self) -> None:
        """Let other threads write the gradients, which this thread has left incomplete."""
        if self.__dict__.get("_writer") == get_ident():
            del self.__dict__["_writer"]

    def complete_gradients(self) -> None:
        """Add the regularisation to the gradients, which are complete then for all to see."""
        if not self.sums_parts:
            self.add_penalties()
        self.gradients_from = None
        self.__dict__.pop("_writer", None)

    def add_penalties(self) -> None:
        """Add the regularisation to the gradients."""
        if not (self.l1 or self.l2 or self.bias_l1 or self.bias_l2):
            return
        for penalty_1, penalty_2, value, gradient in self._penalties():
            if penalty_2:
                _arrays.add_scaled(gradient, 2.0 * penalty_2, value)
            if penalty_1:
                gradient += penalty_1 * np.sign(value)

    def regularization_loss(self) -> float:
        """``l1 * sum(|w|) + l2 * sum(w**2)`` over weights and bias."""
        loss = 0.0
        if not (self.l1 or self.l2 or self.bias_l1 or self.bias_l2):
            return loss
        for penalty_1, penalty_2, value, _ in self._penalties():
            if value.itemsize < 4:
                value = value.astype(_dtypes.wide_dtype(self.dtype))
            if penalty_2:
                loss += penalty_2 * float(value.dot(value))
            if penalty_1:
                loss += penalty_1 * float(np.abs(value).sum())
        return loss

    def _penalties(self) -> list[tuple[float, float, Array, Array]]:
        """(l1, l2, parameters, gradient) as flat arrays; one entry where both have the same."""
        l1, l2, bias_l1, bias_l2 = self.l1, self.l2, self.bias_l1, self.bias_l2
        found: list[tuple[float, float, Array, Array]] = []
        value, gradient, n = self._drawn(), self.gradients, self.out_features
        if l1 == bias_l1 and l2 == bias_l2:
            found.append((l1, l2, value, gradient))
            return found
        if l1 or l2:
            found.append((l1, l2, value[:-n], gradient[:-n]))
        if bias_l1 or bias_l2:
            found.append((bias_l1, bias_l2, value[-n:], gradient[-n:]))
        return found

    # ---- state

    def config(self) -> dict[str, Any]:
        """Arguments that make such a layer again: JSON-safe."""
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
        """Set weight and bias, or neither if one of them does not fit.

        Parameters
        ----------
        state : mapping
            What `state_dict` gave: "weight" and "bias".
        """
        Dense._set_state(self, Dense._checked_state(self, state))

    def _checked_state(self, state: Mapping[str, Any]) -> tuple[Array, Array]:
        _arguments.check_names(state, ("weight", "bias"), f"{self}: state")
        shape = self.in_features, self.out_features
        # Copies: what is given may be a view of parameters that are set before it is read.
        return (
            _arguments.as_values(state["weight"], shape, f"{self}: weight").astype(self.dtype),
            _arguments.as_values(state["bias"], shape[1:], f"{self}: bias").astype(self.dtype),
        )

    def _set_state(self, checked: tuple[Array, Array]) -> None:
        if self._parameters is None:  # none need to be drawn
            self._parameters = self._zeros()
        self.weight, self.bias = checked

    def __getstate__(self) -> dict[str, Any]:
        state = super().__getstate__()
        return {k: v for k, v in state.items() if k not in _OF_THIS_OBJECT}

    def __copy__(self) -> Dense:
        self._drawn()  # so that both have the same array
        other = object.__new__(type(self))
        other.__setstate__(self.__getstate__())
        return other

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__dict__.update(state)
        self.gradients = self._zeros()

    def __repr__(self) -> str:
        options = "".join(f", {name}={value!r}" for name, value in list(self.config().items())[2:])
        return f"{type(self).__name__}({self.in_features}, {self.out_features}{options})"
