"""The native module called with anything at all: it computes or raises, and writes nowhere else.

Arguments are checked before they come here, so what a wrong call computes does not matter.
tests/fuzz/fuzz.py drives these tests too, by the branches of the code that examples reach.
"""

from __future__ import annotations

import ml_dtypes
import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from dropwise._backends.protocol import Product
from support import require

native = require("dropwise._native")

GUARD = 64  # bytes on both sides of every array
FILL = 0xA5
DTYPES = ["f4", "f4", "f8", "f2", ml_dtypes.bfloat16, "u1", "u1", "i8", "?", ">f4", "c8", "O", "V3"]
SIZES = st.sampled_from([0, 1, 7, 8, 9, 64, 100, 129, 1000, 20_000])
SIDES = st.sampled_from([0, 1, 2, 3, 8, 17, 33, 70])
NUMBERS = st.sampled_from([0, 1, 2, 3, 64, 100, -1, 2**56 - 1, 2**63, 2**64 - 1, 2**64, None, "1"])
REALS = st.sampled_from([0.0, 0.5, 0.3, 1.0, -1.0, 2.0, np.nan, np.inf, 1e300, None, 1])


class Guarded:
    """Arrays in memory whose surroundings must survive."""

    def __init__(self, draw):
        self.draw, self.memories, self.readable = draw, [], []

    def array(self, shape, dtype, layout="C"):
        dtype = np.dtype(dtype)
        if dtype.kind == "O":
            return np.full(shape, None)
        steps = {"C": (), "F": (), "wide": (2,), "back": (-1,)}[layout]
        size = int(np.prod(shape)) * dtype.itemsize * (2 if layout == "wide" else 1)
        memory = np.full(size + 2 * GUARD, FILL, np.uint8)
        inside = memory[GUARD : GUARD + size]
        inside[...] = 0
        self.memories.append(memory)
        if layout == "wide":
            x = inside.view(dtype).reshape(*shape[:-1], 2 * shape[-1])[..., ::2]
        else:
            x = inside.view(dtype).reshape(shape, order="F" if layout == "F" else "C")
        if steps == (-1,):
            x = x[..., ::-1]
        if dtype.kind == "f" and x.size:
            x[...] = np.arange(x.size).reshape(shape) % 5 - 2
        if self.draw(st.integers(0, 20)) == 0:
            x.flags.writeable = False
            self.readable.append((x, x.copy()))
        return x

    def any(self, sizes=None, dtype=None, ndim=1):
        """An array of mostly this kind."""
        draw = self.draw
        if draw(st.integers(0, 15)) == 0:
            return draw(st.sampled_from([None, 3, "x", [1.0], np.float32(1), ()]))
        if sizes is None or draw(st.integers(0, 9)) == 0:
            sizes = tuple(draw(SIDES if ndim == 2 else SIZES) for _ in range(ndim))
        if dtype is None or draw(st.integers(0, 9)) == 0:
            dtype = draw(st.sampled_from(DTYPES))
        layouts = ["C", "F", "wide", "back"] if ndim == 2 else ["C"] * 8 + ["wide", "back"]
        return self.array(sizes, dtype, draw(st.sampled_from(layouts)))

    def check(self):
        for memory in self.memories:
            assert (memory[:GUARD] == FILL).all()
            assert (memory[-GUARD:] == FILL).all()
        for x, copy in self.readable:
            assert x.tobytes() == copy.tobytes()


def numbers(draw, count, strategy):
    return tuple(draw(strategy) for _ in range(count))


