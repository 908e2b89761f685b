"""The benches run, check their contenders, and give a table and pictures; no time is judged."""

import json
import os
import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path

import pytest

from support import require

BENCH = Path(__file__).parents[1] / "bench"


def _is_epoch(case: dict) -> bool:
    return case["labels"]["what"] == "epoch"


def _run(script: str, *arguments: str) -> str:
    command = [sys.executable, str(BENCH / script), *arguments]
    run = subprocess.run(command, capture_output=True, text=True, timeout=600)
    assert run.returncode == 0, run.stdout + run.stderr
    return run.stdout


@pytest.mark.parametrize(
    "name",
    [
        "dask_door",
        "elementwise",
        "fit",
        "products",
        "scale",
        "spiral",
        "textbooks",
        "threads",
        "torch_door",
        "tuning/choice",
    ],
)
def test_a_bench_checks_and_times_all_its_contenders(name, tmp_path):
    for needed in ("rich", "threadpoolctl", "dropwise._native"):
        require(needed)
    if name in ("dask_door", "torch_door"):
        require(name.partition("_")[0])
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    threads = 2 if name in ("threads", "scale") else 1
    if cores < threads:
        pytest.skip("one core to use")
    if name == "scale":
        require("mpi4py")
    _run(f"{name}.py", "--quick", "--results", str(tmp_path))
    result = json.loads((tmp_path / f"{Path(name).name}-{threads}.tmp.json").read_text())
    assert result["machine"]["threads"] == threads
    assert result["cases"]
    for case in result["cases"]:
        assert len(case["times"]) >= 2
        for times in case["times"].values():
            assert 0 < times["minimum"] <= times["median"] <= times["high"] * (1 + 1e-9)
            assert times["paired"] > 0
        assert next(iter(case["times"].values()))["paired"] == 1
    if name == "fit":
        peers = {"native, estimator", "scikit-learn, no dropout"}
        found = peers.intersection(*(c["times"] for c in result["cases"] if _is_epoch(c)))
        assert found == (peers if find_spec("sklearn") else set())


def test_a_large_array_of_dask_takes_the_memory_of_a_few_chunks():
    for needed in ("rich", "dask", "dropwise._native", "resource"):
        require(needed)
    said = _run("dask_memory.py", "--gib", "2")
    assert said.startswith("2 GiB: at most ")
    assert int(said.split()[-2]) < 1000


def test_the_costs_of_all_strategies_are_fitted():
    for needed in ("rich", "tqdm", "scipy", "dropwise._native"):
        require(needed)
    lines = _run("tuning/costs.py", "--products", "60").splitlines()
    heads = [line for line in lines if not line.startswith(" ")]
    assert [head.partition(":")[0] for head in heads] == ["float32", "float64"]
    rows = [line.split(" = ") for line in lines if line.startswith(" ")]
    names = [name.strip() for name, _ in rows]
    assert names[: len(names) // 2] == names[len(names) // 2 :]  # for both dtypes
    for strategy in ("dense", "skip", "kept"):
        own = [float(cost) for name, cost in rows if name.strip().startswith(f"{strategy}.")]
        assert len(own) >= 20
        assert all(cost >= 0 for cost in own)
        assert sum(cost > 0 for cost in own) >= 6


def test_the_bench_of_the_texts_scripts_asks_for_a_checkout(tmp_path):
    require("rich")
    command = [sys.executable, str(BENCH / "textbook_scripts.py"), "--results", str(tmp_path)]
    run = subprocess.run(command, capture_output=True, text=True, timeout=600)
    assert run.returncode == 1
    assert "--nnfs-book, --dlfs, --cs231n" in run.stderr


def _raw_result(folder: Path, cpu: str, seconds: float) -> None:
    """A result of the spiral bench, as the bench writes it."""
    times = {
        name: {"median": t, "minimum": t, "low": t, "high": t}
        for name, t in [("native", 1.0), ("PyTorch", seconds)]
    }
    result = {
        "bench": "spiral",
        "clock": "wall time",
        "machine": {
            "cpu": cpu, "cores": 1, "system": "", "instruction_sets": ["scalar"], "threads": 1,
            "active_set": "scalar", "versions": {"numpy": "2"}, "compiler": "GNU", "commit": "abc",
            "blas": [], "load_average": 0.5,
        },
        "extra": {},
        "cases": [{"labels": {"what": "epoch", "rows": 3000}, "times": times}],
    }  # fmt: skip
    raw = folder / "raw"
    raw.mkdir(parents=True)
    (raw / "spiral-1.json").write_text(json.dumps(result))
    (raw / "spiral-1.tmp.json").write_text(json.dumps(result).replace(str(seconds), "99.9"))


def test_the_report_puts_what_raw_results_say_between_the_marks(tmp_path):
    for needed in ("rich", "matplotlib", "threadpoolctl"):
        require(needed)
    _raw_result(tmp_path / "results" / "one", "CPU one", 12.5)
    _raw_result(tmp_path / "results" / "two", "CPU two", 1.5)
    marks = "<!-- numbers: made by bench/report.py -->\nold\n<!-- end of numbers -->\n"
    for name in ("readme", "page"):
        (tmp_path / name).write_text(f"before\n{marks}after\n")
    where = [f"--{name}={tmp_path / name}" for name in ("readme", "page", "pictures")]
    _run("report.py", f"--results={tmp_path / 'results'}", "--summarize", *where)

    summary = json.loads((tmp_path / "results" / "one" / "summary.json").read_text())
    assert summary["cpu"] == "CPU one"
    assert summary["benches"]["spiral-1"]["commit"] == "abc"
    readme, page = ((tmp_path / name).read_text() for name in ("readme", "page"))
    for text in (readme, page):
        assert text.startswith("before\n")
        assert text.endswith("after\n")
        assert "old" not in text
        assert "99.9" not in text
    assert "|  | times as fast as | CPU one | CPU two | in `bench/` |" in readme
    assert "| PyTorch | 12 | 1.50 | `spiral.py` |" in readme
    assert "| PyTorch | 12 times as fast | 1.50 times as fast |" in page
    assert "CPU one: 1 cores, scalar; numpy 2;" in page
    assert {path.name for path in (tmp_path / "pictures").iterdir()} == {
        "bench-spiral-one.svg", "bench-spiral-two.svg"
    }  # fmt: skip


def test_the_readme_and_the_page_of_numbers_are_those_of_the_summaries(tmp_path):
    for needed in ("rich", "threadpoolctl"):
        require(needed)
    pages = {"readme": BENCH.parent / "README.md", "page": BENCH.parent / "docs/benchmarks.md"}
    for name, page in pages.items():
        (tmp_path / name).write_text(page.read_text())
    _run("report.py", *(f"--{name}={tmp_path / name}" for name in pages))
    for name, page in pages.items():
        assert (tmp_path / name).read_text() == page.read_text()


def test_the_readme_has_five_to_eight_rows_with_their_commands():
    text = (BENCH.parent / "README.md").read_text()
    rows = text.partition("<!-- numbers")[2].partition("<!-- end")[0].strip().splitlines()[3:]
    rows = [row for row in rows if row.startswith("| ")]
    assert 5 <= len(rows) <= 8
    for row in rows:
        script = row.split("`")[-2]
        assert (BENCH / script).is_file()
