"""Files import downward only, as docs/architecture.md draws them, and stay short."""

from __future__ import annotations

import ast
import graphlib
import re
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
PACKAGE = ROOT / "python" / "dropwise"
CPP = ROOT / "cpp"
LONGEST = 500  # lines of a file

# From top to bottom; what stands in one line does not import the others in it.
PYTHON_ORDER = [
    ["__main__"],
    ["cli"],
    ["sklearn", "torch", "dask", "mpi", "textbook"],
    ["__init__"],  # the public names
    ["network"],
    ["layers", "losses", "optimizers", "datasets"],
    ["functional", "_config"],
    ["_arrays", "_updates"],
    ["_arguments"],
    ["_dtypes", "_memory", "random", "_updates"],
    ["_backends"],
    ["_threadpoolctl"],
    ["_native", "_version"],
]
PYTHON_RANK = {part: rank for rank, line in enumerate(PYTHON_ORDER) for part in line}


def module_of(path: Path) -> str:
    parts = path.relative_to(PACKAGE.parent).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


MODULES = {module_of(path): path for path in sorted(PACKAGE.rglob("*.py"))}
COMPILED = "dropwise._native"


def is_module(name: str) -> bool:
    return name in MODULES or name == COMPILED


def imports_of(module: str) -> set[str]:
    """The modules of the package that a file imports anywhere, also inside functions."""
    path = MODULES[module]
    package = module if path.name == "__init__.py" else module.rpartition(".")[0]
    found = set()
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            base = node.module or ""
            if node.level:
                above = package.split(".")[: len(package.split(".")) - node.level + 1]
                base = ".".join([*above, base] if base else above)
            for alias in node.names:
                name = f"{base}.{alias.name}"
                found.add(name if is_module(name) else base)
    return {name for name in found if name.partition(".")[0] == "dropwise"}


IMPORTS = {module: imports_of(module) for module in MODULES}


def part_of(module: str) -> str:
    """The file or folder of the package that a module belongs to."""
    return module.split(".")[1] if "." in module else "__init__"


def test_imports_are_found_at_the_top_of_a_file_and_inside_functions():
    assert {"dropwise._backends", COMPILED} <= IMPORTS["dropwise._config"]
    assert all(is_module(name) for names in IMPORTS.values() for name in names)


def test_every_part_of_the_package_has_a_place_in_the_order():
    assert {part_of(module) for module in MODULES} <= set(PYTHON_RANK)


def test_python_imports_downward_only():
    upward = [
        f"{module} imports {name}"
        for module, names in IMPORTS.items()
        for name in names
        if part_of(module) != part_of(name)
        and PYTHON_RANK[part_of(module)] >= PYTHON_RANK[part_of(name)]
    ]
    assert not upward, "\n".join(upward)


def test_no_circle_of_imports():
    graph = {m: {n for n in names if n != m} for m, names in IMPORTS.items()}
    tuple(graphlib.TopologicalSorter(graph).static_order())  # CycleError names the circle


def test_backends_know_the_protocol_and_not_each_other():
    for module, names in IMPORTS.items():
        if module == "dropwise._backends.protocol":
            assert names == set()
        elif module.startswith("dropwise._backends.native"):
            assert not any(name.startswith("dropwise._backends.numba") for name in names)
        elif module.startswith("dropwise._backends.numba"):
            outside = {n for n in names if not n.startswith("dropwise._backends.numba")}
            assert outside <= {"dropwise._backends.protocol"}


def test_the_parts_of_a_network_do_not_import_the_container():
    container = "dropwise.network.sequential"
    assert container in MODULES
    users = {module for module, names in IMPORTS.items() if container in names}
    in_network = {module for module in users if module.startswith("dropwise.network.")}
    assert in_network == {"dropwise.network.checkpoint"}  # which loads one


SOURCES = sorted(
    str(path.relative_to(CPP)) for suffix in ("*.cpp", "*.hpp") for path in CPP.rglob(suffix)
)
GENERATED = {"isa_list.hpp", "build_info.hpp"}  # by CMake
INTRINSICS = {"immintrin.h", "emmintrin.h", "arm_neon.h", "intrin.h"}
INCLUDE = re.compile(r'^\s*#\s*include\s*(?:"([^"]+)"|<([^>]+)>)', re.MULTILINE)


