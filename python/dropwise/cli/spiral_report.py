"""What the spiral job gives: a table beside the published logs, and a CSV file."""

from __future__ import annotations

import csv
from collections.abc import Sequence
from dataclasses import astuple, fields
from pathlib import Path

from dropwise.cli.spiral import PUBLISHED, Record


def table(title: str, last: Record, epochs: int, mean: Record) -> str:
    """The run's last epoch and the mean of its last `epochs`, beside the published logs."""
    lines = [f"{'':22}{'train acc':>9}  {'loss (data + reg)':21}  {'val acc':>7}  {'val loss':>8}"]
    for name, r in {title: last, f"mean, last {epochs} epochs": mean, **PUBLISHED}.items():
        parts = f"{r.loss:.3f} ({r.data_loss:.3f} + {r.reg_loss:.3f})"
        lines.append(
            f"{name:22}{r.train_acc:9.3f}  {parts:21}  {r.val_acc:7.3f}  {r.val_loss:8.3f}"
        )
    lines.append("Log 1 is the listing as printed: dropout acts in the backward pass only.")
    lines.append("Log 2 is dropout at work in both passes, the correct wiring.")
    return "\n".join(lines)


def write_csv(path: Path, history: Sequence[Record]) -> None:
    """One row for each evaluated epoch."""
    with path.open("w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file)
        writer.writerow([f.name for f in fields(Record)])
        writer.writerows(astuple(record) for record in history)
