"""Exact dropout at memory-copy speed for NumPy, and dense layers that skip what was dropped."""

from dropwise import datasets, functional, random
from dropwise._backends import (
    available_backends,
    backend,
    get_num_threads,
    set_backend,
    set_num_threads,
)
from dropwise._config import show_config
from dropwise._memory import clear_memory
from dropwise._version import __version__
from dropwise.layers import (
    AlphaDropout,
    Dense,
    DropConnect,
    Dropout,
    DropPath,
    FeatureAlphaDropout,
    Layer,
    ReLU,
    Sigmoid,
    SpatialDropout,
    Tanh,
)
from dropwise.losses import BinaryCrossEntropy, MeanSquaredError, SoftmaxCrossEntropy
from dropwise.network import Epoch, Sequential, load_checkpoint
from dropwise.optimizers import SGD, Adam

__all__ = [
    "SGD",
    "Adam",
    "AlphaDropout",
    "BinaryCrossEntropy",
    "Dense",
    "DropConnect",
    "DropPath",
    "Dropout",
    "Epoch",
    "FeatureAlphaDropout",
    "Layer",
    "MeanSquaredError",
    "ReLU",
    "Sequential",
    "Sigmoid",
    "SoftmaxCrossEntropy",
    "SpatialDropout",
    "Tanh",
    "__version__",
    "available_backends",
    "backend",
    "clear_memory",
    "datasets",
    "functional",
    "get_num_threads",
    "load_checkpoint",
    "random",
    "set_backend",
    "set_num_threads",
    "show_config",
]
