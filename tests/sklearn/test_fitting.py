"""Fitting: weights, batches, failures, what goes on and what starts anew."""

from __future__ import annotations

import copy
import pickle

import numpy as np
import pytest

from faults import failing_call
from support import require

require("sklearn")
from sklearn.base import clone
from sklearn.datasets import make_classification

from dropwise.network import training
from dropwise.sklearn import MLPClassifier, MLPRegressor, stochastic

pytestmark = pytest.mark.filterwarnings("ignore::sklearn.exceptions.ConvergenceWarning")

ESTIMATORS = [MLPClassifier, MLPRegressor]
X, Y = make_classification(150, 8, n_informative=5, n_classes=3, random_state=0)
SMALL = {"hidden_layer_sizes": (12,), "max_iter": 5, "batch_size": 40, "random_state": 0}


def parameters(model):
    return [p.copy() for p in (*model.coefs_, *model.intercepts_)]


def assert_equal_parameters(a, b):
    for x, y in zip(a, b, strict=True):
        np.testing.assert_array_equal(x, y)


# ---- weights


@pytest.mark.parametrize("estimator", ESTIMATORS)
@pytest.mark.parametrize("solver", ["adam", "sgd", "lbfgs"])
def test_a_row_of_weight_0_is_one_that_is_not_there(estimator, solver):
    arguments = SMALL | {"solver": solver, "batch_size": "auto", "shuffle": False}
    weight = np.ones(150)
    weight[::3] = 0
    a = estimator(**arguments).fit(X, Y, weight)
    b = estimator(**arguments).fit(X[weight > 0], Y[weight > 0])
    for p, q in zip(parameters(a), parameters(b), strict=True):
        np.testing.assert_allclose(p, q, rtol=1e-7, atol=1e-12)


@pytest.mark.parametrize("estimator", ESTIMATORS)
def test_a_batch_without_weight_makes_no_step(estimator):
    weight = np.ones(150)
    weight[:40] = 0
    arguments = SMALL | {"shuffle": False}
    a = estimator(**arguments).fit(X, Y, weight)
    b = estimator(**arguments).fit(X[40:], Y[40:])
    for p, q in zip(parameters(a), parameters(b), strict=True):
        np.testing.assert_allclose(p, q, rtol=1e-9, atol=1e-12)
    assert a.loss_curve_ == pytest.approx(b.loss_curve_, rel=1e-12)


@pytest.mark.parametrize("estimator", ESTIMATORS)
@pytest.mark.parametrize(
    ("weight", "message"),
    [
        (np.zeros(150), "at least one non-zero"),
        (-np.ones(150), "Negative values"),
        (np.ones(3), "sample_weight.shape"),
        (np.full(150, np.nan), "NaN"),
    ],
)
def test_bad_weights_get_the_errors_of_scikit_learn(estimator, weight, message):
    with pytest.raises(ValueError, match=message):
        estimator(**SMALL).fit(X, Y, weight)


@pytest.mark.parametrize("weight", [None, np.random.default_rng(0).random(150)])
def test_class_weight_multiplies_the_weights_of_rows(weight):
    names = np.array(["a", "b", "c"])[Y]
    factors = {"a": 2.0, "b": 0.5, "c": 3.0}
    a = MLPClassifier(class_weight=factors, **SMALL).fit(X, names, weight)
    rows = np.array([factors[name] for name in names]) * (1 if weight is None else weight)
    assert_equal_parameters(parameters(a), parameters(MLPClassifier(**SMALL).fit(X, names, rows)))


def test_balanced_classes_have_the_same_sum_of_weights():
    y = np.repeat([0, 1], [120, 30])
    weight = np.random.default_rng(0).random(150)
    sums = np.bincount(y, weight)
    a = MLPClassifier(class_weight="balanced", **SMALL).fit(X, y, weight)
    b = MLPClassifier(**SMALL).fit(X, y, weight * (weight.sum() / (2 * sums))[y])
    assert_equal_parameters(parameters(a), parameters(b))


