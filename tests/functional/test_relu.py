"""ReLU as a function."""

from __future__ import annotations

import numpy as np
import pytest

from dropwise import functional as F
from samples import FLOATS, assert_same_bits, sample

pytestmark = pytest.mark.usefixtures("backend")


@pytest.mark.parametrize("dtype", [*FLOATS, np.int32, np.longdouble])
def test_relu_is_the_larger_of_x_and_0(dtype):
    x = (10 * sample((13, 7))).astype(dtype)
    assert_same_bits(F.relu(x), np.maximum(x, dtype(0)))


@pytest.mark.parametrize("dtype", [*FLOATS, np.longdouble])
def test_relu_keeps_nan_and_gives_positive_zero(dtype):
    x = np.array([np.nan, -0.0, -1.0, np.inf, -np.inf]).astype(dtype)
    y = F.relu(x).astype(np.float64)
    np.testing.assert_array_equal(y, [np.nan, 0, 0, np.inf, 0])
    assert not np.signbit(y[1:]).any()


def test_relu_of_complex_numbers_is_an_error():
    with pytest.raises(TypeError, match="relu needs real numbers"):
        F.relu(np.ones(2, complex))


def test_a_masked_out_is_refused():
    for out in (np.ma.zeros(3), np.ma.zeros(6)[::2]):
        with pytest.raises(TypeError, match="out must be a plain array, got a masked one"):
            F.relu(np.ones(3), out=out)
