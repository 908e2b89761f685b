"""*Deep Learning from Scratch*: what its own classes do beside what ours do."""

from __future__ import annotations

import copy
import pickle

import numpy as np
import pytest

import texts
from dropwise.textbook import dlfs
from samples import assert_close, numbers

DTYPES = pytest.mark.parametrize("dtype", [np.float32, np.float64])
SHAPES = pytest.mark.parametrize("shape", [(3, 4), (40, 30), (300, 200), (0, 4), (5,), (2, 3, 4)])


def tolerance(dtype):
    return 1e-4 if dtype == np.float32 else 1e-10


@DTYPES
@SHAPES
def test_relu_beside_the_books(backend, dtype, shape):
    x, dout = numbers(*shape, dtype=dtype), numbers(*shape, dtype=dtype, seed=1)
    book, ours = texts.DlfsRelu(), dlfs.Relu()
    np.testing.assert_array_equal(ours.forward(x), book.forward(x))
    kept = dout.copy()
    dx = ours.backward(dout)
    np.testing.assert_array_equal(dout, kept)  # the book's changes it: the page says so
    np.testing.assert_array_equal(dx, book.backward(dout))
    np.testing.assert_array_equal(ours.mask, book.mask)
    assert dx.dtype == dtype
    for relu in (book, ours):
        relu.mask = np.ones(shape, bool)
    np.testing.assert_array_equal(ours.backward(kept), book.backward(kept.copy()))


@DTYPES
@SHAPES
def test_sigmoid_beside_the_books(backend, dtype, shape):
    x, dout = numbers(*shape, dtype=dtype), numbers(*shape, dtype=dtype, seed=1)
    book, ours = texts.DlfsSigmoid(), dlfs.Sigmoid()
    assert_close(ours.forward(x), book.forward(x), tolerance(dtype))
    assert_close(ours.backward(dout), book.backward(dout), tolerance(dtype))
    for sigmoid in (book, ours):
        sigmoid.out = np.full(shape, 0.25, dtype)
    for gradient in (dout, dout[..., ::-1], dout[:1], dtype(2), dout.astype(np.float64)):
        got, want = ours.backward(gradient), book.backward(gradient)
        assert (got.dtype, got.shape) == (want.dtype, want.shape)
        assert_close(got, want, tolerance(dtype))


@DTYPES
@SHAPES
def test_dropout_beside_the_books_with_one_mask(backend, dtype, shape):
    x, dout = numbers(*shape, dtype=dtype), numbers(*shape, dtype=dtype, seed=1)
    book, ours = texts.DlfsDropout(0.3), dlfs.Dropout(0.3)
    y = ours.forward(x)
    dx = ours.backward(dout)  # before the mask becomes an array, and after
    book.mask = ours.mask
    np.testing.assert_array_equal(y, x * book.mask)
    for gradient in (dx, ours.backward(dout)):
        np.testing.assert_array_equal(gradient, book.backward(dout))
        assert gradient.dtype == dtype
    assert_close(ours.forward(x, False), book.forward(x, False), 1e-6)
    assert ours.mask is book.mask  # a test set in between leaves it
    for dropout in (book, ours):
        dropout.dropout_ratio = 0.0  # as a script sets it
        np.testing.assert_array_equal(dropout.forward(x), x)


@DTYPES
def test_dropout_between_time_layers(backend, dtype):
    xs, dout = numbers(4, 7, 30, dtype=dtype), numbers(4, 7, 30, dtype=dtype, seed=1)
    book, ours = texts.DlfsTimeDropout(0.25), dlfs.TimeDropout(0.25)
    assert (ours.params, ours.grads, ours.mask, ours.train_flg) == ([], [], None, True)
    y, dx = ours.forward(xs), ours.backward(dout)
    book.mask = ours.mask
    assert_close(y, xs * book.mask, 1e-6)
    assert_close(dx, book.backward(dout), 1e-6)
    assert set(np.unique(ours.mask)) == {dtype(0), dtype(1 / 0.75)}
    # 5 sigma, 6e-7
    assert abs((ours.mask == 0).mean() - 0.25) < 5 * np.sqrt(0.25 * 0.75 / xs.size)
    for dropout in (book, ours):
        dropout.train_flg = False
        assert dropout.forward(xs) is xs
    assert_close(ours.backward(dout), dx, 1e-6)


