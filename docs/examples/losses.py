"""
Training and validation loss
============================

A network with many units and few samples learns the samples by heart: its loss on them goes to
zero, and the loss on samples that it has not seen goes up and up.  Dropout keeps the second one
down.  Both networks here start with the same weights and see the same batches; one label in ten
is wrong.
"""

import matplotlib.pyplot as plt
import numpy as np
from sklearn.datasets import make_classification
from sklearn.model_selection import train_test_split

import dropwise as dw

EPOCHS = 60

x, y = make_classification(4000, 20, n_informative=10, flip_y=0.2, random_state=0)
x, x_test, y, y_test = train_test_split(x.astype(np.float32), y, train_size=1000, random_state=0)

# %%
# ``iter_fit`` gives the figures after each epoch.  Those of training are taken with dropout at
# work, so here both losses are evaluated without it, on the network as it is used later.


def losses(rate: float) -> np.ndarray:
    """Training and validation loss after each epoch, [epochs, 2]."""
    net = dw.Sequential(
        [
            dw.Dense(20, 512), dw.ReLU(), dw.Dropout(rate),
            dw.Dense(512, 512), dw.ReLU(), dw.Dropout(rate),
            dw.Dense(512, 2),
        ],
        seed=0,
    )  # fmt: skip
    loss = dw.SoftmaxCrossEntropy()
    epochs = net.iter_fit(x, y, loss=loss, optimizer=dw.Adam(0.001), epochs=EPOCHS, batch_size=32)
    found = [
        [net.evaluate(*data, loss=loss)[0] for data in ((x, y), (x_test, y_test))] for _ in epochs
    ]
    return np.array(found)


curves = {rate: losses(rate) for rate in (0.0, 0.5)}
for rate, found in curves.items():
    print(
        f"rate {rate}: training {found[-1, 0]:.4f}, "
        f"validation {found[-1, 1]:.4f}, at best {found[:, 1].min():.4f}"
    )

# %%
# The gap between a network's two curves is what it has learnt by heart.

figure, axes = plt.subplots(figsize=(6, 4), layout="constrained")
for (rate, found), color in zip(curves.items(), ("C3", "C0"), strict=True):
    name = f"dropout {rate}" if rate else "no dropout"
    axes.plot(found[:, 1], color=color, label=f"{name}, validation")
    axes.plot(found[:, 0], color=color, linestyle="--", label=f"{name}, training")
axes.set(xlabel="epoch", ylabel="cross-entropy", ylim=(0, 1.5))
axes.legend()
plt.show()
