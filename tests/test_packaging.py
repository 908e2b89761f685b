"""What the project says of itself to indexes, installers and CI, and where wheels may be made."""

from __future__ import annotations

import email
import json
import re
import subprocess
import sys
import tarfile
from pathlib import Path

import pytest

import dropwise as dw
from support import require

if sys.version_info >= (3, 11):
    import tomllib
else:
    tomllib = require("tomli")

ROOT = Path(__file__).parents[1]
SETTINGS = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))
PROJECT = SETTINGS["project"]
WORKFLOWS = sorted((ROOT / ".github" / "workflows").glob("*.yml"))
MADE_FOR_OTHERS = ["CIBUILDWHEEL", "CONDA_BUILD", "PIWHEELS_BUILD", "DROPWISE_REQUIRE_NATIVE"]


def run_build(code: list[str], monkeypatch: pytest.MonkeyPatch, **env: str):
    """Run the build backend with only these of the variables set."""
    require("scikit_build_core")
    for name in MADE_FOR_OTHERS:
        monkeypatch.delenv(name, raising=False)
    for name, value in env.items():
        monkeypatch.setenv(name, value)
    return subprocess.run([sys.executable, *code], cwd=ROOT, capture_output=True, text=True)


def required(monkeypatch: pytest.MonkeyPatch, **env: str) -> list[str]:
    """The names of what a wheel requires."""
    done = run_build(["-m", "scikit_build_core.build", "project-table"], monkeypatch, **env)
    assert done.returncode == 0, done.stderr
    return [re.match(r"[\w-]+", line)[0] for line in json.loads(done.stdout)["dependencies"]]


def test_a_build_that_may_lack_the_native_module_requires_numba(monkeypatch):
    assert required(monkeypatch) == ["numpy", "numba"]
    assert required(monkeypatch, CIBUILDWHEEL="0", CONDA_BUILD="") == ["numpy", "numba"]


@pytest.mark.parametrize("name", MADE_FOR_OTHERS)
def test_a_wheel_for_others_does_not_require_numba(name, monkeypatch):
    assert required(monkeypatch, **{name: "1"}) == ["numpy"]


def test_the_sdist_says_that_its_wheels_may_differ_in_dependencies(tmp_path, monkeypatch):
    code = f"import scikit_build_core.build as b; b.build_sdist({str(tmp_path)!r})"
    done = run_build(["-c", code], monkeypatch)
    assert done.returncode == 0, done.stderr
    with tarfile.open(*tmp_path.iterdir()) as tar:
        (name,) = (name for name in tar.getnames() if re.fullmatch(r"[^/]+/PKG-INFO", name))
        metadata = email.message_from_bytes(tar.extractfile(name).read())
    assert "Requires-Dist" in metadata.get_all("Dynamic")
    assert metadata["Version"] == dw.__version__


@pytest.mark.parametrize("name", MADE_FOR_OTHERS)
def test_a_wheel_for_others_without_a_compiler_is_an_error(name, tmp_path, monkeypatch):
    code = f"import scikit_build_core.build as b; b.build_wheel({str(tmp_path)!r})"
    compiler = {"CXX": str(tmp_path / "no-compiler")}
    done = run_build(["-c", code], monkeypatch, **compiler, **{name: "1"})
    assert done.returncode != 0
    assert "no-compiler" in done.stdout + done.stderr
    assert list(tmp_path.glob("*.whl")) == []


def test_the_variables_are_the_same_wherever_they_stand():
    on, retried = SETTINGS["tool"]["scikit-build"]["overrides"]
    (provider,) = (e for e in SETTINGS["tool"]["dynamic-metadata"] if "native-is-certain" in e)
    assert provider["native-is-certain"] == MADE_FOR_OTHERS
    assert list(on["if"]["any"]["env"]) == list(retried["if"]["env"]) == MADE_FOR_OTHERS


def minors_in(pattern: str, texts: list[str]) -> list[int]:
    return [int(match[1]) for text in texts if (match := re.fullmatch(pattern, text))]


def test_pythons_are_the_same_wherever_they_are_listed():
    minors = minors_in(r"Programming Language :: Python :: 3\.(\d+)", PROJECT["classifiers"])
    assert minors == minors_in(r"cp3(\d+)-\*", SETTINGS["tool"]["cibuildwheel"]["build"])
    assert PROJECT["requires-python"] == f">=3.{minors[0]}"
    pythons = (ROOT / ".ci" / "pythons").read_text(encoding="utf-8")
    assert f"for minor in {' '.join(map(str, minors))} " in pythons
    support = (ROOT / "docs" / "support.md").read_text(encoding="utf-8")
    assert f"3.{minors[0]} to 3.{minors[-1]}" in support


def test_the_version_stands_in_one_place():
    assert "version" in PROJECT["dynamic"]
    for name in ("pyproject.toml", "CMakeLists.txt", "README.md", "CITATION.cff", "RELEASING.md"):
        assert dw.__version__ not in (ROOT / name).read_text(encoding="utf-8")


@pytest.mark.parametrize("path", WORKFLOWS, ids=lambda path: path.name)
def test_a_workflow_pins_its_actions_and_starts_without_permissions(path):
    text = path.read_text(encoding="utf-8")
    used = re.findall(r"uses: (.*)", text)
    assert used
    for action in used:
        assert re.fullmatch(r"[\w-]+/[\w.-]+@[0-9a-f]{40} # v\d+\.\d+\.\d+", action)
    assert "\npermissions: {}\n" in text
    assert text.count("actions/checkout@") == text.count("persist-credentials: false")
    assert "secrets." not in text


def test_an_action_has_one_version_in_all_workflows():
    used = {action for path in WORKFLOWS for action in re.findall(r"uses: (.*)", path.read_text())}
    assert len({action.partition("@")[0] for action in used}) == len(used)


def test_the_citation_is_that_of_the_project():
    text = (ROOT / "CITATION.cff").read_text(encoding="utf-8")
    assert PROJECT["authors"] == [{"name": "The dropwise authors"}]
    assert "  - name: The dropwise authors\n" in text
    assert f"\nlicense: {PROJECT['license']}\n" in text
    assert f"\nurl: {PROJECT['urls']['Documentation']}\n" in text
    assert f"\nrepository-code: {PROJECT['urls']['Source']}\n" in text