@DTYPES
@pytest.mark.parametrize("b_shape", [(5,), (1, 5)])
@pytest.mark.parametrize("shape", [(3, 12), (3, 3, 2, 2), (300, 12)])
def test_affine_beside_the_first_volumes(backend, dtype, shape, b_shape):
    x, dout = numbers(*shape, dtype=dtype), numbers(shape[0], 5, dtype=dtype, seed=1)
    w, b = numbers(12, 5, dtype=dtype), numbers(*b_shape, dtype=dtype)
    book, ours = texts.DlfsAffine(w, b), dlfs.Affine(w, b)
    for affine in (book, ours):  # as load_params of chapter 8 does
        affine.W, affine.b = 2 * w, b + 1
    assert_close(ours.forward(x), book.forward(x), tolerance(dtype))
    assert_close(ours.backward(dout), book.backward(dout), tolerance(dtype))
    assert_close(ours.dW, book.dW, tolerance(dtype))
    assert_close(ours.db, book.db, tolerance(dtype))
    assert ours.db.shape == book.db.shape
    first = ours.dW
    ours.backward(dout)
    assert ours.dW is not first  # gradients are new arrays, which scripts keep


@DTYPES
@pytest.mark.parametrize("b_shape", [(5,), (1, 5)])
def test_affine_beside_the_second_volumes(backend, dtype, b_shape):
    x, dout = numbers(40, 12, dtype=dtype), numbers(40, 5, dtype=dtype, seed=1)
    w, b = numbers(12, 5, dtype=dtype), numbers(*b_shape, dtype=dtype)
    book, ours = texts.Dlfs2Affine(w, b), dlfs.Affine(w, b)
    assert all(one is other for one, other in zip(ours.params, (w, b), strict=True))
    params, grads = ours.params, ours.grads  # a network collects them when it is made
    for gradient, parameter in zip(grads, params, strict=True):
        assert gradient.shape == parameter.shape
        assert not gradient.any()
    for factor in (1, 3):
        for affine in (book, ours):
            affine.forward(x)
            affine.backward(factor * dout)
        for mine, theirs in zip(grads, book.grads, strict=True):
            assert_close(mine, theirs, tolerance(dtype))
    w *= 0.5  # an optimizer
    assert_close(ours.forward(x), book.forward(x), tolerance(dtype))
    for affine in (book, ours):
        affine.params[0] = np.ones_like(w)
    assert_close(ours.forward(x), book.forward(x), tolerance(dtype))


@DTYPES
def test_affine_of_one_sample_and_of_a_sequence_beside_the_second_volumes(backend, dtype):
    w, b = numbers(4, 3, dtype=dtype), numbers(1, 3, dtype=dtype)
    for x in (numbers(4, dtype=dtype), numbers(2, 5, 4, dtype=dtype)):
        y = dlfs.Affine(w, b).forward(x)
        expected = texts.Dlfs2Affine(w, b).forward(x)
        assert y.shape == expected.shape
        assert_close(y, expected, tolerance(dtype))


def test_gradients_that_came_before_grads_was_asked_for_are_in_it():
    affine = dlfs.Affine(numbers(4, 3), numbers(3))
    affine.forward(numbers(2, 4))
    affine.backward(np.ones((2, 3)))
    np.testing.assert_array_equal(affine.grads[0], affine.dW)
    np.testing.assert_array_equal(affine.grads[1], affine.db)


LABELS = {
    "numbers": lambda t: t,
    "one-hot": lambda t: np.eye(5)[t],
    "soft": lambda t: np.eye(5)[t] * 0.8 + 0.04,
    "bytes": lambda t: t.astype(np.uint8),
}


@DTYPES
@pytest.mark.parametrize("labels", LABELS)
@pytest.mark.parametrize("rows", [1, 9, 100])
def test_softmax_with_loss_beside_the_first_volumes(dtype, labels, rows):
    x, t = numbers(rows, 5, dtype=dtype), LABELS[labels](np.arange(rows) % 5)
    book, ours = texts.DlfsSoftmaxWithLoss(), dlfs.SoftmaxWithLoss()
    assert_close(ours.forward(x, t), book.forward(x, t), 1e-4)  # the page names the 1e-7 of later
    book.added = 0  # editions, which the first ones do not add
    assert_close(ours.forward(x, t), book.forward(x, t), tolerance(dtype))
    assert_close(ours.loss, book.loss, tolerance(dtype))
    assert_close(ours.y, book.y, tolerance(dtype))
    assert ours.t is book.t is t
    assert_close(ours.backward(), book.backward(), tolerance(dtype))
    y = np.full((rows, 5), 0.2, dtype)
    for loss in (book, ours):  # backward uses what is there
        loss.y, loss.t = y, np.roll(t, 1, axis=0)
    assert_close(ours.backward(), book.backward(), tolerance(dtype))
    np.testing.assert_array_equal(y, 0.2 * np.ones_like(y))