def test_class_weight_of_several_labels_is_one_for_each():
    y = np.stack([Y > 0, Y == 1], axis=1).astype(int)
    a = MLPClassifier(class_weight=[{0: 1, 1: 4}, {0: 2, 1: 3}], **SMALL).fit(X, y)
    weight = np.where(y[:, 0], 4.0, 1.0) * np.where(y[:, 1], 3.0, 2.0)
    assert_equal_parameters(parameters(a), parameters(MLPClassifier(**SMALL).fit(X, y, weight)))


def test_batches_take_weights_of_classes_but_not_balanced_ones():
    model = MLPClassifier(class_weight={0: 2, 1: 1, 2: 1}, **SMALL)
    model.partial_fit(X[Y > 0], Y[Y > 0], classes=[0, 1, 2])
    with pytest.raises(ValueError, match="'balanced' is not supported for partial_fit"):
        MLPClassifier(class_weight="balanced").partial_fit(X, Y, classes=[0, 1, 2])


# ---- batch by batch


@pytest.mark.parametrize("estimator", ESTIMATORS)
def test_batches_go_on_where_fit_ended(estimator):
    whole = estimator(**SMALL | {"shuffle": False}).fit(X, Y)
    parts = estimator(**SMALL | {"shuffle": False})
    extra = {"classes": [0, 1, 2]} if estimator is MLPClassifier else {}
    for _ in range(5):
        parts.partial_fit(X, Y, **extra)
    assert_equal_parameters(parameters(whole), parameters(parts))
    assert parts.loss_curve_ == whole.loss_curve_
    assert parts.t_ == whole.t_ == 750
    mixed = estimator(**SMALL | {"shuffle": False, "max_iter": 3}).fit(X, Y)
    mixed.partial_fit(X, Y).partial_fit(X, Y)
    assert_equal_parameters(parameters(whole), parameters(mixed))


class Break(Exception):
    """Something that happens in the middle."""


def failing_step(monkeypatch, at, error):
    """Let the step with this number fail, once its update is made."""
    steps = []

    def step(*arguments):
        figures = training.training_step(*arguments)
        steps.append(figures)
        if len(steps) == at:
            raise error
        return figures

    monkeypatch.setattr(stochastic, "training_step", step)


def state_of(model):
    """All that an estimator holds, as numbers and text."""
    state = vars(model) | {"_label_binarizer": None}
    state["_network"] = model._network.state_dict()
    optimizer = model._optimizer
    state["_optimizer"] = optimizer.state_dict() | optimizer.config()
    return repr({k: plain(v) for k, v in sorted(state.items())})


def plain(value):
    if isinstance(value, dict):
        return {k: plain(v) for k, v in value.items()}
    return value.tolist() if isinstance(value, np.ndarray) else value


@pytest.mark.parametrize("estimator", ESTIMATORS)
@pytest.mark.parametrize("solver", ["adam", "sgd"])
@pytest.mark.parametrize("error", [Break(), MemoryError(), KeyboardInterrupt()], ids=repr)
def test_a_batch_that_fails_in_the_middle_leaves_the_estimator_as_it_was(
    estimator, solver, error, monkeypatch
):
    model = estimator(dropout=0.3, input_dropout=0.1, solver=solver, **SMALL).fit(X, Y)
    seen, other = model.coefs_[0], copy.deepcopy(model)
    before = state_of(model)
    with monkeypatch.context() as patch:
        failing_step(patch, 3, error)
        with pytest.raises(type(error)):
            model.partial_fit(X, Y)
    assert state_of(model) == before
    assert np.shares_memory(seen, model.coefs_[0])
    model.partial_fit(X, Y)
    other.partial_fit(X, Y)
    assert_equal_parameters(parameters(model), parameters(other))


@pytest.mark.parametrize(
    ("x", "y", "more"),
    [
        (X[:, :3], Y, {}),
        (X * np.nan, Y, {}),
        (X, Y[:4], {}),
        (X, Y + 5, {}),
        (X, Y, {"classes": [0, 1]}),
        (X, Y, {"sample_weight": -np.ones(150)}),
    ],
    ids=["columns", "NaN", "rows", "classes", "other classes", "weights"],
)
def test_a_batch_that_is_refused_leaves_the_estimator_as_it_was(x, y, more):
    model = MLPClassifier(**SMALL).partial_fit(X, Y, classes=[0, 1, 2])
    before = state_of(model)
    with pytest.raises(ValueError):  # noqa: PT011  # each has its own words
        model.partial_fit(x, y, **more)
    assert state_of(model) == before
    new = MLPClassifier(**SMALL)
    with pytest.raises(ValueError):  # noqa: PT011
        new.partial_fit(X, Y[:4], classes=[0, 1, 2])
    assert vars(new) == vars(clone(new))


