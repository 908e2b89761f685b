"""Instruction sets that cannot be loaded into this Python: compiled and run as a program.

`tests/cpp/run_kernels.cpp` reads arrays and writes results.  `EmulatedKernels` stands in for a
backend.
"""

from __future__ import annotations

import os
import pathlib
import shlex
import shutil
import subprocess

import numpy as np

from support import missing

CPP = pathlib.Path(__file__).parents[1] / "cpp"
SOURCES = [
    CPP / "kernels/table.cpp",
    CPP / "ops/mask.cpp",
    CPP / "ops/elementwise.cpp",
    *sorted((CPP / "ops/products").glob("*.cpp")),
    CPP / "core/cpu_count.cpp",
    CPP / "core/cpu_features.cpp",
    CPP / "core/dispatch.cpp",
    CPP / "core/threads.cpp",
]
# name: (instruction set, compiler, the command that runs the program, flags)
SETS = {
    "plain": ("scalar", os.environ.get("CXX", "c++"), (), ("-DDROPWISE_NO_SSE2",)),
    "neon": ("neon", "aarch64-linux-gnu-g++", ("qemu-aarch64",), ("-static",)),
}
# The command of a program that exists already; .ci/cross compiles it for other systems.
GIVEN = ["program"] if "DROPWISE_TEST_PROGRAM" in os.environ else []
ELEMENTS = {"float32": 0, "float64": 1, "float16": 2, "bfloat16": 3}


def compile_program(name, directory, main="run_kernels.cpp"):
    """Compile a program of tests/cpp for one of SETS; returns the command that runs it."""
    if name in GIVEN:
        return shlex.split(os.environ["DROPWISE_TEST_PROGRAM"])
    isa, compiler, runner, flags = SETS[name]
    if not CPP.is_dir():
        missing("the C++ sources are not here")
    for tool in (compiler, *runner):
        if shutil.which(tool) is None:
            missing(f"{tool} is not installed")
    program = directory / name
    header = directory / f"{name}-include" / "isa_list.hpp"
    header.parent.mkdir()
    header.write_text(f"#define DROPWISE_ISA_LIST(X) X({isa})\n")
    options = ["-std=c++17", "-O2", "-ffp-contract=off", "-Wall", "-Wextra", "-pthread", *flags]
    defines = [f"-DDROPWISE_ISA_NAME={isa}", f"-DDROPWISE_ISA_{isa}=1"]
    includes = [f"-I{CPP}", f"-I{header.parent}"]
    sources = [str(source) for source in (CPP.parent / "tests/cpp" / main, *SOURCES)]
    subprocess.run(
        [compiler, *options, *defines, *includes, *sources, "-o", str(program)], check=True
    )
    return [*runner, str(program)]


class EmulatedKernels:
    """The functions of a backend, computed by another process."""

    def __init__(self, command):
        self._process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE)
        self._threads = 1

    def close(self):
        self._process.stdin.close()
        self._process.stdout.close()
        assert self._process.wait(timeout=30) == 0

    def _ask(self, operation, n, x, bits=None, rate=0.0, scale=1.0, key=0, stream=0, offset=0):
        element = 0 if x is None else ELEMENTS[x.dtype.name]
        rate_bits, scale_bits = np.array([rate, scale], np.float64).view(np.uint64).tolist()
        numbers = f"{rate_bits} {scale_bits} {key} {stream} {offset}"
        stdin = self._process.stdin
        stdin.write(f"{operation} {element} {n} {numbers} {self._threads}\n".encode())
        for array in (x, bits):
            if array is not None:
                stdin.write(array.tobytes())
        stdin.flush()

    def _receive(self, array):
        data = self._process.stdout.read(array.nbytes)
        array.reshape(-1).view(np.uint8)[...] = np.frombuffer(data, np.uint8)

    def mask_bits(self, bits, n, rate, key, stream, offset):
        self._ask("mask", n, None, rate=rate, key=key, stream=stream, offset=offset)
        self._receive(bits)

    def dropout_forward(self, x, out, bits, rate, scale, key, stream, offset):
        self._ask("forward", x.size, x, None, rate, scale, key, stream, offset)
        self._receive(out)
        self._receive(np.empty((x.size + 7) // 8, np.uint8) if bits is None else bits)

    def apply_bits(self, x, out, bits, scale):
        self._ask("apply", x.size, x, bits, scale=scale)
        self._receive(out)

    def relu(self, x, out, bits):
        self._ask("relu", x.size, x)
        self._receive(out)
        self._receive(bits)

    def nonzero_bits(self, x, bits):
        self._ask("nonzero", x.size, x)
        self._receive(bits)

    def num_threads(self):
        return self._threads

    def set_num_threads(self, n):
        self._threads = n
