"""CS231n: the notebooks' checks, and each function beside its formula."""

from __future__ import annotations

import functools

import numpy as np
import pytest

import texts
from dropwise.textbook import cs231n
from gradients import gradient_by_differences
from samples import assert_close, numbers


@pytest.mark.parametrize("p", [0.25, 0.4, 0.7])
def test_the_notebooks_forward_check(backend, p):
    np.random.seed(231)  # noqa: NPY002
    x = np.random.randn(500, 500) + 10  # noqa: NPY002
    out, _ = cs231n.dropout_forward(x, {"mode": "train", "p": p})
    out_test, _ = cs231n.dropout_forward(x, {"mode": "test", "p": p})
    # 5 sigma, 6e-7; the mean of x is about 10
    sigma = np.sqrt(p * (1 - p) / x.size)
    assert abs((out == 0).mean() - (1 - p)) < 5 * sigma
    assert abs(out.mean() - x.mean()) < 5 * 10.1 * sigma / p
    np.testing.assert_array_equal(out_test, x)


def test_the_notebooks_backward_check(backend):
    np.random.seed(231)  # noqa: NPY002
    x = np.random.randn(10, 10) + 10  # noqa: NPY002
    dout = np.random.randn(*x.shape)  # noqa: NPY002
    dropout_param = {"mode": "train", "p": 0.2, "seed": 123}
    out, cache = cs231n.dropout_forward(x, dropout_param)
    dx = cs231n.dropout_backward(dout, cache)
    numeric = gradient_by_differences(
        lambda: np.sum(cs231n.dropout_forward(x, dropout_param)[0] * dout), x, 1e-5
    )
    error = np.abs(dx - numeric) / np.maximum(1e-8, np.abs(dx) + np.abs(numeric))
    assert error.max() < 1e-8
    param, mask = cache
    assert param is dropout_param
    assert_close(out, x * mask)
    assert_close(dx, dout * mask)
    assert set(np.unique(mask.round(12))) == {0.0, 5.0}


def test_p_is_what_is_kept_unless_switched():
    x = np.ones(20_000)
    param = {"mode": "train", "p": 0.2, "seed": 1}
    old = functools.partial(cs231n.dropout_forward, p_is="drop")
    kept = (cs231n.dropout_forward(x, param)[0] != 0).mean()
    kept_by_old = (old(x, param)[0] != 0).mean()
    sigma = np.sqrt(0.2 * 0.8 / x.size)  # 5 sigma, 6e-7
    assert abs(kept - 0.2) < 5 * sigma
    assert abs(kept_by_old - 0.8) < 5 * sigma
    assert_close(old(x, param)[0].max(), 1 / 0.8)
    with pytest.raises(ValueError, match="'keep' or 'drop', got 'both'"):
        cs231n.dropout_forward(x, param, p_is="both")


def test_test_mode_passes_both_ways():
    x = numbers(3, 4)
    out, cache = cs231n.dropout_forward(x, {"mode": "test", "p": 0.5})
    assert cache[1] is None
    np.testing.assert_array_equal(out, x)
    np.testing.assert_array_equal(cs231n.dropout_backward(x, cache), x)


@pytest.mark.parametrize(
    ("param", "message"),
    [
        ({"mode": "train", "p": 1.5}, r"\['p'\] must be in \[0, 1\], got 1.5"),
        ({"mode": "eval", "p": 0.5}, r"'train' or 'test', got 'eval'"),
    ],
)
def test_bad_parameters_are_named(param, message):
    with pytest.raises(ValueError, match=message):
        cs231n.dropout_forward(np.ones(3), param)


@pytest.mark.parametrize("seed", [123, np.int64(7), [1, 2], np.array([5, 6], np.uint32)])
def test_seed_fixes_the_mask_and_seeds_numpys_generator(seed):
    param = {"mode": "train", "p": 0.5, "seed": seed}
    x, found = np.ones(300), []
    for forward in (texts.cs231n_dropout_forward, cs231n.dropout_forward):
        pair = []
        for before in (0, 1):
            np.random.seed(before)  # noqa: NPY002
            out, _ = forward(x, param)
            pair.append((out.tolist(), np.random.rand(3).tolist()))  # noqa: NPY002
        assert pair[0] == pair[1]
        found.append(pair[0][0])
    assert found[0] != found[1]  # the masks are others


def test_a_seed_of_none_is_a_new_mask_each_time():
    param = {"mode": "train", "p": 0.5, "seed": None}
    outs = [cs231n.dropout_forward(np.ones(300), param)[0] for _ in range(2)]
    assert not np.array_equal(*outs)


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_keeps_the_dtype(backend, dtype):
    x = numbers(6, 5, dtype=dtype)
    out, cache = cs231n.dropout_forward(x, {"mode": "train", "p": 0.5})
    assert out.dtype == cs231n.dropout_backward(x, cache).dtype == dtype


@pytest.mark.parametrize("shape", [(4, 12), (4, 3, 2, 2)])
def test_affine_and_relu_are_the_courses_formulas(backend, shape):
    x, w, b, dout = numbers(*shape), numbers(12, 5), numbers(5), numbers(4, 5, seed=1)
    rows = x.reshape(4, 12)
    a, cache = cs231n.affine_forward(x, w, b)
    assert_close(a, rows @ w + b)
    assert all(one is other for one, other in zip(cache, (x, w, b), strict=True))
    dx, dw_, db = cs231n.affine_backward(dout, cache)
    assert dx.shape == shape
    assert_close(dx.reshape(4, 12), dout @ w.T)
    assert_close(dw_, rows.T @ dout)
    assert_close(db, dout.sum(axis=0))

    out, cache = cs231n.relu_forward(a)
    np.testing.assert_array_equal(out, np.maximum(a, 0))
    before = dout.copy()
    np.testing.assert_array_equal(cs231n.relu_backward(dout, cache), dout * (a > 0))
    np.testing.assert_array_equal(dout, before)
