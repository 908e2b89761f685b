"""*Neural Networks from Scratch*: what its own classes do beside what ours do."""

from __future__ import annotations

import numpy as np
import pytest

import texts
from dropwise.textbook import nnfs
from samples import assert_close, numbers

DTYPES = pytest.mark.parametrize("dtype", [np.float32, np.float64])
SHAPES = pytest.mark.parametrize("shape", [(3, 4), (40, 30), (300, 200)])


def tolerance(dtype):
    return 1e-4 if dtype == np.float32 else 1e-10


def pair(shape, dtype, *strengths):
    """A dense layer of the book and one of ours with the same weights."""
    layers = texts.NnfsDense(*shape, *strengths), nnfs.Layer_Dense(*shape, *strengths)
    for layer in layers:
        layer.weights, layer.biases = (
            numbers(*shape, dtype=dtype),
            numbers(1, shape[1], dtype=dtype),
        )
    return layers


@DTYPES
@SHAPES
@pytest.mark.parametrize("strengths", [(), (0.1, 0.2, 0.3, 0.4)])
def test_dense_beside_the_books(backend, dtype, shape, strengths):
    x, dvalues = numbers(*shape, dtype=dtype), numbers(shape[0], 5, dtype=dtype, seed=1)
    book, ours = pair((shape[1], 5), dtype, *strengths)
    for layer in (book, ours):
        assert layer.forward(x, training=True) is None
        layer.backward(dvalues)
    for name in ("output", "dinputs", "dweights", "dbiases"):
        mine, theirs = getattr(ours, name), getattr(book, name)
        assert mine.shape == theirs.shape
        assert mine.dtype == dtype
        assert_close(mine, theirs, tolerance(dtype))
    other = numbers(*shape, dtype=dtype, seed=5)
    for layer in (book, ours):  # backward uses the inputs that are there
        layer.inputs = other
        layer.backward(dvalues)
    assert_close(ours.dweights, book.dweights, tolerance(dtype))


def scalar_biases(layer):
    layer.biases = 0


def flat_biases(layer):
    layer.biases = layer.biases[0]


def weights_in_a_list(layer):
    layer.weights = layer.weights.tolist()


@DTYPES
@pytest.mark.parametrize("change", [scalar_biases, flat_biases, weights_in_a_list])
@pytest.mark.parametrize("shape", [(4,), (6, 4), (2, 6, 4)])
def test_dense_of_odd_arrays_beside_the_books(backend, dtype, change, shape):
    x = numbers(*shape, dtype=dtype)
    book, ours = pair((4, 3), dtype)
    for layer in (book, ours):
        change(layer)
        layer.forward(x)
    assert ours.output.shape == book.output.shape
    assert_close(ours.output, book.output, tolerance(dtype))
    if len(shape) == 2 and change is not weights_in_a_list:  # else the book's backward fails
        for layer in (book, ours):
            layer.backward(np.ones((6, 3), dtype))
        assert ours.dbiases.shape == book.dbiases.shape
        assert_close(ours.dinputs, book.dinputs, tolerance(dtype))


def test_dense_of_one_sample_gives_a_row():
    book, ours = pair((4, 3), np.float64)
    for layer in (book, ours):
        layer.forward(np.ones(4))
        assert layer.output.shape == (1, 3)
    assert_close(ours.output, book.output)


@pytest.mark.parametrize(
    "scale", [0.1, 1, lambda n_inputs, n_neurons: np.sqrt(2 / n_inputs)], ids=["0.1", "1", "He"]
)
def test_a_readers_own_initialisation(scale, monkeypatch):
    monkeypatch.setattr(nnfs.Layer_Dense, "weight_scale", scale)
    np.random.seed(5)  # noqa: NPY002
    dense, drawn_next = nnfs.Layer_Dense(6, 4), np.random.rand()  # noqa: NPY002
    np.random.seed(5)  # noqa: NPY002
    factor = scale(6, 4) if callable(scale) else scale
    np.testing.assert_array_equal(dense.weights, factor * np.random.randn(6, 4))  # noqa: NPY002
    assert np.random.rand() == drawn_next  # noqa: NPY002


