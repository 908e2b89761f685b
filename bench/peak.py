"""How many multiply-adds this core does when it does nothing else: the limit of every product.

Numba brings a compiler for LLVM's language, in which such a loop is easy to write: independent
chains of fused multiply-adds that never leave the registers.
"""

from __future__ import annotations

import ctypes
import time

import llvmlite.binding as llvm

_CHAINS = 12  # more than latency times throughput, and few enough for 16 registers
LANES = {"avx512": 16, "avx2": 8, "neon": 4, "scalar": 4}


def _source(lanes: int) -> str:
    vector = f"<{lanes} x float>"
    chains = range(_CHAINS)
    lines = [
        f"declare {vector} @llvm.fma.v{lanes}f32({vector}, {vector}, {vector})",
        "define void @chains(i64 %n, ptr %memory) {",
        "entry:",
        f"  %f = load {vector}, ptr %memory, align 4",
        "  br label %loop",
        "loop:",
        "  %i = phi i64 [ 0, %entry ], [ %next, %loop ]",
        *(f"  %a{c} = phi {vector} [ zeroinitializer, %entry ], [ %b{c}, %loop ]" for c in chains),
        *(f"  %b{c} = call {vector} @llvm.fma.v{lanes}f32({vector} %a{c}, {vector} %f, {vector} %f)"
          for c in chains),
        "  %next = add i64 %i, 1",
        "  %more = icmp ult i64 %next, %n",
        "  br i1 %more, label %loop, label %end",
        "end:",
        *(f"  store volatile {vector} %b{c}, ptr %memory, align 4" for c in chains),
        "  ret void",
        "}",
    ]  # fmt: skip
    return "\n".join(lines)


def peak_gflops(lanes: int, rounds: int = 20) -> float:
    """Billions of float32 operations a second in registers of `lanes` elements, on one core."""
    llvm.initialize_native_target()
    llvm.initialize_native_asmprinter()
    features = llvm.get_host_cpu_features().flatten()
    machine = llvm.Target.from_default_triple().create_target_machine(
        cpu=llvm.get_host_cpu_name(), features=features, opt=3
    )
    module = llvm.parse_assembly(_source(lanes))
    with llvm.create_mcjit_compiler(module, machine) as engine:
        engine.finalize_object()
        address = engine.get_function_address("chains")
        chains = ctypes.CFUNCTYPE(None, ctypes.c_int64, ctypes.c_void_p)(address)
        memory = (ctypes.c_float * lanes)()
        n = 200_000
        best = float("inf")
        for _ in range(rounds):
            start = time.perf_counter()
            chains(n, ctypes.addressof(memory))
            best = min(best, time.perf_counter() - start)
    return 2 * _CHAINS * lanes * n / best / 1e9
