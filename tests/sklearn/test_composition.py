"""In pipelines, searches, meta-estimators and worker processes."""

from __future__ import annotations

import os
import pickle

import numpy as np
import pytest

import dropwise as dw
from support import require, run_python

require("sklearn")
joblib = require("joblib")
import sklearn
from sklearn.base import clone
from sklearn.calibration import CalibratedClassifierCV
from sklearn.datasets import make_classification
from sklearn.ensemble import AdaBoostClassifier, BaggingClassifier
from sklearn.inspection import permutation_importance
from sklearn.model_selection import GridSearchCV, cross_val_predict, cross_validate
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler
from threadpoolctl import threadpool_info, threadpool_limits

from dropwise.sklearn import MLPClassifier, MLPRegressor

pytestmark = pytest.mark.filterwarnings("ignore::sklearn.exceptions.ConvergenceWarning")

X, Y = make_classification(200, 8, n_informative=5, n_classes=3, random_state=0)
SMALL = {
    "hidden_layer_sizes": (20,),
    "max_iter": 30,
    "learning_rate_init": 0.01,
    "random_state": 0,
}
MODEL = MLPClassifier(dropout=0.2, **SMALL)


def test_in_a_pipeline():
    pipeline = make_pipeline(StandardScaler(), clone(MODEL)).fit(X, Y)
    assert pipeline.score(X, Y) > 0.75
    assert pipeline.set_params(mlpclassifier__dropout=0.5).fit(X, Y).score(X, Y) > 0.7


def threads_in_use(estimator, X, y):
    """A scorer: the threads that a process may use, ours and those of linear algebra."""
    return max([dw.get_num_threads(), *(p["num_threads"] for p in threadpool_info())])


@pytest.mark.parametrize("backend", ["loky", "multiprocessing", "threading"])
def test_a_search_over_rates_in_two_workers(backend):
    search = GridSearchCV(
        make_pipeline(StandardScaler(), MLPClassifier(**SMALL)),
        {"mlpclassifier__dropout": [0.0, 0.3], "mlpclassifier__alpha": [1e-4, 1e-2]},
        cv=3,
        n_jobs=2,
    )
    clone(MODEL).fit(X, Y)  # threads have run in this process before it forks
    with joblib.parallel_config(backend=backend):
        search.fit(X, Y)
    alone = clone(search).set_params(n_jobs=None).fit(X, Y)
    for name in ("mean_test_score", "std_test_score"):
        np.testing.assert_allclose(search.cv_results_[name], alone.cv_results_[name])
    assert search.best_params_ == alone.best_params_


@pytest.mark.skipif((os.cpu_count() or 1) < 2, reason="one core")
def test_workers_share_the_cores():
    with joblib.parallel_config(backend="loky"):
        result = cross_validate(MODEL, X, Y, cv=4, n_jobs=2, scoring=threads_in_use)
    assert result["test_score"].max() <= (os.cpu_count() or 1) / 2


def test_the_limits_of_threadpoolctl_are_ours():
    if "native" not in dw.available_backends():
        pytest.skip("the Numba backend has one thread")
    before = dw.get_num_threads()
    seen = []

    class Watching(MLPClassifier):
        def _new_loss(self):
            seen.append(dw.get_num_threads())
            return super()._new_loss()

    with dw.backend("native"):
        dw.set_num_threads(2)
        with threadpool_limits(1):
            Watching(**SMALL).fit(X, Y)
        Watching(**SMALL).fit(X, Y)
        dw.set_num_threads(before)
    assert seen == [1, 2]


def test_threads_are_limited_whatever_was_imported_first():
    code = (
        "import dropwise, sklearn, dropwise.sklearn\n"
        "from threadpoolctl import threadpool_limits\n"
        "dropwise.set_num_threads(2)\n"
        "with threadpool_limits(1):\n"
        "    print(dropwise.get_num_threads())\n"
    )
    assert run_python(code).split() == ["1"]


def test_calibrated():
    for ensemble in (True, False):
        model = CalibratedClassifierCV(MODEL, cv=3, ensemble=ensemble).fit(X, Y)
        np.testing.assert_allclose(model.predict_proba(X).sum(axis=1), 1)
        assert model.score(X, Y) > 0.75


def test_bagged_and_boosted():
    weight = np.random.default_rng(0).random(200)
    bagged = BaggingClassifier(MODEL, n_estimators=3, random_state=0, n_jobs=2)
    assert bagged.fit(X, Y, sample_weight=weight).score(X, Y) > 0.75
    boosted = AdaBoostClassifier(MODEL, n_estimators=3, random_state=0)
    assert boosted.fit(X, Y).score(X, Y) > 0.75


