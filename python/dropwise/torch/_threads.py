"""One pool of threads: tasks of the native backend run in the threads of PyTorch.

After a parallel region the threads of OpenMP's runtime go on polling for a millisecond or two, and
threads of a second pool have to wait for their CPUs that long.  So the native backend hands its
tasks to the runtime that PyTorch itself uses.
"""

from __future__ import annotations

import ctypes

import torch


def share_threads() -> bool:
    """Let the native backend run its tasks in PyTorch's threads, and say whether it does.

    It does not where PyTorch uses no OpenMP runtime with the interface of GCC's, as on Windows and
    macOS, and where there is no native backend.
    """
    try:
        from dropwise import _native
    except ImportError:
        return False
    try:
        # Looks through the libraries that this one has loaded, as they find each other's functions.
        run_parallel = ctypes.CDLL(torch._C.__file__).GOMP_parallel
    except (AttributeError, OSError):
        return False
    address = ctypes.cast(run_parallel, ctypes.c_void_p).value
    assert address is not None
    _native.set_team_runner(address)
    return True
