"""Softmax with cross-entropy in the backends, against NumPy in wider arithmetic; the sigmoid."""

from __future__ import annotations

import numpy as np
import pytest

import dropwise as dw
from dropwise._backends import active
from support import require

SHAPES = [(1, 1), (1, 2), (3, 7), (17, 8), (33, 10), (128, 10), (5, 100), (40, 1000), (1003, 3)]
REAL = [np.float32, np.float64]


def forward(scores, labels):
    probabilities, losses = np.empty_like(scores), np.empty(len(scores))
    correct = np.empty(len(scores), bool)
    sums = active().softmax_cross_entropy(scores, labels, probabilities, losses, correct)
    # NumPy adds up in the same order.
    np.testing.assert_array_equal(sums, (losses.sum(), correct.sum()))
    return probabilities, losses, correct


def problem(shape, dtype, scale=3.0, seed=0):
    rng = np.random.default_rng(seed)
    scores = (scale * rng.standard_normal(shape)).astype(dtype)
    return scores, rng.integers(0, shape[1], shape[0])


def in_longdouble(scores, labels):
    wide = scores.astype(np.longdouble)
    shifted = wide - wide.max(axis=1, keepdims=True)
    exp = np.exp(shifted)
    total = exp.sum(axis=1)
    losses = np.log(total) - shifted[np.arange(len(labels)), labels]
    return exp / total[:, None], losses, shifted


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("dtype", REAL)
@pytest.mark.parametrize("scale", [0.0, 1e-3, 3.0, 60.0, 1e4])
def test_the_softmax_and_the_losses_are_right_to_rounding(backend, shape, dtype, scale):
    scores, labels = problem(shape, dtype, scale)
    probabilities, losses, correct = forward(scores, labels)
    expected, expected_losses, shifted = in_longdouble(scores, labels)
    eps = np.finfo(dtype).eps
    tiny = np.finfo(dtype).smallest_subnormal
    # The difference to the largest score is rounded, and exp makes that a relative error.
    # So is the sum, in parts that grow with the classes.
    allowed = eps * (4 + shape[1] / 100 - np.maximum(shifted, -750)) * expected + tiny
    assert (np.abs(probabilities - expected) <= allowed).all()
    # float32 probabilities are summed as they are rounded.
    np.testing.assert_allclose(losses, expected_losses.astype(float), rtol=4 * eps, atol=4 * eps)
    np.testing.assert_array_equal(correct, scores.argmax(axis=1) == labels)


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("dtype", REAL)
@pytest.mark.parametrize("weighted", [False, True])
def test_the_gradient_has_the_bits_of_its_formula(backend, shape, dtype, weighted):
    scores, labels = problem(shape, dtype)
    probabilities, _, _ = forward(scores, labels)
    rows = np.arange(len(labels))
    shares = np.random.default_rng(1).random(len(labels)).astype(dtype) if weighted else None
    if shares is None:
        expected = probabilities / dtype(len(labels))
        expected[rows, labels] -= dtype(1.0 / len(labels))
    else:
        expected = probabilities * shares[:, None]
        expected[rows, labels] -= shares
    out = np.empty_like(scores)
    active().softmax_gradient(probabilities, labels, shares, out)
    np.testing.assert_array_equal(out, expected)
    active().softmax_gradient(probabilities, labels, shares, probabilities)
    np.testing.assert_array_equal(probabilities, expected)


@pytest.mark.parametrize("dtype", REAL)
def test_rows_that_are_not_finite_are_those_of_numpy(backend, dtype):
    nan, inf = np.nan, np.inf
    scores = np.array(
        [
            [1, nan, 3],
            [nan, 1, nan],
            [inf, 1, 2],
            [-inf, 1, 2],
            [-inf, -inf, -inf],
            [1, 1, 1],
            [0.0, -0.0, -1],
            [1, inf, inf],
            [3, 1, nan],
        ],
        dtype,
    )
    for label in range(3):
        labels = np.full(len(scores), label)
        probabilities, losses, correct = forward(scores, labels)
        with np.errstate(all="ignore"):
            shifted = scores.astype(float) - scores.max(axis=1, keepdims=True)
            expected = np.exp(shifted) / np.exp(shifted).sum(axis=1, keepdims=True)
            expected_losses = -np.log(expected[:, label])
        np.testing.assert_allclose(probabilities, expected, rtol=1e-6)
        np.testing.assert_allclose(losses, expected_losses, rtol=1e-6)
        np.testing.assert_array_equal(correct, scores.argmax(axis=1) == label)


