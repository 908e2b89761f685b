"""The version of the package, where every other file may read it."""

__version__ = "0.1.0"
