"""*Deep Learning from Scratch*: its printed session, and each class beside its formula."""

from __future__ import annotations

import copy

import numpy as np
import pytest

from dropwise.textbook import dlfs
from gradients import gradient_by_differences
from samples import assert_close, numbers


def test_the_articles_session(backend):
    dropout = dlfs.Dropout()
    assert dropout.dropout_ratio == 0.5
    assert dropout.mask is None
    x = np.array([0, 1, 2, 3, 4])
    results = {tuple(dropout.forward(x).tolist()) for _ in range(64)}
    assert len(results) > 8  # anew at each call; 5 elements have 16 results that differ
    assert all(value in (0, i) for result in results for i, value in enumerate(result))
    y = dropout.forward(x)
    assert y.dtype == x.dtype
    np.testing.assert_array_equal(y, x * dropout.mask)
    assert dropout.mask.dtype == bool

    np.testing.assert_array_equal(dropout.forward(x, train_flg=False), [0, 0.5, 1, 1.5, 2])

    dropout.mask = np.array([False, False, True, False, True])
    np.testing.assert_array_equal(x * dropout.mask, [0, 0, 2, 0, 4])
    dout = [0.0, 0.1, 0.2, 0.3, 0.4]
    np.testing.assert_array_equal(dropout.backward(dout), [0, 0, 0.2, 0, 0.4])


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_dropout_is_the_books_formula(backend, dtype):
    x, dout = numbers(300, 40, dtype=dtype), numbers(300, 40, dtype=dtype, seed=1)
    dropout = dlfs.Dropout(0.2)
    y, dx = dropout.forward(x), dropout.backward(dout)
    np.testing.assert_array_equal(y, x * dropout.mask)
    np.testing.assert_array_equal(dx, dout * dropout.mask)
    assert y.dtype == dx.dtype == dtype
    # 12000 elements: 5 sigma, 6e-7
    assert abs(1 - dropout.mask.mean() - 0.2) < 5 * np.sqrt(0.2 * 0.8 / 12000)


def test_backward_uses_the_mask_as_it_is(backend):
    x = numbers(20, 30)
    dropout = dlfs.Dropout(0.5)
    dropout.forward(x)
    first = dropout.backward(x)
    np.testing.assert_array_equal(dropout.backward(x), first)  # twice
    dropout.forward(x, train_flg=False)  # a test set in between
    np.testing.assert_array_equal(dropout.backward(x), first)
    dropout.mask[:] = True
    np.testing.assert_array_equal(dropout.backward(x), x)
    dropout.mask = x > 0
    np.testing.assert_array_equal(dropout.backward(x), x * (x > 0))
    np.testing.assert_array_equal(dropout.backward(x[None]), (x * (x > 0))[None])  # broadcast
    dropout.forward(x)  # a new forward, a new mask
    np.testing.assert_array_equal(dropout.backward(x), x * dropout.mask)


def test_backward_before_forward_is_an_error():
    for layer in (dlfs.Dropout(), dlfs.Relu(), dlfs.Sigmoid(), dlfs.SoftmaxWithLoss()):
        with pytest.raises(RuntimeError, match="before"):
            layer.backward(np.ones(3))
    with pytest.raises(RuntimeError, match="before"):
        dlfs.Affine(np.ones((3, 2)), np.ones(2)).backward(np.ones((1, 2)))


def test_a_gradient_of_another_shape_is_an_error():
    dropout, relu = dlfs.Dropout(), dlfs.Relu()
    for layer in (dropout, relu):
        layer.forward(np.ones((4, 3)))
        with pytest.raises(ValueError, match=r"\(3, 4\).*\(4, 3\)"):
            layer.backward(np.ones((3, 4)))


def test_relu_is_the_books_formula(backend):
    x, dout = numbers(50, 7), numbers(50, 7, seed=1)
    relu, kept = dlfs.Relu(), dout.copy()
    np.testing.assert_array_equal(relu.forward(x), np.where(x <= 0, 0, x))
    np.testing.assert_array_equal(relu.backward(dout), np.where(x <= 0, 0, dout))
    np.testing.assert_array_equal(dout, kept)  # the book's class would zero the caller's array
    np.testing.assert_array_equal(relu.mask, x <= 0)
    relu.mask = x > 1
    np.testing.assert_array_equal(relu.backward(dout), np.where(x > 1, 0, dout))


def test_sigmoid_is_the_books_formula():
    x, dout = numbers(9, 4), numbers(9, 4, seed=1)
    sigmoid = dlfs.Sigmoid()
    out = 1 / (1 + np.exp(-x))
    assert_close(sigmoid.forward(x), out)
    assert_close(sigmoid.backward(dout), dout * (1 - out) * out)
    assert sigmoid.forward(np.array([-1e4, 1e4])).tolist() == [0, 1]


