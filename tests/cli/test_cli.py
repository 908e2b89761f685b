"""The command line: in this process for speed, in one of its own where that is the point."""

from __future__ import annotations

import csv
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

import dropwise as dw
from dropwise.cli import main, spiral_command
from dropwise.cli.parser import make_parser
from dropwise.cli.spiral import AsPrinted, Spiral
from support import require

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


@pytest.fixture
def csv_file(tmp_path):
    return tmp_path / "run.csv"


def test_the_module_runs_as_a_command(tmp_path):
    result = subprocess.run(
        [sys.executable, "-m", "dropwise", "spiral", "--epochs", "3", "--hidden", "8"],
        capture_output=True,
        text=True,
        cwd=tmp_path,
        env=os.environ | {"PYTHONPATH": str(Path(dw.__file__).parents[1])},
    )
    assert result.returncode == 0, result.stderr
    assert "3 epochs in" in result.stdout
    assert not list(tmp_path.iterdir())  # nothing is written unless asked for


def test_version_is_the_packages(capsys):
    with pytest.raises(SystemExit) as stop:
        main(["--version"])
    assert stop.value.code == 0
    assert capsys.readouterr().out == f"dropwise {dw.__version__}\n"


def test_info_shows_the_configuration(capsys):
    assert main(["info"]) == 0
    out = capsys.readouterr().out
    assert dw.__version__ in out
    for name in dw.available_backends():
        assert name in out


def test_the_table_stands_beside_both_published_logs(capsys):
    assert spiral("--epochs", 5) == 0
    out = capsys.readouterr().out
    assert "0.914  0.277 (0.222 + 0.055)    0.897     0.299" in out
    assert "0.859  0.468 (0.417 + 0.051)    0.857     0.397" in out
    assert "this run, correct" in out


def test_defaults_are_those_of_the_published_run():
    args = make_parser().parse_args(["spiral"])
    assert (args.epochs, args.rate, args.wiring, args.hidden) == (10001, 0.1, "correct", 512)
    assert (args.dtype, args.backend, args.quiet) == ("float32", None, False)


def test_the_job_is_the_published_one():
    job = Spiral(rate=0.1, wiring="correct", seed=3, hidden=512, dtype="float32")
    for x, y in (job.train, job.test):
        assert x.shape == (3000, 2)
        assert x.dtype == np.float32
        assert y.shape == (3000,)
    both = np.concatenate([job.train[1], job.test[1]])
    assert np.bincount(both).tolist() == [2000, 2000, 2000]
    assert not np.array_equal(job.train[1], np.sort(job.train[1]))  # shuffled
    hidden, _, dropout, output = job.net.layers
    assert hidden.weight.shape == (2, 512)
    assert output.weight.shape == (512, 3)
    assert dropout.config()["rate"] == 0.1
    assert (hidden.l2, hidden.bias_l2, output.l2, output.bias_l2) == (5e-4, 5e-4, 0, 0)
    # 1536 normal weights of deviation 0.01: 5 sigma, 6e-7
    assert abs(output.weight.std() / 0.01 - 1) < 5 / np.sqrt(2 * 1536)
    assert not hidden.bias.any()


@pytest.mark.parametrize("wiring", ["correct", "as-printed"])
def test_training_learns(backend, csv_file, wiring):
    assert spiral("--epochs", 60, "--hidden", 64, "--wiring", wiring, "--csv", csv_file) == 0
    first, last = figures(csv_file)[0], figures(csv_file)[-1]
    assert last[2] < 0.9 * first[2]
    assert last[5] > 0.42  # chance is 0.333; 10 sigma


def test_the_same_seed_gives_the_same_numbers(backend, tmp_path):
    a, b, c = (tmp_path / name for name in "abc")
    for path, seed in ((a, 7), (b, 7), (c, 8)):
        assert spiral("--epochs", 12, "--seed", seed, "--csv", path) == 0
    assert a.read_text() == b.read_text()
    assert a.read_text() != c.read_text()


def test_backends_agree_over_the_first_epochs(tmp_path):
    runs = []
    for name in ("native", "numba"):
        require({"native": "dropwise._native", "numba": "numba"}[name])
        assert spiral("--epochs", 30, "--backend", name, "--csv", tmp_path / name) == 0
        runs.append(figures(tmp_path / name))
    np.testing.assert_allclose(runs[0], runs[1], rtol=2e-3, atol=2e-3)


def test_the_choice_of_a_backend_ends_with_the_run():
    before = dw._backends.active()
    for name in dw.available_backends():
        assert spiral("--epochs", 1, "--backend", name) == 0
        assert dw._backends.active() is before


