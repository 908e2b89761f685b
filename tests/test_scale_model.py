"""The model of many ranks counts what the code sends, and says that it is a model."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import numpy as np
import pytest

import dropwise as dw
from ranks_in_threads import results_of
from support import require

sys.path.append(str(Path(__file__).parents[1] / "bench"))
import scale_model

RNG = np.random.default_rng(0)
X = RNG.standard_normal((3000, 5)).astype(np.float32)
Y = RNG.integers(0, 4, 3000)


@pytest.mark.parametrize("mode", ["exact", "allreduce"])
@pytest.mark.parametrize("rows", [100, 1024, 3000])
@pytest.mark.parametrize("ranks", [2, 3, 4, 8, 13])
def test_the_bytes_and_calls_of_a_step_are_those_that_are_made(mode, rows, ranks):
    network = scale_model.Network((5, 30, 4), 0.5)

    def run(comm):
        layers = [dw.Dense(5, 30), dw.ReLU(), dw.Dropout(0.5), dw.Dense(30, 4)]
        dw.Sequential(layers, seed=1).fit(
            X[:rows], Y[:rows], loss=dw.SoftmaxCrossEntropy(), optimizer=dw.Adam(), comm=comm,
            batch_size=None, exact=mode == "exact", progress=False,
        )  # fmt: skip
        return comm.calls

    for rank, calls in enumerate(results_of(ranks, run)):
        sent = 0
        for name, size in calls:
            # An Allreduce is counted as that of a ring.
            sent += 2 * (ranks - 1) * size // ranks if name == "Allreduce" else size
        assert sent == scale_model.bytes_sent(network.parameters, ranks, rows, mode, rank)
        assert len(calls) == scale_model.calls(ranks, rows, mode)


def _summary():
    took = {"rows": 1024, "steps": 8, "seconds": 0.4, "optimizer": 0.08, "communicating": 0.1}
    names = ["1 rank, exact", "2 ranks, exact", "2 ranks, allreduce"]
    extra = {f"strong, spiral: {name}": took | {"bytes": 12345} for name in names}
    return {"cpu": "CPU one", "benches": {"scale-2": {"extra": extra}}}


def test_computing_is_what_was_measured_of_one_rank():
    computes = scale_model.computes_of(_summary())
    assert list(computes) == ["spiral"]
    assert computes["spiral"].update == pytest.approx(0.01)
    assert computes["spiral"].block == pytest.approx(0.01)  # (0.05 - 0.01) / 4 blocks


def test_more_ranks_compute_less_and_send_more():
    computes = scale_model.computes_of(_summary())
    rows = list(scale_model.rows_of_table(computes))
    for row in rows:
        assert row.efficiency <= 1 + 1e-9
        if row.ranks == 1:
            assert row.efficiency == pytest.approx(1)
            assert row.step.communicating == 0
    strong = [r for r in rows if (r.scaling, r.mode, r.link) == ("strong", "exact", rows[0].link)]
    assert [r.ranks for r in strong] == list(scale_model.RANKS)
    shares = [r.step.communicating / r.step.total for r in strong]
    assert shares == sorted(shares)


def test_the_page_gets_table_and_picture(tmp_path, monkeypatch):
    require("matplotlib")
    page, picture, summary = (tmp_path / name for name in ("page", "model.svg", "summary.json"))
    page.write_text(f"before\n{scale_model.BEGIN}\nold\n{scale_model.END}\nafter\n")
    summary.write_text(json.dumps(_summary()))
    command = ["scale_model.py", f"--summary={summary}", f"--page={page}", f"--picture={picture}"]
    monkeypatch.setattr(sys, "argv", command)
    scale_model.main()
    text = page.read_text()
    assert text.startswith("before\n")
    assert text.endswith("after\n")
    assert "old" not in text
    assert "| spiral | strong, exact | 50.00 ms |" in text
    assert "12,345" in text
    assert "a model, not a measurement" in picture.read_text()
