"""Losses and gradients are those of scikit-learn's own estimators."""

from __future__ import annotations

from itertools import product

import numpy as np
import pytest

from support import require

require("sklearn")
from sklearn import neural_network
from sklearn.datasets import make_classification
from sklearn.utils.validation import has_fit_parameter

from dropwise.sklearn import MLPClassifier, MLPRegressor

pytestmark = pytest.mark.filterwarnings("ignore::sklearn.exceptions.ConvergenceWarning")

TASKS = ("binary", "multiclass", "multilabel", "values", "outputs", "poisson")
OWN = {"c": (MLPClassifier, neural_network.MLPClassifier)}
OWN["r"] = (MLPRegressor, neural_network.MLPRegressor)


def problem(task, rows=230, dtype=np.float64):
    """Rows, targets, arguments, our class and theirs."""
    x, y = make_classification(rows, 12, n_informative=6, n_classes=3, random_state=0)
    x = x.astype(dtype)
    if task == "poisson" and "loss" not in neural_network.MLPRegressor().get_params():
        pytest.skip("this scikit-learn has one loss only")
    targets = {
        "binary": lambda: y > 0,
        "multiclass": lambda: y,
        "multilabel": lambda: np.stack([y > 0, y == 1, x[:, 0] > 0], axis=1).astype(int),
        "values": lambda: x[:, 0] * x[:, 1] + y,
        "outputs": lambda: np.stack([x[:, 0] + y, x[:, 1] * y, x[:, 2]], axis=1),
        "poisson": lambda: y * 2,
    }[task]()
    arguments = {"loss": "poisson"} if task == "poisson" else {}
    return x, targets, arguments, *OWN["c" if task.startswith(("b", "m")) else "r"]


def curves(task, weight=None, **arguments):
    x, y, more, ours, theirs = problem(task)
    arguments = {"hidden_layer_sizes": (20, 10), "max_iter": 10, "tol": 0, "random_state": 3} | (
        arguments | more
    )
    extra = {} if weight is None else {"sample_weight": weight}
    return ours(**arguments).fit(x, y, **extra), theirs(**arguments).fit(x, y, **extra)


@pytest.mark.parametrize("activation", ["identity", "logistic", "tanh", "relu"])
@pytest.mark.parametrize(("solver", "task"), list(product(["adam", "sgd"], TASKS)))
def test_the_losses_of_ten_epochs_follow_those_of_scikit_learn(solver, task, activation):
    ours, theirs = curves(
        task, activation=activation, solver=solver, batch_size=64, learning_rate_init=0.003
    )
    np.testing.assert_allclose(ours.loss_curve_, theirs.loss_curve_, rtol=1e-7)
    assert (len(ours.loss_curve_), ours.n_iter_, ours.t_) == (10, theirs.n_iter_, theirs.t_)
    assert (ours.out_activation_, ours.n_outputs_) == (theirs.out_activation_, theirs.n_outputs_)
    for w, expected in zip(ours.coefs_, theirs.coefs_, strict=True):
        np.testing.assert_allclose(w, expected, rtol=1e-6, atol=1e-9)


@pytest.mark.parametrize("task", TASKS)
@pytest.mark.parametrize(
    "arguments",
    [
        {"learning_rate": "invscaling", "power_t": 0.3},
        {"learning_rate": "adaptive", "tol": 0.3, "n_iter_no_change": 1},
        {"nesterovs_momentum": False},
        {"momentum": 0.0},
        {"shuffle": False, "batch_size": 100},
        {"alpha": 3.0},
    ],
    ids=lambda arguments: next(iter(arguments)),
)
def test_schedules_momentum_order_and_penalty_are_those_of_scikit_learn(task, arguments):
    ours, theirs = curves(task, solver="sgd", **arguments)
    np.testing.assert_allclose(ours.loss_curve_, theirs.loss_curve_, rtol=1e-7)


@pytest.mark.parametrize("arguments", [{"epsilon": 1e-2}, {"beta_1": 0.5, "beta_2": 0.7}])
def test_the_settings_of_adam_mean_what_they_mean_in_scikit_learn(arguments):
    ours, theirs = curves("multiclass", learning_rate_init=0.01, **arguments)
    np.testing.assert_allclose(ours.loss_curve_, theirs.loss_curve_, rtol=1e-7)


