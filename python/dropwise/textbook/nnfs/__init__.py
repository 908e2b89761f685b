"""The classes of *Neural Networks from Scratch in Python* over this package.

Put ``from dropwise.textbook.nnfs import *`` under a script's own classes, or in their place.
Results are attributes, as in the book: `forward` sets `output`, `backward` sets `dinputs`.  The
short forms of a chapter that is published separately work as well: `Dropout`, `Activation_ReLu`,
``.mask``, ``.weight``, ``.dinput``, ``update_param``, ``weight_L2=``, ``drop_on=``.
"""

from dropwise.textbook.nnfs.data import spiral_data
from dropwise.textbook.nnfs.layers import (
    Activation_ReLU,
    Activation_Softmax,
    Layer_Dense,
    Layer_Dropout,
)
from dropwise.textbook.nnfs.losses import (
    Activation_Softmax_Loss_CategoricalCrossentropy,
    Loss,
    Loss_CategoricalCrossentropy,
)
from dropwise.textbook.nnfs.optimizers import Optimizer_Adam, Optimizer_SGD

__all__ = [
    "Activation_ReLU",
    "Activation_ReLu",
    "Activation_Softmax",
    "Activation_Softmax_Loss_CategoricalCrossentropy",
    "Dropout",
    "Layer_Dense",
    "Layer_Dropout",
    "Loss",
    "Loss_CategoricalCrossentropy",
    "Optimizer_Adam",
    "Optimizer_SGD",
    "spiral_data",
]

Dropout = Layer_Dropout
Activation_ReLu = Activation_ReLU
