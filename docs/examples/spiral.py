"""
The spiral run
==============

The job of ``python -m dropwise spiral``: three spiral arms of noisy points, one hidden layer of
512 units with dropout, all 3000 points in each step.  The command makes 10001 epochs; 2000 are
enough to see how the regions wind.
"""

import matplotlib.pyplot as plt
import numpy as np

import dropwise as dw

EPOCHS = 2000

points, arms = dw.datasets.spiral_data(2000, 3, seed=0)
order = np.random.default_rng(0).permutation(len(points))
points, arms = points[order].astype(np.float32), arms[order]
x, y, x_test, y_test = points[:3000], arms[:3000], points[3000:], arms[3000:]

net = dw.Sequential(
    [
        dw.Dense(2, 512, l2=5e-4, bias_l2=5e-4, init=0.01),
        dw.ReLU(),
        dw.Dropout(0.1),
        dw.Dense(512, 3, init=0.01),
    ],
    seed=0,
)
history = net.fit(
    x,
    y,
    loss=dw.SoftmaxCrossEntropy(),
    optimizer=dw.Adam(0.05, decay=5e-5),
    epochs=EPOCHS,
    batch_size=None,  # all rows
    validation_data=(x_test, y_test),
    progress=False,
)
print(history[-1])

# %%
# Where the network decides for which arm, and how sure its thinned networks are: over 50 masks
# the probabilities differ most at the borders, and where there are no points.

side = np.linspace(-1.3, 1.3, 200, dtype=np.float32)
grid = np.stack(np.meshgrid(side, side), axis=-1).reshape(-1, 2)


def probabilities(scores: np.ndarray) -> np.ndarray:
    """Softmax of the last axis."""
    powers = np.exp(scores - scores.max(axis=-1, keepdims=True))
    return powers / powers.sum(axis=-1, keepdims=True)


regions = net.predict(grid).argmax(axis=-1).reshape(200, 200)
_, deviation = net.predict_mc(grid, 50, transform=probabilities)

figure, (left, middle, right) = plt.subplots(1, 3, figsize=(12, 4), layout="constrained")
left.contourf(
    side, side, regions, levels=[-0.5, 0.5, 1.5, 2.5], alpha=0.4, colors=["C0", "C1", "C2"]
)
for arm in range(3):
    left.plot(*x_test[y_test == arm].T, ".", markersize=2, color=f"C{arm}")
left.set(title="regions and test points", aspect="equal")
picture = middle.imshow(
    deviation.max(axis=-1).reshape(200, 200),
    extent=(-1.3, 1.3, -1.3, 1.3),
    origin="lower",
    cmap="magma",
)
middle.set(title="deviation of the probabilities")
figure.colorbar(picture, ax=middle, shrink=0.8)
right.plot([epoch.val_accuracy for epoch in history], label="validation")
right.plot([epoch.accuracy for epoch in history], label="training, dropout at work", alpha=0.6)
right.set(title="accuracy", xlabel="epoch", ylim=(0.3, 1))
right.legend()
plt.show()