@pytest.mark.parametrize("estimator", ESTIMATORS)
def test_a_fit_that_fails_leaves_the_last_one(estimator, monkeypatch):
    model = estimator(**SMALL).fit(X, Y)
    before = state_of(model)
    failing_step(monkeypatch, 3, Break())
    with pytest.raises(Break):
        model.fit(X[:, :5], Y)
    assert state_of(model) == before


@pytest.mark.parametrize("estimator", ESTIMATORS)
def test_numbers_that_explode_get_the_error_of_scikit_learn(estimator):
    arguments = SMALL | {"solver": "sgd", "learning_rate_init": 1e200, "activation": "identity"}
    with pytest.raises(ValueError, match="Solver produced non-finite parameter weights"):
        estimator(**arguments).fit(X * 1e100, Y)


@pytest.mark.parametrize("estimator", ESTIMATORS)
def test_an_interrupt_ends_fit_with_what_there_is(estimator, monkeypatch):
    failing_step(monkeypatch, 6, KeyboardInterrupt())  # in the second epoch
    model = estimator(**SMALL)
    with pytest.warns(UserWarning, match="interrupted by user"):
        model.fit(X, Y)
    assert model.n_iter_ == len(model.loss_curve_) == 1
    model.partial_fit(X, Y)
    assert model.predict(X).shape == Y.shape


# ---- going on, and starting anew


@pytest.mark.parametrize("estimator", ESTIMATORS)
def test_a_warm_start_keeps_the_weights_and_takes_new_settings(estimator):
    model = estimator(warm_start=True, **SMALL).fit(X, Y)
    end = parameters(model)
    model.set_params(learning_rate_init=1e-12, dropout=0.4, activation="tanh", max_iter=1)
    model.fit(X, Y)
    for p, q in zip(parameters(model), end, strict=True):
        np.testing.assert_allclose(p, q, atol=1e-9)
    assert len(model.loss_curve_) == 6
    assert model._architecture.has_dropout
    with pytest.raises(ValueError, match=r"warm_start=False"):
        model.set_params(hidden_layer_sizes=(3,)).fit(X, Y)


def test_a_warm_start_with_other_classes_is_refused_as_in_scikit_learn():
    model = MLPClassifier(warm_start=True, **SMALL).fit(X, Y)
    with pytest.raises(ValueError, match="same classes as in the previous call"):
        model.fit(X, Y % 2)


@pytest.mark.parametrize("estimator", ESTIMATORS)
def test_the_same_seed_gives_the_same_fit_with_dropout(estimator):
    arguments = SMALL | {"dropout": 0.5, "input_dropout": 0.2}
    a, b = (estimator(**arguments).fit(X, Y) for _ in range(2))
    assert_equal_parameters(parameters(a), parameters(b))
    other = estimator(**arguments | {"random_state": 1}).fit(X, Y)
    assert a.loss_ != other.loss_


def test_a_generator_of_the_user_serves_several_fits():
    rng = np.random.RandomState(0)
    a, b = (MLPClassifier(dropout=0.5, **SMALL | {"random_state": rng}) for _ in range(2))
    assert a.fit(X, Y).loss_ != b.fit(X, Y).loss_


@pytest.mark.parametrize("estimator", ESTIMATORS)
def test_a_rate_for_each_hidden_layer(estimator):
    arguments = SMALL | {"hidden_layer_sizes": (6, 5, 4)}
    model = estimator(dropout=[0.5, 0.0, 0.25], **arguments).fit(X, Y)
    kinds = [type(layer).__name__[:2] for layer in model._network]
    assert kinds == ["De", "Re", "Dr", "De", "Re", "De", "Re", "Dr", "De"]
    for rates in ([0.5, 0.5], [0.1, 0.2, 1.0], [[0.1, 0.2, 0.3]]):
        with pytest.raises(ValueError, match="one for each hidden layer"):
            estimator(dropout=rates, **arguments).fit(X, Y)
    with pytest.raises(ValueError, match="The 'dropout' parameter"):
        estimator(dropout=1.5, **arguments).fit(X, Y)


