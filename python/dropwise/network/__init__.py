"""The container of layers: it runs them fused, trains them, saves and loads them."""

from dropwise.network.sequential import Sequential
from dropwise.network.training import Epoch

__all__ = ["Epoch", "Sequential"]
