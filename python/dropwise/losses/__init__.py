"""Losses: ``forward`` gives the mean over the rows of a batch, ``backward`` its gradient.

What a forward leaves for backward is one record, set when the value is there.  It holds no array of
the caller's.  Copies and pickles of a loss have no record.
"""

from dropwise.losses.base import Loss, accuracy_of, takes_sample_weight
from dropwise.losses.binary import BinaryCrossEntropy
from dropwise.losses.parts import PartialLoss, check_mean_of_rows, is_mean_of_rows
from dropwise.losses.poisson import HalfPoissonDeviance
from dropwise.losses.scaled import ScaledLoss
from dropwise.losses.softmax import SoftmaxCrossEntropy
from dropwise.losses.squared import MeanSquaredError

__all__ = [
    "BinaryCrossEntropy",
    "HalfPoissonDeviance",
    "Loss",
    "MeanSquaredError",
    "PartialLoss",
    "ScaledLoss",
    "SoftmaxCrossEntropy",
    "accuracy_of",
    "check_mean_of_rows",
    "is_mean_of_rows",
    "takes_sample_weight",
]
