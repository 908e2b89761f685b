"""*Neural Networks from Scratch*: each class beside the formula it stands for."""

from __future__ import annotations

import copy
import pickle

import ml_dtypes
import numpy as np
import pytest

from dropwise.textbook import nnfs
from samples import assert_close, numbers


@pytest.mark.parametrize("rate", [0.1, 0.5, 0.0])
def test_dropout_is_the_books_formula(backend, rate):
    x, dvalues = numbers(200, 64, dtype=np.float32), numbers(200, 64, dtype=np.float32, seed=1)
    dropout = nnfs.Layer_Dropout(rate)
    assert dropout.rate == 1 - rate  # the book's attribute is what is kept
    assert dropout.forward(x) is None
    dropout.backward(dvalues)
    mask = dropout.binary_mask
    assert set(np.unique(mask)) <= {np.float32(0), np.float32(1 / (1 - rate))}
    np.testing.assert_array_equal(dropout.output, x * mask)
    np.testing.assert_array_equal(dropout.dinputs, dvalues * mask)
    assert dropout.inputs is x
    assert dropout.output.dtype == dropout.dinputs.dtype == mask.dtype == np.float32
    # 12800 elements: 5 sigma, 6e-7
    assert abs((mask == 0).mean() - rate) <= 5 * np.sqrt(rate * (1 - rate) / mask.size)


def test_dropout_at_inference_leaves_the_mask(backend):
    x = numbers(20, 30)
    dropout = nnfs.Layer_Dropout(0.5)
    dropout.forward(x, training=True)
    dropout.backward(x)
    first = dropout.dinputs
    dropout.forward(x, training=False)
    np.testing.assert_array_equal(dropout.output, x)
    dropout.output[:] = 0
    assert x.any()  # it was a copy, as in the book
    dropout.backward(x)
    np.testing.assert_array_equal(dropout.dinputs, first)
    assert dropout.dinputs is not first


def test_dropout_mask_may_be_set(backend):
    x = numbers(6, 5)
    dropout = nnfs.Layer_Dropout(0.5)
    with pytest.raises(AttributeError, match="training forward"):
        dropout.binary_mask  # noqa: B018
    with pytest.raises(RuntimeError, match="before"):
        dropout.backward(x)
    dropout.binary_mask = np.full((6, 5), 3.0)
    dropout.backward(x)
    np.testing.assert_array_equal(dropout.dinputs, 3 * x)
    dropout.forward(x)
    dropout.binary_mask[:] = 0
    dropout.backward(x)
    assert not dropout.dinputs.any()


def test_dropout_of_everything_is_zero_and_not_nan(backend):
    dropout = nnfs.Layer_Dropout(1.0)
    dropout.forward(np.ones(9))
    dropout.backward(np.full(9, np.nan))
    assert not dropout.output.any()
    assert not dropout.dinputs.any()


@pytest.mark.parametrize("dtype", [np.int64, np.float32, np.float64])
@pytest.mark.parametrize("shape", [(6, 5), (1, 5), (6, 1)])
def test_a_mask_that_a_script_sets_multiplies_what_it_keeps(backend, dtype, shape):
    rng = np.random.default_rng(0)
    mask = rng.integers(0, 3, shape) / 2
    gradient = rng.integers(1, 9, (6, 5)).astype(dtype)
    dropout = nnfs.Layer_Dropout(0.5)
    dropout.binary_mask = mask
    dropout.backward(gradient)
    np.testing.assert_array_equal(dropout.dinputs, gradient * mask)
    assert dropout.dinputs.dtype == (np.float64 if dtype == np.int64 else dtype)
    if dtype != np.int64:
        gradient[np.broadcast_to(mask == 0, gradient.shape)] = np.inf
        with np.errstate(all="raise"):
            dropout.backward(gradient)
        assert np.isfinite(dropout.dinputs).all()


