"""Losses: values, gradients, accuracy."""

from __future__ import annotations

import numpy as np
import pytest

import dropwise as dw


def scores(rows=7, classes=4, dtype=np.float64):
    return np.random.default_rng(0).standard_normal((rows, classes)).astype(dtype)


def classes_of(rows=7, classes=4):
    return np.random.default_rng(1).integers(0, classes, rows)


def softmax(z):
    e = np.exp(z - z.max(axis=1, keepdims=True))
    return e / e.sum(axis=1, keepdims=True)


# Few classes are laid out in another way than many.
@pytest.mark.parametrize("classes", [2, 3, 31, 32, 100])
def test_cross_entropy_is_minus_the_mean_log_probability_of_the_target(classes):
    z, y = scores(9, classes), classes_of(9, classes)
    loss = dw.SoftmaxCrossEntropy()
    want = -np.log(softmax(z)[np.arange(9), y]).mean()
    assert loss.forward(z, y) == pytest.approx(want, rel=1e-12)
    np.testing.assert_allclose(loss.probabilities, softmax(z), rtol=1e-12)
    one_hot = np.eye(classes)[y]
    gradient = loss.backward()
    np.testing.assert_allclose(gradient, (softmax(z) - one_hot) / 9, atol=1e-15)
    assert loss.forward(z, one_hot) == pytest.approx(want, rel=1e-12)
    np.testing.assert_allclose(loss.backward(), gradient, atol=1e-15)


@pytest.mark.parametrize("shift", [0, 1e4, -1e4])
def test_cross_entropy_is_stable_for_large_scores(shift):
    loss = dw.SoftmaxCrossEntropy()
    z = np.array([[1000.0, 0.0], [0.0, 1000.0]]) + shift
    assert loss.forward(z, [0, 1]) == 0.0
    assert loss.forward(z, [1, 0]) == 1000.0
    np.testing.assert_array_equal(loss.backward(), [[0.5, -0.5], [-0.5, 0.5]])


def test_cross_entropy_keeps_the_dtype_and_its_inputs():
    loss = dw.SoftmaxCrossEntropy()
    for classes in (3, 40):
        z, y = scores(6, classes, np.float32), classes_of(6, classes)
        before = z.copy(), y.copy()
        value = loss.forward(z, y)
        assert isinstance(value, float)
        assert loss.backward().dtype == np.float32
        assert loss.probabilities.dtype == np.float32
        np.testing.assert_array_equal(z, before[0])
        np.testing.assert_array_equal(y, before[1])


def test_cross_entropy_of_whole_numbers_is_that_of_floats():
    loss = dw.SoftmaxCrossEntropy()
    assert loss.forward([[1, 2], [0, 5]], [0, 1]) == loss.forward([[1.0, 2.0], [0.0, 5.0]], [0, 1])


@pytest.mark.parametrize("classes", [3, 40])
def test_probabilities_are_rows_that_one_may_change(classes):
    loss = dw.SoftmaxCrossEntropy()
    loss.forward(scores(6, classes), classes_of(6, classes))
    gradient = loss.backward()
    loss.probabilities.reshape(-1)[:] = 0
    np.testing.assert_array_equal(loss.backward(), gradient)


def test_backward_can_be_called_twice():
    loss = dw.SoftmaxCrossEntropy()
    loss.forward(scores(), classes_of())
    np.testing.assert_array_equal(loss.backward(), loss.backward())


@pytest.mark.parametrize("classes", [4, 40])
def test_accuracy_is_the_share_of_rows_whose_largest_score_is_the_targets(classes):
    z, y = scores(50, classes), classes_of(50, classes)
    loss = dw.SoftmaxCrossEntropy()
    loss.forward(z, y)
    assert loss.accuracy == (z.argmax(axis=1) == y).mean()
    loss.forward(z, np.eye(classes)[y])
    assert loss.accuracy == (z.argmax(axis=1) == y).mean()


def test_equal_scores_count_for_the_first_class():
    loss = dw.SoftmaxCrossEntropy()
    loss.forward(np.zeros((4, 3)), [0, 1, 2, 0])
    assert loss.accuracy == 0.5


@pytest.mark.parametrize(
    ("y_pred", "y", "error", "message"),
    [
        (np.ones((3, 2)), [0, 1], ValueError, r"y must have shape \(3,\) or \(3, 2\), got \(2,\)"),
        (np.ones((3, 2)), [0, 1, 2], ValueError, r"classes in \[0, 2\), got 0 to 2"),
        (np.ones((3, 2)), [0, 1, -1], ValueError, r"classes in \[0, 2\), got -1 to 1"),
        (np.ones((3, 2)), [0.0, 1.0, 1.0], TypeError, "classes as integers, got dtype float64"),
        (np.ones(3), [0, 1, 1], ValueError, r"y_pred must have shape \(B, C\), got \(3,\)"),
        (np.ones((0, 3)), [], ValueError, r"y_pred must have shape \(B, C\), got \(0, 3\)"),
    ],
)
def test_what_does_not_fit_is_an_error_that_names_it(y_pred, y, error, message):
    with pytest.raises(error, match=message):
        dw.SoftmaxCrossEntropy().forward(y_pred, y)