@pytest.mark.parametrize("dtype", REAL)
def test_every_set_and_backend_gives_the_same_bits(isa, dtype):
    require("numba")
    for shape in SHAPES:
        scores, labels = problem(shape, dtype, 20.0)
        native = forward(scores, labels)
        with dw.backend("numba"):
            numba = forward(scores, labels)
        for got, want in zip(native, numba, strict=True):
            np.testing.assert_array_equal(got, want)


def test_rows_do_not_depend_on_the_threads(backend, threads):
    scores, labels = problem((3001, 50), np.float32)
    probabilities, losses, correct = forward(scores, labels)
    for i in (0, 15, 16, 1500, 3000):
        one = forward(scores[i : i + 1], labels[i : i + 1])
        for got, want in zip((probabilities, losses, correct), one, strict=True):
            np.testing.assert_array_equal(got[i], want[0])


def test_what_would_touch_foreign_memory_is_refused():
    require("dropwise._native")
    with dw.backend("native"):
        scores, labels = problem((4, 3), np.float32)
        good = (scores, labels, scores.copy(), np.empty(4), np.empty(4, bool))
        for place, wrong in (
            (0, scores.astype(np.float16)),
            (0, scores[:, :2]),
            (1, labels[:3]),
            (1, labels.astype(np.int32)),
            (2, scores[:3]),
            (2, scores.astype(np.float64)),
            (3, np.empty(4, np.float32)),
            (4, np.empty(3, bool)),
        ):
            arguments = list(good)
            arguments[place] = wrong
            with pytest.raises(ValueError, match="must"):
                active().softmax_cross_entropy(*arguments)
        for wrong in (np.array([0, 1, 2, 3]), np.array([0, 1, 2, -1])):
            with pytest.raises(ValueError, match="must"):
                active().softmax_gradient(scores, wrong, None, scores.copy())
        with pytest.raises(ValueError, match="must"):
            active().softmax_gradient(scores, labels, np.ones(3, np.float32), scores.copy())
        for wrong in (scores[:3], scores.T, scores.astype(np.float64), scores.astype(np.float16)):
            for arguments in ((wrong, scores, scores), (scores, wrong, scores)):
                with pytest.raises(ValueError, match="must"):
                    active().sigmoid_gradient(*arguments)


@pytest.mark.parametrize("n", [0, 1, 7, 64, 1000, (1 << 14) + 3, 3 << 14])
@pytest.mark.parametrize("dtype", REAL)
def test_the_gradient_of_the_sigmoid_has_the_bits_of_its_formula(backend, isa, threads, n, dtype):
    rng = np.random.default_rng(n)
    y, dy = rng.random(n).astype(dtype), rng.standard_normal(n).astype(dtype)
    dy[:3] = [np.nan, np.inf, -0.0][: len(dy)]
    expected = dy * (1 - y) * y
    out = np.empty_like(y)
    active().sigmoid_gradient(y, dy, out)
    np.testing.assert_array_equal(out, expected)
    for in_place in (0, 1):
        arrays = [y.copy(), dy.copy()]
        active().sigmoid_gradient(*arrays, arrays[in_place])
        np.testing.assert_array_equal(arrays[in_place], expected)


@pytest.mark.parametrize("wrong", [-1, 3, 2**62, -(2**63)])
def test_a_label_out_of_range_is_told_and_nothing_is_written(backend, wrong):
    scores, labels = problem((4, 3), np.float32)
    labels[-1] = wrong
    results = [np.full_like(scores, 5), np.full(4, 5.0), np.zeros(4, bool)]
    before = [result.copy() for result in results]
    assert active().softmax_cross_entropy(scores, labels, *results) is None
    for result, old in zip(results, before, strict=True):
        assert np.array_equal(result, old)