@pytest.mark.parametrize("rates", [{"dropout": 0.2}, {"input_dropout": 0.2}])
def test_lbfgs_refuses_dropout(rates):
    with pytest.raises(ValueError, match="solver='lbfgs'"):
        MLPClassifier(solver="lbfgs", **rates, **SMALL).fit(X, Y)


def test_lbfgs_has_no_batches_and_warns_where_it_does_not_converge():
    model = MLPClassifier(solver="lbfgs", **SMALL)
    assert not hasattr(model, "partial_fit")
    with pytest.warns(UserWarning, match="lbfgs failed to converge after 5 iteration"):
        model.fit(X, Y)
    assert model.n_iter_ == 5


@pytest.mark.parametrize("estimator", ESTIMATORS)
def test_early_stopping_notes_the_loss_of_the_validation_rows(estimator):
    model = estimator(early_stopping=True, validation_fraction=0.3, **SMALL).fit(X, Y)
    assert len(model.validation_loss_curve_) == len(model.validation_scores_) == 5
    assert model.validation_loss_curve_[-1] < model.validation_loss_curve_[0]
    assert estimator(**SMALL).fit(X, Y).validation_loss_curve_ is None
    with pytest.raises(ValueError, match="partial_fit does not support early_stopping"):
        model.partial_fit(X, Y)


# ---- what is known of the network


@pytest.mark.parametrize("estimator", ESTIMATORS)
def test_weights_can_be_read_and_assigned(estimator):
    model = estimator(**SMALL).fit(X, Y)
    model.coefs_[0] = np.zeros((8, 12))
    model.intercepts_[0][...] = 1
    assert not model.coefs_[0].any()
    assert (model.intercepts_[0] == 1).all()
    model.coefs_ = [w * 0 for w in model.coefs_]
    model.intercepts_ = [b * 0 for b in model.intercepts_]
    assert not any(p.any() for p in parameters(model))
    assert len({tuple(row) for row in model._predictions(X)}) == 1
    with pytest.raises(ValueError, match="must have shape"):
        model.coefs_ = [np.zeros((2, 2)), np.zeros((2, 2))]
    kept = pickle.loads(pickle.dumps(model.coefs_))
    assert type(kept) is list
    assert not hasattr(estimator(), "coefs_")


@pytest.mark.parametrize("estimator", ESTIMATORS)
@pytest.mark.parametrize("nth", [0, 1])
def test_lbfgs_goes_on_after_a_fit_that_was_stopped_anywhere(estimator, nth):
    model = estimator(solver="lbfgs", warm_start=True, **SMALL).fit(X, Y)
    before = parameters(model)
    with failing_call(nth, KeyboardInterrupt), pytest.raises(KeyboardInterrupt):
        model.fit(X, Y)
    assert_equal_parameters(parameters(model), before)
    other = copy.deepcopy(model)
    assert_equal_parameters(parameters(model.fit(X, Y)), parameters(other.fit(X, Y)))


@pytest.mark.parametrize("method", ["fit", "partial_fit"])
def test_another_loss_needs_a_new_start(method):
    model = MLPRegressor(warm_start=True, **SMALL)
    getattr(model, method)(X, np.abs(X[:, 0]))
    before = parameters(model)
    model.set_params(loss="poisson")
    with pytest.raises(ValueError, match="another kind of loss"):
        getattr(model, method)(X, np.abs(X[:, 0]))
    assert_equal_parameters(parameters(model), before)
    model.set_params(warm_start=False).fit(X, np.abs(X[:, 0]))


def test_rows_of_one_class_are_all_right():
    model = MLPClassifier(early_stopping=True, **SMALL).fit(X, np.full(150, 3))
    assert set(model.validation_scores_) == {1.0}
    assert model.score(X, np.full(150, 3)) == 1.0
