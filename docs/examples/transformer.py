"""
A transformer of PyTorch, before and after
==========================================

``dropwise.torch.convert`` changes the dropout, attention and feed-forward blocks of a model in
place, and the rest stays what it is.  A small transformer learns to sort: each of 32 positions
has to say which number belongs there.  Both models start with the same weights and see the same
sequences; their masks differ, as those of two runs do.
"""

import copy
import statistics
import time

import matplotlib.pyplot as plt
import torch
from torch import nn

import dropwise.torch

NUMBERS, LENGTH, WIDTH, BATCH = 16, 32, 128, 64
RATE, STEPS = 0.1, 100


class Sorter(nn.Module):
    """An encoder that classifies each position."""

    def __init__(self) -> None:
        super().__init__()
        self.number = nn.Embedding(NUMBERS, WIDTH)
        self.position = nn.Parameter(0.02 * torch.randn(LENGTH, WIDTH))
        layer = nn.TransformerEncoderLayer(WIDTH, 4, 4 * WIDTH, RATE, batch_first=True)
        self.encoder = nn.TransformerEncoder(layer, 2)
        self.head = nn.Sequential(
            nn.Linear(WIDTH, WIDTH), nn.ReLU(), nn.Dropout(RATE), nn.Linear(WIDTH, NUMBERS)
        )

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.head(self.encoder(self.number(x) + self.position))


# %%
# One line converts the copy.  What it returns says what has become of which module.

torch.manual_seed(0)
before = Sorter()
after = copy.deepcopy(before)
print(dropwise.torch.convert(after, seed=0))

# %%
# Both are trained in turns, so that they meet the same load of the machine.


class Training:
    """A model on its way, with the loss and the time of each step."""

    def __init__(self, model: nn.Module) -> None:
        self.model = model
        self.optimizer = torch.optim.Adam(model.parameters(), lr=1e-3)
        self.losses: list[float] = []
        self.seconds: list[float] = []

    def step(self, x: torch.Tensor) -> None:
        start = time.perf_counter()
        self.optimizer.zero_grad()
        scores = self.model(x).flatten(0, 1)
        loss = nn.functional.cross_entropy(scores, x.sort().values.flatten())
        loss.backward()
        self.optimizer.step()
        self.seconds.append(time.perf_counter() - start)
        self.losses.append(loss.item())

    def milliseconds(self) -> float:
        """Of a step, in the median."""
        return 1e3 * statistics.median(self.seconds)


runs = {"PyTorch": Training(before), "converted": Training(after)}
numbers = torch.Generator().manual_seed(1)
for _ in range(STEPS):
    x = torch.randint(NUMBERS, (BATCH, LENGTH), generator=numbers)
    for run in runs.values():
        run.step(x)

# %%
# The loss over the time that a model took.

figure, axes = plt.subplots(figsize=(6, 4), layout="constrained")
for name, run in runs.items():
    print(
        f"{name}: {run.milliseconds():.1f} ms a step, "
        f"loss {run.losses[0]:.3f} at first, {run.losses[-1]:.3f} at last"
    )
    seconds = [sum(run.seconds[: i + 1]) for i in range(STEPS)]
    axes.plot(seconds, run.losses, label=f"{name}, {run.milliseconds():.0f} ms a step")
axes.set(xlabel="seconds of training", ylabel="cross-entropy")
axes.legend()
plt.show()
