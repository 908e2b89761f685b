"""The layers: each a function of an array with a gradient."""

from dropwise.layers.activations import ReLU, Sigmoid, Tanh
from dropwise.layers.alpha_dropout import AlphaDropout, FeatureAlphaDropout
from dropwise.layers.base import Layer
from dropwise.layers.dense import Dense
from dropwise.layers.drop_connect import DropConnect
from dropwise.layers.dropout import Dropout
from dropwise.layers.structured_dropout import DropPath, SpatialDropout

__all__ = [
    "AlphaDropout",
    "Dense",
    "DropConnect",
    "DropPath",
    "Dropout",
    "FeatureAlphaDropout",
    "Layer",
    "ReLU",
    "Sigmoid",
    "SpatialDropout",
    "Tanh",
]
