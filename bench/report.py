"""Make summaries, tables and pictures from the results that are there; nothing is measured.

    python3 bench/report.py --summarize                           # raw results into summaries
    python3 bench/report.py [--readme README.md] [--page docs/benchmarks.md] [--pictures docs]

A bench writes every figure to results/<machine>/raw, which git ignores.  What the project keeps is
one summary for each machine.  The tables have a column for each, and replace what stands between
the two marks of a page; without a page the long one is printed.
"""

from __future__ import annotations

import argparse
import importlib
import json
import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import harness

BEGIN, END = "<!-- numbers: made by bench/report.py -->", "<!-- end of numbers -->"
SUMMARY = "summary.json"
MOST_CASES = 100  # of more, the summary has the ratios only
FIGURES = ("median", "minimum", "low", "high")
SECTIONS = {  # bench: title, command
    "elementwise": ("Dropout by itself", "bench/elementwise.py"),
    "fit": ("Training and prediction", "bench/fit.py"),
    "spiral": ("The spiral run", "bench/spiral.py"),
    "torch_door": ("Training with PyTorch, by `dropwise.torch`", "bench/torch_door.py"),
    "dask_door": ("Arrays of Dask, by `dropwise.dask`", "bench/dask_door.py"),
    "threads": ("Two threads", "bench/threads.py"),
    "scale": ("Steps in blocks of rows, and ranks", "bench/scale.py"),
    "products": ("Matrix products", "bench/products.py"),
    "choice": ("Dense or skipping: the choice", "bench/tuning/choice.py"),
    "textbooks": ("Classes of teaching texts", "bench/textbooks.py"),
    "textbook_scripts": ("Scripts of teaching texts", "bench/textbook_scripts.py"),
}


class Gain(NamedTuple):
    """A row of the README: words for one ratio of the summaries."""

    text: str
    against: str
    bench: str
    row: tuple[str, str]  # of Goal: what, against


_STEP = "step, (256, 1024, 1024, 1024), rate 0.5"
GAINS = (
    Gain("Dropout and its gradient, 64 K to 16 M numbers, rate 0.1", "PyTorch",
         "elementwise", ("forward + backward, 64 K to 16 M, rate 0.1", "PyTorch eager")),
    Gain("Dropout of 16 M numbers into a new array", "`x.copy()`",
         "elementwise", ("forward 16 M, fresh output", "x.copy()")),
    Gain("An epoch, layers of 784, 1024, 1024, 10, rate 0.5", "PyTorch",
         "fit", ("epoch of fit, (784, 1024, 1024, 10), rate 0.5", "PyTorch, fused Adam")),
    Gain("A step of Dense, ReLU, Dropout, Dense, 1024 wide, rate 0.5", "PyTorch",
         "fit", (_STEP, "PyTorch")),
    Gain("An epoch of the spiral run", "PyTorch",
         "spiral", ("one epoch of the spiral run", "PyTorch")),
    Gain("A step of PyTorch's transformer, 256 wide, rate 0.5", "unconverted",
         "torch_door", ("encoder, 256, rate 0.5", "PyTorch")),
    Gain("A product that skips 80 % zeros", "OpenBLAS, dense",
         "products", ("skipping x @ W at rate 0.8, avx512", "best OpenBLAS, dense")),
    Gain("*Neural Networks from Scratch*, chapter 15", "its own classes",
         "textbook_scripts", ("nnfs chapter 15, all classes swapped", "the text's own")),
)  # fmt: skip


# ---- summaries ---------------------------------------------------------------------------------


def summarize(folder: Path) -> None:
    """Put what is in the raw results of one machine into its summary; other benches stay."""
    path = folder / SUMMARY
    summary = json.loads(path.read_text()) if path.exists() else {"benches": {}}
    for raw in sorted((folder / "raw").glob("*.json")):
        if raw.suffixes != [".json"]:  # .tmp.json: of some of the cases, or quick
            continue
        result = json.loads(raw.read_text())
        machine = result["machine"]
        for key in ("cpu", "cores", "system", "instruction_sets"):
            summary[key] = machine[key]
        summary["figures"] = f"microseconds: {', '.join(FIGURES)} (10th and 90th percentile)"
        summary["benches"][raw.stem] = brief(result)
    summary["benches"] = dict(sorted(summary.pop("benches").items()))  # last, in order
    path.write_text(as_lines(summary) + "\n")


