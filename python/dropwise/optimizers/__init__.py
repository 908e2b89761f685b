"""Optimizers: they change parameters in place.

``step`` takes pairs (parameters, gradient), as ``Layer.parameters()`` gives them, and always the
same ones in the same order.  A step checks all pairs and allocates what it needs before the first
parameter moves.
"""

from dropwise.optimizers.adam import Adam
from dropwise.optimizers.base import Optimizer, Pairs
from dropwise.optimizers.sgd import SGD

__all__ = ["SGD", "Adam", "Optimizer", "Pairs"]
