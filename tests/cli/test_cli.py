"""The command line: its options and commands."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

import dropwise as dw
from command_line import spiral
from dropwise.cli import main
from dropwise.cli.parser import make_parser


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


def test_defaults_are_those_of_the_published_run():
    args = make_parser().parse_args(["spiral"])
    assert (args.epochs, args.rate, args.wiring, args.hidden) == (10001, 0.1, "correct", 512)
    assert (args.dtype, args.backend, args.quiet) == ("float32", None, False)


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
