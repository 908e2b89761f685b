"""
Dropout as an ensemble
======================

Each mask leaves a thinned network, and training with dropout trains all of them at once, with
weights that they share. At inference one can average the probabilities that many thinned networks
give, or take the whole network, whose outputs come close to that average for the price of one.
This is figure 11 of Srivastava et al. (2014), on small data.
"""

import matplotlib.pyplot as plt
import numpy as np
from sklearn.datasets import load_digits
from sklearn.model_selection import train_test_split

import dropwise as dw

x, y = load_digits(return_X_y=True)
x = (x / 16).astype(np.float32)
x, x_test, y, y_test = train_test_split(x, y, train_size=300, random_state=0)

net = dw.Sequential(
    [
        dw.Dropout(0.2), dw.Dense(64, 256), dw.ReLU(), dw.Dropout(0.5),
        dw.Dense(256, 256), dw.ReLU(), dw.Dropout(0.5), dw.Dense(256, 10),
    ],
    seed=0,
)  # fmt: skip
net.fit(
    x,
    y,
    loss=dw.SoftmaxCrossEntropy(),
    optimizer=dw.Adam(0.002),
    epochs=200,
    batch_size=32,
    progress=False,
)

# %%
# A forward pass in training mode takes a new mask for each row, so that one pass is one thinned
# network for each digit.


def probabilities(scores: np.ndarray) -> np.ndarray:
    """Softmax of the last axis."""
    powers = np.exp(scores - scores.max(axis=-1, keepdims=True))
    return powers / powers.sum(axis=-1, keepdims=True)


NETWORKS, TRIALS = 64, 10
thinned = np.stack([probabilities(net.forward(x_test)) for _ in range(NETWORKS * TRIALS)])
thinned = thinned.reshape(TRIALS, NETWORKS, *thinned.shape[1:])

# %%
# The error of the first k of them, averaged; then that of the whole network.

count = np.arange(1, NETWORKS + 1)
means = thinned.cumsum(axis=1) / count[:, None, None]
errors = 100 * (means.argmax(axis=-1) != y_test).mean(axis=-1)  # [trials, networks]
whole = 100 * (net.predict(x_test).argmax(axis=-1) != y_test).mean()
for k in (1, 4, 16, 64):
    print(f"{k:2} thinned networks: {errors[:, k - 1].mean():.2f} % wrong")
print(f"the whole network: {whole:.2f} % wrong")

figure, axes = plt.subplots(figsize=(6, 4), layout="constrained")
mean, deviation = errors.mean(axis=0), errors.std(axis=0)
axes.plot(count, mean, label="average of thinned networks")
axes.fill_between(count, mean - deviation, mean + deviation, alpha=0.25)
axes.axhline(whole, color="C1", linestyle="--", label="the whole network")
axes.set(xlabel="thinned networks", ylabel="digits that are wrong, %", xscale="log")
axes.set_xticks([1, 2, 4, 8, 16, 32, 64], labels=["1", "2", "4", "8", "16", "32", "64"])
axes.legend()
plt.show()