def test_the_short_forms_of_the_chapter_are_the_same_things():
    dropout = nnfs.Dropout(0.1)
    dropout.forward(np.ones((4, 4)))
    dropout.backward(np.ones((4, 4)))
    assert dropout.mask is dropout.binary_mask
    assert dropout.dinput is dropout.dinputs
    dropout.mask = np.zeros((4, 4))
    assert dropout.binary_mask is dropout.mask
    dense = nnfs.Layer_Dense(2, 3, weight_L2=5e-4, bias_L2=5e-4)
    assert (dense.weight_regularizer_l2, dense.bias_regularizer_l2) == (5e-4, 5e-4)
    assert isinstance(nnfs.Activation_ReLu(), nnfs.Activation_ReLU)
    optimizer = nnfs.Optimizer_Adam(decay=1.0)
    optimizer.post_update_param()
    optimizer.pre_update_param()
    assert optimizer.current_learning_rate == optimizer.learning_rate / 2


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_dense_is_the_books_formula(backend, dtype):
    np.random.seed(0)  # noqa: NPY002
    dense = nnfs.Layer_Dense(6, 4, 0.1, 0.2, 0.3, 0.4)
    np.random.seed(0)  # noqa: NPY002
    np.testing.assert_array_equal(dense.weights, 0.01 * np.random.randn(6, 4))  # noqa: NPY002
    assert not dense.biases.any()
    assert dense.biases.shape == (1, 4)
    dense.weights = w = numbers(6, 4)
    dense.biases = b = np.array([[0.0, 1, -1, 2]])

    x, dvalues = numbers(10, 6, dtype=dtype, seed=1), numbers(10, 4, dtype=dtype, seed=2)
    tolerance = 1e-12 if dtype == np.float64 else 1e-5
    dense.forward(x)
    assert_close(dense.output, x @ w + b, tolerance)
    dense.backward(dvalues)
    assert_close(dense.dinputs, dvalues @ w.T, tolerance)
    l1_w, l1_b = np.where(w < 0, -1, 1), np.where(b < 0, -1, 1)
    assert_close(dense.dweights, x.T @ dvalues + 0.1 * l1_w + 2 * 0.2 * w, tolerance)
    assert_close(dense.dbiases, dvalues.sum(axis=0) + 0.3 * l1_b + 2 * 0.4 * b, tolerance)
    assert dense.output.dtype == dense.dinputs.dtype == dtype  # kept, also by float64 weights

    penalty = 0.1 * abs(w).sum() + 0.2 * (w**2).sum() + 0.3 * abs(b).sum() + 0.4 * (b**2).sum()
    assert_close(nnfs.Loss_CategoricalCrossentropy().regularization_loss(dense), penalty)


def test_arrays_that_a_script_keeps_stay_as_they_are():
    dense = nnfs.Layer_Dense(3, 2)
    x = numbers(5, 3)
    dense.forward(x)
    output = dense.output
    before = output.copy()
    dense.backward(np.ones((5, 2)))
    gradients = dense.dweights, dense.dbiases, dense.dinputs
    kept = copy.deepcopy(gradients)
    dense.forward(2 * x)
    dense.backward(np.full((5, 2), 7.0))  # and twice
    dense.backward(np.full((5, 2), 7.0))
    np.testing.assert_array_equal(output, before)
    for array, copied in zip(gradients, kept, strict=True):
        np.testing.assert_array_equal(array, copied)


def test_weights_are_the_scripts_own_array():
    dense = nnfs.Layer_Dense(3, 2)
    dense.weights = w = numbers(3, 2)
    w[:] = 0
    dense.forward(numbers(4, 3))
    assert not dense.output.any()
    dense.weights += 1.0
    assert (w == 1).all()
    best = dense.weights.copy()
    dense.weights *= 5
    dense.set_parameters(best, np.ones((1, 2)))
    assert dense.get_parameters()[0] is best
    dense.forward(np.ones((1, 3)))
    np.testing.assert_array_equal(dense.output, [[4, 4]])


