"""A small transformer before and after `dropwise.torch.convert`: the time of a step, and the loss.

It learns to sort: each of 32 positions has to say which number belongs there.  Both models start
with the same weights and see the same sequences; their masks differ, as those of two runs do.

    python3 docs/examples/transformer.py [--rate 0.1] [--steps 200] [--out transformer.svg]
"""

from __future__ import annotations

import argparse
import copy
import statistics
import time

import torch
from torch import nn

import dropwise.torch

NUMBERS, LENGTH, WIDTH, BATCH = 16, 32, 128, 64


class Sorter(nn.Module):
    """An encoder that classifies each position."""

    def __init__(self, rate: float) -> None:
        super().__init__()
        self.number = nn.Embedding(NUMBERS, WIDTH)
        self.position = nn.Parameter(0.02 * torch.randn(LENGTH, WIDTH))
        layer = nn.TransformerEncoderLayer(WIDTH, 4, 4 * WIDTH, rate, batch_first=True)
        self.encoder = nn.TransformerEncoder(layer, 2)
        self.head = nn.Sequential(
            nn.Linear(WIDTH, WIDTH), nn.ReLU(), nn.Dropout(rate), nn.Linear(WIDTH, NUMBERS)
        )

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.head(self.encoder(self.number(x) + self.position))


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

    def __str__(self) -> str:
        last = self.losses[-max(1, len(self.losses) // 10) :]
        return (
            f"{1e3 * statistics.median(self.seconds):.1f} ms a step, "
            f"loss {self.losses[0]:.3f} at first, {statistics.mean(last):.3f} in the end"
        )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--rate", type=float, default=0.1)
    parser.add_argument("--steps", type=int, default=200)
    parser.add_argument("--out", help="a picture of the losses")
    args = parser.parse_args()

    torch.manual_seed(0)
    before = Sorter(args.rate)
    after = copy.deepcopy(before)
    print(dropwise.torch.convert(after, seed=0))

    runs = {"PyTorch": Training(before), "converted": Training(after)}
    numbers = torch.Generator().manual_seed(1)
    for _ in range(args.steps):
        x = torch.randint(NUMBERS, (BATCH, LENGTH), generator=numbers)
        for run in runs.values():  # in turns, so that both meet the same load of the machine
            run.step(x)
    for name, run in runs.items():
        print(f"{name}: {run}")

    if args.out:
        import matplotlib

        matplotlib.use("Agg")
        from matplotlib import pyplot as plt

        figure, axes = plt.subplots(figsize=(5, 4), layout="constrained")
        for name, run in runs.items():
            axes.plot(run.losses, label=name)
        axes.set(xlabel="step", ylabel="cross-entropy", yscale="log")
        axes.legend()
        figure.savefig(args.out)


if __name__ == "__main__":
    main()
