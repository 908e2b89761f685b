"""
Probabilities that can be trusted
=================================

Of the rows to which a classifier gives probabilities of about 0.8, 80 % should be right.  A
network that has fitted noisy classes for long says 0.99 far too often.  Dropout in training helps
most; the mean over masks, Monte Carlo dropout, helps a little further, and the network need not
be trained again for it.
"""

import sys
import warnings

import matplotlib.pyplot as plt
import numpy as np
from sklearn.datasets import make_classification
from sklearn.exceptions import ConvergenceWarning
from sklearn.metrics import log_loss
from sklearn.model_selection import train_test_split

from dropwise.sklearn import MLPClassifier

RATE, SAMPLES = 0.5, 100
BINS = np.linspace(0.5, 1.0, 11)

warnings.simplefilter("ignore", ConvergenceWarning)

# %%
# Two networks learn 1000 rows of which a tenth has the wrong class.

x, y = make_classification(6000, 20, n_informative=10, flip_y=0.2, random_state=0)
x = x.astype(np.float32)
x, x_test, y, y_test = train_test_split(x, y, train_size=1000, random_state=0)
arguments = {"hidden_layer_sizes": (256, 256), "max_iter": 60, "tol": 0, "random_state": 0}
plain = MLPClassifier(**arguments).fit(x, y)
dropped = MLPClassifier(dropout=RATE, **arguments).fit(x, y)
curves = {
    "no dropout": plain.predict_proba(x_test),
    f"dropout {RATE:g}": dropped.predict_proba(x_test),
    f"dropout {RATE:g}, {SAMPLES} samples": dropped.predict_proba(x_test, mc_samples=SAMPLES),
}


def reliability(probabilities: np.ndarray, y: np.ndarray) -> tuple[np.ndarray, np.ndarray, float]:
    """Confidence and accuracy of each bin, and the mean gap between them over all rows."""
    confidence = probabilities.max(axis=1)
    right = probabilities.argmax(axis=1) == y
    bins = np.digitize(confidence, BINS[1:-1])
    count = np.bincount(bins, minlength=len(BINS) - 1)
    with np.errstate(invalid="ignore"):
        mean, accuracy = (np.bincount(bins, v, len(count)) / count for v in (confidence, right))
    gap = np.nansum(np.abs(mean - accuracy) * count) / count.sum()
    return mean, accuracy, float(gap)


# %%
# Probabilities beside what became true: the nearer to the dotted line, the better.

figure, axes = plt.subplots(figsize=(5, 4.5), layout="constrained")
axes.plot([0.5, 1], [0.5, 1], color="gray", linestyle=":", label="calibrated")
for name, probabilities in curves.items():
    confidence, accuracy, gap = reliability(probabilities, y_test)
    right = np.mean(probabilities.argmax(axis=1) == y_test)
    loss = log_loss(y_test, probabilities)
    print(f"{name}: accuracy {right:.3f}, log loss {loss:.3f}, calibration error {gap:.3f}")
    axes.plot(confidence, accuracy, "o-", label=f"{name}: error {gap:.3f}")
axes.set(xlabel="probability of the predicted class", ylabel="share of rows that are right")
axes.legend(loc="upper left")
if sys.argv[1:]:  # python3 docs/examples/calibration.py docs/calibration.svg
    figure.savefig(sys.argv[1])
plt.show()
