"""The container, and what it does with its layers: running them fused, training, files."""

from dropwise.network.sequential import Epoch, Sequential

__all__ = ["Epoch", "Sequential"]
