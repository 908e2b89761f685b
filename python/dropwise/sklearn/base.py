"""What both estimators share: from parameters to a network, fitting it, asking it."""

from __future__ import annotations

import warnings
from collections.abc import Iterable
from numbers import Integral, Real
from typing import Any, ClassVar

import numpy as np
from sklearn.base import BaseEstimator
from sklearn.utils import check_random_state, check_scalar
from sklearn.utils._param_validation import Interval, Options, StrOptions
from sklearn.utils.validation import _check_sample_weight as check_sample_weight
from sklearn.utils.validation import check_is_fitted, column_or_1d, validate_data

from dropwise import SGD, Adam, Sequential
from dropwise._arguments import check_in_memory
from dropwise._backends.protocol import Array
from dropwise.losses import Loss
from dropwise.network.data import Data
from dropwise.network.training import StepFigures
from dropwise.sklearn import lbfgs, stochastic
from dropwise.sklearn.architecture import (
    OUTPUT_ACTIVATIONS,
    Architecture,
    Parameters,
    copy_weights,
    dense_layers,
    draw_weights,
    sampling_network,
)
from dropwise.sklearn.snapshot import Snapshot

_FLOATS = (np.float64, np.float32)
_NOT_FINITE = (
    "Solver produced non-finite parameter weights. The input data may contain large values and "
    "need to be preprocessed."
)


def takes_batches(estimator: Any) -> bool:
    """Whether an estimator's solver works batch by batch; if not, say so."""
    if estimator.solver == "lbfgs":
        raise AttributeError(
            "partial_fit is only available for stochastic optimizers. lbfgs is not stochastic."
        )
    return True


