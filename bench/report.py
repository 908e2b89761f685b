"""Make the table and the pictures from the results that are there; nothing is measured.

    python3 bench/report.py [--readme README.md] [--pictures docs]

The table replaces what stands between the two marks in the README, or is printed.
"""

from __future__ import annotations

import argparse
import importlib
import json
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import harness

QUESTIONS = ("dropout", "spiral", "dense", "choice", "train", "threads", "textbooks")
BEGIN, END = "<!-- numbers: made by bench/report.py -->", "<!-- end of numbers -->"


def results(folder: Path) -> Iterable[tuple[harness.Question, dict[str, Any]]]:
    """Each question with each of its results."""
    for name in QUESTIONS:
        question = importlib.import_module(name).QUESTION
        for path in sorted(folder.glob(f"{name}-[0-9]*.json")):
            result = json.loads(path.read_text())
            if not result["quick"]:
                yield question, result


def table(folder: Path) -> str:
    """All goals in Markdown, and what they were measured on."""
    lines, machines, clocks = [], [], set()
    for question, result in results(folder):
        threads = result["machine"]["threads"]
        rows = harness.goal_rows(question.goals, result)
        if threads > 1:  # the limits are for one thread, save those that compare the two
            rows = [row for row in rows if "threads" in row[0]]
        lines += ["| " + " | ".join(row) + " |" for row in rows]
        machines.append(result["machine"])
        clocks.add(result["clock"])
    if not lines:
        raise SystemExit(f"no results in {folder}: run the questions first")
    head = ["what", "against", "measured", "floor", "aim", "reached"]
    first = machines[0]
    versions = ", ".join(f"{name} {version}" for name, version in first["versions"].items())
    kernels = ", ".join(sorted({pool["architecture"] for m in machines for pool in m["blas"]}))
    note = (
        f"{first['cpu']}, {first['cores']} cores, {first['active_set']}; {versions}; NumPy's "
        f"OpenBLAS with kernels for {kernels}. One thread, float32, "
        f"{' and '.join(sorted(clocks))}, ratios of medians (products: of minima), contenders in "
        "turns in one process; where several cases make a row, the worst to the best of them. "
        "`<=`: our time over theirs; `>=`: theirs over ours."
    )
    marks = ["| " + " | ".join(head) + " |", "|---" * len(head) + "|"]
    return "\n".join([*marks, *lines, "", note])


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
        for question, result in results(args.results):
            threads = result["machine"]["threads"]
            suffix = "" if threads == 1 else f"-{threads}-threads"
            if question.picture:
                question.picture(result, args.pictures / f"bench-{question.name}{suffix}.png")


if __name__ == "__main__":
    main()