def test_as_printed_dropout_acts_in_the_backward_pass_only(backend):
    x = np.random.default_rng(0).standard_normal((40, 2), dtype=np.float32)
    dy = np.random.default_rng(1).standard_normal((40, 3), dtype=np.float32)

    def layers(rate):
        return [
            dw.Dense(2, 8, seed=1),
            dw.ReLU(),
            dw.Dropout(rate, seed=2),
            dw.Dense(8, 3, seed=3),
        ]

    printed, plain = AsPrinted(layers(0.5)), dw.Sequential(layers(0.0))
    np.testing.assert_allclose(printed.forward(x), plain.forward(x), rtol=1e-5, atol=1e-6)
    printed.backward(dy)
    hidden, activation, dropout, output = printed.layers
    kept = 2.0 * dropout.mask * (activation.forward(hidden.forward(x)) > 0)
    np.testing.assert_allclose(
        hidden.grad_weight, x.T @ (kept * (dy @ output.weight.T)), rtol=1e-4, atol=1e-5
    )
    plain.backward(dy)
    np.testing.assert_allclose(
        output.grad_weight, plain.layers[3].grad_weight, rtol=1e-4, atol=1e-5
    )


def test_rate_zero_makes_the_wirings_one(tmp_path):
    for wiring in ("correct", "as-printed"):
        path = tmp_path / wiring
        assert spiral("--epochs", 15, "--rate", 0, "--wiring", wiring, "--csv", path) == 0
    np.testing.assert_allclose(
        figures(tmp_path / "correct"), figures(tmp_path / "as-printed"), rtol=1e-3, atol=1e-3
    )


def test_csv_has_some_hundred_rows_with_the_last_epoch(csv_file):
    assert spiral("--epochs", 250, "--hidden", 2, "--csv", csv_file) == 0
    rows = rows_of(csv_file)
    assert list(rows[0]) == COLUMNS
    assert [int(row["epoch"]) for row in rows] == [*range(1, 250, 2), 250]
    for row in figures(csv_file):
        assert row[2] == pytest.approx(row[3] + row[4])
        assert 0 <= row[1] <= 1
        assert 0 <= row[5] <= 1
    assert figures(csv_file)[-1][-1] == pytest.approx(0.05 / (1 + 5e-5 * 249))


def test_the_saved_network_gives_the_accuracy_of_the_table(tmp_path, csv_file):
    for wiring in ("correct", "as-printed"):
        path = tmp_path / f"{wiring}.npz"
        options = ("--epochs", 20, "--wiring", wiring, "--seed", 5)
        assert spiral(*options, "--save", path, "--csv", csv_file) == 0
        net = dw.Sequential.load(path)
        job = Spiral(rate=0.1, wiring=wiring, seed=5, hidden=16, dtype="float32")
        x, y = job.test
        assert np.mean(net.predict(x).argmax(axis=1) == y) == figures(csv_file)[-1][5]


def test_float64_is_used_throughout():
    job = Spiral(rate=0.1, wiring="correct", seed=0, hidden=4, dtype="float64")
    assert job.train[0].dtype == job.net.predict(job.test[0]).dtype == np.float64
    assert spiral("--epochs", 2, "--dtype", "float64") == 0


def test_the_picture_shows_regions_points_and_curves(tmp_path):
    image = require("matplotlib.image")
    path = tmp_path / "run.png"
    assert spiral("--epochs", 40, "--plot", path) == 0
    pixels = image.imread(path)[..., :3]
    assert pixels.shape[0] > 400
    assert pixels.shape[1] > 800
    left, right = np.array_split(pixels, 2, axis=1)
    colors = [(0x44, 0x77, 0xAA), (0xEE, 0x66, 0x77), (0x22, 0x88, 0x33)]
    for color in colors:  # points of all three classes
        assert (np.abs(left - np.array(color) / 255).max(axis=-1) < 0.02).sum() > 100
    assert (left < 0.99).all(axis=-1).mean() < 0.9  # and paler regions
    assert len(np.unique(right.reshape(-1, 3), axis=0)) > 20


def test_an_svg_is_written_where_its_name_says_so(tmp_path):
    require("matplotlib")
    path = tmp_path / "run.svg"
    assert spiral("--epochs", 2, "--plot", path) == 0
    assert "<svg" in path.read_text()


class Interrupter:
    """A progress bar at which someone presses Ctrl-C after some epochs."""

    def __init__(self, epochs):
        self.left = epochs

    def __enter__(self):
        return self

    def __exit__(self, *_):
        pass

    def set_postfix_str(self, *_, **__):
        pass

    def update(self):
        self.left -= 1
        if self.left == 0:
            raise KeyboardInterrupt


@pytest.mark.parametrize("wiring", ["correct", "as-printed"])
def test_ctrl_c_still_writes_everything(monkeypatch, tmp_path, capsys, csv_file, wiring):
    require("matplotlib")
    monkeypatch.setattr(spiral_command, "progress_bar", lambda *_: Interrupter(7))
    picture, saved = tmp_path / "run.png", tmp_path / "run.npz"
    files = ("--csv", csv_file, "--plot", picture, "--save", saved)
    assert spiral("--epochs", 1000, "--wiring", wiring, *files) == 0
    out = capsys.readouterr().out
    assert "Stopped by Ctrl-C. 7 epochs in" in out
    assert "published log 1" in out
    assert [int(row["epoch"]) for row in rows_of(csv_file)] == [1, 7]
    assert picture.stat().st_size > 10_000
    dw.Sequential.load(saved)


