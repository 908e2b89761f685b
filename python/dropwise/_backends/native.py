"""The compiled backend: the functions of the extension module, as they are."""

from __future__ import annotations

import sys
from pathlib import Path

try:
    from dropwise import _native
except ImportError as error:
    why = Path(__file__).parents[1] / "_no_native.txt"  # written by an install without a compiler
    if why.exists():
        raise ImportError(why.read_text(encoding="utf-8").strip()) from error
    raise

# Both raise ValueError here, at the first use, if an environment variable asks for the impossible.
_native.num_threads()
_native.active_isa()

if "threadpoolctl" in sys.modules:
    from dropwise import _threadpoolctl  # noqa: F401 - registers the pool


class NativeBackend:
    """C++ kernels, chosen for the CPU at run time.  See `protocol.Backend`."""

    name = "native"

    mask_bits = staticmethod(_native.mask_bits)
    mask_box = staticmethod(_native.mask_box)
    dropout_forward = staticmethod(_native.dropout_forward)
    dropout_of_tensor = staticmethod(_native.dropout_of_tensor)
    apply_bits = staticmethod(_native.apply_bits)
    relu = staticmethod(_native.relu)
    nonzero_bits = staticmethod(_native.nonzero_bits)
    take_rows = staticmethod(_native.take_rows)
    multiply = staticmethod(_native.multiply)
    prepare = staticmethod(_native.PreparedProducts)
    adam_step = staticmethod(_native.adam_step)
    sgd_step = staticmethod(_native.sgd_step)
    softmax_cross_entropy = staticmethod(_native.softmax_cross_entropy)
    softmax_gradient = staticmethod(_native.softmax_gradient)
    sigmoid_gradient = staticmethod(_native.sigmoid_gradient)
    num_threads = staticmethod(_native.num_threads)
    set_num_threads = staticmethod(_native.set_num_threads)
    set_serial = staticmethod(_native.set_serial)
