"""*Neural Networks from Scratch*, chapters 18 to 22: a model that finds, trains, saves layers."""

from __future__ import annotations

import copy
import pickle

import numpy as np
import pytest

import texts
from dropwise.textbook import nnfs
from dropwise.textbook.nnfs import *  # noqa: F403  # as a script has it
from samples import assert_close, numbers


class Layer_Input:
    """Of the reader, as the package has none."""

    def forward(self, inputs, training):
        self.output = inputs


class Model:
    """A model as those chapters build it, in our words."""

    def __init__(self, *layers, loss, optimizer):
        self.layers, self.loss, self.optimizer = layers, loss, optimizer
        self.input_layer = Layer_Input()
        chain = [self.input_layer, *layers, loss]
        for before, layer, after in zip(chain, chain[1:], chain[2:], strict=False):
            layer.prev, layer.next = before, after
        self.trainable_layers = [layer for layer in layers if hasattr(layer, "weights")]
        loss.remember_trainable_layers(self.trainable_layers)
        self.shortcut = None
        if isinstance(layers[-1], Activation_Softmax) and isinstance(  # noqa: F405
            loss,
            Loss_CategoricalCrossentropy,  # noqa: F405
        ):
            self.shortcut = Activation_Softmax_Loss_CategoricalCrossentropy()  # noqa: F405

    def forward(self, inputs, training):
        self.input_layer.forward(inputs, training)
        for layer in self.layers:
            layer.forward(layer.prev.output, training)
        return layer.output

    def backward(self, output, y):
        self.shortcut.backward(output, y)
        self.layers[-1].dinputs = self.shortcut.dinputs
        for layer in reversed(self.layers[:-1]):
            layer.backward(layer.next.dinputs)

    def train(self, x, y, epochs, batch_size):
        for _ in range(epochs):
            self.loss.new_pass()
            for i in range(0, len(x), batch_size):
                output = self.forward(x[i : i + batch_size], training=True)
                part = y[i : i + batch_size]
                self.loss.calculate(output, part, include_regularization=True)
                self.backward(output, part)
                self.optimizer.pre_update_params()
                for layer in self.trainable_layers:
                    self.optimizer.update_params(layer)
                self.optimizer.post_update_params()
        return self.loss.calculate_accumulated(include_regularization=True)

    def accuracy(self, x, y):
        predictions = self.layers[-1].predictions(self.forward(x, training=False))
        return np.mean(predictions == y)

    def get_parameters(self):
        return [layer.get_parameters() for layer in self.trainable_layers]

    def set_parameters(self, parameters):
        for pair, layer in zip(parameters, self.trainable_layers, strict=True):
            layer.set_parameters(*pair)

    def saved(self):
        model = copy.deepcopy(self)
        model.loss.new_pass()
        model.input_layer.__dict__.pop("output", None)
        model.loss.__dict__.pop("dinputs", None)
        for layer in model.layers:
            for name in ("inputs", "output", "dinputs", "dweights", "dbiases", "binary_mask"):
                layer.__dict__.pop(name, None)
        return pickle.dumps(model)