def test_ctrl_c_before_the_first_epoch_says_so(monkeypatch, capsys):
    def stop(*_, **__):
        raise KeyboardInterrupt

    monkeypatch.setattr(dw.Sequential, "forward", stop)
    assert spiral("--epochs", 5) == 2
    assert "before the first epoch" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--rate", "1.5"], "must be in [0, 1], got '1.5'"),
        (["--rate", "nan"], "must be in [0, 1], got 'nan'"),
        (["--epochs", "0"], "must be a positive whole number, got '0'"),
        (["--hidden", "x"], "must be a positive whole number, got 'x'"),
        (["--seed", "-1"], "must be a whole number from 0, got '-1'"),
        (["--wiring", "wrong"], "invalid choice: 'wrong'"),
        (["--dtype", "int8"], "invalid choice: 'int8'"),
        (["--backend", "cuda"], "invalid choice: 'cuda'"),
    ],
)
def test_bad_values_are_named(capsys, options, message):
    with pytest.raises(SystemExit) as stop:
        spiral(*options)
    assert stop.value.code == 2
    assert message in capsys.readouterr().err


def test_no_command_is_an_error(capsys):
    with pytest.raises(SystemExit):
        main([])
    assert "COMMAND" in capsys.readouterr().err


@pytest.mark.parametrize("option", ["--plot", "--csv", "--save"])
def test_a_file_that_cannot_be_written_stops_before_training(monkeypatch, tmp_path, capsys, option):
    if option == "--plot":
        require("matplotlib")
    monkeypatch.setattr(spiral_command, "Spiral", None)  # training would fail
    path = tmp_path / "absent" / "out.png"
    assert spiral(option, path) == 2
    assert f"cannot write {path}" in capsys.readouterr().err
    folder = tmp_path / "folder.png"
    folder.mkdir()
    assert spiral(option, folder) == 2
    assert f"cannot write {folder}" in capsys.readouterr().err


def test_a_picture_of_unknown_kind_stops_before_training(monkeypatch, tmp_path, capsys):
    require("matplotlib")
    monkeypatch.setattr(spiral_command, "Spiral", None)
    assert spiral("--plot", tmp_path / "run.xyz") == 2
    assert ".png" in capsys.readouterr().err


def test_checking_a_file_leaves_it_alone(tmp_path):
    there = tmp_path / "there.csv"
    there.write_text("old")
    spiral_command.check_outputs(None, (there, tmp_path / "new.csv", None))
    assert there.read_text() == "old"
    assert [p.name for p in tmp_path.iterdir()] == ["there.csv"]


def test_an_absent_backend_is_named(monkeypatch, capsys):
    def use_backend(name):
        raise ImportError(f"backend {name!r} is not available")

    monkeypatch.setattr(dw, "use_backend", use_backend)
    assert spiral("--epochs", 1, "--backend", "native") == 2
    assert "backend 'native' is not available" in capsys.readouterr().err


def without(monkeypatch, name):
    """Make importing `name` fail."""
    for module in [m for m in sys.modules if m == name or m.startswith(f"{name}.")]:
        monkeypatch.delitem(sys.modules, module)
    monkeypatch.setitem(sys.modules, name, None)


def test_a_picture_without_matplotlib_says_what_to_install(monkeypatch, tmp_path, capsys):
    without(monkeypatch, "matplotlib")
    monkeypatch.setattr(spiral_command, "Spiral", None)
    assert spiral("--plot", tmp_path / "run.png") == 2
    assert "dropwise[cli]" in capsys.readouterr().err


def test_progress_without_tqdm_is_plain_lines(monkeypatch, capsys):
    without(monkeypatch, "tqdm")
    assert main(["spiral", "--hidden", "4", "--epochs", "20"]) == 0
    err = capsys.readouterr().err
    assert "dropwise[cli]" in err
    lines = [line for line in err.splitlines() if line.startswith("epoch ")]
    assert len(lines) == 10
    assert all("val acc" in line and "s left" in line for line in lines)


def test_the_bar_shows_loss_and_accuracies(capsys):
    require("tqdm")
    assert main(["spiral", "--hidden", "4", "--epochs", "20"]) == 0
    err = capsys.readouterr().err
    assert "20/20" in err
    assert "loss" in err
    assert "val acc" in err


def test_quiet_shows_the_table_only(capsys):
    assert spiral("--epochs", 20) == 0
    captured = capsys.readouterr()
    assert captured.err == ""
    assert "published log 1" in captured.out
