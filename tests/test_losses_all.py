"""What holds for every loss: dtypes, kinds of targets, weights, bad input, state."""

from __future__ import annotations

import copy
import pickle

import ml_dtypes
import numpy as np
import pytest

import dropwise as dw
from dropwise.losses import accuracy_of, takes_sample_weight
from support import require

BFLOAT16 = np.dtype(ml_dtypes.bfloat16)
ROWS = 6
LOSSES = [dw.SoftmaxCrossEntropy, dw.BinaryCrossEntropy, dw.MeanSquaredError]


def rng(seed=0):
    return np.random.default_rng(seed)


def soft(rows, classes):
    e = np.exp(2 * rng(5).standard_normal((rows, classes)))
    return e / e.sum(axis=1, keepdims=True)


def one_hot(rows, classes, dtype=float):
    return np.eye(classes, dtype=dtype)[rng(1).integers(0, classes, rows)]


# name: loss, shape of y_pred, targets
CASES = {
    "classes": (dw.SoftmaxCrossEntropy, (ROWS, 3), rng(1).integers(0, 3, ROWS)),
    "many classes": (dw.SoftmaxCrossEntropy, (ROWS, 40), rng(1).integers(0, 40, ROWS)),
    "one-hot": (dw.SoftmaxCrossEntropy, (ROWS, 3), one_hot(ROWS, 3)),
    "one-hot bool": (dw.SoftmaxCrossEntropy, (ROWS, 40), one_hot(ROWS, 40, bool)),
    "one-hot int8": (dw.SoftmaxCrossEntropy, (ROWS, 3), one_hot(ROWS, 3, np.int8)),
    "soft": (dw.SoftmaxCrossEntropy, (ROWS, 3), soft(ROWS, 3)),
    "soft float16": (dw.SoftmaxCrossEntropy, (ROWS, 40), soft(ROWS, 40).astype(np.float16)),
    "soft bfloat16": (dw.SoftmaxCrossEntropy, (ROWS, 40), soft(ROWS, 40).astype(BFLOAT16)),
    "binary": (dw.BinaryCrossEntropy, (ROWS,), rng(1).integers(0, 2, ROWS)),
    "binary column": (dw.BinaryCrossEntropy, (ROWS, 1), rng(1).integers(0, 2, ROWS)),
    "binary bool": (dw.BinaryCrossEntropy, (ROWS, 1), rng(1).random((ROWS, 1)) > 0.5),
    "multilabel": (dw.BinaryCrossEntropy, (ROWS, 5), rng(1).integers(0, 2, (ROWS, 5))),
    "multilabel soft": (dw.BinaryCrossEntropy, (ROWS, 5), rng(1).random((ROWS, 5))),
    "values": (dw.MeanSquaredError, (ROWS,), rng(1).standard_normal(ROWS)),
    "column": (dw.MeanSquaredError, (ROWS, 1), rng(1).standard_normal(ROWS)),
    "integers": (dw.MeanSquaredError, (ROWS, 4), rng(1).integers(-5, 5, (ROWS, 4))),
    "images": (dw.MeanSquaredError, (ROWS, 2, 3), rng(1).standard_normal((ROWS, 2, 3))),
    "bfloat16": (dw.MeanSquaredError, (ROWS, 4), rng(1).random((ROWS, 4)).astype(BFLOAT16)),
}
WEIGHTS = {
    "none": None,
    "some": np.array([0.5, 0.0, 3.0, 1.0, 0.25, 2.0]),
    "whole": np.array([1, 2, 0, 1, 5, 1]),
    "mask": np.array([True, False, True, True, False, True]),
}


@pytest.fixture(params=CASES)
def case(request):
    make, shape, y = CASES[request.param]
    return make(), rng().standard_normal(shape), y


@pytest.fixture(params=WEIGHTS)
def weight(request):
    return WEIGHTS[request.param]


@pytest.fixture(params=LOSSES, ids=lambda make: make.__name__)
def make(request):
    return request.param


def sample(make):
    """y_pred and y that fit."""
    return next((rng().standard_normal(s), y) for m, s, y in CASES.values() if m is make)


# ---- values ------------------------------------------------------------------------------------