def make_model():
    np.random.seed(0)  # noqa: NPY002
    return Model(
        Layer_Dense(2, 64, weight_regularizer_l2=5e-4, bias_regularizer_l2=5e-4),  # noqa: F405
        Activation_ReLU(),  # noqa: F405
        Layer_Dropout(0.1),  # noqa: F405
        Layer_Dense(64, 3),  # noqa: F405
        Activation_Softmax(),  # noqa: F405
        loss=Loss_CategoricalCrossentropy(),  # noqa: F405
        optimizer=Optimizer_Adam(learning_rate=0.05, decay=5e-5),  # noqa: F405
    )


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_a_model_trains_and_goes_on_from_its_files(backend, dtype):
    x, y = nnfs.spiral_data(200, 3)
    x = x.astype(dtype)
    order = np.random.default_rng(0).permutation(len(x))
    x, y = x[order], y[order]
    model = make_model()
    assert len(model.trainable_layers) == 2
    assert model.shortcut is not None
    before = model.accuracy(x, y)
    data_loss, penalty = model.train(x, y, epochs=60, batch_size=128)
    assert 0 < data_loss < 1.0
    assert penalty > 0
    assert model.accuracy(x, y) > before + 0.2

    other = make_model()
    other.set_parameters(pickle.loads(pickle.dumps(model.get_parameters())))
    assert_close(other.forward(x, training=False), model.forward(x, training=False))

    again = pickle.loads(model.saved())
    dropout = again.layers[2]
    assert not hasattr(dropout, "binary_mask")  # it was popped, as the whole batch was
    with pytest.raises(RuntimeError, match="before a training forward"):
        dropout.backward(np.ones((2, 64)))
    assert_close(again.forward(x, training=False), model.forward(x, training=False))
    for trained in (model, again):  # moments and iterations went along
        np.random.seed(9)  # noqa: NPY002
        trained.train(x, y, epochs=2, batch_size=128)
    assert_close(again.layers[0].weights, model.layers[0].weights)


BOOKS = {
    nnfs.Layer_Dropout: {"rate": 0.9},
    nnfs.Layer_Dense: {**vars(texts.NnfsDense(4, 4)), "weight_regularizer_l1": 0}
    | dict.fromkeys(("weight_regularizer_l2", "bias_regularizer_l1", "bias_regularizer_l2"), 0),
    nnfs.Activation_ReLU: {},
    nnfs.Activation_Softmax: {},
}


@pytest.mark.parametrize("how", ["__dict__", "__setstate__"])
@pytest.mark.parametrize("kind", BOOKS, ids=lambda kind: kind.__name__)
@pytest.mark.parametrize("rows", [3, 300])
def test_objects_filled_from_the_books_pickles(backend, kind, how, rows):
    layer, x = kind.__new__(kind), numbers(rows, 4)
    if how == "__dict__":
        layer.__dict__.update(copy.deepcopy(BOOKS[kind]))
    else:
        layer.__setstate__(copy.deepcopy(BOOKS[kind]))
    layer.forward(x, training=True)
    layer.backward(np.ones((rows, 4)))
    assert layer.dinputs.shape == x.shape
    layer.forward(x, training=False)
    assert layer.output.shape == x.shape
    if kind is nnfs.Layer_Dropout:
        np.testing.assert_array_equal(layer.output, x)
        layer.__dict__["binary_mask"] = np.full((rows, 4), 2.0)
        layer.backward(x)
        np.testing.assert_array_equal(layer.dinputs, 2 * x)


def test_a_pickle_holds_what_the_books_class_reads():
    dropout = nnfs.Layer_Dropout(0.25)
    dropout.forward(numbers(30, 40))
    state = dropout.__reduce_ex__(2)[2]
    assert set(state) == {"rate", "inputs", "output", "binary_mask"}
    assert type(state["binary_mask"]) is np.ndarray
    book = texts.NnfsDropout.__new__(texts.NnfsDropout)
    book.__dict__.update(state)
    for layer in (dropout, book):
        layer.backward(np.ones((30, 40)))
    np.testing.assert_array_equal(dropout.dinputs, book.dinputs)


def test_a_readers_loss_may_derive_from_ours():
    class Loss_MeanSquaredError(nnfs.Loss):
        def forward(self, y_pred, y_true):
            return np.mean((y_true - y_pred) ** 2, axis=-1)

    loss = Loss_MeanSquaredError()
    y_pred, y = numbers(6, 2), numbers(6, 2, seed=1)
    assert_close(loss.calculate(y_pred, y), np.mean((y - y_pred) ** 2))
    loss.new_pass()
    loss.calculate(y_pred[:4], y[:4])
    loss.calculate(y_pred[4:], y[4:])
    assert_close(loss.calculate_accumulated(), np.mean((y - y_pred) ** 2))
