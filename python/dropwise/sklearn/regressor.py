"""The regressor: values, and how sure they are."""

from __future__ import annotations

from typing import Any, ClassVar

import numpy as np
from sklearn.base import RegressorMixin, _fit_context
from sklearn.metrics import r2_score
from sklearn.utils._param_validation import StrOptions
from sklearn.utils.metaestimators import available_if

from dropwise._backends.protocol import Array
from dropwise.losses import HalfPoissonDeviance, Loss, MeanSquaredError, ScaledLoss
from dropwise.sklearn.architecture import OUTPUT_ACTIVATIONS
from dropwise.sklearn.base import BaseMLP, takes_batches


class MLPRegressor(RegressorMixin, BaseMLP):  # type: ignore[misc]  # no types
    """Multi-layer perceptron regressor, with dropout.

    The parameters and attributes are those of `sklearn.neural_network.MLPRegressor`; `dropout`,
    `input_dropout` and ``validation_loss_curve_`` are new, as are the arguments for Monte Carlo
    dropout.

    Parameters
    ----------
    loss : {'squared_error', 'poisson'}, default='squared_error'
        Half the squared error; or half the Poisson deviance, with predictions that are ``exp`` of
        the network's result, for `y` that is not negative.
    hidden_layer_sizes : array-like of int, default=(100,)
        Units of each hidden layer.
    activation : {'identity', 'logistic', 'tanh', 'relu'}, default='relu'
        What follows each hidden layer.  With 'relu' dropout saves time: units that are dropped are
        not computed.
    solver : {'lbfgs', 'sgd', 'adam'}, default='adam'
        'lbfgs' is scipy's, on all rows at a time; it takes no dropout.
    alpha : float, default=0.0001
        Strength of the L2 penalty on the weights; a batch divides it by the sum of the weights of
        its rows.
    batch_size : int, default='auto'
        Rows of a step; 'auto' is ``min(200, n_samples)``.
    learning_rate : {'constant', 'invscaling', 'adaptive'}, default='constant'
        Schedule of the solver 'sgd'.  'invscaling' is ``learning_rate_init / t**power_t`` after t
        rows; 'adaptive' divides the rate by 5 where training would stop otherwise.
    learning_rate_init : float, default=0.001
        The first learning rate.
    power_t : float, default=0.5
        Exponent of 'invscaling'.
    max_iter : int, default=200
        Epochs at most; iterations of 'lbfgs'.
    shuffle : bool, default=True
        Take the rows in a new order in each epoch.
    random_state : int, RandomState instance or None, default=None
        Decides the first weights, the validation rows, the order of the rows, and the masks.  The
        first three are the same for any rate of dropout.
    tol : float, default=1e-4
        Training stops after `n_iter_no_change` epochs that were not better by `tol`.
    verbose : bool, default=False
        Show a progress bar, if tqdm is installed, or lines of text.
    warm_start : bool, default=False
        Go on with the weights of the last fit; hidden layers and `loss` have to stay.
    momentum : float, default=0.9
        Of the solver 'sgd'.
    nesterovs_momentum : bool, default=True
        Whether that is Nesterov's.
    early_stopping : bool, default=False
        Set rows aside, stop when their score gets no better, and end with the weights that had the
        best.
    validation_fraction : float, default=0.1
        Share of the rows that `early_stopping` sets aside.
    beta_1 : float, default=0.9
        Of the solver 'adam': how much of the mean gradient a step keeps.
    beta_2 : float, default=0.999
        The same for the mean squared gradient.
    epsilon : float, default=1e-8
        Of the solver 'adam': for numerical stability.
    n_iter_no_change : int, default=10
        Epochs without a better loss (or score) before training stops.
    max_fun : int, default=15000
        Calls of the loss function by the solver 'lbfgs' at most.
    dropout : float in [0, 1), or one for each hidden layer, default=0.0
        Probability that a hidden unit is dropped in a step of training.
    input_dropout : float in [0, 1), default=0.0
        The same for the columns of `X`.

    Attributes
    ----------
    coefs_ : list of ndarray
        Weights of each layer, shape (inputs, outputs).
    intercepts_ : list of ndarray
        Biases of each layer.
    loss_ : float
        The last loss, penalty included.
    loss_curve_ : list of float
        The loss of each epoch.  (Not of 'lbfgs', as all that counts epochs.)
    best_loss_ : float or None
        The smallest of them; None with `early_stopping`.
    validation_scores_ : list of float or None
        With `early_stopping`: the R2 score of the validation rows after each epoch.
    best_validation_score_ : float or None
        The best of them.
    validation_loss_curve_ : list of float or None
        With `early_stopping`: the loss of the validation rows after each epoch, without a penalty
        and without dropout.
    n_iter_ : int
        Epochs, or iterations, of the last fit.
    t_ : int
        Rows that training has seen.
    n_layers_ : int
        Layers, input and output included.
    n_outputs_ : int
    out_activation_ : str
    n_features_in_ : int
    feature_names_in_ : ndarray of str
        Only if `X` has such names.

    See Also
    --------
    MLPClassifier : for classes.
    dropwise.Sequential : the network underneath.

    Notes
    -----
    Weights, losses and predictions are in the dtype of the first `X`: float32 is faster, float64
    what scikit-learn's checks of equal weights need.  Without dropout, the same `random_state`
    gives the losses of `sklearn.neural_network.MLPRegressor` to rounding.

    A sparse `X` becomes dense some rows at a time.  A call that fails leaves the estimator as it
    was, `fit` and `partial_fit` alike.

    With several outputs, training minimises the sum of their squared errors, and the loss that is
    reported is their mean, as in scikit-learn.

    References
    ----------
    .. [1] Srivastava et al., "Dropout: a simple way to prevent neural networks from overfitting",
       JMLR 15 (2014).
    .. [2] Gal and Ghahramani, "Dropout as a Bayesian approximation", ICML (2016).

    Examples
    --------
    >>> from sklearn.datasets import make_regression
    >>> from dropwise.sklearn import MLPRegressor
    >>> X, y = make_regression(200, 20, random_state=1)
    >>> model = MLPRegressor(dropout=0.1, learning_rate_init=0.01, random_state=1, tol=0)
    >>> value, std = model.fit(X, y / y.std()).predict(X[:5], return_std=True)
    >>> value.shape, bool((std > 0).all())
    ((5,), True)
    """

    _has_classes = False
    _parameter_constraints: ClassVar[dict[str, list[Any]]] = {
        **BaseMLP._parameter_constraints,
        "loss": [StrOptions({"squared_error", "poisson"})],
    }

    def __init__(
        self,
        loss: str = "squared_error",
        hidden_layer_sizes: Any = (100,),
        activation: str = "relu",
        *,
        solver: str = "adam",
        alpha: float = 0.0001,
        batch_size: int | str = "auto",
        learning_rate: str = "constant",
        learning_rate_init: float = 0.001,
        power_t: float = 0.5,
        max_iter: int = 200,
        shuffle: bool = True,
        random_state: Any = None,
        tol: float = 1e-4,
        verbose: bool | int = False,
        warm_start: bool = False,
        momentum: float = 0.9,
        nesterovs_momentum: bool = True,
        early_stopping: bool = False,
        validation_fraction: float = 0.1,
        beta_1: float = 0.9,
        beta_2: float = 0.999,
        epsilon: float = 1e-8,
        n_iter_no_change: float = 10,
        max_fun: int = 15000,
        dropout: Any = 0.0,
        input_dropout: float = 0.0,
    ) -> None:
        super().__init__(
            loss=loss,
            hidden_layer_sizes=hidden_layer_sizes,
            activation=activation,
            solver=solver,
            alpha=alpha,
            batch_size=batch_size,
            learning_rate=learning_rate,
            learning_rate_init=learning_rate_init,
            power_t=power_t,
            max_iter=max_iter,
            shuffle=shuffle,
            random_state=random_state,
            tol=tol,
            verbose=verbose,
            warm_start=warm_start,
            momentum=momentum,
            nesterovs_momentum=nesterovs_momentum,
            early_stopping=early_stopping,
            validation_fraction=validation_fraction,
            beta_1=beta_1,
            beta_2=beta_2,
            epsilon=epsilon,
            n_iter_no_change=n_iter_no_change,
            max_fun=max_fun,
            dropout=dropout,
            input_dropout=input_dropout,
        )

    # ---- fitting

    @_fit_context(prefer_skip_nested_validation=True)  # type: ignore[untyped-decorator]
    def fit(self, X: Any, y: Any, sample_weight: Any = None) -> MLPRegressor:
        """Fit to rows and their values.

        Parameters
        ----------
        X : array-like or sparse matrix, shape (n_samples, n_features)
        y : array-like, shape (n_samples,) or (n_samples, n_outputs)
        sample_weight : array-like, shape (n_samples,), default=None
            Weights of the rows; losses are means over them.

        Returns
        -------
        self
        """
        self._fit(X, y, sample_weight)
        return self

    @available_if(takes_batches)  # type: ignore[untyped-decorator]
    @_fit_context(prefer_skip_nested_validation=True)  # type: ignore[untyped-decorator]
    def partial_fit(self, X: Any, y: Any, sample_weight: Any = None) -> MLPRegressor:
        """Go on with one epoch on these rows; a failure leaves the estimator as it was.

        Parameters
        ----------
        X, y, sample_weight : as for `fit`

        Returns
        -------
        self
        """
        self._fit(X, y, sample_weight, incremental=True)
        return self

    def _targets(
        self, y: Any, sample_weight: Any, dtype: Any, incremental: bool, classes: Any
    ) -> tuple[Array, Any]:
        if self.loss == "poisson" and y.min() < 0:
            raise ValueError("Some value(s) of y are out of the valid range of the loss 'poisson'.")
        return y.astype(dtype, copy=False).reshape(len(y), -1), sample_weight

    def _outputs_of(self, y: Array) -> int:
        return int(y.shape[1])

    def _output_activation(self) -> str:
        return "exp" if self.loss == "poisson" else "identity"

    def _new_loss(self) -> Loss:
        # Theirs is a mean over the outputs of a row; training wants a sum.
        if self._out_activation == "exp":
            return ScaledLoss(HalfPoissonDeviance(), self.n_outputs_)
        return ScaledLoss(MeanSquaredError(), 0.5 * self.n_outputs_)

    @property
    def _unit(self) -> float:
        return 1.0 if self._out_activation == "exp" else 1.0 / self.n_outputs_

    def _score_of(self, scores: Array, y: Array, weight: Any) -> float:
        predicted = OUTPUT_ACTIVATIONS[self._out_activation](scores)
        if not np.isfinite(predicted).all():
            return float("nan")
        return float(r2_score(y, predicted, sample_weight=weight))

    # ---- asking

    def predict(
        self, X: Any, return_std: bool = False, mc_samples: int = 100
    ) -> Array | tuple[Array, Array]:
        """The value of each row.

        Parameters
        ----------
        X : array-like or sparse matrix, shape (n_samples, n_features)
        return_std : bool, default=False
            Return mean and standard deviation over random masks (Monte Carlo dropout), as
            `predict_mc` does.
        mc_samples : int, default=100
            How many masks for each row, with `return_std`.

        Returns
        -------
        value : ndarray, shape (n_samples,) or (n_samples, n_outputs)
        std : ndarray, shape of `value`
            Only with `return_std`.
        """
        if return_std:
            return self.predict_mc(X, mc_samples)
        return self._one_column(self._predictions(self._checked_rows(X)))

    def predict_mc(
        self, X: Any, n_samples: int = 100, *, first_row: int = 0
    ) -> tuple[Array, Array]:
        """Mean and standard deviation of the values over random masks.

        Parameters
        ----------
        X : array-like or sparse matrix, shape (n_samples, n_features)
        n_samples : int
            How many masks for each row.
        first_row : int
            Where in a larger `X` these rows are: they get the masks that they have there.

        Returns
        -------
        mean, std : ndarray, shape (n_samples,) or (n_samples, n_outputs)

        Notes
        -----
        The masks follow from the state of the training: the same call gives the same result.
        """
        mean, std = self._sample(self._checked_rows(X), n_samples, first_row)
        return self._one_column(mean), self._one_column(std)

    def _one_column(self, values: Array) -> Array:
        return values.ravel() if self.n_outputs_ == 1 else values

    def __sklearn_tags__(self) -> Any:
        tags = super().__sklearn_tags__()
        tags.target_tags.multi_output = True
        return tags
