"""Where dropout helps: handwritten digits with few samples.

A network of two layers of 512 units learns 300 digits by heart at any rate.  What it makes of the
other 1497 is better with dropout.  Each point is the mean over several choices of the 300 digits;
the bar is the standard error of its difference from no dropout.  The pixels are dropped, too, at
0.4 times the rate.

    python3 docs/examples/digits.py [--samples 300] [--repeats 10] [--out digits.svg]
"""

from __future__ import annotations

import argparse
import warnings

import numpy as np
from sklearn.datasets import load_digits
from sklearn.exceptions import ConvergenceWarning
from sklearn.model_selection import ShuffleSplit, cross_val_score

from dropwise.sklearn import MLPClassifier

RATES = (0.0, 0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7)
INPUT_SHARE = 0.4


def accuracies(samples: int, repeats: int) -> np.ndarray:
    """Accuracy on the rest, [rates, repeats]."""
    x, y = load_digits(return_X_y=True)
    x = (x / 16).astype(np.float32)
    few = ShuffleSplit(repeats, train_size=samples, test_size=len(x) - samples, random_state=0)
    model = MLPClassifier(
        (512, 512),
        learning_rate_init=0.003,
        max_iter=300,
        tol=0,
        n_iter_no_change=300,  # all rates get the same epochs
        random_state=0,
    )
    scores = []
    for rate in RATES:
        model.set_params(dropout=rate, input_dropout=INPUT_SHARE * rate)
        scores.append(cross_val_score(model, x, y, cv=few))
    return np.array(scores)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--samples", type=int, default=300)
    parser.add_argument("--repeats", type=int, default=10)
    parser.add_argument("--out", default="digits.svg", help="the picture")
    args = parser.parse_args()
    warnings.simplefilter("ignore", ConvergenceWarning)

    scores = accuracies(args.samples, args.repeats)
    # Of the differences from the first rate: all rates see the same digits.
    error = (scores - scores[0]).std(axis=1, ddof=min(1, args.repeats - 1)) / args.repeats**0.5
    for rate, mean, e in zip(RATES, scores.mean(axis=1), error, strict=True):
        print(f"rate {rate:.1f}: accuracy {mean:.3f} +- {e:.3f}")

    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot as plt

    figure, axes = plt.subplots(figsize=(6, 3.5), layout="constrained")
    axes.errorbar(RATES, scores.mean(axis=1), error, fmt="o-", capsize=3)
    axes.axhline(scores[0].mean(), color="gray", linestyle=":", label="without dropout")
    axes.set(
        xlabel="rate of the hidden layers",
        ylabel="accuracy on the other digits",
        title=f"{args.samples} digits to learn from, two layers of 512 units",
    )
    axes.legend()
    figure.savefig(args.out)


if __name__ == "__main__":
    main()
