"""Make the table and the pictures from the results that are there; nothing is measured.

    python3 bench/report.py [--readme README.md] [--pictures docs]

The table has a column for each machine's folder of results.  It replaces what stands between the
two marks in the README, or is printed.
"""

from __future__ import annotations

import argparse
import importlib
import json
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import harness

QUESTIONS = (
    "elementwise",
    "spiral",
    "products",
    "tuning.choice",
    "fit",
    "threads",
    "textbooks",
    "textbook_scripts",
)
BEGIN, END = "<!-- numbers: made by bench/report.py -->", "<!-- end of numbers -->"


def machines(folder: Path) -> list[Path]:
    """The folders of single machines: those with results in this one, or else this one."""
    inner = sorted(path for path in folder.iterdir() if path.is_dir())
    return [path for path in inner if any(True for _ in results(path))] or [folder]


def results(folder: Path) -> Iterable[tuple[harness.Question, dict[str, Any]]]:
    """Each question with each of its results on one machine."""
    for name in QUESTIONS:
        question = importlib.import_module(name).QUESTION
        for path in sorted(folder.glob(f"{name}-[0-9]*.json")):
            if path.suffixes == [".json"]:  # .tmp.json: of some of the cases, or quick
                yield question, json.loads(path.read_text())


def rows(folder: Path) -> dict[tuple[str, ...], str]:
    """What was measured on one machine, by what, against what, floor and aim."""
    found = {}
    for question, result in results(folder):
        for what, against, ratio, floor, aim, reached in harness.goal_rows(question.goals, result):
            # The limits are for one thread, save those that compare the two.
            if result["machine"]["threads"] == 1 or "threads" in what:
                found[what, against, floor, aim] = f"{ratio}: {reached}"
    return found


def conditions(folder: Path) -> str:
    """What the figures of one machine depend on."""
    measured = [result for _, result in results(folder)]
    first = measured[0]["machine"]
    versions = ", ".join(f"{name} {version}" for name, version in first["versions"].items())
    kernels = {pool["architecture"] for result in measured for pool in result["machine"]["blas"]}
    clocks = {result["clock"] for result in measured}
    return (
        f"{first['cpu']}: {first['cores']} cores, {first['active_set']}; {versions}; NumPy's "
        f"OpenBLAS with kernels for {', '.join(sorted(kernels))}; {' and '.join(sorted(clocks))}."
    )


def table(folder: Path) -> str:
    """All goals in Markdown, a column for each machine."""
    columns = {path: rows(path) for path in machines(folder)}
    if not any(columns.values()):
        raise SystemExit(f"no results in {folder}: run the questions first")
    names = [next(results(path))[1]["machine"]["cpu"] for path in columns]
    head = ["what", "against", "floor", "aim", *names]
    keys = dict.fromkeys(key for found in columns.values() for key in found)
    lines = [[*key, *(found.get(key, "") for found in columns.values())] for key in keys]
    note = (
        "One thread, float32, ratios of medians (products: of minima; the way chosen: medians of "
        "ratios), contenders in turns in one process; where several cases make a row, the worst to "
        "the best of them. `<=`: our time over theirs; `>=`: theirs over ours."
    )
    marks = ["| " + " | ".join(head) + " |", "|---" * len(head) + "|"]
    body = ["| " + " | ".join(line) + " |" for line in lines]
    return "\n".join([*marks, *body, "", note, *(conditions(path) for path in columns)])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--results", type=Path, default=harness.RESULTS)
    parser.add_argument("--readme", type=Path, help="file with the two marks")
    parser.add_argument("--pictures", type=Path, help="folder for the pictures")
    args = parser.parse_args()

    text = table(args.results)
    if args.readme:
        old = args.readme.read_text()
        if BEGIN not in old or END not in old:
            raise SystemExit(f"{args.readme} has no line {BEGIN!r} before a line {END!r}")
        before, _, rest = old.partition(BEGIN)
        args.readme.write_text(before + f"{BEGIN}\n\n{text}\n\n{END}" + rest.partition(END)[2])
    else:
        print(text)
    if args.pictures:
        args.pictures.mkdir(parents=True, exist_ok=True)
        for folder in machines(args.results):
            suffix = "" if folder == args.results else f"-{folder.name}"
            for question, result in results(folder):
                if question.picture and result["machine"]["threads"] == 1:
                    path = args.pictures / f"bench-{question.name}{suffix}.png"
                    question.picture(result, path)


if __name__ == "__main__":
    main()
