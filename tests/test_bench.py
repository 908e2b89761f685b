"""The benches run, check their contenders, and give a table and pictures; no time is judged."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from support import require

BENCH = Path(__file__).parents[1] / "bench"


def _run(script: str, *arguments: str) -> str:
    command = [sys.executable, str(BENCH / script), *arguments]
    run = subprocess.run(command, capture_output=True, text=True, timeout=600)
    assert run.returncode == 0, run.stdout + run.stderr
    return run.stdout


@pytest.mark.parametrize(
    "name",
    ["elementwise", "fit", "products", "spiral", "textbooks", "threads", "tuning/choice"],
)
def test_a_bench_checks_and_times_all_its_contenders(name, tmp_path):
    for needed in ("rich", "threadpoolctl", "dropwise._native"):
        require(needed)
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    if name == "threads" and cores < 2:
        pytest.skip("one core to use")
    _run(f"{name}.py", "--quick", "--results", str(tmp_path))
    threads = 2 if name == "threads" else 1
    result = json.loads((tmp_path / f"{Path(name).name}-{threads}.tmp.json").read_text())
    assert result["machine"]["threads"] == threads
    assert result["cases"]
    for case in result["cases"]:
        assert len(case["times"]) >= 2
        for times in case["times"].values():
            assert 0 < times["minimum"] <= times["median"] <= times["high"] * (1 + 1e-9)
            assert times["paired"] > 0
        assert next(iter(case["times"].values()))["paired"] == 1


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


def test_the_report_puts_ratios_of_the_results_between_the_marks(tmp_path):
    for needed in ("rich", "matplotlib", "threadpoolctl"):
        require(needed)
    times = {name: {"median": m, "minimum": m} for name, m in [("native", 1.0), ("PyTorch", 12.5)]}
    machine = {
        "cpu": "a CPU", "cores": 1, "threads": 1, "active_set": "scalar", "versions": {}, "blas": []
    }  # fmt: skip
    result = {
        "clock": "wall time",
        "machine": machine,
        "cases": [{"labels": {"what": "epoch", "rows": 3000}, "times": times}],
    }
    (tmp_path / "spiral-1.json").write_text(json.dumps(result))
    (tmp_path / "spiral-1.tmp.json").write_text(json.dumps(result).replace("12.5", "99.9"))
    readme = tmp_path / "README.md"
    readme.write_text(
        "before\n<!-- numbers: made by bench/report.py -->\nold\n<!-- end of numbers -->\nafter\n"
    )
    where = ["--results", str(tmp_path), "--readme", str(readme), "--pictures", str(tmp_path)]
    _run("report.py", *where)
    text = readme.read_text()
    assert "| one epoch of the spiral run | PyTorch | >= 10 | >= 20 | 12.50: floor |" in text
    assert text.startswith("before\n")
    assert text.endswith("after\n")
    assert "old" not in text
    assert (tmp_path / "bench-spiral.png").stat().st_size > 0

    for name, seconds in [("one", 12.5), ("two", 30.0)]:
        (tmp_path / "all" / name).mkdir(parents=True)
        machine["cpu"] = f"CPU {name}"
        times["PyTorch"]["median"] = seconds
        (tmp_path / "all" / name / "spiral-1.json").write_text(json.dumps(result))
    _run("report.py", "--results", str(tmp_path / "all"), "--readme", str(readme))
    text = readme.read_text()
    assert "| what | against | floor | aim | CPU one | CPU two |" in text
    assert "| PyTorch | >= 10 | >= 20 | 12.50: floor | 30.00: aim |" in text
