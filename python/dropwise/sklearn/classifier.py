"""The classifier: classes or labels, their probabilities, weights by class."""

from __future__ import annotations

from typing import Any, ClassVar

import numpy as np
from sklearn.base import ClassifierMixin, _fit_context
from sklearn.preprocessing import LabelBinarizer
from sklearn.utils._param_validation import StrOptions
from sklearn.utils.metaestimators import available_if
from sklearn.utils.multiclass import _check_partial_fit_first_call as check_classes
from sklearn.utils.multiclass import type_of_target, unique_labels

from dropwise._backends.protocol import Array
from dropwise.losses import BinaryCrossEntropy, Loss, ScaledLoss, SoftmaxCrossEntropy
from dropwise.sklearn.base import BaseMLP, takes_batches
from dropwise.sklearn.class_weights import weights_of_rows


class MLPClassifier(ClassifierMixin, BaseMLP):  # type: ignore[misc]  # no types
    """Multi-layer perceptron classifier, with dropout.

    The parameters and attributes are those of `sklearn.neural_network.MLPClassifier`; `dropout`,
    `input_dropout`, `class_weight` and ``validation_loss_curve_`` are new, as are the arguments
    for Monte Carlo dropout.

    Parameters
    ----------
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
        Go on with the weights of the last fit; hidden layers and the kind of `y` have to stay.
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
    class_weight : dict, list of dict, 'balanced' or None, default=None
        Weights of the classes, which multiply those of the rows.  'balanced' gives each class the
        same sum of weights.  For several labels a row: a dict for each, or 'balanced'.

    Attributes
    ----------
    classes_ : ndarray
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
        With `early_stopping`: the accuracy of the validation rows after each epoch.
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
    MLPRegressor : for values.
    dropwise.Sequential : the network underneath.

    Notes
    -----
    Weights, losses and predictions are in the dtype of the first `X`: float32 is faster, float64
    what scikit-learn's checks of equal weights need.  Without dropout, the same `random_state`
    gives the losses of `sklearn.neural_network.MLPClassifier` to rounding.

    A sparse `X` becomes dense some rows at a time.  A call that fails leaves the estimator as it
    was, `fit` and `partial_fit` alike.

    References
    ----------
    .. [1] Srivastava et al., "Dropout: a simple way to prevent neural networks from overfitting",
       JMLR 15 (2014).
    .. [2] Gal and Ghahramani, "Dropout as a Bayesian approximation", ICML (2016).

    Examples
    --------
    >>> import numpy as np
    >>> from sklearn.datasets import make_classification
    >>> from dropwise.sklearn import MLPClassifier
    >>> X, y = make_classification(300, random_state=1)
    >>> model = MLPClassifier(dropout=0.2, learning_rate_init=0.01, random_state=1).fit(X, y)
    >>> model.score(X, y) > 0.9
    True
    >>> mean, std = model.predict_mc(X[:5], n_samples=50)
    >>> mean.shape, bool((std > 0).all())
    ((5, 2), True)
    """

    _has_classes = True
    _parameter_constraints: ClassVar[dict[str, list[Any]]] = {
        **BaseMLP._parameter_constraints,
        "class_weight": [StrOptions({"balanced"}), dict, list, None],
    }

    def __init__(
        self,
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
        class_weight: Any = None,
    ) -> None:
        super().__init__(
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
            class_weight=class_weight,
        )

    # ---- fitting

    @_fit_context(prefer_skip_nested_validation=True)  # type: ignore[untyped-decorator]
    def fit(self, X: Any, y: Any, sample_weight: Any = None) -> MLPClassifier:
        """Fit to rows and their classes.

        Parameters
        ----------
        X : array-like or sparse matrix, shape (n_samples, n_features)
        y : array-like, shape (n_samples,) or (n_samples, n_labels)
            Classes; or labels, as zeros and ones.
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
    def partial_fit(
        self, X: Any, y: Any, sample_weight: Any = None, classes: Any = None
    ) -> MLPClassifier:
        """Go on with one epoch on these rows; a failure leaves the estimator as it was.

        Parameters
        ----------
        X, y, sample_weight : as for `fit`
        classes : array-like, shape (n_classes,), default=None
            All classes that there will be; needed at the first call.

        Returns
        -------
        self
        """
        self._fit(X, y, sample_weight, incremental=True, classes=classes)
        return self

    def _targets(
        self, y: Any, sample_weight: Any, dtype: Any, incremental: bool, classes: Any
    ) -> tuple[Array, Any]:
        if incremental:
            if check_classes(self, classes):
                multilabel = type_of_target(y).startswith("multilabel")
                self._label_binarizer = LabelBinarizer().fit(y if multilabel else classes)
                self.classes_ = self._label_binarizer.classes_
        elif not ("classes_" in vars(self) and self.warm_start):
            self._label_binarizer = LabelBinarizer().fit(y)
            self.classes_ = self._label_binarizer.classes_
        found = unique_labels(y)
        if self.warm_start and not incremental:
            if set(found) != set(self.classes_):
                raise ValueError(
                    "warm_start can only be used where `y` has the same classes as in the previous "
                    f"call to fit. Previously got {self.classes_}, `y` has {found}"
                )
        elif len(np.setdiff1d(found, self.classes_, assume_unique=True)):
            raise ValueError(
                "`y` has classes not in `self.classes_`. "
                f"`self.classes_` has {self.classes_}. 'y' has {found}."
            )
        weight = weights_of_rows(self.class_weight, self.classes_, y, sample_weight, incremental)
        if self._label_binarizer.y_type_ == "multiclass":
            return np.searchsorted(self.classes_, y), weight
        return self._label_binarizer.transform(y).astype(dtype), weight

    def _outputs_of(self, y: Array) -> int:
        return len(self.classes_) if y.ndim == 1 else int(y.shape[1])

    def _output_activation(self) -> str:
        return "softmax" if self._label_binarizer.y_type_ == "multiclass" else "logistic"

    def _new_loss(self) -> Loss:
        if self._out_activation == "softmax":
            return SoftmaxCrossEntropy()
        loss = BinaryCrossEntropy()  # its mean over the labels of a row; a sum is wanted
        return loss if self.n_outputs_ == 1 else ScaledLoss(loss, self.n_outputs_)

    def _score_of(self, scores: Array, y: Array, weight: Any) -> float:
        if len(self.classes_) == 1:
            return 1.0
        right = scores.argmax(axis=1) == y if y.ndim == 1 else ((scores > 0) == (y > 0)).all(axis=1)
        return float(np.average(right, weights=weight))

    # ---- asking

    def predict(self, X: Any) -> Array:
        """The most probable class of each row, or its labels.

        Parameters
        ----------
        X : array-like or sparse matrix, shape (n_samples, n_features)

        Returns
        -------
        ndarray, shape (n_samples,) or (n_samples, n_labels)
        """
        probabilities = self._predictions(self._checked_rows(X))
        if self.n_outputs_ == 1:
            probabilities = probabilities.ravel()
        labels: Array = self._label_binarizer.inverse_transform(probabilities)
        return labels

    def predict_proba(self, X: Any, mc_samples: int | None = None) -> Array:
        """The probability of each class (or label).

        Parameters
        ----------
        X : array-like or sparse matrix, shape (n_samples, n_features)
        mc_samples : int, default=None
            The mean over so many random masks (Monte Carlo dropout) in place of the network
            without dropout.  See `predict_mc`.

        Returns
        -------
        ndarray, shape (n_samples, n_classes)
        """
        rows = self._checked_rows(X)
        if mc_samples is None:
            return self._by_class(self._predictions(rows))
        return self._by_class(self._sample(rows, mc_samples)[0])

    def predict_log_proba(self, X: Any, mc_samples: int | None = None) -> Array:
        """The logarithm of `predict_proba`.

        Parameters
        ----------
        X, mc_samples : as for `predict_proba`

        Returns
        -------
        ndarray, shape (n_samples, n_classes)
        """
        with np.errstate(divide="ignore"):
            return np.log(self.predict_proba(X, mc_samples))

    def predict_mc(
        self, X: Any, n_samples: int = 100, *, first_row: int = 0
    ) -> tuple[Array, Array]:
        """Mean and standard deviation of the probabilities over random masks.

        Parameters
        ----------
        X : array-like or sparse matrix, shape (n_samples, n_features)
        n_samples : int
            How many masks for each row.
        first_row : int
            Where in a larger `X` these rows are: they get the masks that they have there.

        Returns
        -------
        mean, std : ndarray, shape (n_samples, n_classes)

        Notes
        -----
        The masks follow from the state of the training: the same call gives the same result.
        """
        mean, std = self._sample(self._checked_rows(X), n_samples, first_row)
        if self.n_outputs_ == 1:
            std = np.hstack([std, std])
        return self._by_class(mean), std

    def _by_class(self, probabilities: Array) -> Array:
        """A column for each class, also for two."""
        if self.n_outputs_ > 1:
            return probabilities
        return np.hstack([1 - probabilities, probabilities])

    def __sklearn_tags__(self) -> Any:
        tags = super().__sklearn_tags__()
        tags.classifier_tags.multi_label = True
        return tags
