"""Monte Carlo dropout: what it says, and that asking changes nothing."""

from __future__ import annotations

import numpy as np
import pytest

from support import require

require("sklearn")
from sklearn.datasets import make_classification, make_regression

from dropwise.sklearn import MLPClassifier, MLPRegressor

pytestmark = pytest.mark.filterwarnings("ignore::sklearn.exceptions.ConvergenceWarning")

X, Y = make_classification(200, 8, n_informative=5, n_classes=3, random_state=0)
SMALL = {"hidden_layer_sizes": (20,), "max_iter": 20, "random_state": 0}


def test_the_regressor_gives_a_standard_deviation():
    model = MLPRegressor(dropout=0.3, **SMALL).fit(X, Y)
    mean, std = model.predict(X, return_std=True, mc_samples=400)
    assert mean.shape == std.shape == Y.shape
    assert (std > 0).all()
    # The mean of 400 samples; without dropout the network has their mean at the output layer.
    assert (np.abs(mean - model.predict(X)) < 5 * std / np.sqrt(400)).all()  # 5 sigma a row
    np.testing.assert_array_equal(model.predict_mc(X, 400), (mean, std))


def test_several_values_have_a_deviation_each():
    y = np.stack([Y, -Y], axis=1)
    mean, std = MLPRegressor(dropout=0.3, **SMALL).fit(X, y).predict(X, return_std=True)
    assert mean.shape == std.shape == y.shape


def test_counts_are_averaged_after_the_exponential():
    model = MLPRegressor(loss="poisson", dropout=0.3, **SMALL).fit(X, Y)
    mean, std = model.predict_mc(X, 50)
    assert (mean > 0).all()
    assert (std > 0).all()


@pytest.mark.parametrize("labels", ["binary", "multiclass", "multilabel"])
def test_the_classifier_averages_probabilities(labels):
    y = {"binary": Y > 0, "multiclass": Y, "multilabel": np.stack([Y > 0, Y > 1], 1)}[labels]
    model = MLPClassifier(dropout=0.5, **SMALL).fit(X, y)
    mean, std = model.predict_mc(X, 60)
    assert mean.shape == std.shape == model.predict_proba(X).shape
    assert (std > 0).all()
    if labels != "multilabel":
        np.testing.assert_allclose(mean.sum(axis=1), 1)
    np.testing.assert_array_equal(model.predict_proba(X, mc_samples=60), mean)
    np.testing.assert_array_equal(model.predict_log_proba(X, mc_samples=60), np.log(mean))
    assert np.abs(mean - model.predict_proba(X)).mean() < 0.1


def test_samples_of_a_binary_problem_have_the_same_deviation_for_both_classes():
    _, std = MLPClassifier(dropout=0.5, **SMALL).fit(X, Y > 0).predict_mc(X, 30)
    np.testing.assert_array_equal(std[:, 0], std[:, 1])


def test_asking_changes_nothing_and_the_same_question_has_the_same_answer():
    arguments = SMALL | {"dropout": 0.3, "input_dropout": 0.1}
    asked, silent = (MLPClassifier(**arguments).fit(X, Y) for _ in range(2))
    first = asked.predict_mc(X, 20)
    np.testing.assert_array_equal(asked.predict_mc(X, 20), first)
    asked.partial_fit(X, Y)
    silent.partial_fit(X, Y)
    for p, q in zip(asked.coefs_, silent.coefs_, strict=True):
        np.testing.assert_array_equal(p, q)
    assert (asked.predict_mc(X, 20)[1] != first[1]).any()  # the weights and the masks are others


def test_without_dropout_there_is_a_warning():
    model = MLPClassifier(**SMALL).fit(X, Y)
    with pytest.warns(UserWarning, match="no dropout"):
        mean, std = model.predict_mc(X, 5)
    np.testing.assert_allclose(mean, model.predict_proba(X))
    assert not std.any()


@pytest.mark.parametrize("number", [0, -3, 2.5, "many"])
def test_the_number_of_samples_is_checked(number):
    model = MLPRegressor(dropout=0.1, **SMALL).fit(X, Y)
    with pytest.raises((TypeError, ValueError), match="the number of samples"):
        model.predict(X, return_std=True, mc_samples=number)


def test_far_from_the_data_it_is_less_sure():
    x, y = make_regression(300, 5, random_state=0)
    arguments = {"dropout": 0.2, "max_iter": 300, "learning_rate_init": 0.01, "random_state": 0}
    model = MLPRegressor(hidden_layer_sizes=(50,), **arguments).fit(x, y / y.std())
    near, far = (model.predict(scale * x, return_std=True)[1].mean() for scale in (1, 5))
    assert far > 2 * near
