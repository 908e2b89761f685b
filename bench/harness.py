"""One way to measure, for every question in this folder.

A question is a list of cases; a case is a list of contenders that do the same work.  Before a
contender is timed its result is checked.  Contenders take turns in one process, so that a drift of
the machine meets all of them alike.  What comes out is a JSON file for git to ignore;
`report.py` makes the summary of the machine from it, and tables and pictures from the summary.
"""

from __future__ import annotations

import argparse
import gc
import importlib
import json
import math
import os
import platform
import random
import re
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn
from rich.table import Table

RESULTS = Path(__file__).parent / "results"  # a folder for each machine
_RESTARTED = "DROPWISE_BENCH_THREADS"
_SAMPLE_SECONDS = 1e-3  # calls shorter than that are repeated within a sample
_SETTLE_SECONDS = 0.03  # calls longer than that need no call before, that is not timed


@dataclass
class Contender:
    """One way to do a case's work."""

    name: str
    call: Callable[[], Any]
    check: Callable[[Any], None]  # raises if what `call` returned is wrong
    before: Callable[[], object] = lambda: None  # not timed: chooses a backend, a thread count


@dataclass
class Case:
    """The same work for all contenders; the labels say which, `what` among them."""

    labels: dict[str, Any]
    contenders: list[Contender]


@dataclass(frozen=True)
class Goal:
    """A row of the table of numbers to reach: a ratio of times, at most or at least a limit.

    The ratio is that of the worst case among those whose labels have the values in `where` (a tuple
    gives a choice).  Of several opponents the fastest counts, of ours each by itself.
    """

    what: str
    against: str
    limit: str  # "<=": ours / theirs; ">=": theirs / ours
    floor: float
    aim: float
    ours: str | tuple[str, ...]
    theirs: tuple[str, ...]
    where: Mapping[str, Any]
    figure: str = "median"  # or "minimum", or "paired"

    def ratios(self, result: Mapping[str, Any]) -> list[float]:
        """One ratio for each case, the worst first."""
        found = []
        for case in result["cases"]:
            times = {name: t[self.figure] for name, t in case["times"].items() if self.figure in t}
            theirs = [times[name] for name in self.theirs if name in times]
            if matches(case["labels"], self.where) and theirs:
                for name in (self.ours,) if isinstance(self.ours, str) else self.ours:
                    if name in times:
                        ratio = times[name] / min(theirs)
                        found.append(ratio if self.limit == "<=" else 1 / ratio)
        return sorted(found, reverse=self.limit == "<=")

    def verdict(self, worst: float) -> str:
        """Whether aim or floor is reached."""
        for limit, word in ((self.aim, "aim"), (self.floor, "floor")):
            if worst <= limit if self.limit == "<=" else worst >= limit:
                return word
        return "MISSED"


@dataclass
class Question:
    """What a file of this folder asks."""

    name: str
    text: str
    cases: Callable[[argparse.Namespace], Iterable[Case]]
    goals: Sequence[Goal] = ()
    picture: Callable[[Mapping[str, Any], Path], None] | None = None
    arguments: Callable[[argparse.ArgumentParser], object] = lambda parser: None
    extra: Callable[[], dict[str, Any]] = dict  # measured once, for the JSON
    summary: Callable[[Mapping[str, Any]], Iterable[Table]] = lambda result: ()
    threads: int = 1  # for everybody, if the command line does not say
    rounds: int = 5  # at least
    seconds: float = 1.0  # for each case, if that allows for more rounds


def matches(labels: Mapping[str, Any], where: Mapping[str, Any]) -> bool:
    """Whether every label named in `where` has that value, or one of that tuple."""
    return all(
        labels.get(name) in (value if isinstance(value, tuple) else (value,))
        for name, value in where.items()
    )


def optional(name: str) -> ModuleType | None:
    """A peer, if it is installed."""
    try:
        return importlib.import_module(name)
    except ImportError:
        return None


_left_out: list[str] = []


def peer(name: str) -> ModuleType | None:
    """Another library to compare with; if it is not installed, the output says so."""
    module = optional(name)
    if module is None and name not in _left_out:
        _left_out.append(name)
    return module


# ---- measuring ---------------------------------------------------------------------------------


