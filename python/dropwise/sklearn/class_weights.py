"""The weights of rows, from those of their classes."""

from __future__ import annotations

from typing import Any

import numpy as np
from sklearn.utils.class_weight import compute_class_weight, compute_sample_weight

from dropwise._backends.protocol import Array


def weights_of_rows(
    class_weight: Any, classes: Array, y: Array, sample_weight: Any, incremental: bool
) -> Any:
    """`sample_weight` times the weight of each row's class; None if there are neither.

    Parameters
    ----------
    class_weight : dict, list of dict, "balanced" or None
        "balanced" counts rows by their weights: a row of weight 2 is one that is there twice.
    classes : ndarray
        All classes, sorted.
    y : ndarray, shape (n,) of classes, or (n, n_labels) of zeros and ones
    sample_weight : ndarray of shape (n,), or None
    incremental : bool
        Whether there will be other rows, which rules "balanced" out.
    """
    if class_weight is None:
        return sample_weight
    if incremental and isinstance(class_weight, str):
        raise ValueError(
            "class_weight 'balanced' is not supported for partial_fit. In order to use 'balanced' "
            "weights, use compute_class_weight('balanced', classes=classes, y=y) on all of y, and "
            "pass the result as a dict."
        )
    if y.ndim == 2:
        factors = compute_sample_weight(class_weight, y)
        return factors if sample_weight is None else sample_weight * factors
    number = np.searchsorted(classes, y)
    counted = np.ones(len(y)) if sample_weight is None else sample_weight
    if isinstance(class_weight, str):
        of_class = np.bincount(number, counted, len(classes))
        present = of_class > 0
        of_class[present] = counted.sum() / (present.sum() * of_class[present])
    else:
        of_class = compute_class_weight(class_weight, classes=classes, y=y)
    return counted * of_class[number]
