"""The container, and what it does with its layers: running them fused, training, files."""

from dropwise.network.sequential import Sequential
from dropwise.network.training import Epoch

__all__ = ["Epoch", "Sequential"]
