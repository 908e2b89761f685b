"""Errors that the command line reports in one line."""

from __future__ import annotations

INSTALL_HINT = "python3 -m pip install 'dropwise[cli]'"
MPI_HINT = "python3 -m pip install 'dropwise[mpi]'"


class UserError(Exception):
    """A message for the user, not a traceback.

    Parameters
    ----------
    message : str
    shown : bool
        False: another rank shows it.
    """

    def __init__(self, message: str, shown: bool = True) -> None:
        super().__init__(message)
        self.shown = shown