def brief(result: Mapping[str, Any]) -> dict[str, Any]:
    """Conditions, ratios and rounded figures of one result."""
    machine = result["machine"]
    found: dict[str, Any] = {
        key: machine.get(key)
        for key in ("commit", "compiler", "threads", "active_set", "versions", "load_average")
    }
    found["blas"] = sorted({pool["architecture"] for pool in machine["blas"]})
    found |= {
        key: result[key]
        for key in ("clock", "left_out", "epochs", "accuracy", "seconds")
        if result.get(key)
    }
    found["extra"] = result.get("extra") or {}
    if result["bench"] not in SECTIONS:
        return found
    goals = question_of(result["bench"]).goals
    found["ratios"] = [
        {"what": goal.what, "against": goal.against, "kind": goal.limit,
         "worst": rounded(ratios[0]), "best": rounded(ratios[-1])}
        for goal in goals
        if (ratios := goal.ratios(result))
    ]  # fmt: skip
    memory = found["extra"].get("peak_memory_mib", {})
    if {"native", "PyTorch"} <= set(memory):
        share = rounded(memory["native"] / memory["PyTorch"])
        row = {"what": "peak memory of training", "against": "PyTorch", "kind": "memory"}
        found["ratios"].append(row | {"worst": share, "best": share})
    found["cases"] = [
        case["labels"]
        | {"us": {name: [rounded(t[figure] * 1e6) for figure in FIGURES]
                  for name, t in case["times"].items()}}
        for case in result["cases"]
        if len(result["cases"]) <= MOST_CASES
    ]  # fmt: skip
    return found


def question_of(bench: str) -> harness.Question:
    """What the script of a bench asks."""
    script = Path(SECTIONS[bench][1]).relative_to("bench").with_suffix("")
    question: harness.Question = importlib.import_module(".".join(script.parts)).QUESTION
    return question


def rounded(value: float) -> float:
    """Four digits."""
    return float(f"{value:.4g}")


def as_lines(value: Any, indent: str = "") -> str:
    """JSON with a line for each setting of a machine and a bench, each ratio, each case."""
    inner = indent + " "
    if isinstance(value, dict) and len(indent) < 3:  # the machine, its benches, one bench
        items = [f"{json.dumps(key)}: {as_lines(each, inner)}" for key, each in value.items()]
        first, last = "{}"
    elif isinstance(value, list) and value and isinstance(value[0], dict):
        items = [json.dumps(each) for each in value]
        first, last = "[]"
    else:
        return json.dumps(value)
    return f"{first}\n" + ",\n".join(inner + item for item in items) + f"\n{indent}{last}"


def summaries(folder: Path) -> dict[str, dict[str, Any]]:
    """Those of all machines, by the name of the folder; or that of this folder."""
    found = {path.parent.name: path for path in sorted(folder.glob(f"*/{SUMMARY}"))}
    if not found and (folder / SUMMARY).exists():
        found = {folder.name: folder / SUMMARY}
    if not found:
        raise SystemExit(f"no {SUMMARY} in {folder}: run the benches, then --summarize")
    return {name: json.loads(path.read_text()) for name, path in found.items()}


def results(summary: Mapping[str, Any]) -> Iterable[tuple[str, dict[str, Any]]]:
    """Each bench with its result, in the order of the sections, one thread before two."""
    for name in SECTIONS:
        for stem, found in summary["benches"].items():
            if stem.rpartition("-")[0] == name and "ratios" in found:  # or whole runs, untimed
                yield name, found


# ---- tables ------------------------------------------------------------------------------------


def span(values: Sequence[float]) -> str:
    """The least and the largest of these, or one if they are shown alike."""
    low, high = min(values), max(values)
    digits = 0 if low >= 9.95 else 1 if low >= 1.95 else 2
    return " to ".join(dict.fromkeys(f"{value:.{digits}f}" for value in (low, high)))


def words(ratio: Mapping[str, Any]) -> str:
    """What a ratio says: of time, of speed, or of memory."""
    values = ratio["worst"], ratio["best"]
    if ratio["kind"] == ">=":
        return f"{span(values)} times as fast"
    unit = "memory" if ratio["kind"] == "memory" else "time"
    return f"{span(values)} {'of' if max(values) < 1 else 'times'} the {unit}"


def gain(ratio: Mapping[str, Any]) -> str:
    """How many times as fast, also where the ratio is of times."""
    values = ratio["worst"], ratio["best"]
    return span(values if ratio["kind"] == ">=" else [1 / value for value in values])


def ratios(
    summary: Mapping[str, Any], bench: str, say: Callable[[Mapping[str, Any]], str] = words
) -> dict[tuple[str, ...], str]:
    """What was measured by one bench, by what, against what and how many threads."""
    return {
        (ratio["what"], ratio["against"], str(found["threads"])): say(ratio)
        for name, found in results(summary)
        if name == bench
        for ratio in found["ratios"]
    }


def markdown(head: Sequence[str], lines: Iterable[Sequence[str]]) -> str:
    marks = ["| " + " | ".join(head) + " |", "|---" * len(head) + "|"]
    return "\n".join([*marks, *("| " + " | ".join(line) + " |" for line in lines)])