def test_relu_and_softmax_are_the_books_formulas(backend):
    x, dvalues = numbers(7, 5), numbers(7, 5, seed=1)
    relu = nnfs.Activation_ReLU()
    relu.forward(x)
    relu.backward(dvalues)
    np.testing.assert_array_equal(relu.output, np.maximum(0, x))
    np.testing.assert_array_equal(relu.dinputs, np.where(x <= 0, 0, dvalues))
    softmax = nnfs.Activation_Softmax()
    softmax.forward(x)
    softmax.backward(dvalues)
    for s, p, dv, dx in zip(x, softmax.output, dvalues, softmax.dinputs, strict=True):
        assert_close(p, np.exp(s) / np.exp(s).sum())
        assert_close(dx, (np.diag(p) - np.outer(p, p)) @ dv)
    np.testing.assert_array_equal(softmax.predictions(softmax.output), x.argmax(axis=1))


@pytest.mark.parametrize("one_hot", [False, True])
def test_losses_are_the_books_formulas(one_hot):
    x, classes = numbers(9, 3), np.arange(9) % 3
    y = np.eye(3)[classes] if one_hot else classes
    softmax, loss = nnfs.Activation_Softmax(), nnfs.Loss_CategoricalCrossentropy()
    softmax.forward(x)
    p = softmax.output
    expected = -np.log(p[range(9), classes])
    assert_close(loss.forward(p, y), expected)
    assert_close(loss.calculate(p, y), expected.mean())
    loss.backward(p, y)
    assert_close(loss.dinputs, -np.eye(3)[classes] / p / 9)
    softmax.backward(loss.dinputs)

    both = nnfs.Activation_Softmax_Loss_CategoricalCrossentropy()
    assert_close(both.forward(x, y), expected.mean())
    assert_close(both.output, p)
    both.backward(both.output, y)
    assert_close(both.dinputs, (p - np.eye(3)[classes]) / 9)
    assert_close(both.dinputs, softmax.dinputs)
    both.backward(both.output, y)  # the output was not changed
    assert_close(both.dinputs, softmax.dinputs)


def test_loss_accumulates_as_later_chapters_need_it():
    loss, dense = nnfs.Loss_CategoricalCrossentropy(), nnfs.Layer_Dense(2, 2, 0, 0.5)
    p, y = np.array([[0.5, 0.5], [0.25, 0.75]]), np.array([0, 0])
    loss.remember_trainable_layers([dense, dense])
    loss.new_pass()
    assert loss.calculate(p[:1], y[:1], include_regularization=True) == pytest.approx(
        (np.log(2), (dense.weights**2).sum())
    )
    loss.calculate(p[1:], y[1:])
    assert loss.calculate_accumulated() == pytest.approx(np.log(8) / 2)


def adam_of_the_book(w, gradients, rate, decay, epsilon, beta_1, beta_2):
    m, v = np.zeros_like(w), np.zeros_like(w)
    for i, g in enumerate(gradients):
        m = beta_1 * m + (1 - beta_1) * g
        v = beta_2 * v + (1 - beta_2) * g**2
        m_hat, v_hat = m / (1 - beta_1 ** (i + 1)), v / (1 - beta_2 ** (i + 1))
        w = w - rate / (1 + decay * i) * m_hat / (np.sqrt(v_hat) + epsilon)
    return w


def sgd_of_the_book(w, gradients, rate, decay, momentum):
    update = np.zeros_like(w)
    for i, g in enumerate(gradients):
        update = momentum * update - rate / (1 + decay * i) * g
        w = w + update
    return w


