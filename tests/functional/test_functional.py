"""Dropout, ReLU and products as functions: every kind of input, on every backend."""

from __future__ import annotations

import ml_dtypes
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

import dropwise as dw
from dropwise import _dtypes
from dropwise import functional as F

pytestmark = pytest.mark.usefixtures("backend")

FLOATS = [np.float32, np.float64, np.float16, ml_dtypes.bfloat16]
KEY, STREAM = 0x0123456789ABCDEF, 5


def expected(x, rate, *, scale=None, key=KEY, stream=STREAM, offset=0):
    """Dropout by its definition, from the mask."""
    x = np.asarray(x)
    mask = F.dropout_mask(x.shape, rate, key=key, stream=stream, offset=offset)
    if scale is None:
        scale = 1 / (1 - rate)
    with np.errstate(all="ignore"):
        return np.where(mask, x * x.dtype.type(scale), x.dtype.type(0))


def sample(shape, dtype=np.float32):
    return np.random.default_rng(1).standard_normal(shape).astype(dtype)


def assert_same_bits(a, b):
    assert a.dtype == b.dtype
    assert a.shape == b.shape
    if a.dtype == np.longdouble:  # has padding
        np.testing.assert_array_equal(a, b)
        np.testing.assert_array_equal(np.signbit(a), np.signbit(b))
        return
    np.testing.assert_array_equal(
        np.ascontiguousarray(a).view(np.uint8), np.ascontiguousarray(b).view(np.uint8)
    )


# ---- the teaching texts' examples --------------------------------------------------------------


def test_vanilla_training_keeps_values_where_the_mask_is_true():
    mask = np.array([False, False, True, False, True])
    x = np.array([0, 1, 2, 3, 4])
    y = F.dropout_backward(x, 0.5, scaling="vanilla", mask=mask)
    np.testing.assert_array_equal(y, [0, 0, 2, 0, 4])
    assert y.dtype == x.dtype


def test_vanilla_inference_multiplies_by_the_keep_probability():
    y = F.dropout(np.array([0, 1, 2, 3, 4]), 0.5, key=1, scaling="vanilla", training=False)
    np.testing.assert_array_equal(y, [0, 0.5, 1, 1.5, 2])


def test_the_gradient_passes_where_the_mask_is_true():
    mask = np.array([False, False, True, False, True])
    dy = np.array([0, 0.1, 0.2, 0.3, 0.4])
    dx = F.dropout_backward(dy, 0.5, scaling="vanilla", mask=mask)
    np.testing.assert_array_equal(dx, [0, 0, 0.2, 0, 0.4])


@pytest.mark.parametrize("rate", [0.1, 0.25, 0.5, 0.9])
def test_inverted_dropout_divides_by_the_keep_probability_in_both_directions(rate):
    z = np.linspace(1.0, 2.0, 1000)
    y = F.dropout(z, rate, key=KEY)
    kept = F.dropout_mask(z.shape, rate, key=KEY)
    np.testing.assert_allclose(y[kept], z[kept] / (1 - rate), rtol=1e-15)
    assert not y[~kept].any()
    np.testing.assert_array_equal(F.dropout_backward(z, rate, key=KEY), y)


# ---- rates -------------------------------------------------------------------------------------


@pytest.mark.parametrize("rate", [-0.1, 1.1, np.nan, np.inf, -1e-300])
@pytest.mark.parametrize("function", [F.dropout, F.dropout_backward])
def test_a_rate_outside_0_to_1_is_an_error_that_names_it(function, rate):
    with pytest.raises(ValueError, match=rf"rate must be in \[0, 1\], got {rate!r}"):
        function(np.ones(3), rate, key=1)


@pytest.mark.parametrize("rate", ["0.5", None, 1j, True, [0.5]])
def test_a_rate_that_is_no_number_is_an_error_that_names_it(rate):
    with pytest.raises(TypeError, match="rate must be a number in"):
        F.dropout_mask(3, rate, key=1)


@pytest.mark.parametrize("dtype", FLOATS)
def test_rate_0_gives_the_values_in_memory_of_their_own(dtype):
    x = sample(100, dtype)
    x[3] = np.nan
    y = F.dropout(x, 0.0, key=KEY)
    assert_same_bits(y, x)
    assert not np.shares_memory(x, y)


@pytest.mark.parametrize("dtype", FLOATS)
def test_inference_gives_the_values_in_memory_of_their_own(dtype):
    x = sample(100, dtype)
    y = F.dropout(x, 0.7, key=KEY, training=False)
    assert_same_bits(y, x)
    assert not np.shares_memory(x, y)


def test_inference_passes_the_gradient_through():
    dy = sample(100)
    np.testing.assert_array_equal(F.dropout_backward(dy, 0.7, key=KEY, training=False), dy)