@pytest.mark.parametrize("shape", [(5,), (5, 3), (2, 3, 4)])
def test_mean_squared_error_is_the_mean_over_all_elements(shape):
    rng = np.random.default_rng(0)
    a, b = rng.standard_normal((2, *shape))
    loss = dw.MeanSquaredError()
    assert loss.forward(a, b) == pytest.approx(((a - b) ** 2).mean(), rel=1e-12)
    np.testing.assert_allclose(loss.backward(), 2 * (a - b) / a.size, rtol=1e-15)


def test_mean_squared_error_of_one_column_takes_a_vector():
    loss = dw.MeanSquaredError()
    assert loss.forward(np.array([[1.0], [2.0]]), [0.0, 0.0]) == 2.5
    assert loss.backward().shape == (2, 1)


def test_mean_squared_error_keeps_the_dtype_of_the_prediction():
    loss = dw.MeanSquaredError()
    loss.forward(np.ones((2, 2), np.float32), np.zeros((2, 2)))
    assert loss.backward().dtype == np.float32


def test_mean_squared_error_of_other_shapes_is_an_error():
    with pytest.raises(ValueError, match=r"shape of y_pred \(3, 1\), got \(2,\)"):
        dw.MeanSquaredError().forward(np.ones((3, 1)), np.ones(2))


# ---- binary cross-entropy ----------------------------------------------------------------------


@pytest.mark.parametrize("shape", [(9,), (9, 1), (9, 4)])
def test_binary_cross_entropy_is_the_mean_over_rows_and_outputs(shape):
    z = 3 * np.random.default_rng(0).standard_normal(shape)
    t = np.random.default_rng(1).random(shape)
    p = 1 / (1 + np.exp(-z))
    loss = dw.BinaryCrossEntropy()
    want = -(t * np.log(p) + (1 - t) * np.log(1 - p)).mean()
    assert loss.forward(z, t) == pytest.approx(want, rel=1e-12)
    np.testing.assert_allclose(loss.probabilities, p, rtol=1e-12)
    np.testing.assert_allclose(loss.backward(), (p - t) / z.size, atol=1e-15)
    assert loss.accuracy == ((z > 0) == (t > 0.5)).mean()


def test_binary_cross_entropy_keeps_its_digits_for_large_scores():
    loss = dw.BinaryCrossEntropy()
    z = np.array([[1e4, -1e4, np.inf, -np.inf]])
    assert loss.forward(z, [[1, 0, 1, 0]]) == 0.0
    np.testing.assert_array_equal(loss.backward(), np.zeros((1, 4)))
    assert loss.forward(z[:, :2], [[0, 1]]) == 1e4
    np.testing.assert_array_equal(loss.backward(), [[0.5, -0.5]])
    assert loss.forward([[40.0]], [1]) == pytest.approx(np.exp(-40.0), rel=1e-12)
    assert loss.backward()[0, 0] == pytest.approx(-np.exp(-40.0), rel=1e-12)


def test_a_score_and_a_target_in_the_middle_count_as_no():
    loss = dw.BinaryCrossEntropy()
    loss.forward([0.0, 0.0, 1.0, 1.0], [0, 1, 0.5, 1])
    assert loss.accuracy == 0.5


@pytest.mark.parametrize(("shape", "other"), [((5,), (5, 1)), ((5, 1), (5,))])
@pytest.mark.parametrize("loss", [dw.BinaryCrossEntropy(), dw.MeanSquaredError()])
def test_one_output_takes_targets_with_and_without_its_dimension(loss, shape, other):
    z, t = np.linspace(-1, 1, 5).reshape(shape), np.array([0, 1, 0, 1, 1])
    want = loss.forward(z, t.reshape(shape))
    assert loss.forward(z, t.reshape(other)) == want
    assert loss.backward().shape == shape


def test_scores_of_minus_infinity_take_nothing_from_a_target_of_zero():
    loss = dw.SoftmaxCrossEntropy()
    z = np.array([[0.0, 0.0, -np.inf]])
    want = loss.forward(z, [1])
    assert loss.forward(z, [[0.0, 1.0, 0.0]]) == want == pytest.approx(np.log(2))
    np.testing.assert_allclose(loss.backward(), [[0.5, -0.5, 0.0]])
