"""What rows, classes and values may be, and what comes back for them."""

from __future__ import annotations

import numpy as np
import pytest

from support import require

require("sklearn")
import scipy.sparse
from sklearn.datasets import make_classification

from dropwise.sklearn import MLPClassifier, MLPRegressor

pytestmark = pytest.mark.filterwarnings("ignore::sklearn.exceptions.ConvergenceWarning")

ESTIMATORS = [MLPClassifier, MLPRegressor]
X, Y = make_classification(120, 8, n_informative=5, n_classes=3, random_state=0)
X[np.abs(X) < 0.7] = 0
SMALL = {"hidden_layer_sizes": (12,), "max_iter": 5, "batch_size": 40, "random_state": 0}
FORMATS = ["csr_matrix", "csc_array", "coo_array", "lil_matrix"]


@pytest.mark.parametrize("solver", ["adam", "sgd", "lbfgs"])
@pytest.mark.parametrize("kind", FORMATS)
@pytest.mark.parametrize("estimator", ESTIMATORS)
def test_sparse_rows_give_what_dense_ones_give(estimator, kind, solver):
    sparse = getattr(scipy.sparse, kind)(X)
    arguments = SMALL | {"solver": solver}
    if solver != "lbfgs":
        arguments |= {"dropout": 0.3, "input_dropout": 0.1, "early_stopping": True}
    a, b = estimator(**arguments).fit(X, Y), estimator(**arguments).fit(sparse, Y)
    for p, q in zip(a.coefs_, b.coefs_, strict=True):
        np.testing.assert_allclose(p, q, rtol=1e-9, atol=1e-12)
    np.testing.assert_array_equal(a.predict(X), a.predict(sparse))


@pytest.mark.parametrize("estimator", ESTIMATORS)
def test_sparse_rows_are_dense_some_at_a_time(estimator, monkeypatch):
    wide = scipy.sparse.random(3000, 40, 0.1, format="csr", random_state=0)
    y = np.arange(3000) % 2
    most, toarray = [], type(wide).toarray

    def counted(matrix, *arguments, **options):
        if matrix.shape[1] == 40:  # and not the labels
            most.append(matrix.shape[0])
        return toarray(matrix, *arguments, **options)

    monkeypatch.setattr(type(wide), "toarray", counted)
    for solver in ("adam", "lbfgs"):
        model = estimator(hidden_layer_sizes=(4,), solver=solver, max_iter=2).fit(wide, y)
    model.predict(wide)
    assert 200 <= max(most) <= 1024


@pytest.mark.filterwarnings("ignore:the network has no dropout")
@pytest.mark.parametrize("estimator", ESTIMATORS)
def test_monte_carlo_samples_of_sparse_rows_are_those_of_dense_ones(estimator):
    x = np.tile(X, (12, 1))  # more than are dense at a time
    for rates in ({"dropout": 0.4}, {"input_dropout": 0.2}, {}):
        model = estimator(**rates, **SMALL).fit(X, Y)
        for a, b in zip(
            model.predict_mc(x, 7), model.predict_mc(scipy.sparse.csr_array(x), 7), strict=True
        ):
            np.testing.assert_allclose(a, b, rtol=1e-10, atol=1e-12)


@pytest.mark.parametrize(
    "labels",
    [
        np.array(["apple", "pear", "plum"]),
        np.array(["apple", "pear", "plum"], dtype=object),
        np.array([2.0, 5.0, 7.0]),
        np.array([-1, 300, 5]),
        np.array([False, True, True]),
    ],
    ids=lambda labels: str(labels.dtype),
)
def test_classes_come_back_as_they_were_given(labels):
    y = labels[Y]
    model = MLPClassifier(**SMALL | {"max_iter": 200, "learning_rate_init": 0.01}).fit(X, y)
    np.testing.assert_array_equal(model.classes_, np.unique(y))
    predicted = model.predict(X)
    assert predicted.dtype == model.classes_.dtype
    assert np.mean(predicted == y) > 0.9
    assert model.predict_proba(X).shape == (120, len(model.classes_))


def test_a_list_of_mixed_labels_is_one_of_strings_as_in_scikit_learn():
    model = MLPClassifier(**SMALL).fit(X, ["a", 1] * 60)
    assert model.classes_.tolist() == ["1", "a"]
    with pytest.raises(TypeError):
        MLPClassifier(**SMALL).fit(X, np.array(["a", 1] * 60, dtype=object))


def test_batches_may_lack_classes():
    y = np.array(["a", "b", "c"])[Y]
    model = MLPClassifier(**SMALL)
    model.partial_fit(X[Y == 0], y[Y == 0], classes=["a", "b", "c"])
    model.partial_fit(X[Y == 2], y[Y == 2])
    assert model.classes_.tolist() == ["a", "b", "c"]
    assert model.predict_proba(X).shape == (120, 3)


