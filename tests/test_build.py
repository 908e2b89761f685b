"""What is built and shipped: kernel objects, source distribution, wheel.

Runs the project's own build, with the packages of the extra ``test``.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import tarfile
import zipfile
from pathlib import Path

import pytest

from support import missing, require, run_python

ROOT = Path(__file__).parents[1]


def run(*command: str | Path, cwd: Path = ROOT) -> str:
    done = subprocess.run(
        [str(part) for part in command],
        cwd=cwd,
        env={**os.environ, "PATH": os.pathsep.join([str(Path(sys.executable).parent), PATH])},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )
    assert done.returncode == 0, done.stdout
    return done.stdout


PATH = os.environ.get("PATH", "")


def require_tools(*names: str) -> None:
    for name in names:
        if shutil.which(name, path=f"{Path(sys.executable).parent}{os.pathsep}{PATH}") is None:
            missing(f"the program {name} is not installed")


@pytest.fixture(scope="session")
def kernel_objects(tmp_path_factory):
    """The object file of each instruction set, by name.

    Not optimised: the compiler then emits every inline function that it is allowed to emit.
    """
    require_tools("cmake", "ninja", "nm")
    require("pybind11")
    build = tmp_path_factory.mktemp("kernels")
    run("cmake", "-S", ROOT, "-B", build, "-GNinja", "-DCMAKE_BUILD_TYPE=Debug",
        "-DDROPWISE_NATIVE=ON", f"-DPython_EXECUTABLE={sys.executable}")  # fmt: skip
    header = (build / "generated" / "isa_list.hpp").read_text()
    isas = [word[2:-1] for word in header.split() if word.startswith("X(") and word != "X(X)"]
    run("cmake", "--build", build, "--target", *(f"dropwise_kernels_{isa}" for isa in isas))
    objects = {}
    for isa in isas:
        (objects[isa],) = (build / "CMakeFiles" / f"dropwise_kernels_{isa}.dir").rglob("*.o*")
    return objects


def test_every_instruction_set_is_built(kernel_objects):
    native = require("dropwise._native")
    assert list(kernel_objects) == native.built_isas()
    assert "scalar" in kernel_objects


def test_a_kernel_object_exports_one_symbol_and_nothing_weak(kernel_objects):
    # A second copy of an inline function, compiled for AVX-512, is one the linker may keep for all.
    for isa, path in kernel_objects.items():
        lines = run("nm", "--extern-only", "--defined-only", path).split("\n")
        symbols = [tuple(line.split()[-2:]) for line in lines if line.strip()]
        name = f"_dropwise_kernels_{isa}" if sys.platform == "darwin" else f"dropwise_kernels_{isa}"
        assert symbols == [("T", name)]


def test_a_kernel_object_calls_nothing_but_memory_functions(kernel_objects):
    allowed = {"memcpy", "memset", "memmove", "GLOBAL_OFFSET_TABLE_"}
    for isa, path in kernel_objects.items():
        lines = run("nm", "--undefined-only", path).split("\n")
        called = {line.split()[-1].lstrip("_") for line in lines if line.strip()}
        assert called <= allowed, isa


@pytest.fixture(scope="session")
def sdist(tmp_path_factory):
    require("scikit_build_core")
    folder = tmp_path_factory.mktemp("sdist")
    code = "import sys, scikit_build_core.build as b; b.build_sdist(sys.argv[1])"
    run(sys.executable, "-c", code, folder)
    (tarball,) = folder.glob("*.tar.gz")
    return tarball


def test_the_sdist_has_the_project_and_nothing_else(sdist):
    with tarfile.open(sdist) as tar:
        names = [name.partition("/")[2] for name in tar.getnames()]
    tops = {name.partition("/")[0] for name in names}
    known = {
        *("CMakeLists.txt", "CMakePresets.json", "pyproject.toml", "PKG-INFO"),
        *(".gitignore", ".readthedocs.yaml"),
        *("README.md", "LICENSE", "CHANGELOG.md", "CONTRIBUTING.md", ".clang-format"),
        *("CITATION.cff", "RELEASING.md", "SECURITY.md"),
        *("cpp", "python", "tests", "bench", "docs"),
    }
    assert tops <= known
    assert {"CMakeLists.txt", "pyproject.toml", "LICENSE", "cpp", "python", "tests"} <= tops
    built = (".so", ".pyd", ".dylib", ".o", ".pyc", ".nbi", ".nbc", ".whl")
    assert [name for name in names if name.endswith(built)] == []
    assert sdist.stat().st_size < 4_000_000


def test_the_sdist_has_every_file_of_the_package(sdist):
    with tarfile.open(sdist) as tar:
        names = {name.partition("/")[2] for name in tar.getnames()}
    for folder in ("cpp", "python"):
        for path in (ROOT / folder).rglob("*"):
            source = path.suffix in {".py", ".pyi", ".cpp", ".hpp", ".cmake", ".typed"}
            if source and not path.name.startswith("."):
                assert path.relative_to(ROOT).as_posix() in names


@pytest.fixture(scope="session")
def wheel(sdist, tmp_path_factory):
    """A wheel of the unpacked source distribution; not optimised, to be quick."""
    require_tools("cmake", "ninja")
    folder = tmp_path_factory.mktemp("wheel")
    with tarfile.open(sdist) as tar:
        if sys.version_info >= (3, 12):
            tar.extractall(folder, filter="data")
        else:
            tar.extractall(folder)
    (source,) = (path for path in folder.iterdir() if path.is_dir())
    code = """
import sys, scikit_build_core.build as b
b.build_wheel(sys.argv[1], {"cmake.build-type": "Debug"})
"""
    run(sys.executable, "-c", code, folder, cwd=source)
    (built,) = folder.glob("*.whl")
    return built


def test_the_wheel_of_the_sdist_works(wheel, tmp_path):
    with zipfile.ZipFile(wheel) as archive:
        archive.extractall(tmp_path)
    code = """
import dropwise as dw, os, sys
assert os.path.dirname(dw.__file__) == os.path.join(sys.path[0], "dropwise"), dw.__file__
print(dw.show_config("dicts")["backend"]["active"], dw.functional.dropout_mask((4,), 0.0, key=1))
"""
    code = f"import sys; sys.path.insert(0, {str(tmp_path)!r})" + code
    said = run_python(code, "-I", DROPWISE_BACKEND="native")
    assert said == "native [ True  True  True  True]\n"


def test_the_wheel_has_types_and_no_sources(wheel):
    with zipfile.ZipFile(wheel) as archive:
        names = [name for name in archive.namelist() if ".dist-info/" not in name]
    assert "dropwise/py.typed" in names
    assert "dropwise/_native.pyi" in names
    assert {name.partition("/")[0] for name in names} == {"dropwise"}
    assert {Path(name).suffix for name in names} <= {".py", ".pyi", ".typed", ".so", ".pyd"}
