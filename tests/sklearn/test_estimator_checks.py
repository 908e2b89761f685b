"""The public suite of scikit-learn, without excuses at the default."""

from __future__ import annotations

import pytest

from support import require, run_python

require("sklearn")
from sklearn.utils.estimator_checks import check_estimator, parametrize_with_checks

from dropwise.sklearn import MLPClassifier, MLPRegressor

CHECKS = parametrize_with_checks([MLPClassifier(), MLPRegressor()])  # a generator, before 1.8

# A row that is there twice has two masks, a row of weight 2 has one.
BY_WEIGHT = {
    "check_sample_weight_equivalence_on_dense_data",
    "check_sample_weight_equivalence_on_sparse_data",
}


@pytest.mark.filterwarnings("ignore::sklearn.exceptions.ConvergenceWarning")
@pytest.mark.parametrize(CHECKS.args[0], list(CHECKS.args[1]), **CHECKS.kwargs)
def test_the_public_checks_pass_without_excuses(estimator, check):
    check(estimator)


@pytest.mark.filterwarnings("ignore::sklearn.exceptions.ConvergenceWarning")
@pytest.mark.parametrize("estimator", [MLPClassifier, MLPRegressor])
@pytest.mark.parametrize("rates", [{"dropout": 0.2}, {"dropout": 0.1, "input_dropout": 0.1}])
def test_with_dropout_exactly_the_checks_of_equal_weights_fail(estimator, rates):
    results = check_estimator(estimator(**rates), on_fail=None, on_skip=None)
    failed = {result["check_name"] for result in results if result["status"] == "failed"}
    assert failed == BY_WEIGHT


def test_the_public_checks_pass_with_the_array_interface():
    code = (
        "import warnings; warnings.simplefilter('ignore')\n"
        "from sklearn.utils.estimator_checks import check_estimator\n"
        "from dropwise.sklearn import MLPClassifier, MLPRegressor\n"
        "for estimator in (MLPClassifier(), MLPRegressor()):\n"
        "    results = check_estimator(estimator, on_skip=None)\n"
        "    print({r['status'] for r in results} <= {'passed', 'skipped'})\n"
    )
    assert run_python(code, timeout=600, SCIPY_ARRAY_API="1").split() == ["True", "True"]
