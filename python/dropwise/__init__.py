"""Exact dropout at memory-copy speed for NumPy, and dense layers that skip what was dropped."""

from dropwise import datasets, functional, random
from dropwise._backends import (
    available_backends,
    get_num_threads,
    set_num_threads,
    use_backend,
)
from dropwise._config import show_config
from dropwise._memory import clear_memory
from dropwise.layers import Dense, Dropout, Layer, ReLU, Sequential
from dropwise.losses import MeanSquaredError, SoftmaxCrossEntropy
from dropwise.optimizers import SGD, Adam

__version__ = "0.1.0"

__all__ = [
    "SGD",
    "Adam",
    "Dense",
    "Dropout",
    "Layer",
    "MeanSquaredError",
    "ReLU",
    "Sequential",
    "SoftmaxCrossEntropy",
    "__version__",
    "available_backends",
    "clear_memory",
    "datasets",
    "functional",
    "get_num_threads",
    "random",
    "set_num_threads",
    "show_config",
    "use_backend",
]
