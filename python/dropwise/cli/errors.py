"""Errors that the command line reports in one line."""

from __future__ import annotations

INSTALL_HINT = "python3 -m pip install 'dropwise[cli]'"


class UserError(Exception):
    """A message for the user, not a traceback."""
