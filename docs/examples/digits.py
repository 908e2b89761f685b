"""
Where dropout helps
===================

A network of 512 units learns 500 handwritten digits, of which one in five has a random label.
Without dropout it learns the wrong labels by heart, too.  What it makes of the other 1297 digits,
whose labels are right, is much better with dropout.
"""

import sys
import warnings

import matplotlib.pyplot as plt
import numpy as np
from sklearn.datasets import load_digits
from sklearn.exceptions import ConvergenceWarning
from sklearn.model_selection import ShuffleSplit

from dropwise.sklearn import MLPClassifier

SAMPLES, REPEATS, EPOCHS = 500, 8, 60
RATES = (0.0, 0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7)
INPUT_SHARE = 0.4  # pixels are dropped, too, at 0.4 times the rate

warnings.simplefilter("ignore", ConvergenceWarning)

x, y = load_digits(return_X_y=True)
x = (x / 16).astype(np.float32)

# %%
# Each rate learns the same choices of digits with the same labels, for the same number of epochs.


def accuracy(rate: float, seed: int, train: np.ndarray, test: np.ndarray) -> float:
    """Accuracy on digits that were not learnt, after training on labels some of which are wrong."""
    rng = np.random.default_rng(seed)
    labels = np.where(rng.random(SAMPLES) < 0.2, rng.integers(0, 10, SAMPLES), y[train])
    model = MLPClassifier(
        (512,),
        learning_rate_init=0.003,
        batch_size=50,
        max_iter=EPOCHS,
        tol=0,
        n_iter_no_change=EPOCHS,
        random_state=0,
        dropout=rate,
        input_dropout=INPUT_SHARE * rate,
    )
    return model.fit(x[train], labels).score(x[test], y[test])


few = ShuffleSplit(REPEATS, train_size=SAMPLES, test_size=len(x) - SAMPLES, random_state=0)
choices = list(few.split(x))
scores = np.array(
    [[accuracy(rate, seed, *choice) for seed, choice in enumerate(choices)] for rate in RATES]
)

# %%
# Each point is the mean over the choices; the bar is the standard error of its difference from no
# dropout.

mean = scores.mean(axis=1)
error = (scores - scores[0]).std(axis=1, ddof=1) / REPEATS**0.5
for rate, m, e in zip(RATES, mean, error, strict=True):
    print(f"rate {rate:.1f}: accuracy {m:.3f} +- {e:.3f}")

figure, axes = plt.subplots(figsize=(6, 3.5), layout="constrained")
axes.errorbar(RATES, mean, error, fmt="o-", capsize=3)
axes.axhline(mean[0], color="gray", linestyle=":", label="without dropout")
axes.set(
    xlabel="rate of the hidden layer",
    ylabel="accuracy on other digits",
    title=f"{SAMPLES} digits to learn from, one label in five random",
)
axes.legend()
if sys.argv[1:]:  # python3 docs/examples/digits.py docs/digits.svg
    figure.savefig(sys.argv[1])
plt.show()