@pytest.mark.parametrize("task", TASKS)
def test_weights_of_rows_are_those_of_scikit_learn(task):
    if not has_fit_parameter(neural_network.MLPClassifier(), "sample_weight"):
        pytest.skip("this scikit-learn takes no weights")
    weight = np.random.default_rng(0).random(230) * 3
    ours, theirs = curves(task, weight=weight, alpha=0.1)
    np.testing.assert_allclose(ours.loss_curve_, theirs.loss_curve_, rtol=1e-7)


@pytest.mark.parametrize("task", TASKS)
def test_early_stopping_takes_the_same_rows_and_the_same_end(task):
    arguments = {"early_stopping": True, "n_iter_no_change": 3, "tol": 1e-3, "max_iter": 40}
    ours, theirs = curves(task, validation_fraction=0.2, learning_rate_init=0.01, **arguments)
    np.testing.assert_allclose(ours.loss_curve_, theirs.loss_curve_, rtol=1e-7)
    np.testing.assert_allclose(ours.validation_scores_, theirs.validation_scores_, rtol=1e-6)
    assert ours.n_iter_ == theirs.n_iter_
    assert ours.best_loss_ is theirs.best_loss_ is None
    assert ours.best_validation_score_ == pytest.approx(theirs.best_validation_score_)
    for w, expected in zip(ours.coefs_, theirs.coefs_, strict=True):
        np.testing.assert_allclose(w, expected, rtol=1e-6, atol=1e-9)
    assert len(ours.validation_loss_curve_) == ours.n_iter_


@pytest.mark.parametrize("activation", ["identity", "logistic", "tanh", "relu"])
@pytest.mark.parametrize("task", TASKS)
def test_lbfgs_sees_the_loss_and_the_gradient_of_scikit_learn(task, activation, monkeypatch):
    x, y, more, ours, theirs = problem(task)
    arguments = {"solver": "lbfgs", "max_iter": 1, "alpha": 0.5, "random_state": 1} | more
    arguments |= {"activation": activation, "hidden_layer_sizes": (7,)}
    seen = []
    from scipy import optimize

    def minimize(function, start, *, args=(), **options):
        seen.append(function(start.copy(), *args))
        return optimize.OptimizeResult(
            x=start, fun=seen[-1][0], nit=1, status=0, success=True, message=""
        )

    monkeypatch.setattr("scipy.optimize.minimize", minimize)
    a, b = ours(**arguments).fit(x, y), theirs(**arguments).fit(x, y)
    assert a.loss_ == pytest.approx(b.loss_, rel=1e-10)
    # Ours are weights and biases layer by layer, theirs all weights and then all biases.
    gradients, start = [[], []], 0
    for w, bias in zip(a.coefs_, a.intercepts_, strict=True):
        for kind, p in zip(gradients, (w, bias), strict=True):
            kind.append(seen[0][1][start : start + p.size])
            start += p.size
    np.testing.assert_allclose(
        np.concatenate([*gradients[0], *gradients[1]]), seen[1][1], rtol=1e-7, atol=1e-12
    )


@pytest.mark.parametrize("task", TASKS)
def test_lbfgs_ends_at_a_minimum(task):
    x, y, more, ours, _ = problem(task)
    model = ours(
        hidden_layer_sizes=(10,), max_iter=500, solver="lbfgs", alpha=1.0, random_state=0, **more
    )
    assert model.fit(x, y).score(x, y) > 0.75
    assert not hasattr(model, "loss_curve_")


@pytest.mark.parametrize("solver", ["adam", "sgd", "lbfgs"])
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("task", TASKS)
def test_everything_is_in_the_dtype_of_x(task, dtype, solver):
    x, y, more, ours, _ = problem(task, dtype=dtype)
    model = ours(hidden_layer_sizes=(8,), solver=solver, max_iter=3, **more).fit(x, y)
    assert {p.dtype for p in (*model.coefs_, *model.intercepts_)} == {np.dtype(dtype)}
    ask = model.predict if ours is MLPRegressor else model.predict_proba
    assert ask(x).dtype == ask(x.astype(np.float64)).dtype == dtype
    assert isinstance(model.loss_, float)


def test_weights_and_order_do_not_depend_on_the_rate():
    x, y, _, ours, _ = problem("multiclass")
    plain, dropped = (
        ours((9,), dropout=rate, max_iter=1, learning_rate_init=1e-12, random_state=5).fit(x, y)
        for rate in (0.0, 0.5)
    )
    for a, b in zip(plain.coefs_, dropped.coefs_, strict=True):
        np.testing.assert_allclose(a, b, atol=1e-9)
    assert plain.loss_ != dropped.loss_
