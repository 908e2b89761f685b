"""Coverage-guided fuzzing of dropwise by atheris (libFuzzer), without end unless told.

    python3 -m pip install atheris
    python3 tests/fuzz/fuzz.py files corpus/ -max_total_time=3600

The targets are those tests of the suite that try whatever comes, driven by bytes that reach new
branches of the package instead of by chance:

    arguments  the public functions, with any arguments
    calls      the native module, with any arguments
    layers     networks, their copies and optimizers, beside a model in NumPy
    files      bytes of network files, of their headers, of their arrays

What follows the name goes to libFuzzer: a folder in which it keeps inputs that reach something new
(`-runs=0` replays them), and its options.  An input that fails is written to a file; its path in
the place of the folder runs it alone.

`calls` sees the branches of the native module if that was built by ``cmake --preset fuzz`` (with
Clang), and errors of memory as well: docs/reliability.md has the commands.
"""

from __future__ import annotations

import importlib.util
import random
import sys
from collections.abc import Callable
from pathlib import Path

TESTS = Path(__file__).parents[1]
LONGEST = 1 << 14  # bytes of an input


def kernels() -> list[str]:
    """The modules that Numba compiles: their bytecode must stay as it is."""
    (package,) = importlib.util.find_spec("dropwise").submodule_search_locations
    found = Path(package, "_backends/numba").glob("*.py")
    return [f"dropwise._backends.numba.{path.stem}" for path in found]


def choose(*targets: Callable[[bytes], object]) -> Callable[[bytes], None]:
    """A target whose first byte chooses among these."""

    def one_input(data: bytes) -> None:
        if data:
            targets[data[0] % len(targets)](data[1:])

    return one_input


def driven(test: Callable[..., None]) -> Callable[[bytes], object]:
    """A test by Hypothesis as a target: the bytes are what it draws, and go on at random."""
    one_input = test.hypothesis.fuzz_one_input
    return lambda data: one_input(data + random.Random(data).randbytes(LONGEST))


def hypothesis_targets(module: str) -> Callable[[bytes], None]:
    """The tests of a module of the suite, as a target."""
    tests = vars(importlib.import_module(module)).values()
    return choose(*(driven(test) for test in tests if hasattr(test, "hypothesis")))


def layers() -> Callable[[bytes], object]:
    from hypothesis.stateful import get_state_machine_test

    return driven(get_state_machine_test(importlib.import_module("test_stateful").Networks))


def files() -> Callable[[bytes], None]:
    hostile = importlib.import_module("test_hostile_files")
    return choose(
        hostile.refusal,
        lambda data: hostile.refusal(hostile.rewritten(text=data.decode(errors="replace"))),
        lambda data: hostile.refusal(hostile.with_bias(data)),
    )


TARGETS = {
    "arguments": lambda: hypothesis_targets("test_hostile_arguments"),
    "calls": lambda: hypothesis_targets("test_hostile_calls"),
    "layers": layers,
    "files": files,
}


def seeds(name: str) -> list[bytes]:
    """Inputs to begin with: for files one that is whole, and parts of one."""
    if name != "files":
        return []
    hostile = importlib.import_module("test_hostile_files")
    bias = hostile.npy(hostile.ARRAYS["network.2.bias"])
    header = hostile.json.dumps(hostile.HEADER).encode()
    golden = [path.read_bytes() for path in (TESTS / "data/networks").glob("*.npz")]
    return [b"\0" + data for data in (hostile.GOOD, *golden)] + [b"\1" + header, b"\2" + bias]


def main() -> None:
    if len(sys.argv) < 2 or sys.argv[1] not in TARGETS:
        sys.exit(f"{__doc__}\nname a target, of {', '.join(TARGETS)}")
    name, arguments = sys.argv[1], sys.argv[2:]
    for folder in ("", "functional", "backends", "network"):
        sys.path.insert(0, str(TESTS / folder))
    folders = [Path(a) for a in arguments if not a.startswith("-")]
    import atheris

    with atheris.instrument_imports(include=["dropwise"], exclude=kernels()):
        importlib.import_module("dropwise")
        one_input = TARGETS[name]()
    if folders and not folders[0].is_file():
        folders[0].mkdir(parents=True, exist_ok=True)
        for i, data in enumerate(seeds(name)):
            (folders[0] / f"seed-{i}").write_bytes(data)
    # Python keeps some memory of each tracing of it (`refusal`): so no limit that an hour reaches.
    options = ["-len_control=0", f"-max_len={LONGEST}", "-rss_limit_mb=8192"]
    atheris.Setup([sys.argv[0], *options, *arguments], one_input)
    atheris.Fuzz()


if __name__ == "__main__":
    main()
