"""Any arguments at all: a right result, or an error that is no surprise and nothing changed.

tests/fuzz/fuzz.py drives these tests too, by the branches of the code that examples reach.
"""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

import dropwise as dw
from dropwise import functional as F
from samples import FLOATS, assert_same_bits

# NumPy's own products of dtypes without a kernel.
pytestmark = pytest.mark.filterwarnings("ignore:.*encountered in:RuntimeWarning")

NUMBERS = [*FLOATS, np.int8, np.uint8, np.int64, np.uint64, np.bool_, np.longdouble, np.complex64]
DTYPES = [*map(np.dtype, NUMBERS), np.dtype(">f4"), np.dtype(">f8"), np.dtype(">i4")]
OTHERS = ["U3", "S2", "O", "M8[s]", "m8[ns]", "V5", [("a", "f4"), ("b", "i2")]]
JUNK = st.sampled_from([
    None, True, False, "", "0.5", b"x", [], [1], (), {}, object(), np.nan, -1, -0.5, 1j, 2.5,
    float("inf"), 10**400, 2**56, 2**63, 2**64, -(2**63), np.float32(0.5), np.array(0.5),
    np.array([1, 2]), np.int8(3), np.bool_(True), np.str_("a"), range(3), Ellipsis, slice(None),
])  # fmt: skip
BACKENDS = st.sampled_from(dw.available_backends())


def mostly(strategy):
    """What the strategy gives; of eight values one is anything."""
    return st.integers(0, 7).flatmap(lambda i: strategy if i else JUNK)


RATES = mostly(st.sampled_from([0, 1, 0.5, 0.25, 0.1, 1 / 3, 1e-9]) | st.floats(0, 1))
KEYS = mostly(st.integers(0, 2**64 - 1))
STREAMS = mostly(st.sampled_from([0, 1, 2**32 - 1, 2**32, 2**56 - 1]))
OFFSETS = mostly(st.sampled_from([0, 0, 1, 127, 2**32 - 5, 2**63, 2**64 - 3]))
SHAPES = hnp.array_shapes(min_dims=0, max_dims=4, min_side=0, max_side=6)


def values(shape, dtype):
    """Small whole numbers, among them zeros and, of floats, what is not finite."""
    n = int(np.prod(shape))
    x = (np.arange(n) * 7 % 17 - 8.0).reshape(shape)
    x = np.asarray(np.abs(x)) if dtype.kind == "u" else x
    if dtype.kind in "fcV" and n > 3:
        x.flat[1], x.flat[2], x.flat[3] = np.nan, np.inf, -0.0
    with np.errstate(invalid="ignore"):
        return x.astype(dtype)


@st.composite
def arrays(draw, shape=SHAPES):
    """Numbers of any dtype and layout."""
    whole = draw(shape) if isinstance(shape, st.SearchStrategy) else shape
    x = values(whole, draw(st.sampled_from(DTYPES)))
    layout = draw(st.sampled_from(["C", "C", "F", "view", "odd", "broadcast", "read-only"]))
    if layout == "F":
        return np.asfortranarray(x)
    if layout == "view" and x.ndim:
        steps = draw(st.lists(st.sampled_from([1, -1, 2, -2]), min_size=x.ndim, max_size=x.ndim))
        big = np.repeat(x, 2, axis=0)[::2] if x.shape[0] else x
        return big[tuple(slice(None, None, -1 if step < 0 else 1) for step in steps)]
    if layout == "odd":  # not aligned
        memory = np.zeros(x.nbytes + 1, np.uint8)
        odd = memory[1:].view(x.dtype).reshape(x.shape)
        odd[...] = x
        return odd
    if layout == "broadcast" and x.ndim and x.shape[0]:
        return np.broadcast_to(x[:1], x.shape)
    if layout == "read-only":
        x.flags.writeable = False
    return x