@pytest.mark.parametrize("solver", ["adam", "lbfgs"])
def test_several_labels_of_a_row(solver):
    y = np.stack([Y > 0, Y == 1, X[:, 0] > 0], axis=1).astype(int)
    arguments = SMALL | {"solver": solver, "max_iter": 300, "learning_rate_init": 0.02}
    model = MLPClassifier(**arguments).fit(X, y)
    assert model.predict(X).shape == y.shape
    assert model.score(X, y) > 0.8
    assert model.out_activation_ == "logistic"
    if solver == "adam":
        batch = MLPClassifier(**SMALL).partial_fit(X, y, classes=[0, 1, 2])
        assert batch.predict(X).shape == y.shape


def test_several_values_of_a_row():
    y = np.stack([Y + X[:, 0], X[:, 1]], axis=1)
    model = MLPRegressor(**SMALL | {"max_iter": 300, "learning_rate_init": 0.02}).fit(X, y)
    assert model.predict(X).shape == y.shape
    assert model.score(X, y) > 0.8
    one = MLPRegressor(**SMALL)
    with pytest.warns(UserWarning, match="column-vector"):
        one.fit(X, y[:, :1])
    assert one.predict(X).shape == (120,)


def test_counts_have_a_loss_of_their_own():
    rate = np.exp(0.5 * X[:, 0])
    y = np.random.default_rng(0).poisson(rate)
    model = MLPRegressor(loss="poisson", **SMALL | {"max_iter": 200}).fit(X, y)
    assert (model.predict(X) > 0).all()
    assert np.corrcoef(model.predict(X), rate)[0, 1] > 0.6
    with pytest.raises(ValueError, match="out of the valid range"):
        MLPRegressor(loss="poisson").fit(X, -y)


@pytest.mark.parametrize("estimator", ESTIMATORS)
def test_data_frames_give_names_and_their_warnings(estimator):
    pandas = require("pandas")
    frame = pandas.DataFrame(X, columns=list("abcdefgh"))
    model = estimator(**SMALL).fit(frame, pandas.Series(Y))
    assert model.feature_names_in_.tolist() == list("abcdefgh")
    expected = estimator(**SMALL).fit(X, Y).predict(X)
    np.testing.assert_array_equal(model.predict(frame), expected)
    with pytest.warns(UserWarning, match="does not have valid feature names"):
        model.predict(X)
    with pytest.raises(ValueError, match="feature names"):
        model.predict(frame[list("hgfedcba")])


@pytest.mark.parametrize("estimator", ESTIMATORS)
def test_layouts_and_dtypes_of_rows_do_not_matter(estimator):
    model = estimator(**SMALL).fit(X, Y)
    for x in (np.asfortranarray(X), np.repeat(X, 2, axis=0)[::2], X.tolist()):
        other = estimator(**SMALL).fit(x, Y)
        for p, q in zip(model.coefs_, other.coefs_, strict=True):
            np.testing.assert_array_equal(p, q)
    whole = (X * 4).astype(int)
    np.testing.assert_array_equal(
        estimator(**SMALL).fit(whole, Y).predict(whole),
        estimator(**SMALL).fit(whole.astype(float), Y).predict(whole),
    )


@pytest.mark.parametrize(
    ("parameter", "value"),
    [
        ("solver", "newton"),
        ("activation", "gelu"),
        ("alpha", -1.0),
        ("batch_size", 0),
        ("input_dropout", 1.0),
        ("dropout", -0.1),
        ("max_iter", 0.5),
        ("random_state", "x"),
    ],
)
@pytest.mark.parametrize("estimator", ESTIMATORS)
def test_bad_parameters_get_the_errors_of_scikit_learn(estimator, parameter, value):
    with pytest.raises(ValueError, match=f"The '{parameter}' parameter of {estimator.__name__}"):
        estimator(**{parameter: value}).fit(X, Y)


def test_bad_weights_of_classes_get_the_errors_of_scikit_learn():
    for wrong in ("equal", 3.0):
        with pytest.raises(ValueError, match="The 'class_weight' parameter"):
            MLPClassifier(class_weight=wrong).fit(X, Y)
    with pytest.raises(ValueError, match="are not in class_weight"):
        MLPClassifier(class_weight={0: 1, 5: 2}).fit(X, Y)


@pytest.mark.parametrize("estimator", ESTIMATORS)
def test_a_batch_larger_than_the_data_warns_as_in_scikit_learn(estimator):
    with pytest.warns(UserWarning, match="larger than sample size"):
        estimator(**SMALL | {"batch_size": 1000}).fit(X, Y)


@pytest.mark.parametrize("hidden", [5, [5], np.array([5]), (5, 4)])
@pytest.mark.parametrize("estimator", ESTIMATORS)
def test_hidden_layers_as_a_number_a_list_or_an_array(estimator, hidden):
    model = estimator(**SMALL | {"hidden_layer_sizes": hidden}).fit(X, Y)
    assert model.n_layers_ == len(np.atleast_1d(hidden)) + 2
    assert estimator(**SMALL | {"hidden_layer_sizes": []}).fit(X, Y).coefs_[0].shape[0] == 8
    with pytest.raises(ValueError, match="hidden_layer_sizes must be > 0"):
        estimator(hidden_layer_sizes=(5, 0)).fit(X, Y)
