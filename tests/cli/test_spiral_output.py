"""What the spiral command prints and writes, and when it refuses to start."""

from __future__ import annotations

import os
import subprocess
import sys

import numpy as np
import pytest

import dropwise as dw
from command_line import COLUMNS, figures, rows_of, spiral
from dropwise.cli import main, spiral_command
from dropwise.cli.spiral import Spiral
from support import require


def test_the_table_stands_beside_both_published_logs(capsys):
    assert spiral("--epochs", 5) == 0
    out = capsys.readouterr().out
    assert "0.914  0.277 (0.222 + 0.055)    0.897     0.299" in out
    assert "0.859  0.468 (0.417 + 0.051)    0.857     0.397" in out
    assert "this run, correct" in out


def test_csv_has_some_hundred_rows_and_the_last_hundred_epochs(csv_file):
    assert spiral("--epochs", 250, "--hidden", 2, "--csv", csv_file) == 0
    rows = rows_of(csv_file)
    assert list(rows[0]) == COLUMNS
    assert [int(row["epoch"]) for row in rows] == [*range(1, 151, 2), *range(151, 251)]
    for row in figures(csv_file):
        assert row[2] == pytest.approx(row[3] + row[4])
        assert 0 <= row[1] <= 1
        assert 0 <= row[5] <= 1
    assert figures(csv_file)[-1][-1] == pytest.approx(0.05 / (1 + 5e-5 * 249))


def test_the_table_has_the_mean_of_the_last_hundred_epochs(capsys, csv_file):
    assert spiral("--epochs", 120, "--hidden", 4, "--csv", csv_file) == 0
    last = figures(csv_file)[-100:]
    assert [row[0] for row in last] == list(range(21, 121))
    _, train_acc, loss, data_loss, reg_loss, val_acc, val_loss, _ = np.mean(last, axis=0)
    (line,) = (row for row in capsys.readouterr().out.splitlines() if "mean, last 100" in row)
    want = f"{train_acc:.3f}  {loss:.3f} ({data_loss:.3f} + {reg_loss:.3f})"
    assert line.split(maxsplit=4)[4].split() == [*want.split(), f"{val_acc:.3f}", f"{val_loss:.3f}"]
    assert spiral("--epochs", 3) == 0
    assert "mean, last 3 epochs" in capsys.readouterr().out


def test_the_saved_network_gives_the_accuracy_of_the_table(tmp_path, csv_file):
    for wiring in ("correct", "as-printed"):
        path = tmp_path / f"{wiring}.npz"
        options = ("--epochs", 20, "--wiring", wiring, "--seed", 5)
        assert spiral(*options, "--save", path, "--csv", csv_file) == 0
        net = dw.Sequential.load(path)
        job = Spiral(rate=0.1, wiring=wiring, seed=5, hidden=16, dtype="float32")
        x, y = job.test
        assert np.mean(net.predict(x).argmax(axis=1) == y) == figures(csv_file)[-1][5]


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
    """A progress bar that acts as Ctrl-C after some epochs."""

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


def test_checking_makes_no_file_even_for_a_moment(monkeypatch, tmp_path):
    monkeypatch.setattr(type(tmp_path), "open", None)
    spiral_command.check_outputs(None, (tmp_path / "new.csv", tmp_path / "new.npz"))
    assert not list(tmp_path.iterdir())


def test_checking_a_file_leaves_it_alone(tmp_path):
    there = tmp_path / "there.csv"
    there.write_text("old")
    spiral_command.check_outputs(None, (there, tmp_path / "new.csv", None))
    assert there.read_text() == "old"
    assert [p.name for p in tmp_path.iterdir()] == ["there.csv"]


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


def test_a_file_that_fails_after_training_leaves_the_others(monkeypatch, tmp_path, capsys):
    def full(path, history):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(spiral_command, "write_csv", full)
    network, figures = tmp_path / "network", tmp_path / "figures"
    assert spiral("--epochs", 4, "--csv", figures, "--save", network) == 2
    printed = capsys.readouterr()
    assert f"dropwise: cannot write {figures}: No space left on device" in printed.err
    assert "4 epochs" in printed.out
    assert dw.Sequential.load(network).epochs_done == 4


@pytest.mark.skipif(sys.platform == "win32", reason="a pipe ends with another error there")
def test_whoever_reads_the_report_may_go(tmp_path):
    network = tmp_path / "network"
    command = [sys.executable, "-m", "dropwise", "spiral", "--epochs", "2", "--save", str(network)]
    reading, writing = os.pipe()
    os.close(reading)
    try:
        done = subprocess.run(
            command, stdout=writing, stderr=subprocess.PIPE, text=True, timeout=120
        )
    finally:
        os.close(writing)
    assert done.returncode == 1
    assert "Traceback" not in done.stderr
    assert "BrokenPipe" not in done.stderr
    assert network.exists()


@pytest.mark.skipif(not os.path.exists("/dev/full"), reason="needs a device that is full")
def test_an_output_that_is_full_or_absent_is_no_traceback():
    info = f"{sys.executable} -m dropwise info"
    for redirected, status in ((">/dev/full", 1), (">&-", 0)):
        done = subprocess.run(
            ["sh", "-c", f"{info} {redirected}"], capture_output=True, text=True, timeout=120
        )
        assert done.returncode == status
        assert "Traceback" not in done.stderr
