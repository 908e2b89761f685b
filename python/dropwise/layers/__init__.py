"""The layers: each a function of an array with a gradient."""

from dropwise.layers.activations import ReLU, Sigmoid, Tanh
from dropwise.layers.base import Layer
from dropwise.layers.dense import Dense
from dropwise.layers.dropout import Dropout

__all__ = ["Dense", "Dropout", "Layer", "ReLU", "Sigmoid", "Tanh"]