def measure(
    case: Case, *, rounds: int, seconds: float, clock: Callable[[], float] = time.perf_counter
) -> dict[str, dict[str, float]]:
    """Check and warm all contenders, then time them in turns."""

    def timed(call: Callable[[], Any], n: int) -> float:
        start = clock()
        for _ in range(n):
            call()
        return clock() - start

    repeats, quick = {}, {}
    shuffle = random.Random(0)
    for contender in case.contenders:
        contender.before()
        try:
            contender.check(contender.call())
        except Exception as error:
            raise RuntimeError(f"{contender.name} failed at {case.labels}") from error
        elapsed = min(timed(contender.call, 1) for _ in range(3))
        repeats[contender.name] = max(1, math.ceil(_SAMPLE_SECONDS / max(elapsed, 1e-9)))
        quick[contender.name] = elapsed < _SETTLE_SECONDS
    samples: dict[str, list[float]] = {contender.name: [] for contender in case.contenders}
    gc.collect()
    gc.disable()
    try:
        start = time.perf_counter()
        done = 0
        while done < rounds or (time.perf_counter() - start < seconds and done < 200):
            # In another order each round, so that nobody always follows the same neighbour.
            for contender in shuffle.sample(case.contenders, len(case.contenders)):
                contender.before()
                # First once for nothing: a call leaves caches, page tables and threads of its own
                # behind, and the next contender shall not pay for them.
                if quick[contender.name]:
                    contender.call()
                n = repeats[contender.name]
                samples[contender.name].append(timed(contender.call, n) / n)
            done += 1
    finally:
        gc.enable()
    first = samples[case.contenders[0].name]
    return {
        name: {
            "median": statistics.median(times),
            "minimum": min(times),
            # In units of the first contender, round by round: what the machine does to all that
            # are in one round cancels.  For differences that are small.
            "paired": statistics.median(t / f for t, f in zip(times, first, strict=True)),
            "low": float(np.quantile(times, 0.1)),
            "high": float(np.quantile(times, 0.9)),
            "samples": len(times),
            "repeats": repeats[name],
        }
        for name, times in samples.items()
    }


def machine(threads: int) -> dict[str, Any]:
    """What the figures depend on."""
    import dropwise as dw

    versions = {"python": platform.python_version(), "dropwise": dw.__version__}
    optional("numba")
    for name in ("numpy", "numba", "torch", "jax", "sklearn"):
        module = sys.modules.get(name)
        if module is not None:
            versions[name] = module.__version__
    native = optional("dropwise._native")
    blas = optional("threadpoolctl")
    return {
        "cpu": _cpu_name(),
        "cores": os.cpu_count(),
        "threads": threads,
        "system": f"{platform.system()} {platform.machine()}",
        "versions": versions,
        "instruction_sets": list(native.available_isas()) if native else [],
        "active_set": native.active_isa() if native else None,
        "compiler": native.build_info().get("compiler") if native else None,
        "commit": _commit(),
        "blas": [
            {key: pool.get(key) for key in ("internal_api", "version", "architecture")}
            for pool in (blas.threadpool_info() if blas else [])
            if pool["user_api"] == "blas"
        ],
        "load_average": os.getloadavg()[0] if hasattr(os, "getloadavg") else None,
    }


def _commit() -> str | None:
    """The checkout's commit, with a mark if files differ from it."""
    command = ["git", "describe", "--always", "--dirty", "--exclude=*"]
    try:
        run = subprocess.run(command, cwd=RESULTS.parent, capture_output=True, text=True)
    except OSError:
        return None
    return run.stdout.strip() or None


def _cpu_name() -> str:
    try:
        for line in Path("/proc/cpuinfo").read_text().splitlines():
            if line.startswith("model name"):
                return line.partition(":")[2].strip()
    except OSError:
        pass
    return platform.processor() or platform.machine()


def machine_folder() -> Path:
    """Where results of this machine belong, by the name of its CPU without what all names have."""
    name = re.sub(r"\((r|tm)\)|\b(cpu|processor)\b|@.*", "", _cpu_name().lower())
    return RESULTS / "-".join(re.findall(r"[a-z0-9]+", name))


def mebibytes(field: str) -> float:
    """The process' memory now (VmRSS) or at its peak (VmHWM)."""
    try:
        for line in Path("/proc/self/status").read_text().splitlines():
            if line.startswith(field):
                return int(line.split()[1]) / 1024
    except OSError:
        pass
    import resource  # which Windows does not have

    # Elsewhere than on Linux there is only the peak; macOS counts bytes.
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak / (1024**2 if sys.platform == "darwin" else 1024)


# ---- the command line --------------------------------------------------------------------------


