"""The picture of the spiral job.  Needs matplotlib, which the extra ``cli`` brings."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from dropwise.cli.spiral import Spiral


def write_plot(path: Path, job: Spiral, title: str) -> None:
    """Decision regions with the test points; loss and accuracy over the epochs."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.colors import ListedColormap
    from matplotlib.figure import Figure

    colors = ["#4477aa", "#ee6677", "#228833"]  # colour-blind readers can tell them apart
    figure = Figure(figsize=(12, 5.4), layout="constrained")
    FigureCanvasAgg(figure)
    figure.suptitle(title)
    grid = figure.add_gridspec(2, 2, width_ratios=[1.15, 1])
    regions, losses, accuracies = (
        figure.add_subplot(grid[place]) for place in (np.s_[:, 0], np.s_[0, 1], np.s_[1, 1])
    )

    x, y = job.test
    axis = np.linspace(-1.1, 1.1, 300)
    points = np.stack(np.meshgrid(axis, axis), axis=-1).reshape(-1, 2).astype(x.dtype)
    classes = job.net.predict(points).argmax(axis=1).reshape(axis.size, axis.size)
    regions.pcolormesh(
        axis, axis, classes, cmap=ListedColormap(colors), alpha=0.25, rasterized=True
    )
    regions.scatter(x[:, 0], x[:, 1], s=4, c=[colors[k] for k in y], linewidths=0)
    regions.set(title="decision regions and test points", aspect="equal", xticks=[], yticks=[])

    epochs = [r.epoch for r in job.history]
    losses.plot(epochs, [r.loss for r in job.history], label="train (data + reg)")
    losses.plot(epochs, [r.data_loss for r in job.history], label="train (data)")
    losses.plot(epochs, [r.val_loss for r in job.history], label="validation")
    losses.set(ylabel="loss", ylim=(0, None))
    accuracies.plot(epochs, [r.train_acc for r in job.history], label="train")
    accuracies.plot(epochs, [r.val_acc for r in job.history], label="validation")
    accuracies.set(xlabel="epoch", ylabel="accuracy")
    for axes in (losses, accuracies):
        axes.grid(alpha=0.3)
        axes.legend()
    figure.savefig(path, dpi=110)
