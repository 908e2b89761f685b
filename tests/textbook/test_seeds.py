"""What fixes the masks of the texts' classes: NumPy's global generator, or a seed."""

from __future__ import annotations

import numpy as np
import pytest

import dropwise as dw
from dropwise.textbook import cs231n, dlfs, nnfs


def nnfs_output(x):
    dropout = nnfs.Layer_Dropout(0.5)
    dropout.forward(x)
    return dropout.output


@pytest.mark.parametrize(
    "forward",
    [
        lambda x: dlfs.Dropout(0.5).forward(x),
        nnfs_output,
        lambda x: cs231n.dropout_forward(x, {"mode": "train", "p": 0.5})[0],
    ],
    ids=["dlfs", "nnfs", "cs231n"],
)
def test_np_random_seed_repeats_a_mask(forward):
    x = np.ones(200)
    np.random.seed(5)  # noqa: NPY002
    a, b = forward(x), forward(x)
    np.random.seed(5)  # noqa: NPY002
    np.testing.assert_array_equal(forward(x), a)
    assert not np.array_equal(a, b)


def test_texts_and_layers_make_the_same_masks(backend):
    out, _ = cs231n.dropout_forward(np.ones(1000), {"mode": "train", "p": 0.75, "seed": 42})
    layer = dw.Dropout(0.25, seed=42)
    np.testing.assert_array_equal(out, layer.forward(np.ones(1000)))