def test_first_weights_are_the_books_unless_asked():
    np.random.seed(5)  # noqa: NPY002
    book = texts.NnfsDense(6, 4)
    np.random.seed(5)  # noqa: NPY002
    ours = nnfs.Layer_Dense(6, 4)
    np.testing.assert_array_equal(ours.weights, book.weights)
    np.testing.assert_array_equal(ours.biases, book.biases)


def test_a_readers_subclass_need_not_call_our_constructor():
    class Layer_He(nnfs.Layer_Dense):
        def __init__(self, n_inputs, n_neurons):
            super().__init__(n_inputs, n_neurons)
            self.weights = np.ones((n_inputs, n_neurons))

    class Keep(nnfs.Layer_Dropout):
        def __init__(self, keep):
            self.rate = keep

    class Slow(nnfs.Optimizer_SGD):
        def __init__(self):
            self.current_learning_rate = self.learning_rate = 0.1
            self.decay = self.momentum = self.iterations = 0

    dense, dropout = Layer_He(3, 2), Keep(1.0)
    dense.forward(np.ones((1, 3)))
    np.testing.assert_array_equal(dense.output, [[3, 3]])
    dropout.forward(dense.output)
    np.testing.assert_array_equal(dropout.output, [[3, 3]])
    dense.backward(np.ones((1, 2)))
    Slow().update_params(dense)
    assert_close(dense.weights, np.full((3, 2), 0.9))


@DTYPES
@SHAPES
def test_dropout_beside_the_books_with_one_mask(backend, dtype, shape):
    x, dvalues = numbers(*shape, dtype=dtype), numbers(*shape, dtype=dtype, seed=1)
    book, ours = texts.NnfsDropout(0.4), nnfs.Layer_Dropout(0.4)
    assert ours.rate == book.rate
    ours.forward(x, True)
    ours.backward(dvalues)
    dinputs = ours.dinputs
    book.binary_mask = ours.binary_mask
    assert_close(ours.output, x * book.binary_mask, 1e-6)
    book.backward(dvalues)
    assert_close(dinputs, book.dinputs, 1e-6)
    ours.backward(dvalues)
    assert_close(ours.dinputs, book.dinputs, 1e-6)
    for dropout in (book, ours):
        dropout.forward(x, training=False)
        np.testing.assert_array_equal(dropout.output, x)
        assert dropout.output is not x
        dropout.rate = 1.0  # as a script sets it: all are kept
        dropout.forward(x, training=True)
        np.testing.assert_array_equal(dropout.output, x)


@DTYPES
@SHAPES
def test_relu_beside_the_books(backend, dtype, shape):
    x, dvalues = numbers(*shape, dtype=dtype), numbers(*shape, dtype=dtype, seed=1)
    book, ours = texts.NnfsReLU(), nnfs.Activation_ReLU()
    for relu in (book, ours):
        relu.forward(x, training=True)
        relu.backward(dvalues)
        assert relu.inputs is x
    np.testing.assert_array_equal(ours.output, book.output)
    np.testing.assert_array_equal(ours.dinputs, book.dinputs)
    for relu in (book, ours):  # backward uses the inputs that are there
        relu.inputs = -x
        relu.backward(dvalues)
    np.testing.assert_array_equal(ours.dinputs, book.dinputs)
    assert ours.dinputs.dtype == ours.output.dtype == dtype


@DTYPES
@pytest.mark.parametrize("shape", [(3, 4), (200, 3), (200, 40), (64, 10)])
def test_softmax_beside_the_books(dtype, shape):
    x, dvalues = 3 * numbers(*shape, dtype=dtype), numbers(*shape, dtype=dtype, seed=1)
    book, ours = texts.NnfsSoftmax(), nnfs.Activation_Softmax()
    for softmax in (book, ours):
        softmax.forward(x, training=True)
        softmax.backward(dvalues)
    assert_close(ours.output, book.output, tolerance(dtype))
    assert_close(ours.dinputs, book.dinputs, tolerance(dtype))
    assert ours.output.dtype == ours.dinputs.dtype == dtype
    assert ours.output.flags.c_contiguous