@st.composite
def inputs(draw):
    """An array, or what one might pass in its place."""
    kind = draw(st.integers(0, 11))
    if kind == 0:
        return draw(JUNK)
    if kind == 1:
        return np.zeros(draw(st.integers(0, 3)), np.dtype(draw(st.sampled_from(OTHERS))))
    if kind == 2:
        return np.ma.masked_array([1.0, 2.0], [True, False])
    if kind == 3:
        return draw(arrays()).tolist()
    return draw(arrays())


@st.composite
def outs(draw, x):
    """A place for the result: none, x itself, overlapping x, another one, or what is none."""
    kind = draw(st.integers(0, 7))
    if kind < 3 or not isinstance(x, np.ndarray):
        return None
    if kind == 3:
        return x
    if kind == 4 and x.ndim == 1 and x.size > 2:
        return x[::-1]
    if kind == 5:
        return draw(inputs())
    dtype = np.float64 if x.dtype.kind in "biu" and draw(st.booleans()) else x.dtype
    out = np.zeros(x.shape, dtype, order=draw(st.sampled_from("CF")))
    return out[..., ::-1] if out.ndim and kind == 6 else out


def drawn(draw, **strategies):
    """Some of these keyword arguments."""
    return {name: draw(s) for name, s in strategies.items() if draw(st.integers(0, 2))}


def outcome(call, *watched):
    """What the call returns, or None if it refuses; then the watched arrays are as before."""
    before = [(x, x.copy()) for x in watched if isinstance(x, np.ndarray)]
    try:
        return call()
    except (TypeError, ValueError, MemoryError) as error:
        message = str(error)
    assert message
    for x, copy in before:
        if x.dtype.kind not in "OV":
            assert_same_bits(np.array(x), np.array(copy))
    return None


def expected_dropout(x, kept, scale):
    """`x` times the scale in its dtype where kept, +0.0 elsewhere."""
    y = np.zeros(x.shape, x.dtype)
    with np.errstate(all="ignore"):
        if x.dtype.kind == "c":
            y.real[kept], y.imag[kept] = scale * x.real[kept], scale * x.imag[kept]
        else:
            y[kept] = (x * x.dtype.type(scale))[kept]
    return y


def same_values(a, b):
    assert (a.dtype, a.shape) == (b.dtype, b.shape)
    wide = (np.asarray(v, np.clongdouble if a.dtype.kind == "c" else np.longdouble) for v in (a, b))
    np.testing.assert_array_equal(*wide)


@given(st.data())
def test_dropout_is_right_or_refused(data):
    draw = data.draw
    x, rate, key = draw(inputs()), draw(RATES), draw(KEYS)
    options = drawn(
        draw,
        stream=STREAMS,
        offset=OFFSETS,
        scaling=mostly(st.sampled_from(["inverted", "vanilla"])),
        training=st.booleans(),
        noise_shape=mostly(st.lists(st.sampled_from([None, 1, 2, 3]), max_size=4)),
        within=mostly(st.tuples(SHAPES, SHAPES)),
    )
    out = draw(outs(x))
    original = x.copy() if isinstance(x, np.ndarray) else x
    forward = F.dropout if draw(st.booleans()) else F.dropout_backward
    with dw.backend(draw(BACKENDS)):
        y = outcome(lambda: forward(x, rate, key=key, out=out, **options), x, out)
        if y is None:
            return
        assert out is None or y is out
        vanilla, training = options.get("scaling") == "vanilla", options.get("training", True)
        source = np.asarray(original)
        source = source.astype(source.dtype.newbyteorder("="))
        if source.dtype.kind in "biu" and not (vanilla and training):
            source = source.astype(np.float64)
        rate = float(rate)
        scale, kept = (1 - rate if vanilla else 1.0), np.ones(source.shape, np.bool_)
        if training:
            scale = 0.0 if rate == 1 else 1.0 if vanilla else 1 / (1 - rate)
            ones = F.dropout(np.ones(source.shape), rate, key=key, scaling="vanilla", **{
                name: options[name]
                for name in ("stream", "offset", "within", "noise_shape") if name in options
            })  # fmt: skip
            kept = ones != 0
    same_values(np.array(y, source.dtype), expected_dropout(source, kept, scale))