def test_the_gradient_is_that_of_finite_differences(case, weight):
    loss, z, y = case
    loss.forward(z, y, weight)
    gradient = loss.backward()
    for i in np.ndindex(z.shape):
        above, below = z.copy(), z.copy()
        above[i] += 1e-6
        below[i] -= 1e-6
        slope = (loss.forward(above, y, weight) - loss.forward(below, y, weight)) / 2e-6
        assert gradient[i] == pytest.approx(slope, abs=1e-8)


def test_the_loss_and_the_accuracy_are_weighted_means_over_the_rows(case, weight):
    loss, z, y = case
    w = np.ones(ROWS) if weight is None else weight.astype(float)
    values, shares = [], []
    for i in range(ROWS):
        values.append(loss.forward(z[i : i + 1], y[i : i + 1]))
        shares.append(loss.accuracy)
    assert loss.forward(z, y, weight) == pytest.approx(np.average(values, weights=w), rel=1e-12)
    if loss.accuracy is not None:
        assert loss.accuracy == pytest.approx(np.average(shares, weights=w), rel=1e-12)


def test_a_row_of_weight_zero_is_as_if_it_were_not_there(case):
    loss, z, y = case
    w = WEIGHTS["some"]
    value = loss.forward(z, y, w)
    gradient = loss.backward()
    assert value == pytest.approx(loss.forward(z[w > 0], y[w > 0], w[w > 0]), rel=1e-14)
    np.testing.assert_allclose(gradient[w > 0], loss.backward(), rtol=1e-14)
    assert not gradient[w == 0].any()


@pytest.mark.parametrize("factor", [5e-324, 1e-200, 1.0, 1e300])
def test_equal_weights_of_any_size_are_no_weights(case, factor):
    loss, z, y = case
    want, want_gradient = loss.forward(z, y), loss.backward()
    assert loss.forward(z, y, np.full(ROWS, factor)) == pytest.approx(want, rel=1e-14)
    np.testing.assert_allclose(loss.backward(), want_gradient, rtol=1e-13, atol=1e-17)


def test_accuracy_is_exactly_one_where_all_are_right():
    w = rng(3).random(ROWS)
    loss = dw.SoftmaxCrossEntropy()
    loss.forward(one_hot(ROWS, 3), one_hot(ROWS, 3), w)
    assert loss.accuracy == 1.0
    binary = dw.BinaryCrossEntropy()
    binary.forward(one_hot(ROWS, 3) - 0.5, one_hot(ROWS, 3), w)
    assert binary.accuracy == 1.0


# ---- dtypes ------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("dtype", "digits"),
    [
        (np.float16, 1e-3),
        (BFLOAT16, 8e-3),
        (np.float32, 1e-6),
        (np.float64, 1e-14),
        (np.longdouble, 1e-14),
        (">f4", 1e-6),
    ],
)
def test_every_dtype_of_scores_gives_its_rounded_result(case, weight, dtype, digits):
    loss, z, y = case
    z = z.astype(dtype)
    exact = z.astype(np.float64)
    want, want_gradient = loss.forward(exact, y, weight), loss.backward()
    accuracy = loss.accuracy
    value = loss.forward(z, y, weight)
    wide = 1e-6 if z.dtype.itemsize == 2 else digits  # the value is not rounded to 16 bits
    assert type(value) is float
    assert value == pytest.approx(want, rel=3 * wide)
    assert loss.accuracy == accuracy
    gradient = loss.backward()
    assert gradient.dtype == z.dtype.newbyteorder("=")
    assert gradient.shape == z.shape
    np.testing.assert_allclose(
        gradient.astype(np.float64), want_gradient, rtol=digits, atol=digits * 1e-2
    )
    if loss.accuracy is not None:
        assert loss.probabilities.dtype == z.dtype.newbyteorder("=")
        assert loss.probabilities.shape == z.shape


@pytest.mark.parametrize("dtype", [np.float16, BFLOAT16])
def test_sums_and_squares_of_16_bit_scores_are_those_of_float32(dtype):
    assert dw.SoftmaxCrossEntropy().forward(
        np.zeros((4, 1000), dtype), [0, 1, 2, 3]
    ) == pytest.approx(np.log(1000), rel=1e-6)
    loss = dw.MeanSquaredError()
    assert loss.forward(np.full((2, 1), 300, dtype), np.zeros(2)) == 90000.0
    assert loss.backward().tolist() == [[300.0], [300.0]]
    rows = 5000  # more than either counts
    assert dw.BinaryCrossEntropy().forward(np.zeros(rows, dtype), np.ones(rows)) == pytest.approx(
        np.log(2), rel=1e-6
    )


