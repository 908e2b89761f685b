"""
Where dropout helps
===================

A network of two layers of 512 units learns 300 handwritten digits by heart at any rate.  What it
makes of the other 1497 is better with dropout.
"""

import sys
import warnings

import matplotlib.pyplot as plt
import numpy as np
from sklearn.datasets import load_digits
from sklearn.exceptions import ConvergenceWarning
from sklearn.model_selection import ShuffleSplit, cross_val_score

from dropwise.sklearn import MLPClassifier

SAMPLES, REPEATS, EPOCHS = 300, 8, 200
RATES = (0.0, 0.1, 0.2, 0.3, 0.5, 0.7)
INPUT_SHARE = 0.4  # pixels are dropped, too, at 0.4 times the rate

warnings.simplefilter("ignore", ConvergenceWarning)

# %%
# Each rate learns the same choices of 300 digits, for the same number of epochs.

x, y = load_digits(return_X_y=True)
x = (x / 16).astype(np.float32)
few = ShuffleSplit(REPEATS, train_size=SAMPLES, test_size=len(x) - SAMPLES, random_state=0)
model = MLPClassifier(
    (512, 512),
    learning_rate_init=0.003,
    max_iter=EPOCHS,
    tol=0,
    n_iter_no_change=EPOCHS,
    random_state=0,
)
scores = []
for rate in RATES:
    model.set_params(dropout=rate, input_dropout=INPUT_SHARE * rate)
    scores.append(cross_val_score(model, x, y, cv=few))

# %%
# Each point is the mean over the choices; the bar is the standard error of its difference from no
# dropout.

scores = np.array(scores)  # [rates, repeats]
mean = scores.mean(axis=1)
error = (scores - scores[0]).std(axis=1, ddof=1) / REPEATS**0.5
for rate, m, e in zip(RATES, mean, error, strict=True):
    print(f"rate {rate:.1f}: accuracy {m:.3f} +- {e:.3f}")

figure, axes = plt.subplots(figsize=(6, 3.5), layout="constrained")
axes.errorbar(RATES, mean, error, fmt="o-", capsize=3)
axes.axhline(mean[0], color="gray", linestyle=":", label="without dropout")
axes.set(
    xlabel="rate of the hidden layers",
    ylabel="accuracy on the other digits",
    title=f"{SAMPLES} digits to learn from, two layers of 512 units",
)
axes.legend()
if sys.argv[1:]:  # python3 docs/examples/digits.py docs/digits.svg
    figure.savefig(sys.argv[1])
plt.show()