def main(question: Question) -> None:
    """Measure, write the JSON, print the tables."""
    parser = argparse.ArgumentParser(description=question.text)
    parser.add_argument("--quick", action="store_true", help="small cases, few samples: a test")
    parser.add_argument(
        "--threads",
        type=int,
        default=question.threads,
        help=f"for everybody (default: {question.threads})",
    )
    parser.add_argument("--seconds", type=float, default=question.seconds, help="for each case")
    parser.add_argument("--only", default="", metavar="TEXT", help="cases with this in a label")
    parser.add_argument(
        "--cpu-time",
        action="store_true",
        help="count processor time: for one thread on a machine that others use, too",
    )
    parser.add_argument(
        "--results", type=Path, default=machine_folder() / "raw", help="folder of the JSON file"
    )
    question.arguments(parser)
    args = parser.parse_args()
    if args.cpu_time and args.threads > 1:
        parser.error("--cpu-time adds up the threads: it is for one")
    _restart(args.threads)

    console = Console()
    conditions = machine(args.threads)  # before contenders change the instruction set
    measured = []
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn())
    with Progress(*columns, TimeElapsedColumn(), console=console, transient=True) as bar:
        task = bar.add_task(question.name, total=None)
        for case in question.cases(args):
            if not any(args.only in str(value) for value in case.labels.values()):
                continue
            bar.update(task, description=" ".join(str(v) for v in case.labels.values()))
            times = measure(
                case,
                rounds=2 if args.quick else question.rounds,
                seconds=0.02 if args.quick else args.seconds,
                clock=time.process_time if args.cpu_time else time.perf_counter,
            )
            measured.append({"labels": case.labels, "times": times})
            if conditions["active_set"] is not None:
                importlib.import_module("dropwise._native").set_isa(conditions["active_set"])
            bar.advance(task)
    result = {
        "bench": question.name,
        "clock": "processor time" if args.cpu_time else "wall time",
        "machine": conditions,
        "left_out": _left_out,
        "extra": question.extra(),
        "cases": measured,
    }
    args.results.mkdir(parents=True, exist_ok=True)
    suffix = ".tmp.json" if args.quick or args.only else ".json"
    path = args.results / f"{question.name}-{args.threads}{suffix}"
    path.write_text(json.dumps(result, indent=1) + "\n")
    show(console, question, result)
    for name in _left_out:
        console.print(f"[bold]left out:[/bold] {name} is not installed")
    console.print(f"written to {path}")


def _restart(threads: int) -> None:
    """Start anew with the thread count where every library looks for it, on as many cores."""
    if os.environ.get(_RESTARTED) == str(threads):
        return
    names = ("OMP", "OPENBLAS", "MKL", "NUMEXPR", "NUMBA", "DROPWISE")
    os.environ |= {f"{name}_NUM_THREADS": str(threads) for name in names}
    os.environ |= {_RESTARTED: str(threads), "JAX_PLATFORMS": "cpu"}
    if hasattr(os, "sched_setaffinity"):  # JAX has no setting, but counts the cores it may use
        cores = sorted(os.sched_getaffinity(0))
        if len(cores) < threads:
            raise SystemExit(f"{threads} threads asked for, but there are {len(cores)} cores")
        os.sched_setaffinity(0, cores[-threads:])
    sys.stdout.flush()
    os.execv(sys.executable, [sys.executable, *sys.argv])


# ---- tables ------------------------------------------------------------------------------------


def show(console: Console, question: Question, result: Mapping[str, Any]) -> None:
    """A table of times for each `what`, then the goals."""
    for what in dict.fromkeys(case["labels"]["what"] for case in result["cases"]):
        cases = [case for case in result["cases"] if case["labels"]["what"] == what]
        console.print(_times(what, cases))
    for table in question.summary(result):
        console.print(table)
    rows = goal_rows(question.goals, result)
    if rows:
        table = Table("what", "against", "ratio", "floor", "aim", "reached", title="goals")
        for row in rows:
            table.add_row(*row)
        console.print(table)


def _times(what: str, cases: Sequence[Mapping[str, Any]]) -> Table:
    """Cases and contenders, those of which there are more down the side."""
    names = list(dict.fromkeys(name for case in cases for name in case["times"]))
    heads = [
        " ".join(f"{key}={value}" for key, value in case["labels"].items() if key != "what")
        for case in cases
    ]
    cells = []
    for case in cases:
        first = next(iter(case["times"].values()))["median"]
        medians = [
            case["times"][name]["median"] if name in case["times"] else None for name in names
        ]
        cells.append(["" if t is None else f"{duration(t)} {t / first:6.2f}" for t in medians])
    title = f"{what}: median time, and in units of the first contender's"
    rows, columns = heads, names
    if len(names) > len(cases):
        rows, columns, cells = names, heads, [list(row) for row in zip(*cells, strict=True)]
    table = Table("", *columns, title=title)
    for row, values in zip(rows, cells, strict=True):
        table.add_row(row, *values)
    return table


def goal_rows(goals: Sequence[Goal], result: Mapping[str, Any]) -> list[tuple[str, ...]]:
    """What, against what, the ratio (worst to best case), floor, aim, what is reached."""
    rows = []
    for goal in goals:
        ratios = goal.ratios(result)
        if ratios:
            shown = f"{ratios[0]:.2f}"
            if f"{ratios[-1]:.2f}" != shown:
                shown += f" to {ratios[-1]:.2f}"
            limits = (f"{goal.limit} {goal.floor:g}", f"{goal.limit} {goal.aim:g}")
            rows.append((goal.what, goal.against, shown, *limits, goal.verdict(ratios[0])))
    return rows


def duration(seconds: float) -> str:
    """Three digits and a unit."""
    for unit, size in (("s", 1.0), ("ms", 1e-3), ("us", 1e-6)):
        if seconds >= size:
            return f"{seconds / size:.3g} {unit}"
    return f"{seconds / 1e-9:.3g} ns"