@pytest.mark.parametrize("dtype", [bool, np.uint8, np.int64])
def test_whole_numbers_as_scores_are_float64(make, dtype):
    z, y = sample(make)
    z = (z > 0).astype(dtype)
    loss = make()
    value = loss.forward(z, y)
    assert loss.backward().dtype == np.float64
    assert value == loss.forward(z.astype(float), y)


def test_inputs_are_not_changed(case, weight):
    loss, z, y = case
    inputs = [z, y] if weight is None else [z, y, weight]
    before = [a.copy() for a in inputs]
    loss.forward(*inputs)
    loss.backward()
    loss.backward()[...] = 0
    for a, b in zip(inputs, before, strict=True):
        np.testing.assert_array_equal(a, b)


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_what_becomes_of_the_arguments_after_a_forward_makes_no_difference(case, dtype, backend):
    loss, y_pred, y = case
    y_pred, y, weight = y_pred.astype(dtype), y.copy(), WEIGHTS["some"].copy()
    if y.dtype.itemsize != 2:  # in a dtype that needs no conversion, which would be a copy
        classes = isinstance(loss, dw.SoftmaxCrossEntropy) and y.ndim == 1
        y = y.astype(np.int64 if classes else dtype)
    loss.forward(y_pred, y, weight)
    expected = loss.backward()
    loss.forward(y_pred, y, weight)
    accuracy = getattr(loss, "accuracy", None)
    if isinstance(loss, dw.SoftmaxCrossEntropy):
        loss.right_rows()[:] = False
    for array, other in ((y_pred, 3), (y, 100), (weight, 9)):
        array[...] = other
    np.testing.assert_array_equal(loss.backward(), expected)
    assert getattr(loss, "accuracy", None) == accuracy


def test_layouts_make_no_difference(case):
    loss, z, y = case
    want, want_gradient = loss.forward(z, y), loss.backward()
    for order in ("F", "reversed"):
        other = np.asfortranarray(z) if order == "F" else z[::-1].copy()[::-1]
        assert loss.forward(other, np.repeat(y, 2, axis=0)[::2]) == want
        np.testing.assert_array_equal(loss.backward(), want_gradient)


def test_a_score_that_is_not_finite_gives_a_value_without_a_warning(make):
    z, y = sample(make)
    for bad in (np.nan, np.inf):
        z[:] = bad
        assert not np.isfinite(make().forward(z, y)) or make is dw.BinaryCrossEntropy


# ---- what does not fit -------------------------------------------------------------------------

NOT_REAL = {
    "complex": lambda a: a.astype(complex),
    "string": lambda a: a.astype(str),
    "object": lambda a: a.astype(object),
    "datetime": lambda a: a.astype("i8").astype("M8[s]"),
    "masked": lambda a: np.ma.masked_array(a),
    "sparse": lambda a: require("scipy.sparse").csr_matrix(np.atleast_2d(np.asarray(a, float))),
    "float8": lambda a: a.astype(ml_dtypes.float8_e4m3fn),
}


def both_refuse(loss, z, y, error, message, weight=None):
    """forward and check raise the same; afterwards backward gives no older gradient."""
    with pytest.raises(error, match=message):
        loss.forward(z, y, weight)
    with pytest.raises(RuntimeError, match="backward was called before forward, or after one"):
        loss.backward()
    with pytest.raises(error, match=message):
        loss.check(y, np.shape(z), weight)


@pytest.mark.parametrize("kind", NOT_REAL)
@pytest.mark.parametrize("where", ["y_pred", "y", "sample_weight"])
def test_what_is_not_an_array_of_real_numbers_is_refused_everywhere(make, kind, where):
    z, y = sample(make)
    w = np.ones(ROWS)
    loss = make()
    loss.forward(z, y, w)
    bad = NOT_REAL[kind]
    words = {"masked": "masked", "sparse": r"use \.toarray\(\)"}.get(
        kind, "real numbers, got dtype"
    )
    if where == "y_pred":
        with pytest.raises(TypeError, match=f"{where} must .*{words}"):
            loss.forward(bad(z), y, w)
        with pytest.raises(RuntimeError, match="backward"):
            loss.backward()
    elif where == "y":
        both_refuse(loss, z, bad(y), TypeError, f"{where} must .*{words}", w)
    else:
        both_refuse(loss, z, y, TypeError, f"{where} must .*{words}", bad(w))


