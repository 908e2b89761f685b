"""Dropout for PyTorch on the CPU: the modules of `torch.nn`, several times as fast.

Where a program has ``torch.nn.Dropout``, this package has the same name with the same parameters,
and ``seed=`` besides.  Importing `dropwise` does not import it.
"""

try:
    import ml_dtypes as _ml_dtypes  # NumPy's view of bfloat16
    from torch import library as _library

    if not hasattr(_library, "register_vmap"):  # which came with 2.5
        raise ImportError("this one has no register_vmap")
except ImportError as error:
    raise ImportError(
        f"dropwise.torch needs PyTorch 2.5 or newer: pip install 'dropwise[torch]' ({error})"
    ) from error

from dropwise.torch import functional
from dropwise.torch._convert import Conversion, convert, revert
from dropwise.torch._feed_forward import feed_forward
from dropwise.torch._multihead_attention import MultiheadAttention
from dropwise.torch._threads import share_threads as _share_threads
from dropwise.torch.modules import (
    AlphaDropout,
    Dropout,
    Dropout1d,
    Dropout2d,
    Dropout3d,
    DropPath,
    FeatureAlphaDropout,
)

__all__ = [
    "AlphaDropout",
    "Conversion",
    "DropPath",
    "Dropout",
    "Dropout1d",
    "Dropout2d",
    "Dropout3d",
    "FeatureAlphaDropout",
    "MultiheadAttention",
    "convert",
    "feed_forward",
    "functional",
    "revert",
]

_share_threads()

del _library, _ml_dtypes
