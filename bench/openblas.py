"""NumPy's own OpenBLAS, loaded a second time with kernels for another CPU.

OpenBLAS chooses its kernels when it is loaded, and sometimes not the best ones: on some CPUs with
AVX-512 it takes those of Haswell, at half the speed.  A comparison with it needs every choice.
"""

from __future__ import annotations

import ctypes
import os
import shutil
import tempfile
from pathlib import Path

import numpy as np
import threadpoolctl

# Names of kernel sets, by the environment variable OPENBLAS_CORETYPE; "" is OpenBLAS' own choice.
CONFIGURATIONS = {"OpenBLAS": "", "OpenBLAS SkylakeX": "SkylakeX", "OpenBLAS Haswell": "Haswell"}

_ROW_MAJOR, _PLAIN, _TRANSPOSED = 101, 111, 112


class OpenBlas:
    """One copy of the library.  `core_type` is the kernel set that it really uses."""

    def __init__(self, wanted: str, threads: int) -> None:
        path = next(
            (p["filepath"] for p in threadpoolctl.threadpool_info() if p["prefix"] != "libopenblas"
             and p["internal_api"] == "openblas"),
            None,
        )  # fmt: skip
        if path is None:
            raise ImportError("NumPy does not come with an OpenBLAS here")
        # A library is loaded once for each file, hence the copy.  Its dependencies lie beside the
        # original, where they are found because NumPy has loaded them.
        with tempfile.TemporaryDirectory() as folder:
            copy = shutil.copy(path, Path(folder) / f"openblas{wanted}.so")
            before = os.environ.get("OPENBLAS_CORETYPE")
            try:
                os.environ.pop("OPENBLAS_CORETYPE", None)
                if wanted:
                    os.environ["OPENBLAS_CORETYPE"] = wanted
                self._library = ctypes.CDLL(copy)
            finally:
                os.environ.pop("OPENBLAS_CORETYPE", None)
                if before is not None:
                    os.environ["OPENBLAS_CORETYPE"] = before
        core = self._function("openblas_get_corename")
        core.restype = ctypes.c_char_p
        self.core_type = core().decode()
        self._function("openblas_set_num_threads")(threads)
        self._sgemm = self._function("cblas_sgemm")
        self._sgemm.restype = None

    def _function(self, name: str):
        for symbol in (f"scipy_{name}64_", f"scipy_{name}", f"{name}64_", name):
            if hasattr(self._library, symbol):
                self._integer = ctypes.c_int64 if "64_" in symbol else ctypes.c_int
                return getattr(self._library, symbol)
        raise ImportError(f"OpenBLAS has no function {name}")

    def matmul(self, a: np.ndarray, b: np.ndarray, out: np.ndarray) -> np.ndarray:
        """``a @ b`` into `out`: float32, each operand C-contiguous or the transpose of such."""
        m, n = out.shape
        order_a, order_b = self._order(a), self._order(b)
        i, f = self._integer, ctypes.c_float
        self._sgemm(
            ctypes.c_int(_ROW_MAJOR), ctypes.c_int(order_a[0]), ctypes.c_int(order_b[0]),
            i(m), i(n), i(a.shape[1]), f(1), ctypes.c_void_p(a.ctypes.data), i(order_a[1]),
            ctypes.c_void_p(b.ctypes.data), i(order_b[1]), f(0),
            ctypes.c_void_p(out.ctypes.data), i(n),
        )  # fmt: skip
        return out

    @staticmethod
    def _order(x: np.ndarray) -> tuple[int, int]:
        """Transposed or not, and the leading dimension."""
        assert x.dtype == np.float32
        if x.flags.c_contiguous:
            return _PLAIN, x.shape[1]
        assert x.flags.f_contiguous
        return _TRANSPOSED, x.shape[0]


def configurations(threads: int) -> dict[str, OpenBlas]:
    """The copies that differ, by name; empty where NumPy's BLAS is another."""
    found: dict[str, OpenBlas] = {}
    for name, wanted in CONFIGURATIONS.items():
        try:
            library = OpenBlas(wanted, threads)
        except (ImportError, OSError):
            return {}
        if library.core_type not in {other.core_type for other in found.values()}:
            found[name] = library
    return found