@pytest.mark.parametrize("shape", [(6, 12), (6, 3, 2, 2)])
def test_affine_is_the_books_formula(backend, shape):
    x, w, b, dout = numbers(*shape), numbers(12, 5), numbers(5), numbers(6, 5, seed=1)
    affine = dlfs.Affine(w, b)
    rows = x.reshape(6, 12)
    assert_close(affine.forward(x), rows @ w + b)
    dx = affine.backward(dout)
    assert dx.shape == shape
    assert_close(dx.reshape(6, 12), dout @ w.T)
    assert_close(affine.dW, rows.T @ dout)
    assert_close(affine.db, dout.sum(axis=0))


def test_affine_takes_a_tall_float32_test_set(backend):
    """Whole numbers: exact in any order.  More rows than are converted at once."""
    x = np.random.default_rng(0).integers(-8, 9, (1500, 700)).astype(np.float32)
    w = np.random.default_rng(1).integers(-8, 9, (700, 5)).astype(np.float64)
    np.testing.assert_array_equal(dlfs.Affine(w, np.ones(5)).forward(x), x @ w + 1)


def test_affine_keeps_its_arrays_by_reference():
    w, b = numbers(4, 3), numbers(3)
    affine = dlfs.Affine(w, b)
    w -= 0.5  # as an optimizer with a dict of parameters does
    b += 1
    x = numbers(2, 4)
    assert_close(affine.forward(x), x @ w + b)


def test_affine_computes_in_the_dtype_of_the_books_product():
    x = numbers(5, 4, dtype=np.float32)
    assert dlfs.Affine(numbers(4, 3), numbers(3)).forward(x).dtype == np.float64
    w, b = numbers(4, 3, dtype=np.float32), numbers(3, dtype=np.float32)
    assert dlfs.Affine(w, b).forward(x).dtype == np.float32


@pytest.mark.parametrize("one_hot", [False, True])
def test_softmax_with_loss_is_the_books_formula(one_hot):
    x, t = numbers(8, 5), np.arange(8) % 5
    target = np.eye(5)[t]
    y = np.exp(x) / np.exp(x).sum(axis=1, keepdims=True)
    last = dlfs.SoftmaxWithLoss()
    loss = last.forward(x, target if one_hot else t)
    assert_close(loss, -np.log((y * target).sum(axis=1)).mean())
    assert last.loss == loss
    assert_close(last.y, y)
    assert_close(last.backward(), (y - target) / 8)
    assert_close(
        last.forward(x[0], target[0]), -np.log(y[0] @ target[0])
    )  # one sample, as a vector


def test_a_network_passes_the_books_gradient_check(backend):
    params = {"W1": numbers(6, 7), "b1": numbers(7), "W2": numbers(7, 4), "b2": numbers(4)}
    dropout = dlfs.Dropout(0.3)
    layers = [
        dlfs.Affine(params["W1"], params["b1"]),
        dlfs.Relu(),
        dropout,
        dlfs.Affine(params["W2"], params["b2"]),
    ]
    last = dlfs.SoftmaxWithLoss()
    x, t = numbers(5, 6, seed=3), np.array([0, 1, 2, 3, 0])

    def loss():
        np.random.seed(11)  # noqa: NPY002 - the same mask each time
        y = x
        for layer in layers:
            y = layer.forward(y)
        return last.forward(y, t)

    loss()
    dout = last.backward()
    for layer in reversed(layers):
        dout = layer.backward(dout)
    found = {"W1": layers[0].dW, "b1": layers[0].db, "W2": layers[3].dW, "b2": layers[3].db}
    for name, value in params.items():
        assert_close(found[name], gradient_by_differences(loss, value), 1e-6)
    assert_close(dout, gradient_by_differences(loss, x), 1e-6)


@pytest.mark.parametrize("n", [6, 1000])
def test_a_gradient_of_whole_numbers_is_scaled_as_the_text_does(n):
    layer = dlfs.TimeDropout(0.3)
    layer.forward(np.ones(n))
    dy = np.full(n, 10)
    dx = layer.backward(dy)
    np.testing.assert_array_equal(dx, dy * layer.mask)
    np.testing.assert_array_equal(layer.backward(dy), dx)


@pytest.mark.parametrize("n", [4, 40])
def test_relu_refuses_a_gradient_of_another_shape(n):
    relu = dlfs.Relu()
    relu.forward(np.ones((n, n)))
    for dy in (np.ones((n, 1)), np.ones(n), 1.0):
        with pytest.raises((ValueError, IndexError)):
            relu.backward(dy)


def test_a_copy_of_an_affine_layer_has_lists_of_its_own():
    layer = dlfs.Affine(np.zeros((2, 2)), np.zeros(2))
    layer.params  # noqa: B018 - the second volume's list
    other = copy.copy(layer)
    other.W = np.ones((2, 2))
    assert (layer.W == 0).all()
    assert other.b is layer.b