@given(st.data())
def test_a_mask_is_right_or_refused(data):
    draw = data.draw
    shape, rate, key = draw(mostly(SHAPES)), draw(RATES), draw(KEYS)
    options = drawn(draw, stream=STREAMS, offset=OFFSETS, within=mostly(st.tuples(SHAPES, SHAPES)))
    with dw.backend(draw(BACKENDS)):
        mask = outcome(lambda: F.dropout_mask(shape, rate, key=key, **options))
        if mask is not None:
            y = F.dropout(np.ones(mask.shape), rate, key=key, scaling="vanilla", **options)
            np.testing.assert_array_equal(mask, y != 0)


@given(st.data())
def test_a_gradient_by_a_mask_is_right_or_refused(data):
    draw = data.draw
    dy, rate = draw(inputs()), draw(RATES)
    shape = np.shape(dy) if isinstance(dy, np.ndarray) else (2,)
    mask = draw(mostly(hnp.arrays(st.sampled_from([np.bool_, np.bool_, np.int8]), shape)))
    out = draw(outs(dy))
    original = np.array(dy) if isinstance(dy, np.ndarray) else dy
    with dw.backend(draw(BACKENDS)):
        dx = outcome(lambda: F.dropout_backward(dy, rate, mask=mask, out=out), dy, out)
    # At rate 1 no mask keeps anything, so with another there is no right result.
    if dx is not None and np.asarray(original).dtype.kind != "c" and float(rate) < 1:
        source = np.asarray(original)
        source = source.astype(np.float64 if source.dtype.kind in "biu" else dx.dtype)
        scale = 1 / (1 - float(rate))
        same_values(np.array(dx, source.dtype), expected_dropout(source, mask, scale))


@given(st.data())
def test_relu_is_right_or_refused(data):
    x = data.draw(inputs())
    out = data.draw(outs(x))
    original = x.copy() if isinstance(x, np.ndarray) else x
    with dw.backend(data.draw(BACKENDS)):
        y = outcome(lambda: F.relu(x, out=out), x, out)
    if y is not None:
        source = np.asarray(original)
        source = source.astype(source.dtype.newbyteorder("="))
        zero = source.dtype.type(0)
        same_values(np.array(y, source.dtype), np.where(source <= zero, zero, source))


@given(st.data())
def test_a_product_is_right_or_refused(data):
    draw = data.draw
    m, k, n = (draw(st.integers(0, 20)) for _ in range(3))
    a = draw(arrays((m, k))) if draw(st.integers(0, 5)) else draw(inputs())
    b = draw(arrays((k, n))) if draw(st.integers(0, 5)) else draw(inputs())
    options = drawn(draw, relu=st.booleans(), skip_zeros=st.booleans(), bias=mostly(arrays((n,))))
    options["out"] = draw(st.one_of(st.none(), st.none(), arrays((m, n)), outs(a)))
    before = [np.array(v) if isinstance(v, np.ndarray) else v for v in (a, b, options.get("bias"))]
    with dw.backend(draw(BACKENDS)):
        y = outcome(lambda: F.matmul(a, b, **options), a, b, options["out"])
    if y is None:
        return
    # Whole numbers and few terms: every order of summation is exact but in bfloat16.
    left, right, bias = (None if v is None else np.asarray(v) for v in before)
    parts = [v for v in (left, right, bias) if v is not None]
    if any(not np.isfinite(v).all() for v in parts) or y.dtype.itemsize < 4:
        return
    wide = np.clongdouble if y.dtype.kind == "c" else np.longdouble
    want = left.astype(wide) @ right.astype(wide)
    want = want if bias is None else want + bias
    want = np.maximum(want, 0) if options.get("relu") else want
    if y.dtype.kind in "fc":
        np.testing.assert_array_equal(y.astype(wide), want)