def test_predictions_by_cross_validation_and_importances():
    probabilities = cross_val_predict(MODEL, X, Y, cv=3, method="predict_proba")
    assert probabilities.shape == (200, 3)
    model = clone(MODEL).fit(X, Y)
    importance = permutation_importance(model, X, Y, n_repeats=3, random_state=0)
    assert importance.importances_mean.shape == (8,)
    assert importance.importances_mean.max() > 0.1


def test_clone_and_pickle():
    model = clone(MODEL)
    assert model.get_params() == MODEL.get_params()
    assert not hasattr(model, "coefs_")
    model.fit(X, Y)
    other = pickle.loads(pickle.dumps(model))
    np.testing.assert_array_equal(model.predict_proba(X), other.predict_proba(X))
    np.testing.assert_array_equal(model.predict_mc(X, 9), other.predict_mc(X, 9))
    model.partial_fit(X, Y)
    other.partial_fit(X, Y)
    for p, q in zip(model.coefs_, other.coefs_, strict=True):
        np.testing.assert_array_equal(p, q)


def test_weights_that_are_mapped_from_a_file(tmp_path):
    model = clone(MODEL).fit(X, Y)
    joblib.dump(model, tmp_path / "model")
    other = joblib.load(tmp_path / "model", mmap_mode="r")
    assert not other.coefs_[0].flags.writeable
    np.testing.assert_array_equal(model.predict_proba(X), other.predict_proba(X))
    np.testing.assert_array_equal(model.predict_mc(X, 9), other.predict_mc(X, 9))
    assert other.fit(X, Y).coefs_[0].flags.writeable


def test_weights_of_rows_and_samples_are_routed():
    weight = np.random.default_rng(0).random(200)
    with sklearn.config_context(enable_metadata_routing=True):
        model = clone(MODEL).set_fit_request(sample_weight=True)
        model.set_predict_proba_request(mc_samples=True)
        scaler = StandardScaler().set_fit_request(sample_weight=False)
        pipeline = make_pipeline(scaler, model).fit(X, Y, sample_weight=weight)
        scaled = StandardScaler().fit_transform(X)
        expected = clone(MODEL).fit(scaled, Y, weight)
        for p, q in zip(pipeline[-1].coefs_, expected.coefs_, strict=True):
            np.testing.assert_array_equal(p, q)
        np.testing.assert_array_equal(
            pipeline.predict_proba(X, mc_samples=7), expected.predict_proba(scaled, mc_samples=7)
        )
        regressor = MLPRegressor().set_predict_request(return_std=True, mc_samples=True)
        regressor.set_partial_fit_request(sample_weight=True)


def test_html_shows_the_parameters():
    html = clone(MODEL).fit(X, Y)._repr_html_()
    assert "MLPClassifier" in html
    assert "dropout" in html
    assert repr(MLPClassifier(dropout=0.2)) == "MLPClassifier(dropout=0.2)"


@pytest.mark.parametrize("solver", ["adam", "lbfgs"])
def test_verbose_shows_a_bar(solver, capsys):
    require("tqdm")
    model = MLPClassifier(solver=solver, verbose=True, **SMALL | {"max_iter": 3})
    model.fit(X, Y)
    out, err = capsys.readouterr()
    assert "3/3" in err
    assert "loss" in err
    assert out == ""


def test_verbose_prints_lines_without_tqdm(capsys, monkeypatch):
    monkeypatch.setattr("dropwise.sklearn.progress.progress_bar", lambda total: None)
    arguments = SMALL | {"max_iter": 2, "verbose": True, "early_stopping": True}
    MLPClassifier(**arguments).fit(X, Y)
    lines = capsys.readouterr().out.splitlines()
    assert [line.split()[0] for line in lines] == ["Iteration", "Validation"] * 2
    MLPRegressor(**SMALL | {"verbose": True, "tol": 10.0}).fit(X, Y)
    assert "did not improve more than tol=10.0" in capsys.readouterr().out


def test_importing_dropwise_does_not_import_scikit_learn():
    assert run_python("import dropwise, sys; print('sklearn' in sys.modules)") == "False\n"


def test_without_scikit_learn_the_import_says_what_to_install():
    code = (
        "import sys; sys.modules['sklearn'] = None\n"
        "try:\n"
        "    import dropwise.sklearn\n"
        "except ImportError as error:\n"
        "    print(error)\n"
    )
    assert "pip install 'dropwise[sklearn]'" in run_python(code)
