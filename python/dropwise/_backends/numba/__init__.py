"""The backend for machines without a compiler: the contract's masks from kernels that Numba builds.

The bits are those of the native kernels, which this folder does not need.  Importing it imports
Numba, so that is left until the backend is chosen; every kernel is compiled on its first call and
kept on disk.
"""

from dropwise._backends.numba.backend import NumbaBackend

__all__ = ["NumbaBackend"]
