"""Lets threadpoolctl see and limit the threads of the native backend.

Importing this module registers the controller.  The native backend imports it if threadpoolctl is
loaded already; a program that loads threadpoolctl later imports this module itself.
"""

from __future__ import annotations

import ctypes

from threadpoolctl import LibController, register

from dropwise._version import __version__


class DropwiseController(LibController):  # type: ignore[misc]  # threadpoolctl has no types
    """The pool of threads in ``dropwise._native``."""

    user_api = "dropwise"
    internal_api = "dropwise"
    filename_prefixes = ("_native",)
    check_symbols = ("dropwise_get_num_threads", "dropwise_set_num_threads")

    def get_num_threads(self) -> int:
        get = self.dynlib.dropwise_get_num_threads
        get.restype = ctypes.c_int
        return int(get())

    def set_num_threads(self, num_threads: int) -> None:
        self.dynlib.dropwise_set_num_threads(ctypes.c_int(num_threads))

    def get_version(self) -> str:
        return __version__


register(DropwiseController)
