"""Runs of the spiral command for tests, in this process, and the history that they write."""

from __future__ import annotations

import csv

from dropwise.cli import main

COLUMNS = [
    *("epoch", "train_acc", "loss", "data_loss", "reg_loss", "val_acc", "val_loss"),
    "learning_rate",
]


def spiral(*options: object) -> int:
    return main(["spiral", "--hidden", "16", "--quiet", *map(str, options)])


def rows_of(path):
    with open(path, newline="") as file:
        return list(csv.DictReader(file))


def figures(path):
    return [[float(row[name]) for name in COLUMNS] for row in rows_of(path)]
