"""What an epoch of scikit-learn's MLPClassifier costs, and one of ours, with dropout and without.

    python3 bench/sklearn_door.py [--quick] [--cpu-time]

Both fit the same float32 rows with the same parameters: four epochs of Adam from the same first
weights, L2 penalty included.  (A warm start would time networks that have learned all there is.)
scikit-learn has no dropout, so that its time without is what ours with dropout is compared to.
"""

from __future__ import annotations

import argparse
import warnings
from collections.abc import Iterable
from typing import Any

import numpy as np

import harness
from harness import Case, Contender, Goal, Question

# Inputs, hidden layers, classes; rows of a batch; rows.
SIZES = {
    "784-1024-1024-10": ((784, 1024, 1024, 10), 128, 2048),
    "784-512-512-10": ((784, 512, 512, 10), 64, 2048),
    "100-100-100-10": ((100, 100, 100, 10), 32, 4096),
}
QUICK = {"20-30-30-10": ((20, 30, 30, 10), 32, 256)}
EPOCHS = 4
OURS = {"ours, dropout 0": 0.0, "ours, dropout 0.5": 0.5}
PEER = "scikit-learn"

_peer = harness.optional("sklearn.neural_network")


def contenders(units: tuple[int, ...], batch: int, rows: int) -> list[Contender]:
    """The estimators, fitting the same rows."""
    from dropwise.sklearn import MLPClassifier

    rng = np.random.default_rng(0)
    x = rng.standard_normal((rows, units[0]), np.float32)
    y = (x @ rng.standard_normal((units[0], units[-1]), np.float32)).argmax(axis=1)
    arguments = {
        "hidden_layer_sizes": units[1:-1],
        "batch_size": batch,
        "max_iter": EPOCHS,
        "n_iter_no_change": EPOCHS,
        "random_state": 0,
    }

    def fit(estimator: Any) -> Any:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            return estimator.fit(x, y)

    def check(fitted: Any) -> None:
        assert fitted.n_iter_ == EPOCHS
        assert fitted.coefs_[0].dtype == np.float32
        assert fitted.loss_curve_[1] < fitted.loss_curve_[0]

    estimators = {name: MLPClassifier(dropout=rate, **arguments) for name, rate in OURS.items()}
    if _peer:
        estimators[PEER] = _peer.MLPClassifier(**arguments)
    return [
        Contender(name, lambda estimator=estimator: fit(estimator), check)
        for name, estimator in estimators.items()
    ]


def cases(args: argparse.Namespace) -> Iterable[Case]:
    """A case for each size."""
    for name, (units, batch, rows) in (QUICK if args.quick else SIZES).items():
        labels = {"what": f"{EPOCHS} epochs", "units": name, "batch": batch, "rows": rows}
        yield Case(labels, contenders(units, batch, rows))


GOALS = [
    Goal(f"epoch of an estimator, {name}", PEER, ">=", floor, aim, name, (PEER,), {})
    for name, floor, aim in (("ours, dropout 0", 2.8, 3.5), ("ours, dropout 0.5", 3.5, 4.5))
]

QUESTION = Question(
    "sklearn_door", "What an epoch of the estimators for scikit-learn costs.", cases, GOALS
)

if __name__ == "__main__":
    harness.main(QUESTION)
