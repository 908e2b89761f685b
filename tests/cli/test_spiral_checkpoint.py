"""A spiral run that is stopped, and goes on from its checkpoint."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest

import dropwise as dw
from command_line import rows_of, spiral
from dropwise.cli import spiral_command
from dropwise.cli.spiral import Spiral

WIRINGS = pytest.mark.parametrize("wiring", ["correct", "as-printed"])


def start(*options):
    return subprocess.Popen(
        [sys.executable, "-m", "dropwise", "spiral", "--hidden", "16", *map(str, options)],
        env=os.environ | {"PYTHONPATH": str(Path(dw.__file__).parents[1])},
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )


@WIRINGS
@pytest.mark.parametrize(("every", "dtype"), [(1, "float32"), (7, "float64")])
def test_killed_and_resumed_ends_bit_for_bit_as_uninterrupted(tmp_path, wiring, every, dtype):
    checkpoint = tmp_path / "checkpoint"
    epochs = 10**9  # it cannot come to its end before it is killed
    options = ("--wiring", wiring, "--every", every, "--dtype", dtype, "--seed", 3)
    with start("--epochs", epochs, "--checkpoint", checkpoint, *options) as run:
        while not checkpoint.exists():
            assert run.poll() is None
            time.sleep(0.01)
        time.sleep(0.05)
        run.kill()
    assert run.returncode == -signal.SIGKILL
    done = dw.Sequential.load(checkpoint).epochs_done
    total = done + 25
    assert done % every == 0

    # On in two parts, as each begins where the one before ended.
    whole = tmp_path / "whole"
    for until, path in ((done + 10, checkpoint), (total, checkpoint), (total, whole)):
        assert spiral("--epochs", until, "--checkpoint", path, "--resume", *options) == 0
    nets = [dw.load_checkpoint(path) for path in (checkpoint, whole)]
    (a, adam_a), (b, adam_b) = nets
    assert a.epochs_done == b.epochs_done == total
    for x, y in ((a.state_dict(), b.state_dict()), (adam_a.state_dict(), adam_b.state_dict())):
        assert x.keys() == y.keys()
        for key in x:
            np.testing.assert_array_equal(x[key], y[key], strict=True)
    training = [
        [(e.epoch, e.loss, e.data_loss, e.accuracy, e.learning_rate) for e in net.history]
        for net in (a, b)
    ]
    assert training[0] == training[1]
    assert len(training[0]) == total


@WIRINGS
def test_stopped_and_resumed_writes_the_files_of_the_uninterrupted_run(
    monkeypatch, tmp_path, capsys, wiring
):
    class Stop:
        """A progress bar that acts as a kill after some epochs."""

        def __init__(self, *_):
            self.left = 130

        def __enter__(self):
            return self

        def __exit__(self, *_):
            pass

        def set_postfix_str(self, *_, **__):
            pass

        def update(self):
            self.left -= 1
            if self.left == 0:
                raise SystemExit

    whole, parts = tmp_path / "whole", tmp_path / "parts"
    for folder in (whole, parts):
        folder.mkdir()

    def run(folder, *more):
        files = {"--csv": "a.csv", "--save": "a.npz", "--checkpoint": "checkpoint"}
        paths = [part for option, name in files.items() for part in (option, folder / name)]
        return spiral("--epochs", 250, "--every", 20, "--wiring", wiring, *paths, *more)

    assert run(whole) == 0
    table = capsys.readouterr().out.splitlines()[1:]
    with monkeypatch.context() as patch:
        patch.setattr(spiral_command, "progress_bar", Stop)
        with pytest.raises(SystemExit):
            run(parts)
    assert [p.name for p in parts.iterdir()] == ["checkpoint"]
    assert dw.Sequential.load(parts / "checkpoint").epochs_done == 120
    assert run(parts, "--resume") == 0
    captured = capsys.readouterr()
    assert captured.out.splitlines()[1:] == table
    assert "250 epochs, 130 of them in" in captured.out
    assert captured.err == f"going on from {parts / 'checkpoint'}, after epoch 120\n"
    for name in ("a.csv", "a.npz", "checkpoint"):
        assert (whole / name).read_bytes() == (parts / name).read_bytes()
    assert len(rows_of(whole / "a.csv")) == 175
    # Nothing is left to do: the report is there all the same.
    assert run(parts, "--resume") == 0
    assert capsys.readouterr().out.splitlines()[1:] == table
    assert (whole / "a.csv").read_bytes() == (parts / "a.csv").read_bytes()


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (("--rate", 0.2), "--rate was 0.1, not 0.2"),
        (("--wiring", "as-printed"), "--wiring was correct, not as-printed"),
        (("--seed", 2**64 - 1), f"--seed was 0, not {2**64 - 1}"),
        (("--hidden", 17), "--hidden was 16, not 17"),
        (("--dtype", "float64"), "--dtype was float32, not float64"),
        (("--rate", 0.2, "--seed", 1), "--rate was 0.1, not 0.2; --seed was 0, not 1"),
        (("--epochs", 3), "has 4 epochs, more than --epochs 3"),
    ],
)
def test_a_run_of_other_options_is_not_gone_on_with(tmp_path, capsys, options, message):
    path = tmp_path / "checkpoint"
    assert spiral("--epochs", 4, "--checkpoint", path) == 0
    before = path.read_bytes()
    assert spiral("--epochs", 8, "--checkpoint", path, "--resume", *options) == 2
    err = capsys.readouterr().err
    assert err.startswith("dropwise: cannot resume: ")
    assert message in err
    assert path.read_bytes() == before


def test_a_file_that_is_no_spiral_run_is_refused(tmp_path, capsys):
    path = tmp_path / "checkpoint"
    resume = ("--epochs", 8, "--checkpoint", path, "--resume")
    path.write_text("text")
    assert spiral(*resume) == 2
    assert "checkpoint' is not a dropwise file" in capsys.readouterr().err
    dw.Sequential([dw.Dense(2, 3)]).save(path, dw.Adam())
    assert spiral(*resume) == 2
    assert "holds no spiral job that can go on" in capsys.readouterr().err
    job = Spiral(rate=0.1, wiring="correct", seed=0, hidden=16, dtype="float32")
    job.save(path)  # without the optimizer
    assert spiral(*resume) == 2
    assert "holds no spiral job that can go on" in capsys.readouterr().err
    other = dw.Sequential([dw.Dense(2, 3)])
    other.notes = job.net.notes
    other.save(path, job.optimizer)
    assert spiral(*resume) == 2
    assert "holds another network" in capsys.readouterr().err


def test_without_a_file_it_starts_anew_and_says_so(tmp_path, capsys):
    path = tmp_path / "checkpoint"
    assert spiral("--epochs", 4, "--checkpoint", path, "--resume") == 0
    assert capsys.readouterr().err == f"{path} is not there; this run starts anew\n"
    assert dw.Sequential.load(path).epochs_done == 4


def test_without_resume_the_file_is_replaced_and_that_is_said(tmp_path, capsys):
    path = tmp_path / "checkpoint"
    for epochs in (4, 2):
        assert spiral("--epochs", epochs, "--checkpoint", path) == 0
    assert "without --resume this run starts anew and replaces it" in capsys.readouterr().err
    assert dw.Sequential.load(path).epochs_done == 2


def test_options_that_contradict_each_other_are_refused(tmp_path, capsys):
    assert spiral("--epochs", 4, "--resume") == 2
    assert "--resume needs --checkpoint FILE" in capsys.readouterr().err
    path = tmp_path / "a"
    assert spiral("--epochs", 4, "--checkpoint", path, "--save", path) == 2
    assert "needs a file of its own" in capsys.readouterr().err
    assert spiral("--epochs", 4, "--checkpoint", tmp_path / "absent" / "a") == 2
    assert "cannot write" in capsys.readouterr().err


@WIRINGS
def test_ctrl_c_leaves_the_checkpoint_of_a_whole_epoch(monkeypatch, tmp_path, capsys, wiring):
    path = tmp_path / "checkpoint"
    calls = []

    class Stop(dw.SoftmaxCrossEntropy):
        def backward(self):
            calls.append(1)
            if len(calls) == 8:
                raise KeyboardInterrupt
            return super().backward()

    options = ("--epochs", 12, "--wiring", wiring, "--every", 3, "--checkpoint", path)
    with monkeypatch.context() as patch:
        patch.setattr(dw, "SoftmaxCrossEntropy", Stop)
        assert spiral(*options) == 0
    captured = capsys.readouterr()
    assert "Stopped by Ctrl-C. 7 epochs in" in captured.out
    assert "goes on from its last checkpoint with --resume" in captured.err
    assert dw.Sequential.load(path).epochs_done == 6
    assert spiral(*options, "--resume") == 0
    whole = tmp_path / "whole"
    assert spiral(*options[:-1], whole) == 0
    assert whole.read_bytes() == path.read_bytes()


def test_two_outputs_in_one_file_are_refused(tmp_path, capsys):
    path = tmp_path / "a.png"
    for outputs in (("--csv", "--save"), ("--plot", "--csv"), ("--save", "--plot")):
        assert spiral("--epochs", 4, outputs[0], path, outputs[1], path) == 2
        assert "need a file each" in capsys.readouterr().err
        assert not path.exists()


def test_another_spelling_of_a_file_is_the_same_file(tmp_path, capsys):
    (tmp_path / "q").mkdir()
    path, other = tmp_path / "a", f"{tmp_path}/q/../a"
    assert spiral("--epochs", 4, "--checkpoint", path, "--save", other) == 2
    assert "needs a file of its own" in capsys.readouterr().err
    assert spiral("--epochs", 4, "--csv", path, "--save", other) == 2
    assert "need a file each" in capsys.readouterr().err


def test_a_checkpoint_that_cannot_be_written_ends_the_run_in_one_line(
    monkeypatch, tmp_path, capsys
):
    def full(self, path):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(Spiral, "save_checkpoint", full)
    assert spiral("--epochs", 4, "--checkpoint", tmp_path / "a") == 2
    assert "a: No space left on device" in capsys.readouterr().err
