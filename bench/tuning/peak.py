"""How many multiply-adds this core does when it does nothing else: the limit of every product.

Numba brings a compiler for LLVM's language, in which such a loop is easy to write: independent
chains of fused multiply-adds whose sums never leave the registers.  Their factors do not either, or
one of them is loaded from the first-level cache each time, which is the limit of skipping.
"""

from __future__ import annotations

import ctypes
import time

import llvmlite.binding as llvm

_CHAINS = 12  # more than latency times throughput, and few enough for 16 registers
_ROWS = 16  # of factors that are loaded: 12 KB at most
LANES = {"avx512": 16, "avx2": 8, "neon": 4, "scalar": 4}


def _source(lanes: int, loaded: bool) -> str:
    vector = f"<{lanes} x float>"
    # LLVM before 16 wants to know what pointers lead to.
    pointer = "ptr" if llvm.llvm_version_info[0] >= 16 else f"{vector}*"
    chains = range(_CHAINS)
    lines = [
        f"declare {vector} @llvm.fma.v{lanes}f32({vector}, {vector}, {vector})",
        f"define void @chains(i64 %n, {pointer} %memory) {{",
        "entry:",
        f"  %f = load {vector}, {pointer} %memory, align 4",
        "  br label %loop",
        "loop:",
        "  %i = phi i64 [ 0, %entry ], [ %next, %loop ]",
        *(f"  %a{c} = phi {vector} [ zeroinitializer, %entry ], [ %b{c}, %loop ]" for c in chains),
        f"  %row = and i64 %i, {_ROWS - 1}",
        f"  %first = mul i64 %row, {_CHAINS}",
    ]
    for c in chains:
        factor = "%f"
        if loaded:
            factor = f"%x{c}"
            lines += [
                f"  %j{c} = add i64 %first, {c}",
                f"  %p{c} = getelementptr {vector}, {pointer} %memory, i64 %j{c}",
                f"  {factor} = load {vector}, {pointer} %p{c}, align {4 * lanes}",
            ]
        lines.append(
            f"  %b{c} = call {vector} @llvm.fma.v{lanes}f32"
            f"({vector} %f, {vector} {factor}, {vector} %a{c})"
        )
    lines += [
        "  %next = add i64 %i, 1",
        "  %more = icmp ult i64 %next, %n",
        "  br i1 %more, label %loop, label %end",
        "end:",
        *(f"  store volatile {vector} %b{c}, {pointer} %memory, align 4" for c in chains),
        "  ret void",
        "}",
    ]
    return "\n".join(lines)


def peak_gflops(lanes: int, *, loaded: bool = False, rounds: int = 20) -> float:
    """Billions of float32 operations a second in registers of `lanes` elements, on one core."""
    llvm.initialize_native_target()
    llvm.initialize_native_asmprinter()
    features = llvm.get_host_cpu_features().flatten()
    machine = llvm.Target.from_default_triple().create_target_machine(
        cpu=llvm.get_host_cpu_name(), features=features, opt=3
    )
    module = llvm.parse_assembly(_source(lanes, loaded))
    with llvm.create_mcjit_compiler(module, machine) as engine:
        engine.finalize_object()
        address = engine.get_function_address("chains")
        chains = ctypes.CFUNCTYPE(None, ctypes.c_int64, ctypes.c_void_p)(address)
        memory = (ctypes.c_float * (_ROWS * _CHAINS * lanes + lanes))()
        start_of_line = -ctypes.addressof(memory) % (4 * lanes) + ctypes.addressof(memory)
        n = 200_000
        best = float("inf")
        for _ in range(rounds):
            start = time.perf_counter()
            chains(n, start_of_line)
            best = min(best, time.perf_counter() - start)
    return 2 * _CHAINS * lanes * n / best / 1e9