@pytest.mark.parametrize(
    ("weight", "message"),
    [
        (np.ones(ROWS - 1), r"shape \(6,\), got \(5,\)"),
        (np.ones((ROWS, 1)), r"shape \(6,\), got \(6, 1\)"),
        (1.0, r"shape \(6,\), got \(\)"),
        ([1, 1, -0.5, 1, 1, 1], "not be negative, got -0.5 in row 2"),
        ([1, np.nan, 1, 1, 1, 1], "finite, got nan in row 1"),
        ([1, 1, 1, 1, np.inf, 1], "finite, got inf in row 4"),
        (np.zeros(ROWS), "positive and finite sum, got 0.0"),
        (np.full(ROWS, 1e308), "positive and finite sum, got inf"),
    ],
)
def test_weights_that_are_none_are_refused(make, weight, message):
    loss = make()
    both_refuse(loss, *sample(make), ValueError, f"sample_weight must .*{message}", weight)


SOFTMAX_TARGETS = [
    ([0, 1, 3], ValueError, r"classes in \[0, 3\), got 0 to 3"),
    ([0, 1, -1], ValueError, r"classes in \[0, 3\), got -1 to 1"),
    (np.array([0, 2**63, 1], np.uint64), ValueError, "got 0 to 9223372036854775808"),
    ([0.0, 1.0, np.nan], TypeError, "classes as integers, got dtype float64"),
    ([True, False, True], TypeError, "classes as integers, got dtype bool"),
    ([0, 1], ValueError, r"shape \(3,\) or \(3, 3\), got \(2,\)"),
    ([[0], [1], [2]], ValueError, r"got \(3, 1\)"),
    ([[1, 0, 0], [0, 0, 0], [0, 1, 0]], ValueError, "got row 1 with minimum 0 and sum 0"),
    ([[1, 0, 0], [0, 1, 0], [0, 1, 1]], ValueError, "got row 2 with minimum 0 and sum 2"),
    (np.ones((3, 3), bool), ValueError, "got row 0 with minimum 1 and sum 3"),
    ([[1.5, -0.5, 0], [1, 0, 0], [1, 0, 0]], ValueError, "got row 0 with minimum -0.5 and sum 1"),
    ([[1, 0, 0], [0, np.nan, 1], [1, 0, 0]], ValueError, "got row 1 with minimum nan and sum nan"),
    ([[1, 0, 0], [1, 0, 0], [np.inf, 0, 0]], ValueError, "got row 2 with minimum 0 and sum inf"),
    ([[1, 0, 0], [1, 0, 0], [0.5, 0.4999, 0]], ValueError, "got row 2 .* sum 0.9999"),
    (np.full((3, 3), 0.3, np.float16), ValueError, "got row 0 .* sum 0.9"),
    (np.full((3, 3), 0.3, BFLOAT16), ValueError, "got row 0 .* sum 0.9"),
    (-np.eye(3, dtype=np.float32), ValueError, "got row 0 with minimum -1 and sum -1"),
]


@pytest.mark.parametrize(("y", "error", "message"), SOFTMAX_TARGETS)
def test_targets_that_are_no_classes_are_refused(y, error, message):
    both_refuse(dw.SoftmaxCrossEntropy(), np.zeros((3, 3)), y, error, message)


@pytest.mark.parametrize("dtype", [np.float16, BFLOAT16, np.float32, np.float64])
@pytest.mark.parametrize("classes", [2, 10, 1000])
def test_probabilities_that_a_softmax_rounded_are_targets(dtype, classes):
    y = soft(50, classes).astype(dtype)
    loss = dw.SoftmaxCrossEntropy()
    assert np.isfinite(loss.forward(np.zeros((50, classes)), y))
    loss.check(y, (50, classes))


