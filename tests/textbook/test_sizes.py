"""Small arrays go through NumPy, large ones through a backend: nobody is to see where."""

from __future__ import annotations

import numpy as np
import pytest

from dropwise import functional
from dropwise.textbook import _compute, cs231n, dlfs, nnfs
from dropwise.textbook._shared import fresh_key
from samples import assert_close, numbers

EDGES = [_compute.FEW_ELEMENTS + i for i in (-1, 0, 1)]
DTYPES = pytest.mark.parametrize("dtype", [np.float32, np.float64])


@DTYPES
@pytest.mark.parametrize("size", [1, 12, *EDGES, 3200, 70_000])
def test_masks_are_the_contracts_at_every_size(backend, dtype, size):
    x = np.ones(size, dtype)
    np.random.seed(4)  # noqa: NPY002
    key = fresh_key()
    masks = []
    for forward in (
        lambda: dlfs.Dropout(0.25).forward(x),
        lambda: dlfs.TimeDropout(0.25).forward(x),
        lambda: cs231n.dropout_forward(x, {"mode": "train", "p": 0.75})[1][1],
    ):
        np.random.seed(4)  # noqa: NPY002
        masks.append(forward() != 0)
    dropout = nnfs.Layer_Dropout(0.25)
    np.random.seed(4)  # noqa: NPY002
    dropout.forward(x)
    masks += [dropout.output != 0, dropout.binary_mask != 0]
    expected = functional.dropout_mask(size, 0.25, key=key)
    for mask in masks:
        np.testing.assert_array_equal(mask, expected)


@DTYPES
@pytest.mark.parametrize("columns", [EDGES[0], EDGES[-1]])
def test_a_row_more_changes_no_other(backend, dtype, columns):
    x, dy = numbers(2, columns, dtype=dtype), numbers(2, columns, dtype=dtype, seed=1)
    for make in (dlfs.Relu, dlfs.Sigmoid):
        one, both = make(), make()
        assert_close(one.forward(x[:1]), both.forward(x)[:1], 1e-6)
        assert_close(one.backward(dy[:1]), both.backward(dy)[:1], 1e-6)


@DTYPES
def test_products_agree_on_both_sides_of_the_edge(backend, dtype, monkeypatch):
    x, dy = numbers(70, 90, dtype=dtype), numbers(70, 100, dtype=dtype, seed=1)
    w, b = numbers(90, 100, dtype=dtype), numbers(100, dtype=dtype)
    results = []
    for edge in (0, 1 << 30):
        monkeypatch.setattr(_compute, "FEW_MULTIPLICATIONS", edge)
        affine = dlfs.Affine(w, b)
        results.append([affine.forward(x), affine.backward(dy), affine.dW, affine.db])
    for one, other in zip(*results, strict=True):
        assert one.dtype == other.dtype == dtype
        assert_close(one, other, 1e-4 if dtype == np.float32 else 1e-11)


@pytest.mark.parametrize("rows", [63, 64, 300])
@pytest.mark.parametrize("classes", [1, 3, 31, 32])
def test_softmax_of_few_classes_is_the_formula(rows, classes):
    x = 50 * numbers(rows, classes)
    y = _compute.softmax(x)
    shifted = np.exp(x - x.max(axis=1, keepdims=True))
    assert_close(y, shifted / shifted.sum(axis=1, keepdims=True))
    assert _compute.softmax(np.zeros((rows, classes), int)).dtype == np.float64