@pytest.mark.parametrize("scaling", ["inverted", "vanilla"])
@pytest.mark.parametrize("dtype", FLOATS)
def test_rate_1_gives_positive_zeros_both_ways(dtype, scaling):
    x = -abs(sample(100, dtype))
    x[:3] = [np.nan, np.inf, -np.inf]
    zeros = np.zeros_like(x)
    assert_same_bits(F.dropout(x, 1.0, key=KEY, scaling=scaling), zeros)
    assert_same_bits(F.dropout_backward(x, 1.0, key=KEY, scaling=scaling), zeros)


def test_an_unknown_scaling_is_an_error():
    with pytest.raises(ValueError, match="scaling must be 'inverted' or 'vanilla', got 'other'"):
        F.dropout(np.ones(3), 0.5, key=1, scaling="other")


# ---- key, stream, offset -----------------------------------------------------------------------


@pytest.mark.parametrize(
    "arguments",
    [
        {"key": -1},
        {"key": 2**64},
        {"key": 1, "stream": -1},
        {"key": 1, "stream": 2**56},
        {"key": 1, "offset": -1},
        {"key": 1, "offset": 2**64 - 2},
    ],
)
def test_key_stream_and_offset_out_of_range_are_errors(arguments):
    name = list(arguments)[-1]
    with pytest.raises(ValueError, match=f"{name} must be in .*got {arguments[name]}"):
        F.dropout(np.ones(3), 0.5, **arguments)
    with pytest.raises(ValueError, match=f"{name} must be in .*got {arguments[name]}"):
        F.dropout_mask(3, 0.5, **arguments)


def test_a_key_must_be_an_integer():
    with pytest.raises(TypeError):
        F.dropout(np.ones(3), 0.5, key=1.5)


def test_the_last_indices_there_are_can_be_used():
    whole = F.dropout_mask(300, 0.3, key=KEY, offset=2**64 - 300)
    np.testing.assert_array_equal(F.dropout_mask(10, 0.3, key=KEY, offset=2**64 - 10), whole[-10:])


def test_numpy_integers_are_integers():
    a = F.dropout_mask(99, 0.3, key=np.uint64(KEY), stream=np.int32(5), offset=np.uint64(7))
    np.testing.assert_array_equal(a, F.dropout_mask(99, 0.3, key=KEY, stream=5, offset=7))


@given(
    n=st.integers(0, 400),
    rate=st.floats(0, 1),
    offset=st.sampled_from([0, 1, 127, 128, 2**32 - 3, 2**39 - 100, 2**63]),
    start=st.integers(0, 400),
)
def test_a_shard_gets_its_slice_of_the_global_dropout(n, rate, offset, start):
    x = sample(800)
    whole = F.dropout(x, rate, key=KEY, stream=STREAM, offset=offset)
    part = F.dropout(x[start : start + n], rate, key=KEY, stream=STREAM, offset=offset + start)
    assert_same_bits(part, whole[start : start + n])


@given(low=st.floats(0, 1), high=st.floats(0, 1))
def test_a_larger_rate_drops_a_superset(low, high):
    low, high = sorted((low, high))
    few = F.dropout_mask(2000, low, key=KEY)
    assert not (F.dropout_mask(2000, high, key=KEY) & ~few).any()


def test_another_key_or_stream_gives_another_mask():
    masks = [
        F.dropout_mask(1000, 0.5, key=key, stream=stream).tobytes()
        for key in (1, 2)
        for stream in (0, 1, 2**32)
    ]
    assert len(set(masks)) == len(masks)


def test_the_mask_does_not_depend_on_the_shape():
    flat = F.dropout_mask(120, 0.4, key=KEY)
    np.testing.assert_array_equal(F.dropout_mask((4, 5, 6), 0.4, key=KEY).ravel(), flat)


def test_a_negative_dimension_is_an_error():
    with pytest.raises(ValueError, match="negative"):
        F.dropout_mask((3, -1), 0.5, key=1)


# ---- dtypes ------------------------------------------------------------------------------------


@pytest.mark.parametrize("dtype", FLOATS)
@pytest.mark.parametrize("rate", [0.1, 0.5, 1 / 3, 0.9, 0.999])
def test_every_float_dtype_gets_the_same_mask_and_its_own_scale(dtype, rate):
    x = sample((37, 29), dtype)
    y = F.dropout(x, rate, key=KEY, stream=STREAM)
    scale = _dtypes.round_to(1 / (1 - rate), np.dtype(dtype))
    assert_same_bits(y, expected(x, rate, scale=scale))


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
    assert_same_bits(y, expected(x, 0.5, scale=1))


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


# ---- values ------------------------------------------------------------------------------------


