"""Layers and the container that runs them fused."""

from dropwise.layers.base import Layer
from dropwise.layers.dense import Dense
from dropwise.layers.dropout import Dropout
from dropwise.layers.relu import ReLU
from dropwise.layers.sequential import Sequential

__all__ = ["Dense", "Dropout", "Layer", "ReLU", "Sequential"]