class BaseMLP(BaseEstimator):  # type: ignore[misc]  # scikit-learn has no types
    """A multi-layer perceptron: the parameters and methods that both estimators have."""

    _has_classes: ClassVar[bool]
    _network: Sequential  # from the first fit on, like what follows
    _architecture: Architecture
    _out_activation: str
    _optimizer: Adam | SGD  # not after solver="lbfgs"

    _parameter_constraints: ClassVar[dict[str, list[Any]]] = {
        "hidden_layer_sizes": ["array-like", Interval(Integral, 1, None, closed="left")],
        "activation": [StrOptions({"identity", "logistic", "tanh", "relu"})],
        "solver": [StrOptions({"lbfgs", "sgd", "adam"})],
        "alpha": [Interval(Real, 0, None, closed="left")],
        "batch_size": [StrOptions({"auto"}), Interval(Integral, 1, None, closed="left")],
        "learning_rate": [StrOptions({"constant", "invscaling", "adaptive"})],
        "learning_rate_init": [Interval(Real, 0, None, closed="neither")],
        "power_t": [Interval(Real, 0, None, closed="left")],
        "max_iter": [Interval(Integral, 1, None, closed="left")],
        "shuffle": ["boolean"],
        "random_state": ["random_state"],
        "tol": [Interval(Real, 0, None, closed="left")],
        "verbose": ["verbose"],
        "warm_start": ["boolean"],
        "momentum": [Interval(Real, 0, 1, closed="both")],
        "nesterovs_momentum": ["boolean"],
        "early_stopping": ["boolean"],
        "validation_fraction": [Interval(Real, 0, 1, closed="left")],
        "beta_1": [Interval(Real, 0, 1, closed="left")],
        "beta_2": [Interval(Real, 0, 1, closed="left")],
        "epsilon": [Interval(Real, 0, None, closed="neither")],
        "n_iter_no_change": [
            Interval(Integral, 1, None, closed="left"),
            Options(Real, {np.inf}),
        ],
        "max_fun": [Interval(Integral, 1, None, closed="left")],
        "dropout": [Interval(Real, 0, 1, closed="left"), "array-like"],
        "input_dropout": [Interval(Real, 0, 1, closed="left")],
    }

    def __init__(self, **parameters: Any) -> None:
        for name, value in parameters.items():
            setattr(self, name, value)

    # ---- what is known of the network

    @property
    def coefs_(self) -> Parameters:
        """The weights of each layer, shape (inputs, outputs).  Assigning copies the values in."""
        return Parameters(dense.weight for dense in dense_layers(self._fitted("coefs_")))

    @coefs_.setter
    def coefs_(self, values: Iterable[Any]) -> None:
        for dense, value in zip(dense_layers(self._fitted("coefs_")), values, strict=True):
            dense.weight = value

    @property
    def intercepts_(self) -> Parameters:
        """The biases of each layer.  Assigning copies the values in."""
        return Parameters(dense.bias for dense in dense_layers(self._fitted("intercepts_")))

    @intercepts_.setter
    def intercepts_(self, values: Iterable[Any]) -> None:
        for dense, value in zip(dense_layers(self._fitted("intercepts_")), values, strict=True):
            dense.bias = value

    @property
    def n_layers_(self) -> int:
        """Number of layers, input and output included."""
        return len(dense_layers(self._fitted("n_layers_"))) + 1

    @property
    def n_outputs_(self) -> int:
        """Number of outputs."""
        return dense_layers(self._fitted("n_outputs_"))[-1].out_features

    @property
    def out_activation_(self) -> str:
        """What makes predictions of the network's scores."""
        self._fitted("out_activation_")
        return self._out_activation

    def _fitted(self, name: str) -> Sequential:
        network: Sequential | None = vars(self).get("_network")
        if network is None:
            raise AttributeError(f"{type(self).__name__} has {name!r} once it is fitted")
        return network

    def _parameters(self) -> list[Array]:
        return [*self.coefs_, *self.intercepts_]

    def __sklearn_is_fitted__(self) -> bool:
        return "_network" in vars(self)

    def __sklearn_tags__(self) -> Any:
        tags = super().__sklearn_tags__()
        tags.input_tags.sparse = True
        return tags

    # ---- fitting

    def _fit(
        self, X: Any, y: Any, sample_weight: Any, *, incremental: bool = False, classes: Any = None
    ) -> Any:
        """Fit; a failure leaves the estimator as it was."""
        goes_on = "_network" in vars(self) and (self.warm_start or incremental)
        before = Snapshot(self, in_place=goes_on)
        try:
            self._fit_or_fail(X, y, sample_weight, goes_on, incremental, classes)
        except FloatingPointError as error:
            before.restore()
            raise ValueError(f"{_NOT_FINITE} ({error})") from error
        except BaseException:
            before.restore()
            raise
        return self

    def _fit_or_fail(
        self, X: Any, y: Any, sample_weight: Any, goes_on: bool, incremental: bool, classes: Any
    ) -> None:
        hidden = self._hidden_units()
        rates = self._rates(len(hidden))
        if self.solver == "lbfgs" and any((self.input_dropout, *rates)):
            raise ValueError(
                "solver='lbfgs' needs a loss that is the same at every call, so it has no dropout: "
                f"got dropout={self.dropout!r}, input_dropout={self.input_dropout!r}; "
                "use 'adam' or 'sgd'"
            )
        if self.early_stopping and incremental:
            raise ValueError("partial_fit does not support early_stopping=True")
        for value, name in ((X, "X"), (y, "y"), (sample_weight, "sample_weight")):
            check_in_memory(value, name)
        X, y = validate_data(
            self,
            X,
            y,
            accept_sparse="csr",
            multi_output=True,
            y_numeric=not self._has_classes,
            dtype=_FLOATS,
            order="C",
            reset=not goes_on,
        )
        if y.ndim == 2 and y.shape[1] == 1:
            y = column_or_1d(y, warn=True)
        if sample_weight is not None:
            sample_weight = check_sample_weight(
                sample_weight, X, dtype=np.float64, ensure_non_negative=True
            )
        y, weight = self._targets(y, sample_weight, X.dtype, incremental, classes)
        if weight is not None and not weight.any():
            raise ValueError("Sample weights must contain at least one non-zero number.")
        outputs = self._outputs_of(y)
        random_state = check_random_state(self.random_state)
        self._prepare_network(
            Architecture(
                (X.shape[1], *hidden, outputs),
                self.activation,
                rates,
                float(self.input_dropout),
                X.dtype,
            ),
            goes_on,
            random_state,
        )
        data = Data(X, y, weight)
        with np.errstate(all="ignore"):
            self._solve(data, self._new_loss(), random_state, incremental)
        if not all(np.isfinite(p).all() for p in self._parameters()):
            raise ValueError(_NOT_FINITE)

    def _hidden_units(self) -> list[int]:
        sizes = self.hidden_layer_sizes
        hidden = list(sizes) if hasattr(sizes, "__iter__") else [sizes]
        if np.any(np.array(hidden) <= 0):
            raise ValueError(f"hidden_layer_sizes must be > 0, got {hidden}.")
        return hidden

    def _rates(self, hidden: int) -> tuple[float, ...]:
        """The rate of the dropout after each hidden layer."""
        if isinstance(self.dropout, Real):
            return (float(self.dropout),) * hidden
        rates = np.asarray(self.dropout, np.float64)
        if rates.shape != (hidden,) or not ((rates >= 0) & (rates < 1)).all():
            raise ValueError(
                "dropout must be a rate in [0, 1), or one for each hidden layer; "
                f"got {self.dropout!r} for {hidden} hidden layer(s)"
            )
        return tuple(rates.tolist())

    def _prepare_network(
        self, wanted: Architecture, goes_on: bool, random_state: np.random.RandomState
    ) -> None:
        """A network as it is wanted, with new weights or with those of the last fit."""
        if not goes_on:
            self._out_activation = self._output_activation()
            self._network = wanted.build(random_state)
            draw_weights(self._network, self.activation, random_state)
            self.t_ = 0
            for name in ("_optimizer", "loss_curve_"):
                self.__dict__.pop(name, None)
        else:
            if self._output_activation() != self._out_activation:
                raise ValueError(
                    "this fit goes on with a network that was trained for another kind of loss or "
                    "of y: use warm_start=False"
                )
            units = self._architecture.units
            if wanted.units != units:
                raise ValueError(
                    f"this fit goes on with a network of {units} units; the parameters and the "
                    f"data ask for {wanted.units}: use warm_start=False"
                )
            wanted = Architecture(
                units, wanted.activation, wanted.rates, wanted.input_rate, self._architecture.dtype
            )
            if wanted != self._architecture:
                network = wanted.build(random_state)
                copy_weights(self._network, network)
                self._network = network
                if "_optimizer" in vars(self):
                    self._optimizer.unbind()
        self._architecture = wanted
        self.n_iter_ = 0

    def _solve(
        self, data: Data, loss: Loss, random_state: np.random.RandomState, incremental: bool
    ) -> None:
        if self.solver == "lbfgs":
            objective = lbfgs.Objective(self._network, data, loss, self.alpha)
            result = lbfgs.minimize(
                objective,
                max_iter=self.max_iter,
                max_fun=self.max_fun,
                tol=self.tol,
                verbose=bool(self.verbose),
            )
            self.n_iter_ = min(int(result.nit), self.max_iter)
            self.loss_ = self._unit * objective.data_loss + objective.penalty
            return
        if "loss_curve_" not in vars(self):
            self.loss_curve_: list[float] = []
            self._no_improvement_count = 0
            self.best_loss_: float | None = None
            self.best_validation_score_: float | None = None
            self.validation_scores_: list[float] | None = None
            self.validation_loss_curve_: list[float] | None = None
        if self.early_stopping and self.validation_scores_ is None:
            self.validation_scores_, self.validation_loss_curve_ = [], []
            self.best_validation_score_, self.best_loss_ = -np.inf, None
        elif not self.early_stopping and self.best_loss_ is None:
            self.best_loss_ = np.inf
        if not incremental or "_optimizer" not in vars(self):
            self._optimizer = stochastic.new_optimizer(self)
        stochastic.train(self, data, loss, random_state, incremental=incremental)

    @property
    def _unit(self) -> float:
        """What the loss is multiplied by before it is reported; its gradient is not."""
        return 1.0

    def _reported(self, figures: StepFigures) -> float:
        return self._unit * figures.data_loss + figures.regularization_loss

    def _targets(
        self, y: Any, sample_weight: Any, dtype: Any, incremental: bool, classes: Any
    ) -> tuple[Array, Any]:
        """The targets as the loss takes them, and the weights of the rows."""
        raise NotImplementedError

    def _outputs_of(self, y: Array) -> int:
        """How many outputs these targets need."""
        raise NotImplementedError

    def _output_activation(self) -> str:
        raise NotImplementedError

    def _new_loss(self) -> Loss:
        raise NotImplementedError

    def _score_of(self, scores: Array, y: Array, weight: Any) -> float:
        """What `score` would give for these scores of the network."""
        raise NotImplementedError

    # ---- asking

    def _checked_rows(self, X: Any) -> Any:
        check_is_fitted(self)
        check_in_memory(X, "X")
        return validate_data(self, X, accept_sparse="csr", dtype=_FLOATS, order="C", reset=False)

    def _scores(self, X: Any) -> Array:
        """The network's result for rows that were checked."""
        network = self._network
        parts = [network.predict(rows) for _, rows in self._dense_parts(X)]
        return parts[0] if len(parts) == 1 else np.concatenate(parts)

    def _predictions(self, X: Any) -> Array:
        """Probabilities or values, [B, outputs], for rows that were checked."""
        return OUTPUT_ACTIVATIONS[self._out_activation](self._scores(X))

    def _sample(self, X: Any, n_samples: Any, first_row: Any = 0) -> tuple[Array, Array]:
        """Mean and standard deviation of predictions over masks, [B, outputs] each."""
        n_samples = check_scalar(n_samples, "the number of samples", Integral, min_val=1)
        first_row = check_scalar(first_row, "first_row", Integral, min_val=0)
        if not self._architecture.has_dropout:
            warnings.warn(
                "the network has no dropout: all samples are the same, and their standard "
                "deviation is 0",
                stacklevel=3,
            )
        parts = [
            # Each part starts anew with the same masks, from its own row on.
            sampling_network(self._network).predict_mc(
                rows,
                n_samples,
                transform=OUTPUT_ACTIVATIONS[self._out_activation],
                first_row=first_row + start,
            )
            for start, rows in self._dense_parts(X)
        ]
        mean, std = (np.concatenate(arrays) for arrays in zip(*parts, strict=True))
        return mean, std

    def _dense_parts(self, X: Any) -> Iterable[tuple[int, Array]]:
        """The rows in the network's dtype; those of a sparse matrix some at a time."""
        dtype = self._architecture.dtype
        if isinstance(X, np.ndarray):
            yield 0, X.astype(dtype, copy=False)
            return
        for start in range(0, X.shape[0], lbfgs.ROWS_AT_ONCE):
            rows = X[start : start + lbfgs.ROWS_AT_ONCE]
            yield start, rows.toarray().astype(dtype, copy=False)