def includes(source: str) -> Iterator[tuple[str, bool]]:
    """What a file includes, and whether that is a file of the project."""
    for own, system in INCLUDE.findall((CPP / source).read_text(encoding="utf-8")):
        yield own or system, bool(own)


def own_includes(source: str) -> list[str]:
    return [name for name, own in includes(source) if own and name not in GENERATED]


def folder(source: str) -> str:
    return source.partition("/")[0]


def test_includes_name_files_by_their_path_in_cpp():
    assert [(s, n) for s in SOURCES for n in own_includes(s) if n not in SOURCES] == []


MAY_INCLUDE = {
    "bindings": {"bindings", "ops", "core"},
    "ops": {"ops", "core"},
    "core": {"core"},
    "kernels": {"kernels", "simd"},
    "simd": {"simd"},
}


def test_cpp_includes_downward_only():
    upward = [
        f"{source} includes {name}"
        for source in SOURCES
        for name in own_includes(source)
        if folder(name) not in MAY_INCLUDE[folder(source)]
        and (folder(source), name) != ("kernels", "core/kernel_table.hpp")
    ]
    assert not upward, "\n".join(upward)


def test_no_circle_of_includes():
    tuple(graphlib.TopologicalSorter({s: own_includes(s) for s in SOURCES}).static_order())


@pytest.mark.parametrize("name", ["kernels", "simd", "core/kernel_table.hpp"])
def test_what_is_compiled_once_per_set_includes_integers_and_intrinsics_only(name):
    # An inline function of any other header could be the copy that the linker keeps for all sets.
    allowed = {"cstddef", "cstdint"} | (INTRINSICS if name == "simd" else set())
    wrong = [
        f"{source} includes <{header}>"
        for source in SOURCES
        if source == name or folder(source) == name
        for header, own in includes(source)
        if not own and header not in allowed
    ]
    assert not wrong, "\n".join(wrong)


def test_only_bindings_include_pybind11():
    users = {folder(s) for s in SOURCES for name, _ in includes(s) if name.startswith("pybind11")}
    assert users == {"bindings"}


# From bottom to top; the files of one line do not include each other, but for the first.
PRODUCTS_ORDER = [
    ["product.hpp", "blocks.hpp", "blocks.cpp", "density.hpp", "density.cpp"],
    ["dense.hpp", "dense.cpp", "skip.hpp", "skip.cpp", "kept.hpp", "kept.cpp"],
    ["choice.hpp", "choice.cpp"],
    ["product.cpp"],
    ["chain.hpp", "chain.cpp"],
    ["row_blocks.hpp", "row_blocks.cpp"],
]
PRODUCTS = "ops/products/"
PRODUCTS_RANK = {PRODUCTS + f: rank for rank, line in enumerate(PRODUCTS_ORDER) for f in line}


def test_products_include_downward_only():
    files = [source for source in SOURCES if source.startswith(PRODUCTS)]
    assert files == sorted(PRODUCTS_RANK)
    upward = [
        f"{source} includes {name}"
        for source in files
        for name in own_includes(source)
        if name.startswith(PRODUCTS)
        and name.rpartition(".")[0] != source.rpartition(".")[0]  # its own header
        and PRODUCTS_RANK[name] >= max(1, PRODUCTS_RANK[source])
    ]
    assert not upward, "\n".join(upward)


def test_the_rest_of_ops_does_not_know_products():
    users = [s for s in SOURCES if any(n.startswith(PRODUCTS) for n in own_includes(s))]
    assert [s for s in users if folder(s) == "ops" and not s.startswith(PRODUCTS)] == []


def test_no_file_is_longer_than_a_reader_can_keep_in_mind():
    long = [
        f"{path.relative_to(ROOT)}: {lines} lines"
        for top in ("python", "cpp", "tests", "bench")
        for suffix in ("*.py", "*.cpp", "*.hpp")
        for path in sorted((ROOT / top).rglob(suffix))
        if (lines := len(path.read_text(encoding="utf-8").splitlines())) > LONGEST
    ]
    assert not long, "\n".join(long)


def test_no_folder_of_tests_is_a_package():
    # One named like a package of the project would hide it.
    assert list((ROOT / "tests").rglob("__init__.py")) == []