@pytest.mark.parametrize("dtype", [*FLOATS, np.longdouble])
def test_dropped_values_are_positive_zero_and_kept_nan_stays(dtype):
    x = np.full(1000, -1.0).astype(dtype)
    x[::3], x[1::3] = np.nan, -np.inf
    mask = F.dropout_mask(x.shape, 0.5, key=KEY)
    for y in (F.dropout(x, 0.5, key=KEY), F.dropout_backward(x, 0.5, mask=mask)):
        dropped = y[~mask].astype(np.float64)
        assert (dropped == 0).all()
        assert not np.signbit(dropped).any()
        np.testing.assert_array_equal(
            np.isnan(y.astype(np.float64)), mask & np.isnan(x.astype(np.float64))
        )
        np.testing.assert_array_equal(
            np.isinf(y.astype(np.float64)), mask & np.isinf(x.astype(np.float64))
        )


def test_the_input_is_not_changed():
    x = sample(1000)
    before = x.copy()
    F.dropout(x, 0.5, key=1)
    F.dropout_backward(x, 0.5, key=1)
    F.relu(x)
    np.testing.assert_array_equal(x, before)


# ---- layouts -----------------------------------------------------------------------------------


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


# ---- out ---------------------------------------------------------------------------------------


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


# ---- noise_shape -------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "noise", [(1, None, None), (None, 1, 5), (4, None, 1), (1, 1, 1), [4, 1, 1]]
)
@pytest.mark.parametrize("dtype", [np.float32, ml_dtypes.bfloat16, np.longdouble])
def test_a_noise_shape_is_a_mask_of_its_own_broadcast(noise, dtype):
    x = sample((4, 3, 5), dtype)
    shape = tuple(n or m for n, m in zip(noise, x.shape, strict=True))
    mask = np.broadcast_to(F.dropout_mask(shape, 0.5, key=3, offset=77), x.shape)
    options = {"key": 3, "offset": 77, "noise_shape": noise}
    y = F.dropout(x, 0.5, **options)
    np.testing.assert_array_equal(y, np.where(mask, x * dtype(2), dtype(0)))
    assert_same_bits(F.dropout_backward(x, 0.5, **options), y)
    mask = F.dropout_mask(shape, 0.5, key=3, offset=77)
    assert_same_bits(F.dropout_backward(x, 0.5, noise_shape=noise, mask=mask), y)


def test_a_full_noise_shape_is_none():
    x = sample((4, 5))
    for noise in [(None, None), (4, 5), (4, None)]:
        assert_same_bits(F.dropout(x, 0.5, key=1, noise_shape=noise), F.dropout(x, 0.5, key=1))


@pytest.mark.parametrize("noise", [(1,), (2, 5), (1, 1, 1), (0, 5), (-1, 5)])
def test_an_unfit_noise_shape_is_an_error(noise):
    with pytest.raises(ValueError, match="noise_shape must have"):
        F.dropout(np.ones((4, 5)), 0.5, key=1, noise_shape=noise)


# ---- backward with a mask ----------------------------------------------------------------------


@given(rate=st.floats(0, 0.99), n=st.integers(0, 300), dtype=st.sampled_from(FLOATS))
def test_backward_from_the_mask_is_backward_from_the_key(rate, n, dtype):
    dy = sample(n, dtype)
    mask = F.dropout_mask(n, rate, key=KEY)
    assert_same_bits(F.dropout_backward(dy, rate, mask=mask), F.dropout_backward(dy, rate, key=KEY))


def test_backward_needs_a_key_or_a_mask():
    with pytest.raises(TypeError, match="key of the forward call, or its mask"):
        F.dropout_backward(np.ones(3), 0.5)


def test_a_mask_of_another_shape_or_dtype_is_an_error():
    with pytest.raises(ValueError, match="noise_shape must have"):
        F.dropout_backward(np.ones(3), 0.5, mask=np.ones(4, bool))
    with pytest.raises(ValueError, match=r"mask must have shape \(3,\), got \(1,\)"):
        F.dropout_backward(np.ones(3), 0.5, noise_shape=(3,), mask=np.ones(1, bool))
    with pytest.raises(TypeError, match="mask must be an array of bool, got dtype float64"):
        F.dropout_backward(np.ones(3), 0.5, mask=np.ones(3))


def test_backward_at_inference_ignores_the_mask():
    mask = np.zeros(3, bool)
    dx = F.dropout_backward(np.ones(3), 0.25, mask=mask, training=False, scaling="vanilla")
    np.testing.assert_array_equal(dx, [0.75, 0.75, 0.75])


# ---- relu --------------------------------------------------------------------------------------


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


# ---- matmul ------------------------------------------------------------------------------------


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


def test_both_backends_give_the_same_dropout(backend):
    x = sample(5000)
    with dw.backend("numba"):
        reference = F.dropout(x, 0.37, key=KEY, stream=9, offset=12345)
    assert_same_bits(F.dropout(x, 0.37, key=KEY, stream=9, offset=12345), reference)
