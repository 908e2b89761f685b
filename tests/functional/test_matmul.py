"""Products as a function."""

from __future__ import annotations

import ml_dtypes
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from dropwise import functional as F
from samples import assert_same_bits

pytestmark = pytest.mark.usefixtures("backend")


def integers(shape, dtype=np.float32, density=1.0):
    """Integer values, whose products are exact in any order."""
    rng = np.random.default_rng(2)
    x = rng.integers(-8, 9, shape) * (rng.random(shape) < density)
    return x.astype(dtype)


@pytest.mark.parametrize("skip_zeros", [True, False])
@pytest.mark.parametrize("density", [0.0, 0.05, 0.5, 1.0])
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize(
    "shape", [(1, 1, 1), (3, 70, 5), (64, 64, 128), (65, 200, 129), (130, 1, 9)]
)
def test_matmul_is_numpys(shape, dtype, density, skip_zeros):
    m, k, n = shape
    a, b = integers((m, k), dtype, density), integers((k, n), dtype)
    assert_same_bits(F.matmul(a, b, skip_zeros=skip_zeros), a @ b)


def test_matmul_adds_a_bias_and_applies_relu():
    a, b, bias = integers((5, 6)), integers((6, 7)), integers(7)
    np.testing.assert_array_equal(F.matmul(a, b, bias=bias), a @ b + bias)
    np.testing.assert_array_equal(F.matmul(a, b, bias=bias, relu=True), np.maximum(a @ b + bias, 0))


def test_matmul_takes_leading_dimensions_and_none():
    a, b = integers((2, 3, 4, 5)), integers((5, 6))
    np.testing.assert_array_equal(F.matmul(a, b), a @ b)
    np.testing.assert_array_equal(F.matmul(a[0, 0, 0], b), a[0, 0, 0] @ b)
    assert F.matmul(a[:0], b).shape == (0, 3, 4, 6)


@given(data=st.data(), dtype=st.sampled_from([np.float32, np.float64]))
def test_matmul_takes_any_strides(data, dtype):
    def operand(rows, columns):
        big = integers((2 * rows, 3 * columns), dtype, 0.5)
        view = big[:: data.draw(st.sampled_from([2, -2])), :: data.draw(st.sampled_from([3, -3]))]
        if data.draw(st.booleans()):
            return np.asfortranarray(view)
        return view

    m, k, n = (data.draw(st.integers(1, 40)) for _ in range(3))
    a, b = operand(m, k), operand(k, n)
    want = np.ascontiguousarray(a) @ np.ascontiguousarray(b)
    assert_same_bits(F.matmul(a, b), want)
    assert_same_bits(F.matmul(b.T, a.T), np.ascontiguousarray(want.T))
    out = operand(m, n)
    assert F.matmul(a, b, out=out) is out
    np.testing.assert_array_equal(out, want)


def test_a_product_over_nothing_is_zero_or_the_bias():
    np.testing.assert_array_equal(F.matmul(np.ones((2, 0)), np.ones((0, 3))), np.zeros((2, 3)))
    y = F.matmul(np.ones((2, 0)), np.ones((0, 3)), bias=[1, -2, 3], relu=True)
    np.testing.assert_array_equal(y, [[1, 0, 3], [1, 0, 3]])
    assert F.matmul(np.ones((2, 3)), np.ones((3, 0))).shape == (2, 0)


def test_out_of_matmul_may_be_an_operand():
    a, b = integers((6, 6)), integers((6, 6))
    want = a @ b
    F.matmul(a, b, out=a)
    np.testing.assert_array_equal(a, want)


@pytest.mark.parametrize("dtype", [np.float16, ml_dtypes.bfloat16])
def test_half_products_accumulate_in_float32(dtype):
    # 2048 ones and one more: float16 ends at 2048, bfloat16 at 256.
    a, b = np.ones((1, 4096), dtype), np.ones((4096, 1), dtype)
    y = F.matmul(a, b)
    assert y.dtype == dtype
    assert float(y[0, 0]) == 4096.0


@pytest.mark.parametrize("dtype", [np.int32, np.longdouble, np.complex64, np.bool_])
def test_other_dtypes_are_multiplied_by_numpy(dtype):
    a, b = integers((3, 4)).astype(dtype), integers((4, 5)).astype(dtype)
    assert_same_bits(F.matmul(a, b), a @ b)


def test_mixed_dtypes_promote_as_numpy_does():
    a, b = integers((3, 4), np.float32), integers((4, 5), np.float64)
    assert F.matmul(a, b).dtype == np.float64
    assert F.matmul(a, a.T.astype(np.int8)).dtype == np.float32
    assert F.matmul([[1, 2]], [[3], [4]]).dtype == np.dtype(int)


@pytest.mark.parametrize(
    "shapes", [((3, 4), (5, 6)), ((3, 4), (4,)), ((), (4, 5)), ((2, 3), (1, 3, 4))]
)
def test_shapes_that_do_not_fit_are_an_error_that_names_them(shapes):
    a, b = (np.ones(s) for s in shapes)
    with pytest.raises(ValueError, match=r"needs shapes \(..., K\) and \(K, N\), got"):
        F.matmul(a, b)


def test_a_bias_or_out_that_does_not_fit_is_an_error():
    a, b = np.ones((3, 4)), np.ones((4, 5))
    with pytest.raises(ValueError, match=r"bias must have shape \(5,\), got \(4,\)"):
        F.matmul(a, b, bias=np.ones(4))
    with pytest.raises(ValueError, match=r"out must be float64 of shape \(3, 5\)"):
        F.matmul(a, b, out=np.empty((5, 3)))


def test_without_skipping_zeros_meet_infinities_as_in_ieee():
    a = np.zeros((64, 64), np.float32)
    b = np.full((64, 64), np.inf, np.float32)
    assert np.isnan(F.matmul(a, b, skip_zeros=False)).all()


def test_nan_in_a_factor_is_not_skipped():
    a = np.zeros((64, 64), np.float32)
    a[3, 5] = np.nan
    y = F.matmul(a, np.ones((64, 64), np.float32))
    assert np.isnan(y[3]).all()
    assert not np.isnan(np.delete(y, 3, axis=0)).any()


def test_relu_of_a_product_is_that_of_relu():
    for dtype in (bool, np.int8, np.uint16, np.longdouble):
        a = np.ones((2, 2), dtype)
        y = F.matmul(a, a, relu=True)
        assert y.dtype == F.matmul(a, a).dtype
    with pytest.raises(TypeError, match="relu needs real numbers, got dtype complex128"):
        F.matmul(np.ones((1, 1)) * 1j, np.ones((1, 1)), relu=True)
