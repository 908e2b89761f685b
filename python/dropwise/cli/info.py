"""The command ``dropwise info``."""

from __future__ import annotations

import argparse

import dropwise as dw


def run(_: argparse.Namespace) -> int:
    """Print what this installation has."""
    dw.show_config()
    return 0