@pytest.mark.parametrize(
    ("optimizer", "formula", "settings"),
    [
        (nnfs.Optimizer_Adam, adam_of_the_book, (0.05, 5e-3, 1e-7, 0.9, 0.999)),
        (nnfs.Optimizer_SGD, sgd_of_the_book, (0.5, 1e-2, 0.9)),
        (nnfs.Optimizer_SGD, sgd_of_the_book, (0.5, 0.0, 0.0)),
    ],
)
def test_optimizers_are_the_books_formulas(optimizer, formula, settings):
    optimizer = optimizer(*settings)
    layers = [nnfs.Layer_Dense(4, 3), nnfs.Layer_Dense(3, 2)]
    starts = [(layer.weights.copy(), layer.biases.copy()) for layer in layers]
    gradients = [
        (numbers(12, *layer.weights.shape, seed=1), numbers(12, *layer.biases.shape, seed=2))
        for layer in layers
    ]
    for i in range(12):
        optimizer.pre_update_params()
        for layer, (dweights, dbiases) in zip(layers, gradients, strict=True):
            layer.dweights, layer.dbiases = dweights[i], dbiases[i]
            optimizer.update_params(layer)
        optimizer.post_update_params()
    assert optimizer.iterations == 12
    for layer, (w, b), (dweights, dbiases) in zip(layers, starts, gradients, strict=True):
        assert_close(layer.weights, formula(w, dweights, *settings), 1e-9)
        assert_close(layer.biases, formula(b, dbiases, *settings), 1e-9)


def test_models_can_be_copied_and_pickled():
    layer, optimizer = nnfs.Layer_Dense(2, 2), nnfs.Optimizer_Adam()
    layer.dweights, layer.dbiases = np.ones((2, 2)), np.ones((1, 2))
    optimizer.update_params(layer)
    dropout = nnfs.Layer_Dropout(0.5)
    dropout.forward(np.ones((3, 3)))
    for original in ([layer, dropout], optimizer):
        copied = pickle.loads(pickle.dumps(copy.deepcopy(original)))
        if original is not optimizer:
            np.testing.assert_array_equal(copied[0].weights, layer.weights)
            np.testing.assert_array_equal(copied[1].binary_mask, dropout.binary_mask)


def test_spiral_data_is_the_books_own(monkeypatch):
    """The same numbers from the same draws, and the same draws afterwards."""
    np.random.seed(3)  # noqa: NPY002
    expected = []
    for number in range(3):
        angle = np.linspace(4 * number, 4 * number + 4, 50) + 0.2 * np.random.randn(50)  # noqa: NPY002
        radius = np.linspace(0, 1, 50)[:, None]
        expected.append(radius * np.c_[np.sin(2.5 * angle), np.cos(2.5 * angle)])
    drawn_next = np.random.rand()  # noqa: NPY002
    np.random.seed(3)  # noqa: NPY002
    points, labels = nnfs.spiral_data(samples=50, classes=3)
    assert np.random.rand() == drawn_next  # noqa: NPY002
    assert_close(points, np.concatenate(expected))
    assert labels.dtype == np.uint8
    assert np.bincount(labels).tolist() == [50, 50, 50]

    plain = np.zeros  # as nnfs.init() leaves it
    monkeypatch.setattr(np, "zeros", lambda shape, dtype="f4": plain(shape, dtype))
    assert nnfs.spiral_data(5, 2)[0].dtype == np.float32


@pytest.mark.parametrize("n", [6, 1000])
def test_whole_numbers_as_gradients_are_what_the_book_makes_of_them(n):
    dropout = nnfs.Layer_Dropout(0.3)
    dropout.forward(np.ones(n))
    dropout.backward(np.full(n, 10))
    np.testing.assert_array_equal(dropout.dinputs, 10 * dropout.binary_mask)

    loss = nnfs.Loss_CategoricalCrossentropy()
    for dvalues in (np.array([[1, 2], [2, 1]]), [[1, 2], [2, 1]]):
        loss.backward(dvalues, [0, 1])
        np.testing.assert_array_equal(loss.dinputs, [[-0.5, 0], [0, -0.5]])
    np.testing.assert_array_equal(loss.forward([[0.5, 0.5]], [1]), -np.log([0.5]))

    both = nnfs.Activation_Softmax_Loss_CategoricalCrossentropy()
    for dtype in (np.float16, np.float32, ml_dtypes.bfloat16):
        loss.backward(np.ones((2, 2), dtype), [0, 1])
        both.backward(np.ones((2, 2), dtype), [0, 1])
        assert loss.dinputs.dtype == both.dinputs.dtype == dtype
    both.backward([[1, 0], [1, 0]], [0, 1])
    np.testing.assert_array_equal(both.dinputs, [[0, 0], [0.5, -0.5]])
