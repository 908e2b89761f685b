"""What ``from dropwise.textbook.… import *`` brings into a script, and what it leaves alone."""

from __future__ import annotations

import numpy as np
import pytest

from dropwise.textbook import cs231n, cs231n_2017, dlfs, nnfs

STARS = {
    dlfs: {"Affine", "Dropout", "Relu", "Sigmoid", "SoftmaxWithLoss", "TimeDropout"},
    nnfs: {
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
    },
    cs231n: {
        "affine_backward",
        "affine_forward",
        "dropout_backward",
        "dropout_forward",
        "relu_backward",
        "relu_forward",
    },
}
STARS[cs231n_2017] = STARS[cs231n]


@pytest.mark.parametrize("module", STARS, ids=lambda module: module.__name__)
def test_a_star_brings_what_the_text_defines_and_no_more(module):
    assert set(module.__all__) == STARS[module]
    assert all(hasattr(module, name) for name in module.__all__)


def test_what_readers_extend_is_theirs():
    """Sandwich layers of the course, which readers write with normalisation in them."""
    for module in (cs231n, cs231n_2017):
        assert not {"affine_relu_forward", "affine_relu_backward"} & set(module.__all__)


def test_the_old_edition_drops_with_p():
    x = np.ones(20_000)
    param = {"mode": "train", "p": 0.2, "seed": 1}
    kept = (cs231n_2017.dropout_forward(x, param)[0] != 0).mean()
    assert abs(kept - 0.8) < 5 * np.sqrt(0.2 * 0.8 / x.size)  # 5 sigma, 6e-7
    out, cache = cs231n_2017.dropout_forward(x, {"mode": "train", "p": 0})
    np.testing.assert_array_equal(out, x)
    np.testing.assert_array_equal(cs231n_2017.dropout_backward(x, cache), x)
