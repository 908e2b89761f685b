"""Jobs under mpirun: the same bits from any number of ranks, and a quick end if one fails."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import time
from pathlib import Path

import pytest

import dropwise as dw
from support import missing, require

require("mpi4py")
JOB = str(Path(__file__).with_name("job.py"))


def mpirun(size, *command, timeout=120, **env):
    # The one beside this Python, as the extra `mpi` brings it, goes before others.
    places = os.pathsep.join([str(Path(sys.executable).parent), os.environ.get("PATH", "")])
    program = shutil.which("mpirun", path=places)
    if program is None:
        missing("mpirun is not installed")
    env = os.environ | {
        "PYTHONPATH": str(Path(dw.__file__).parents[1]),
        "DROPWISE_NUM_THREADS": "1",
        **env,
    }
    return subprocess.run(
        [program, "-n", str(size), sys.executable, *map(str, command)],
        capture_output=True,
        text=True,
        timeout=timeout,
        env=env,
    )


def ranks_of(size):
    run = mpirun(size, JOB, "train")
    assert run.returncode == 0, run.stdout + run.stderr
    ranks = json.loads(run.stdout)
    assert [rank["rank"] for rank in ranks] == list(range(size))
    assert all(rank["hooks"] for rank in ranks)
    return ranks


@pytest.fixture(scope="module")
def one_rank():
    (rank,) = ranks_of(1)
    return rank


@pytest.mark.parametrize("size", [2, 3, 4])
def test_ranks_end_in_the_bits_of_one(size, one_rank):
    ranks = ranks_of(size)
    for rank in ranks:
        assert rank["exact"] == one_rank["exact"]
        assert rank["others"] == ranks[0]["others"]
        assert f"rank 1 of {size} differs in optimizer.learning_rate: 0.02 there" in rank["said"]


@pytest.mark.parametrize(("task", "said"), [("raise", "OSError: the disk is gone"), ("kill", "")])
def test_a_rank_that_fails_ends_the_job_within_seconds(task, said):
    start = time.monotonic()
    run = mpirun(3, JOB, task, timeout=60)
    assert run.returncode != 0
    assert time.monotonic() - start < 30  # to start the ranks takes most of it
    if said:
        assert "rank 2 of 3 ends the job:\nTraceback" in run.stderr
        assert said in run.stderr


SPIRAL = ("-m", "dropwise", "spiral", "--distributed", "--hidden", "32", "--seed", "1")


def spiral(size, *options):
    run = mpirun(size, *SPIRAL, *options)
    assert run.returncode == 0, run.stdout + run.stderr
    return run


def test_the_spiral_run_goes_on_with_other_ranks_and_ends_in_the_same_file(tmp_path):
    whole, parts, checkpoint = (tmp_path / f"{name}.npz" for name in ("whole", "parts", "point"))
    one = spiral(1, "--epochs", 8, "--save", whole)
    assert "8 epochs in" in one.stdout
    four = spiral(4, "--epochs", 5, "--checkpoint", checkpoint, "--quiet")
    assert four.stdout.count("epochs in") == 1  # the first rank alone prints
    assert four.stdout.count("4 ranks") == 1
    assert four.stderr == ""
    two = spiral(2, "--epochs", 8, "--save", parts, "--checkpoint", checkpoint, "--resume")
    assert two.stderr.count("going on from") == 1
    assert parts.read_bytes() == whole.read_bytes()
    assert two.stdout.splitlines()[2:] == one.stdout.splitlines()[2:]  # the table


def test_what_the_spiral_run_refuses_is_said_once(tmp_path):
    run = mpirun(3, *SPIRAL, "--epochs", 2, "--save", tmp_path / "nowhere" / "file.npz")
    assert run.returncode != 0
    assert run.stderr.count("cannot write") == 1
    assert "Traceback" not in run.stderr