def short_table(machines: Mapping[str, Mapping[str, Any]]) -> str:
    """What a user gains: the README's rows."""
    lines = []
    for row in GAINS:
        found = [ratios(summary, row.bench, gain) for summary in machines.values()]
        cells = [each.get((*row.row, "1"), "") for each in found]
        if any(cells):
            lines.append([row.text, row.against, *cells, f"`{Path(SECTIONS[row.bench][1]).name}`"])
    names = [re.sub(r"\(R\)| Processor", "", summary["cpu"]) for summary in machines.values()]
    return markdown(["", "times as fast as", *names, "in `bench/`"], lines)


def long_tables(machines: Mapping[str, Mapping[str, Any]]) -> str:
    """Everything, a section for each bench, then the conditions."""
    parts = []
    for bench, (title, script) in SECTIONS.items():
        columns = [ratios(summary, bench) for summary in machines.values()]
        keys = dict.fromkeys(key for found in columns for key in found)
        if not keys:
            continue
        several = len({threads for *_, threads in keys}) > 1
        lines = [
            [what + (f", {threads} threads" if several and threads != "1" else ""), against,
             *(found.get((what, against, threads), "") for found in columns)]
            for what, against, threads in keys
        ]  # fmt: skip
        names = [summary["cpu"] for summary in machines.values()]
        table = markdown(["", "compared with", *names], lines)
        parts.append(f"## {title}\n\n`python3 {script}`\n\n{table}")
    parts.append("## Conditions\n\n" + "\n".join(map(conditions, machines.values())))
    return "\n\n".join(parts)


def conditions(summary: Mapping[str, Any]) -> str:
    """What the figures of one machine depend on."""
    found = [bench for _, bench in results(summary)]

    def all_of(values: Iterable[Any]) -> str:
        return ", ".join(dict.fromkeys(str(value) for value in values if value))

    versions = all_of(f"{name} {v}" for bench in found for name, v in bench["versions"].items())
    kernels = all_of(name for bench in found for name in bench["blas"])
    compiler = all_of(bench["compiler"] for bench in found) or "not recorded"
    return (
        f"* {summary['cpu']}: {summary['cores']} cores, "
        f"{all_of(bench['active_set'] for bench in found)}; {versions}; OpenBLAS kernels for "
        f"{kernels}; compiler {compiler}; {all_of(bench['clock'] for bench in found)}; "
        f"commits {all_of(bench['commit'] for bench in found)}."
    )


def put(text: str, page: Path) -> None:
    """Replace what stands between the marks of a page."""
    old = page.read_text()
    if BEGIN not in old or END not in old:
        raise SystemExit(f"{page} has no line {BEGIN!r} before a line {END!r}")
    before, _, rest = old.partition(BEGIN)
    page.write_text(before + f"{BEGIN}\n\n{text}\n\n{END}" + rest.partition(END)[2])


# ---- pictures ----------------------------------------------------------------------------------


def draw(machines: Mapping[str, Mapping[str, Any]], folder: Path) -> None:
    """The pictures of all benches that have one, of one thread."""
    import matplotlib as mpl

    mpl.rcParams |= {"svg.fonttype": "none", "svg.hashsalt": "dropwise"}
    folder.mkdir(parents=True, exist_ok=True)
    for machine, summary in machines.items():
        for bench, found in results(summary):
            question = question_of(bench)
            if question.picture and found["threads"] == 1 and found["cases"]:
                question.picture(restored(found), folder / f"bench-{bench}-{machine}.svg")


def restored(found: Mapping[str, Any]) -> dict[str, Any]:
    """A result as the bench had it, as far as its picture needs it."""
    cases = [
        {
            "labels": {key: value for key, value in case.items() if key != "us"},
            "times": {
                name: {figure: t / 1e6 for figure, t in zip(FIGURES, times, strict=True)}
                for name, times in case["us"].items()
            },
        }
        for case in found["cases"]
    ]
    return {"machine": {"threads": found["threads"]}, "extra": found["extra"], "cases": cases}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--results", type=Path, default=harness.RESULTS)
    parser.add_argument("--summarize", action="store_true", help="first: raw results to summaries")
    parser.add_argument("--readme", type=Path, help="page with the two marks, for the short table")
    parser.add_argument("--page", type=Path, help="page with the two marks, for the long tables")
    parser.add_argument("--pictures", type=Path, help="folder for the pictures")
    args = parser.parse_args()

    if args.summarize:
        for raw in [args.results / "raw", *sorted(args.results.glob("*/raw"))]:
            if raw.is_dir():
                summarize(raw.parent)
    machines = summaries(args.results)
    if args.readme:
        put(short_table(machines), args.readme)
    if args.page:
        put(long_tables(machines), args.page)
    if args.pictures:
        draw(machines, args.pictures)
    if not (args.readme or args.page or args.pictures or args.summarize):
        print(long_tables(machines))


if __name__ == "__main__":
    main()
