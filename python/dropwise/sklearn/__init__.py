"""Estimators for scikit-learn: multi-layer perceptrons with dropout and uncertainty.

Where a program has ``from sklearn.neural_network import MLPClassifier``, this package has the same
name with the same parameters and attributes.  Importing `dropwise` does not import it.
"""

try:
    from sklearn.utils.validation import validate_data as _validate_data  # from 1.6 on
except ImportError as error:
    raise ImportError(
        "dropwise.sklearn needs scikit-learn 1.6 or newer: pip install 'dropwise[sklearn]' "
        f"({error})"
    ) from error

from dropwise import _threadpoolctl  # scikit-learn and joblib limit threads through it
from dropwise.sklearn.classifier import MLPClassifier
from dropwise.sklearn.regressor import MLPRegressor

__all__ = ["MLPClassifier", "MLPRegressor"]

del _validate_data, _threadpoolctl