@pytest.mark.parametrize("shape", [(3, 1), (1, 1)])
@pytest.mark.parametrize("y", [np.zeros(3, int), np.ones((3, 1)), np.zeros((3, 1))])
def test_one_output_is_a_case_for_binary_cross_entropy(shape, y):
    y = y[: shape[0]]
    both_refuse(dw.SoftmaxCrossEntropy(), np.zeros(shape), y, ValueError, "use BinaryCrossEntropy")


@pytest.mark.parametrize(
    ("y", "message"),
    [
        ([[0, 1], [0, 2], [0, 0]], r"in \[0, 1\], got 2 in row 1"),
        ([[0, 1], [0, 0], [-1e-9, 0]], r"in \[0, 1\], got -1e-09 in row 2"),
        ([[np.nan, 1], [0, 0], [0, 0]], r"in \[0, 1\], got nan in row 0"),
        ([0, 1, 1], r"shape of y_pred \(3, 2\), got \(3,\)"),
    ],
)
def test_targets_that_are_no_probabilities_are_refused(y, message):
    both_refuse(dw.BinaryCrossEntropy(), np.zeros((3, 2)), y, ValueError, message)


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
@pytest.mark.parametrize("dtype", [np.float16, BFLOAT16, np.float32, np.float64])
def test_values_that_are_not_finite_are_refused(bad, dtype):
    y = np.zeros((4, 3), dtype)
    y[2, 1] = bad
    for weight in (None, [1, 1, 0, 1]):
        message = f"y must be finite, got {bad} in row 2"
        both_refuse(dw.MeanSquaredError(), np.zeros((4, 3)), y, ValueError, message, weight)


@pytest.mark.parametrize("shape", [(), (0,), (0, 3), (3, 0)])
def test_predictions_without_a_row_or_an_output_are_refused(make, shape):
    both_refuse(make(), np.zeros(shape), np.zeros(shape), ValueError, "y_pred must have shape")


# ---- state -------------------------------------------------------------------------------------


def test_what_needs_a_forward_says_so(make):
    loss = make()
    with pytest.raises(RuntimeError, match=f"{make.__name__}: backward was called before forward"):
        loss.backward()
    if make is not dw.MeanSquaredError:
        for name in ("accuracy", "probabilities"):
            with pytest.raises(RuntimeError, match=f"{make.__name__}: {name} was read before"):
                getattr(loss, name)


def test_no_memory_in_the_middle_leaves_no_old_gradient(make, monkeypatch):
    loss, (z, y) = make(), sample(make)
    loss.forward(z, y)
    with monkeypatch.context() as patch:

        def refuse(*_):
            raise MemoryError

        patch.setattr(make, "_compute", refuse)
        with pytest.raises(MemoryError):
            loss.forward(z, y)
    with pytest.raises(RuntimeError, match="after one that failed"):
        loss.backward()
    loss.forward(z, y)
    loss.backward()


@pytest.mark.parametrize(
    "duplicate",
    [copy.copy, copy.deepcopy, lambda o: pickle.loads(pickle.dumps(o))],
    ids=["copy", "deepcopy", "pickle"],
)
def test_a_copy_holds_no_batch(make, duplicate):
    loss, (z, y) = make(), sample(make)
    loss.forward(np.repeat(z, 1000, axis=0), np.repeat(y, 1000, axis=0))
    gradient = loss.backward()
    assert len(pickle.dumps(loss)) < 300
    other = duplicate(loss)
    with pytest.raises(RuntimeError, match="backward was called before forward"):
        other.backward()
    other.forward(z, y)
    np.testing.assert_array_equal(loss.backward(), gradient)
    assert repr(other) == repr(loss) == f"{make.__name__}()"


# ---- what training asks ------------------------------------------------------------------------


class Plain:
    def forward(self, y_pred, y):
        return 0.0

    def backward(self):
        return np.zeros(1)


class Weighted(Plain):
    accuracy = 0.5

    def forward(self, y_pred, y, *, sample_weight=None):
        return 0.0


class Anything(Plain):
    def forward(self, y_pred, y, **options):
        return 0.0


def test_training_can_ask_what_a_loss_knows(make):
    assert takes_sample_weight(make())
    assert takes_sample_weight(Weighted())
    assert takes_sample_weight(Anything())
    assert not takes_sample_weight(Plain())
    assert accuracy_of(Weighted()) == 0.5
    assert accuracy_of(Plain()) is None
    assert accuracy_of(dw.MeanSquaredError()) is None
