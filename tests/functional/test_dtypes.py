"""Which dtypes are taken, and what they become."""

from __future__ import annotations

import ml_dtypes
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from dropwise import _dtypes
from dropwise import functional as F
from samples import FLOATS, KEY, assert_same_bits, sample

pytestmark = pytest.mark.usefixtures("backend")

STREAM = 5


def expected(x, rate, scale):
    """Dropout by its definition, from the mask."""
    mask = F.dropout_mask(x.shape, rate, key=KEY, stream=STREAM)
    with np.errstate(all="ignore"):
        return np.where(mask, x * x.dtype.type(scale), x.dtype.type(0))


@pytest.mark.parametrize("dtype", FLOATS)
@pytest.mark.parametrize("rate", [0.1, 0.5, 1 / 3, 0.9, 0.999])
def test_every_float_dtype_gets_the_same_mask_and_its_own_scale(dtype, rate):
    x = sample((37, 29), dtype)
    y = F.dropout(x, rate, key=KEY, stream=STREAM)
    scale = _dtypes.round_to(1 / (1 - rate), np.dtype(dtype))
    assert_same_bits(y, expected(x, rate, scale))


def test_the_scale_is_rounded_to_bfloat16_once():
    # 1 / (1 - rate) = 1.00390625... just above the middle of 1 and 1 + 2**-7: by way of float32
    # it would fall on the middle, and then to 1.
    above_the_middle = 1 + 2**-8 + 2**-40
    assert _dtypes.round_to(above_the_middle, np.dtype(ml_dtypes.bfloat16)) == 1 + 2**-7
    assert float(ml_dtypes.bfloat16(np.float32(above_the_middle))) == 1.0


@given(st.floats(1, 1e30))
def test_scales_are_rounded_to_the_nearest(value):
    for dtype in FLOATS[:3]:
        with np.errstate(over="ignore"):
            assert _dtypes.round_to(value, np.dtype(dtype)) == float(dtype(value))
    rounded = _dtypes.round_to(value, np.dtype(ml_dtypes.bfloat16))
    assert float(ml_dtypes.bfloat16(rounded)) == rounded
    assert abs(rounded - value) <= 2.0**-8 * 2.0 ** np.floor(np.log2(value)) / 1


@pytest.mark.parametrize("dtype", [np.int8, np.int64, np.uint16, np.bool_])
def test_integers_stay_integers_with_vanilla_scaling_in_training(dtype):
    x = (sample(500) > 0).astype(dtype)
    y = F.dropout(x, 0.5, key=KEY, stream=STREAM, scaling="vanilla")
    assert_same_bits(y, expected(x, 0.5, 1))


@pytest.mark.parametrize(
    "options", [{}, {"training": False}, {"training": False, "scaling": "vanilla"}]
)
@pytest.mark.parametrize("x", [np.arange(6), np.arange(6, dtype=np.uint8), [0, 1, 2, 3, 4, 5]])
def test_integers_become_float64_otherwise(x, options):
    y = F.dropout(x, 0.5, key=KEY, **options)
    as_float = F.dropout(np.arange(6.0), 0.5, key=KEY, **options)
    assert_same_bits(y, as_float)


def test_lists_and_scalars_are_arrays():
    np.testing.assert_array_equal(F.dropout([[1.0], [2.0]], 0.0, key=1), [[1.0], [2.0]])
    y = F.dropout(3.0, 0.0, key=1)
    assert y.shape == ()
    assert y == 3.0


@pytest.mark.parametrize("dtype", [np.float32, np.float64, np.int16])
def test_the_other_byte_order_gives_the_native_result(dtype):
    x = (10 * sample((5, 7))).astype(dtype)
    swapped = x.astype(x.dtype.newbyteorder(">"))
    for scaling in ("inverted", "vanilla"):
        y = F.dropout(swapped, 0.5, key=KEY, scaling=scaling)
        assert_same_bits(y, F.dropout(x, 0.5, key=KEY, scaling=scaling))


@pytest.mark.parametrize("dtype", [np.longdouble, np.complex64, np.complex128, np.clongdouble])
def test_other_dtypes_get_the_same_mask_by_numpy(dtype):
    x = sample((9, 11)).astype(dtype)
    x[0, 0] = np.nan
    y = F.dropout(x, 0.3, key=KEY, stream=STREAM)
    assert y.dtype == dtype
    mask = F.dropout_mask(x.shape, 0.3, key=KEY, stream=STREAM)
    np.testing.assert_array_equal(y, np.where(mask, x * dtype(1 / (1 - 0.3)), 0))


@pytest.mark.parametrize("x", [np.array(["a"]), np.array([object()]), np.array([1], "M8[s]")])
def test_what_is_no_number_is_an_error(x):
    with pytest.raises(TypeError, match="array of numbers, got dtype"):
        F.dropout(x, 0.5, key=1)
    with pytest.raises(TypeError, match=r"numbers, got dtype|could not be promoted"):
        F.matmul(np.eye(1), x.reshape(1, 1))
    with pytest.raises(TypeError, match=r"numbers, got dtype|could not be promoted"):
        F.matmul(np.eye(1), np.eye(1), bias=x)
