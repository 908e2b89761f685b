"""Memory layouts of the input, and results that go to `out`."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from dropwise import functional as F
from samples import FLOATS, KEY, assert_same_bits, sample

pytestmark = pytest.mark.usefixtures("backend")


def layouts():
    base = sample((6, 8, 10))
    read_only = base.copy()
    read_only.flags.writeable = False
    unaligned = np.frombuffer(b"\0" + base.tobytes(), np.uint8)[1:].view(np.float32)
    return {
        "Fortran": np.asfortranarray(base),
        "transposed": base.T,
        "strided": base[::2, 1::3],
        "reversed": base[::-1, :, ::-1],
        "broadcast": np.broadcast_to(base[0, 0], (7, 10)),
        "read-only": read_only,
        "unaligned": unaligned,
    }


@pytest.mark.parametrize("layout", layouts())
def test_any_layout_gives_the_result_of_the_contiguous_copy(layout):
    x = layouts()[layout]
    copy = np.array(x, order="C")
    assert_same_bits(F.dropout(x, 0.3, key=KEY), F.dropout(copy, 0.3, key=KEY))
    assert_same_bits(F.dropout_backward(x, 0.3, key=KEY), F.dropout(copy, 0.3, key=KEY))
    assert_same_bits(F.relu(x), F.relu(copy))
    mask = F.dropout_mask(x.shape, 0.3, key=KEY)
    assert_same_bits(F.dropout_backward(x, 0.3, mask=mask), F.dropout(copy, 0.3, key=KEY))


@given(data=st.data(), rate=st.floats(0, 1), dtype=st.sampled_from(FLOATS))
def test_any_view_gives_the_result_of_the_contiguous_copy(data, rate, dtype):
    shape = data.draw(hnp.array_shapes(max_dims=4, max_side=9))
    x = sample(shape, dtype)[data.draw(hnp.basic_indices(shape, allow_ellipsis=False))]
    x = x.transpose(data.draw(st.permutations(range(x.ndim)))) if np.ndim(x) else np.asarray(x)
    copy = np.array(x, order="C")
    y = F.dropout(copy, rate, key=KEY)
    assert_same_bits(F.dropout(x, rate, key=KEY), y)
    out = np.empty_like(x)  # of x's layout
    assert F.dropout(x, rate, key=KEY, out=out) is out
    assert_same_bits(out, y)


@pytest.mark.parametrize("shape", [(0,), (3, 0, 2), ()])
@pytest.mark.parametrize("dtype", [*FLOATS, np.int64, np.longdouble])
def test_empty_and_0d_arrays_work(shape, dtype):
    x = np.ones(shape).astype(dtype)
    for y in (
        F.dropout(x, 0.5, key=1),
        F.dropout_backward(x, 0.5, key=1),
        F.dropout_backward(x, 0.5, mask=F.dropout_mask(shape, 0.5, key=1)),
        F.relu(x),
    ):
        assert isinstance(y, np.ndarray)
        assert y.shape == shape


def test_the_result_goes_to_out():
    x = sample((20, 30))
    out = np.full_like(x, 7)
    assert F.dropout(x, 0.5, key=1, out=out) is out
    np.testing.assert_array_equal(out, F.dropout(x, 0.5, key=1))
    assert F.dropout_backward(x, 0.5, key=2, out=out) is out
    np.testing.assert_array_equal(out, F.dropout(x, 0.5, key=2))
    assert F.relu(x, out=out) is out
    np.testing.assert_array_equal(out, np.maximum(x, 0))


@pytest.mark.parametrize("order", ["C", "F"])
def test_out_may_be_the_input(order):
    x = np.array(sample((20, 30)), order=order)
    y = F.dropout(x, 0.5, key=1)
    assert F.dropout(x, 0.5, key=1, out=x) is x
    np.testing.assert_array_equal(x, y)


@pytest.mark.parametrize("shift", [-64, -1, 1, 3, 500])
def test_out_may_overlap_the_input(shift):
    memory = sample(2000)
    start = max(0, -shift)
    x, out = memory[start : start + 1000], memory[start + shift : start + shift + 1000]
    y = F.dropout(x.copy(), 0.5, key=1)
    F.dropout(x, 0.5, key=1, out=out)
    np.testing.assert_array_equal(out, y)
    x[...] = sample(1000)
    F.relu(x, out=out)
    np.testing.assert_array_equal(out, np.maximum(sample(1000), 0))


def test_out_may_overlap_in_another_order():
    x = sample((30, 30))
    y = F.dropout(x.copy(), 0.5, key=1)
    F.dropout(x, 0.5, key=1, out=x.T)
    np.testing.assert_array_equal(x.T, y)


def test_guards_around_out_survive():
    memory = np.full(1003, 7, np.float32)
    F.dropout(sample(1000), 0.5, key=1, out=memory[1:1001])
    assert memory[0] == memory[1001] == memory[1002] == 7


@pytest.mark.parametrize(
    ("out", "error", "message"),
    [
        (
            np.empty(4, np.float32),
            ValueError,
            r"out must be float32 of shape \(3,\), got float32 of \(4,\)",
        ),
        (np.empty(3), ValueError, r"out must be float32 of shape \(3,\), got float64 of \(3,\)"),
        (np.broadcast_to(np.float32(0), 3), ValueError, "out must be writeable"),
        ([0, 0, 0], TypeError, "out must be an ndarray, got list"),
    ],
)
def test_an_unfit_out_is_an_error(out, error, message):
    x = np.ones(3, np.float32)
    for call in (
        lambda: F.dropout(x, 0.5, key=1, out=out),
        lambda: F.dropout_backward(x, 0.5, key=1, out=out),
        lambda: F.dropout_backward(x, 0.5, mask=np.ones(3, bool), out=out),
        lambda: F.relu(x, out=out),
    ):
        with pytest.raises(error, match=message):
            call()


def test_out_may_have_the_other_byte_order():
    x = sample(50)
    out = np.empty(50, ">f4")
    F.dropout(x, 0.5, key=1, out=out)
    np.testing.assert_array_equal(out, F.dropout(x, 0.5, key=1))
