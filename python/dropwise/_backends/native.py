"""The compiled backend: the functions of the extension module, as they are."""

from __future__ import annotations

from dropwise import _native


class NativeBackend:
    """C++ kernels, chosen for the CPU at run time.  See `protocol.Backend`."""

    name = "native"

    mask_bits = staticmethod(_native.mask_bits)
    dropout_forward = staticmethod(_native.dropout_forward)
    apply_bits = staticmethod(_native.apply_bits)
    relu = staticmethod(_native.relu)
    nonzero_bits = staticmethod(_native.nonzero_bits)
    matmul = staticmethod(_native.matmul)
    matmul_kept = staticmethod(_native.matmul_kept)
    num_threads = staticmethod(_native.num_threads)
    set_num_threads = staticmethod(_native.set_num_threads)