LABELS = {
    "numbers": lambda y: y,
    "bytes": lambda y: y.astype(np.uint8),
    "one-hot": lambda y: np.eye(4)[y],
    "soft": lambda y: np.eye(4)[y] * 0.6 + 0.1,
    "the last class as -1": lambda y: np.where(y == 3, -1, y),
}


@DTYPES
@pytest.mark.parametrize("labels", LABELS)
@pytest.mark.parametrize("rows", [3, 200])
def test_losses_beside_the_books(dtype, labels, rows):
    x, y = 20 * numbers(rows, 4, dtype=dtype), LABELS[labels](np.arange(rows) % 4)
    book, ours = (
        texts.NnfsSoftmaxCrossentropy(),
        nnfs.Activation_Softmax_Loss_CategoricalCrossentropy(),
    )
    losses = [both.forward(x, y) for both in (book, ours)]
    assert_close(losses[1], losses[0], tolerance(dtype))  # some are clipped
    for both in (book, ours):
        both.backward(both.output, y)
    assert_close(ours.dinputs, book.dinputs, tolerance(dtype))
    assert ours.activation.output is ours.output

    p = np.clip(book.output, 1e-3, 1)
    for loss in (book.loss, ours.loss):
        loss.backward(p, y)
    assert_close(ours.loss.forward(p, y), book.loss.forward(p, y), tolerance(dtype))
    assert_close(ours.loss.dinputs, book.loss.dinputs, tolerance(dtype))


def test_a_class_that_is_not_there_is_numpys_error():
    for both in (
        texts.NnfsSoftmaxCrossentropy(),
        nnfs.Activation_Softmax_Loss_CategoricalCrossentropy(),
    ):
        with pytest.raises(IndexError, match="out of bounds"):
            both.forward(np.zeros((2, 3)), np.array([0, 3]))


def test_every_alias_is_an_attribute_and_an_argument():
    dense = nnfs.Layer_Dense(2, 3, weight_L1=1e-1, weight_L2=1e-2, bias_L1=1e-3, bias_L2=1e-4)
    assert (dense.weight_L1, dense.weight_L2, dense.bias_L1, dense.bias_L2) == (
        1e-1,
        1e-2,
        1e-3,
        1e-4,
    )
    dense.weight_L2 = 7
    assert dense.weight_regularizer_l2 == 7
    dense.forward(np.ones((4, 2)), drop_on=True)
    dense.backward(np.ones((4, 3)))
    for short, long in {
        "weight": "weights",
        "bias": "biases",
        "dweight": "dweights",
        "dbias": "dbiases",
        "input": "inputs",
        "dinput": "dinputs",
    }.items():
        assert getattr(dense, short) is getattr(dense, long)
        setattr(dense, short, np.zeros(3))
        assert not getattr(dense, long).any()
        delattr(dense, short)
        assert not hasattr(dense, long)
        assert not hasattr(dense, short)
    for layer in (
        nnfs.Dropout(0.5),
        nnfs.Activation_ReLu(),
        nnfs.Activation_Softmax(),
    ):
        layer.forward(np.ones((20, 20)), drop_on=False)
        layer.backward(np.ones((20, 20))) if not isinstance(layer, nnfs.Dropout) else None
        assert layer.input.shape == (20, 20)
        assert not hasattr(layer, "weights")
        assert not hasattr(layer, "weight")
    dropout = nnfs.Dropout(0.5)
    dropout.forward(np.ones((20, 20)), drop_on=False)
    assert dropout.output.all()
    dropout.forward(np.ones((20, 20)), drop_on=True)
    assert not dropout.output.all()
