"""*Neural Networks from Scratch*: its optimizers, and what they keep on a layer, beside ours."""

from __future__ import annotations

import copy
import pickle
from types import SimpleNamespace

import numpy as np
import pytest

import texts
from dropwise.textbook import nnfs
from samples import assert_close, numbers

KINDS = {
    "SGD": (texts.NnfsSGD, nnfs.Optimizer_SGD, (0.5, 1e-2)),
    "momentum": (texts.NnfsSGD, nnfs.Optimizer_SGD, (0.5, 1e-2, 0.9)),
    "Adam": (texts.NnfsAdam, nnfs.Optimizer_Adam, (0.05, 5e-3)),
}
OPTIMIZERS = pytest.mark.parametrize("kind", KINDS)
DTYPES = pytest.mark.parametrize("dtype", [np.float32, np.float64])
SHAPES = pytest.mark.parametrize("shape", [(4, 3), (40, 30), (300, 200)])
MOMENTS = ("weight_momentums", "weight_cache", "bias_momentums", "bias_cache")


def layer(shape, dtype=np.float64):
    return SimpleNamespace(
        weights=numbers(*shape, dtype=dtype), biases=numbers(1, shape[1], dtype=dtype)
    )


def step(optimizer, stepped, seed):
    optimizer.pre_update_params()
    stepped.dweights = numbers(*stepped.weights.shape, dtype=stepped.weights.dtype, seed=seed)
    stepped.dbiases = numbers(1, stepped.weights.shape[1], dtype=stepped.weights.dtype, seed=seed)
    optimizer.update_params(stepped)
    optimizer.post_update_params()


def assert_alike(ours, book, names=("weights", "biases", *MOMENTS), tolerance=1e-10):
    if ours.weights.dtype == np.float32:
        tolerance = 1e-4
    for name in names:
        assert hasattr(ours, name) == hasattr(book, name), name
        if hasattr(book, name):
            assert getattr(ours, name).shape == getattr(book, name).shape
            assert_close(getattr(ours, name), getattr(book, name), tolerance)


@OPTIMIZERS
@DTYPES
@SHAPES
def test_steps_and_moments_beside_the_books(kind, dtype, shape):
    theirs, mine, settings = KINDS[kind]
    book, ours = theirs(*settings), mine(*settings)
    a, b = layer(shape, dtype), layer(shape, dtype)
    weights = b.weights
    for seed in range(5):
        step(book, a, seed)
        step(ours, b, seed)
        assert_alike(b, a)
        assert ours.current_learning_rate == pytest.approx(book.current_learning_rate)
    assert b.weights is weights  # changed in place, as in the book
    assert b.weights.dtype == dtype


@OPTIMIZERS
@SHAPES
def test_what_a_reader_sets_takes_effect(kind, shape):
    theirs, mine, settings = KINDS[kind]
    optimizers, layers = (theirs(*settings), mine(*settings)), (layer(shape), layer(shape))
    for seed in range(3):
        for optimizer, stepped in zip(optimizers, layers, strict=True):
            if kind != "Adam":
                optimizer.momentum = 0.5 * seed
            else:
                optimizer.beta_1, optimizer.epsilon = 0.5, 0.1
            optimizer.iterations += 1
            step(optimizer, stepped, seed)
            stepped.weights = 0.5 * stepped.weights
    assert_alike(layers[1], layers[0], ("weights", "biases"))


@pytest.mark.parametrize("kind", ["momentum", "Adam"])
@SHAPES
def test_moments_may_be_deleted_and_come_from_elsewhere(kind, shape):
    theirs, mine, settings = KINDS[kind]
    optimizers, layers = (theirs(*settings), mine(*settings)), (layer(shape), layer(shape))
    for optimizer, stepped in zip(optimizers, layers, strict=True):
        step(optimizer, stepped, 0)
        for name in MOMENTS:
            stepped.__dict__.pop(name, None)
        step(optimizer, stepped, 1)
    assert_alike(layers[1], layers[0])

    pickled = pickle.loads(pickle.dumps(vars(layers[0])))  # of the book's own class
    found = SimpleNamespace(**pickled)
    fresh = mine(*settings)
    fresh.__dict__.update(vars(optimizers[0]))
    step(optimizers[0], layers[0], 2)
    step(fresh, found, 2)
    assert_alike(found, layers[0])


@SHAPES
def test_a_second_optimizer_starts_without_the_firsts_momentum(shape):
    first, second = nnfs.Optimizer_SGD(0.1, 0.0, 0.9), nnfs.Optimizer_SGD(0.1, 0.0, 0.9)
    stepped, expected = layer(shape), layer(shape)
    step(first, stepped, 0)
    expected.weights, expected.biases = stepped.weights.copy(), stepped.biases.copy()
    step(second, stepped, 1)
    step(texts.NnfsSGD(0.1, 0.0, 0.9), expected, 1)  # of a layer that none has stepped
    assert_alike(stepped, expected)

    step(first, stepped, 2)  # has its own back
    alone = layer(shape)
    book = texts.NnfsSGD(0.1, 0.0, 0.9)
    step(book, alone, 0)
    step(book, alone, 2)
    assert_close(stepped.weight_momentums, alone.weight_momentums)
    step(nnfs.Optimizer_Adam(), stepped, 3)
    step(second, stepped, 4)
    assert not hasattr(stepped, "weight_cache")


def test_an_optimizer_and_its_layer_go_on_from_a_pickle():
    optimizer, stepped = nnfs.Optimizer_Adam(), nnfs.Layer_Dense(4, 3)
    step(optimizer, stepped, 0)
    again, copied = pickle.loads(pickle.dumps(copy.deepcopy((optimizer, stepped))))
    step(optimizer, stepped, 1)
    step(again, copied, 1)
    assert_alike(copied, stepped)


@OPTIMIZERS
@SHAPES
def test_biases_that_are_a_number_become_an_array(kind, shape):
    theirs, mine, settings = KINDS[kind]
    layers = layer(shape), layer(shape)
    for optimizer, stepped in zip((theirs(*settings), mine(*settings)), layers, strict=True):
        stepped.biases = 0
        if kind != "SGD":  # zeros_like(0) is an integer, to which the book adds
            stepped.biases = 0.0
        step(optimizer, stepped, 1)
    assert_alike(layers[1], layers[0], ("weights", "biases"))


@pytest.mark.parametrize("kind", ["momentum", "Adam"])
def test_arrays_that_no_rule_takes_are_stepped_all_the_same(kind):
    theirs, mine, settings = KINDS[kind]
    layers = layer((300, 200)), layer((300, 200))
    for optimizer, stepped in zip((theirs(*settings), mine(*settings)), layers, strict=True):
        stepped.weights = np.asfortranarray(stepped.weights)
        step(optimizer, stepped, 1)
        stepped.dweights = stepped.dweights.astype(np.float32)
        optimizer.update_params(stepped)
    assert_alike(layers[1], layers[0], ("weights", "biases"), 1e-7)
