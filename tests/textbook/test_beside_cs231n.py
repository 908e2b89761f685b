"""CS231n: what the course's functions do beside what ours do."""

from __future__ import annotations

import numpy as np
import pytest

import texts
from dropwise.textbook import cs231n
from samples import assert_close, numbers

DTYPES = pytest.mark.parametrize("dtype", [np.float32, np.float64])


def tolerance(dtype):
    return 1e-4 if dtype == np.float32 else 1e-10


@DTYPES
@pytest.mark.parametrize("b_shape", [(5,), (1, 5)])
@pytest.mark.parametrize("shape", [(3, 12), (4, 3, 2, 2), (300, 500)])
def test_affine_beside_the_courses(backend, dtype, shape, b_shape):
    x, dout = numbers(*shape, dtype=dtype), numbers(shape[0], 5, dtype=dtype, seed=1)
    w, b = numbers(np.prod(shape[1:]), 5, dtype=dtype), numbers(*b_shape, dtype=dtype)
    theirs, book_cache = texts.cs231n_affine_forward(x, w, b)
    mine, cache = cs231n.affine_forward(x, w, b)
    assert all(one is other for one, other in zip(cache, (x, w, b), strict=True))
    assert_close(mine, theirs, tolerance(dtype))
    gradients = cs231n.affine_backward(dout, cache)
    for mine, theirs in zip(gradients, texts.cs231n_affine_backward(dout, book_cache), strict=True):
        assert mine.shape == theirs.shape
        assert mine.dtype == dtype
        assert_close(mine, theirs, tolerance(dtype))


@DTYPES
@pytest.mark.parametrize("shape", [(3, 4), (4, 3, 2, 2), (300, 500)])
def test_relu_beside_the_courses(backend, dtype, shape):
    x, dout = numbers(*shape, dtype=dtype), numbers(*shape, dtype=dtype, seed=1)
    out, cache = cs231n.relu_forward(x)
    assert cache is x
    np.testing.assert_array_equal(out, texts.cs231n_relu_forward(x)[0])
    dx = cs231n.relu_backward(dout, cache)
    np.testing.assert_array_equal(dx, texts.cs231n_relu_backward(dout, x))
    assert out.dtype == dx.dtype == dtype


@DTYPES
@pytest.mark.parametrize("shape", [(3, 4), (4, 3, 2, 2), (300, 500)])
def test_dropout_beside_the_courses_with_one_mask(backend, dtype, shape):
    x, dout = numbers(*shape, dtype=dtype), numbers(*shape, dtype=dtype, seed=1)
    param = {"mode": "train", "p": 0.75}
    out, cache = cs231n.dropout_forward(x, param)
    kept, mask = cache
    assert kept is param
    assert_close(out, x * mask, 1e-6)
    assert set(np.unique(mask)) <= {dtype(0), dtype(1 / 0.75)}
    assert out.dtype == mask.dtype == dtype
    dx = cs231n.dropout_backward(dout, cache)
    assert dx.dtype == dtype
    assert_close(dx, texts.cs231n_dropout_backward(dout, cache), 1e-6)
    mask[...] = 2  # a script's own
    assert_close(cs231n.dropout_backward(dout, cache), 2 * dout)
    param["mode"] = "test"  # backward asks for the mode at that moment
    assert cs231n.dropout_backward(dout, cache) is dout
    out, cache = cs231n.dropout_forward(x, param)
    np.testing.assert_array_equal(out, x)
    assert cache[1] is None


@DTYPES
@pytest.mark.parametrize("shape", [(3, 4), (300, 500)])
def test_what_is_dropped_is_zero_whatever_it_was(backend, dtype, shape):
    """The course's product would give NaN: the page says so."""
    x = np.full(shape, np.inf, dtype)
    with np.errstate(all="raise"):
        out, cache = cs231n.dropout_forward(x, {"mode": "train", "p": 0.5, "seed": 3})
        dx = cs231n.dropout_backward(x, cache)
    for result in (out, dx):
        np.testing.assert_array_equal(result, np.where(cache[1] == 0, 0, np.inf))