def test_softmax_with_loss_of_one_sample_beside_the_first_volumes():
    x, t = numbers(5), np.eye(5)[2]
    book, ours = texts.DlfsSoftmaxWithLoss(), dlfs.SoftmaxWithLoss()
    book.added = 0
    assert_close(ours.forward(x, t), book.forward(x, t))
    assert_close(ours.backward(), book.backward())  # over 5, the size of t, as in the book


def test_a_probability_of_zero_has_a_loss_and_no_warning():
    loss = dlfs.SoftmaxWithLoss()
    assert_close(loss.forward(np.array([[0.0, 2000.0], [3.0, 3.0]]), [0, 1]), 1000 + np.log(2) / 2)


def test_the_gradient_of_the_loss_is_scaled_as_in_the_second_volume():
    loss = dlfs.SoftmaxWithLoss()
    loss.forward(numbers(3, 4), np.array([0, 1, 2]))
    assert_close(loss.backward(0.5), 0.5 * loss.backward())


@pytest.mark.parametrize("how", ["__dict__", "__setstate__"])
def test_objects_filled_from_the_books_pickles(backend, how):
    w, b, x = numbers(3, 2), numbers(2), np.ones((1, 3))
    states = [
        (dlfs.Affine, vars(texts.DlfsAffine(w, b))),
        (dlfs.Affine, vars(texts.Dlfs2Affine(w, b))),
        (dlfs.Dropout, {"dropout_ratio": 0.5, "mask": np.array([[True, False, True]])}),
        (dlfs.TimeDropout, {"dropout_ratio": 0.5, "mask": None, "train_flg": True}),
        (dlfs.Relu, {"mask": None}),
        (dlfs.Relu, {}),
        (dlfs.Sigmoid, {"out": None}),
    ]
    for kind, state in states:
        layer = kind.__new__(kind)
        if how == "__dict__":
            layer.__dict__.update(copy.deepcopy(state))
        else:
            layer.__setstate__(copy.deepcopy(state))
        if kind is dlfs.Dropout:
            np.testing.assert_array_equal(layer.backward(x), [[1, 0, 1]])
        y = layer.forward(x)
        assert layer.backward(np.ones_like(y)).shape == x.shape
        if kind is dlfs.Affine:
            assert_close(y, x @ w + b)
            assert_close(layer.W, w)
            assert layer.grads[0].shape == w.shape


@pytest.mark.parametrize("shape", [(3, 4), (60, 70)])
def test_pickles_and_copies_hold_what_the_books_class_reads(shape):
    x = numbers(*shape)
    for layer in (dlfs.Dropout(), dlfs.TimeDropout(), dlfs.Relu()):
        layer.forward(x)
        expected = layer.backward(x)
        state = layer.__reduce_ex__(2)[2]
        assert type(state["mask"]) is np.ndarray
        for again in (copy.copy(layer), copy.deepcopy(layer), pickle.loads(pickle.dumps(layer))):
            np.testing.assert_array_equal(again.backward(x), expected)
    affine = dlfs.Affine(numbers(4, 3), numbers(3))
    state = affine.__reduce_ex__(2)[2]
    assert state["W"] is affine.W
    assert state["params"][1] is state["b"] is affine.b
    again = pickle.loads(pickle.dumps(affine))
    again.W += 1
    assert_close(again.forward(np.ones((1, 4))), affine.forward(np.ones((1, 4))) + 4)


def test_a_readers_subclass_need_not_call_our_constructor():
    class Mine(dlfs.Dropout):
        def __init__(self):
            self.dropout_ratio = 0.5

    class MyAffine(dlfs.Affine):
        def __init__(self, w):
            self.W, self.b = w, np.zeros(w.shape[1])

    dropout = Mine()
    dropout.forward(np.ones((20, 20)))
    assert dropout.backward(np.ones((20, 20))).any()
    affine = MyAffine(numbers(4, 3))
    assert affine.forward(np.ones((2, 4))).shape == (2, 3)
    assert affine.backward(np.ones((2, 3))).shape == (2, 4)


def test_masks_may_be_deleted_and_asked_for():
    dropout = dlfs.Dropout()
    assert dropout.mask is None
    dropout.forward(np.ones((20, 20)))
    del dropout.mask
    assert not hasattr(dropout, "mask")
    with pytest.raises(AttributeError, match="mask"):
        del dropout.mask
    with pytest.raises(RuntimeError, match="before a training forward"):
        dropout.backward(np.ones((20, 20)))