def elementwise_arguments(guarded, name):
    draw = guarded.draw
    n = draw(SIZES)
    dtype = draw(st.sampled_from(DTYPES[:5]))
    bits = guarded.any(((n + 7) // 8,), "u1")
    x = guarded.any((n,), dtype)
    out = x if draw(st.booleans()) else guarded.any((n,), dtype)
    whole = numbers(draw, 3, st.integers(0, 2**56 - 1) if draw(st.integers(0, 3)) else NUMBERS)
    rate, scale = numbers(draw, 2, REALS)
    box = numbers(draw, draw(st.integers(0, 3)), st.integers(1, 5))
    return {
        "mask_bits": (bits, draw(st.one_of(st.just(n), NUMBERS.filter(small))), rate, *whole),
        "mask_box": (bits, box, (*numbers(draw, max(0, len(box) - 1), NUMBERS), 1), rate, *whole),
        "dropout_forward": (x, out, draw(st.sampled_from([None, bits])), rate, scale, *whole),
        "apply_bits": (x, out, bits, scale),
        "relu": (x, out, bits),
        "nonzero_bits": (x, bits),
    }[name]


def small(n):
    """Whether a call without memory of that size would end."""
    return not isinstance(n, int) or n < 2**20


def step_arguments(guarded, name):
    draw = guarded.draw
    n = (draw(SIZES),)
    dtype = draw(st.sampled_from(DTYPES[:5]))
    wide = "f8" if dtype == "f8" else "f4"
    p, g = guarded.any(n, dtype), guarded.any(n, dtype)
    half = dtype not in ("f4", "f8")
    moments = [guarded.any(n, wide) for _ in range(2 if name == "adam_step" else 1)]
    master = guarded.any(n, "f4") if half or draw(st.integers(0, 9)) == 0 else None
    scalars = numbers(draw, {"adam_step": 7, "sgd_step": 4}[name] - (not draw(SIZES)), REALS)
    others = [draw(st.sampled_from([(), None, (p,)]))] if not draw(st.integers(0, 9)) else []
    return [*others, (p, g, *moments, master)], scalars


def softmax_arguments(guarded, name):
    draw = guarded.draw
    shape = (draw(SIDES), draw(SIDES))
    dtype = draw(st.sampled_from(["f4", "f8"]))
    scores, labels = guarded.any(shape, dtype, 2), guarded.any(shape[:1], "i8")
    if isinstance(labels, np.ndarray) and labels.dtype == np.int64 and labels.flags.writeable:
        labels[...] = draw(st.sampled_from([0, 0, 1, -1, 2**62]))
    if name == "softmax_gradient":
        shares = draw(st.sampled_from([None, guarded.any(shape[:1], dtype)]))
        return scores, labels, shares, guarded.any(shape, dtype, 2)
    return (
        scores,
        labels,
        guarded.any(shape, dtype, 2),
        guarded.any(shape[:1], "f8"),
        guarded.any(shape[:1], "?"),
    )


def sigmoid_arguments(guarded, name):
    n = (guarded.draw(SIZES),)
    dtype = guarded.draw(st.sampled_from(["f4", "f8"]))
    y, dy = guarded.any(n, dtype), guarded.any(n, dtype)
    return y, dy, guarded.draw(st.sampled_from([y, dy, guarded.any(n, dtype)]))


def row_arguments(guarded, name):
    draw = guarded.draw
    height, width, n = draw(SIDES), draw(SIDES), draw(SIDES)
    dtype = draw(st.sampled_from(DTYPES[:5]))
    rows = guarded.any((n,), "i8")
    if isinstance(rows, np.ndarray) and rows.dtype == np.int64 and rows.flags.writeable:
        rows[...] = np.arange(rows.size).reshape(rows.shape) * 7 % max(1, height)
        rows[-1:] = draw(st.sampled_from([0, 0, 0, height - 1, height, -1, -(2**63), 2**62]))
    return guarded.any((height, width), dtype, 2), rows, guarded.any((n, width), dtype, 2)


def product(guarded, earlier):
    """A record of a product, perhaps with the result of an earlier one for an operand."""
    draw = guarded.draw
    m, k, n = (draw(SIDES) for _ in range(3))
    dtype = draw(st.sampled_from(["f4", "f8"]))
    a = guarded.any((m, k), dtype, 2)
    if earlier and draw(st.booleans()):
        a = draw(st.sampled_from(earlier)).out
        if isinstance(a, np.ndarray) and a.ndim == 2:
            a = a.T if draw(st.booleans()) else a
            m, k = a.shape
    record = Product(a, guarded.any((k, n), dtype, 2), guarded.any((m, n), dtype, 2))
    if draw(st.booleans()):
        record.bias = guarded.any((n,), dtype)
    record.relu = draw(st.booleans())
    record.skip = draw(st.sampled_from(["", "", "a", "b", "ab", "c", None]))
    if draw(st.integers(0, 2)) == 0:
        record.bits = guarded.any(((m * n + 7) // 8,), "u1")
    if draw(st.integers(0, 2)) == 0:
        record.nonzero = guarded.any(((m * n + 7) // 8,), "u1")
    record.scale = draw(REALS)
    record.over_rows, record.temporary = draw(st.booleans()), draw(st.integers(0, 3)) == 0
    record.strategy = draw(st.sampled_from(["", "", "dense", "skip_a", "skip_b", "kept", "best"]))
    return record


def multiply_arguments(guarded, name):
    products = []
    for _ in range(guarded.draw(st.integers(0, 3))):
        products.append(product(guarded, products))
    if not guarded.draw(st.integers(0, 9)):
        return ([*products[:1], None],)
    return products, guarded.draw(st.sampled_from([0, 0, 8, 16, 64, 12, -8, 2**64 - 8, None]))


CALLS = {
    **dict.fromkeys(
        ["mask_bits", "mask_box", "dropout_forward", "apply_bits", "relu", "nonzero_bits"],
        elementwise_arguments,
    ),
    **dict.fromkeys(["adam_step", "sgd_step"], step_arguments),
    **dict.fromkeys(["softmax_cross_entropy", "softmax_gradient"], softmax_arguments),
    "sigmoid_gradient": sigmoid_arguments,
    "take_rows": row_arguments,
    "multiply": multiply_arguments,
}


@given(st.data())
def test_a_call_computes_or_raises_and_writes_nowhere_else(data):
    name = data.draw(st.sampled_from(sorted(CALLS)))
    guarded = Guarded(data.draw)
    arguments = CALLS[name](guarded, name)
    message = "none"
    try:
        getattr(native, name)(*arguments)
    except (TypeError, ValueError, AttributeError, RuntimeError) as error:
        message = str(error)
    assert message
    guarded.check()


def good_product(guarded, dtype):
    """A record of a product that is computed, unless an array of it is read-only."""
    draw = guarded.draw
    m, k, n = (draw(SIDES) for _ in range(3))
    layouts = st.sampled_from(["C", "F", "wide", "back"])
    a, b = (guarded.array(shape, dtype, draw(layouts)) for shape in ((m, k), (k, n)))
    record = Product(a, b, guarded.array((m, n), dtype), relu=draw(st.booleans()))
    record.skip = draw(st.sampled_from(["", "a", "b", "ab"]))
    if draw(st.booleans()):
        record.bits, record.nonzero = (guarded.array(((m * n + 7) // 8,), "u1") for _ in range(2))
    return record


@given(st.data())
def test_prepared_products_compute_or_raise_and_write_nowhere_else(data):
    draw, guarded = data.draw, Guarded(data.draw)
    dtype = draw(st.sampled_from(["f4", "f8"]))
    products = [good_product(guarded, dtype) for _ in range(draw(st.integers(1, 2)))]
    names = st.sampled_from(["a", "b", "out", "scale"])
    varying = draw(st.lists(st.tuples(st.integers(0, len(products) - 1), names)))
    values = []
    for i, name in varying:
        now = getattr(products[i], name)
        values.append(draw(REALS) if name == "scale" else guarded.any(now.shape, dtype, now.ndim))
    if draw(st.integers(0, 9)) == 0:
        varying.append(draw(st.sampled_from([(2, "a"), (0, "bias"), (0,), None])))
    message = "none"
    try:
        multiply = native.PreparedProducts(products, varying, draw(st.sampled_from([0, 0, 8, 12])))
        del products
        multiply(tuple(values))
    except (TypeError, ValueError, AttributeError, RuntimeError) as error:
        message = str(error)
    assert message
    guarded.check()


@given(st.data())
def test_an_empty_array_is_made_or_refused(data):
    shape = tuple(
        data.draw(st.lists(st.sampled_from([0, 1, 3, 100, -1, 2**33, 2**62, 2**64, None])))
    )
    dtype = np.dtype(data.draw(st.sampled_from(DTYPES)))
    try:
        x = native.empty(shape, dtype)
    except (MemoryError, TypeError, ValueError, RuntimeError):
        return
    assert (x.shape, x.dtype) == (shape, dtype)
    if x.size:
        x.reshape(-1)[-1:] = np.zeros(1, dtype)
