"""Chains in blocks of rows: each block has the bits that it has alone, and sums are a tree."""

from __future__ import annotations

import numpy as np
import pytest

from dropwise._backends import active
from dropwise._backends.protocol import Product
from matrices import native, pack, same_bits


class Step:
    """The products of a step through two layers, on `rows` rows of given ones from `first` on."""

    def __init__(self, columns, hidden, rows, dtype=np.float32, density=0.5):
        rng = np.random.default_rng(rows + hidden)
        self.x = rng.standard_normal((rows, columns)).astype(dtype)
        self.x *= rng.random((rows, columns)) < density
        self.dy = rng.standard_normal((rows, 9)).astype(dtype)
        self.w = rng.standard_normal((columns, hidden)).astype(dtype)
        self.v = rng.standard_normal((hidden, 9)).astype(dtype)
        self.bias = rng.standard_normal(hidden).astype(dtype)
        self.kept = rng.random((rows, hidden)) < 0.5

    def compute(self, rows=slice(None), block_rows=0):
        """All that is computed for these rows; sums over them come last."""
        x, dy, kept = self.x[rows], self.dy[rows], self.kept[rows]
        dtype = x.dtype
        h = np.full(kept.shape, 7, dtype)
        y = np.full((len(x), 9), 7, dtype)
        dh = np.full(kept.shape, 7, dtype)
        dv, dw = np.full(self.v.shape, 7, dtype), np.full(self.w.shape, 7, dtype)
        passed = np.full(-(-kept.size // 8), 7, np.uint8)
        active().multiply(
            [
                Product(x, self.w, h, self.bias, True, "a", passed, pack(kept), 2.0),
                Product(h, self.v, y, skip="a"),
                Product(h.T, dy, dv, skip="ab", over_rows=True),
                Product(dy, self.v.T, dh, None, False, "a", None, passed, 2.0),
                Product(x.T, dh, dw, skip="ab", over_rows=True),
            ],
            block_rows,
        )
        return [h, y, dh, passed], [dv, dw]


# columns, hidden: in one piece, and so thin that blocks go through the chain in pieces
SHAPES = [(37, 130), (130, 70), (3, 401)]


def tree(leaves):
    leaves = list(leaves)
    while len(leaves) > 1:
        pairs = [a + b for a, b in zip(leaves[::2], leaves[1::2], strict=False)]
        leaves = pairs + leaves[len(pairs) * 2 :]
    return leaves[0]


def check(step, rows, block_rows, dtype=np.float32):
    results, sums = step.compute(block_rows=block_rows)
    parts, leaves = zip(
        *(step.compute(slice(i, i + block_rows)) for i in range(0, rows, block_rows)), strict=True
    )
    for got, *want in zip(results, *parts, strict=True):
        assert same_bits(got, np.concatenate(want))
    for got, *want in zip(sums, *leaves, strict=True):
        assert same_bits(got, tree(want))


@pytest.mark.parametrize(("columns", "hidden"), SHAPES)
@pytest.mark.parametrize("rows", [1, 64, 65, 448, 500])
def test_a_block_has_the_bits_that_it_has_alone(backend, columns, hidden, rows):
    check(Step(columns, hidden, rows), rows, 64)


@pytest.mark.parametrize(("columns", "hidden"), SHAPES)
def test_so_it_does_on_every_instruction_set_with_any_threads(isa, threads, dtype, columns, hidden):
    check(Step(columns, hidden, 1400, dtype), 1400, 256)


@pytest.mark.parametrize("density", [0.02, 0.3, 1.0])
def test_so_it_does_at_any_density(isa, density):
    check(Step(300, 260, 1024, density=density), 1024, 256)


def test_more_blocks_than_are_added_at_once(backend):
    check(Step(5, 40, 8 * 75), 8 * 75, 8)


def test_parts_that_begin_at_nodes_of_the_tree_add_up_to_the_whole(isa):
    step = Step(130, 140, 1500)
    whole = step.compute(block_rows=256)[1]
    left = step.compute(slice(0, 1024), 256)[1]
    right = step.compute(slice(1024, 1500), 256)[1]
    for got, a, b in zip(whole, left, right, strict=True):
        assert same_bits(got, a + b)


def test_sums_go_to_matrices_of_any_strides(backend):
    rng = np.random.default_rng(0)
    x, dy = (rng.standard_normal((100, n)).astype(np.float32) for n in (6, 7))
    want = np.empty((6, 7), np.float32)
    active().multiply([Product(x.T, dy, want, over_rows=True)], 32)
    memory = np.full((7, 12), 3, np.float32)
    active().multiply([Product(x.T, dy, memory.T[::2], over_rows=True)], 32)
    if backend == "native":
        assert same_bits(memory.T[::2], want)
    else:  # NumPy's products, which add in another order where strides differ
        np.testing.assert_allclose(memory.T[::2], want, rtol=1e-5, atol=1e-5)
    assert (memory.T[1::2] == 3).all()


def test_blocks_are_shared_out_to_threads():
    step = Step(300, 300, 1024)
    before = native.num_threads()
    try:
        native.set_num_threads(2)
        native.take_most_threads()
        step.compute(block_rows=256)
        assert native.take_most_threads() == 2
    finally:
        native.set_num_threads(before)


def test_blocks_that_make_no_sense_are_refused():
    x, y = np.ones((20, 3), np.float32), np.ones((20, 3), np.float32)
    w = np.ones((3, 3), np.float32)
    with pytest.raises(ValueError, match="multiple of 8"):
        native.multiply([Product(x, w, y)], 12)
    with pytest.raises(ValueError, match="share their rows"):
        native.multiply([Product(x, w, y), Product(x[:8], w, y[:8].copy())], 8)


@pytest.mark.parametrize("shape", [(2, 0), (0, 3), (2, 3)])
@pytest.mark.parametrize("rows", [0, 8, 16, 70])
@pytest.mark.usefixtures("backend")
def test_sums_may_be_empty_matrices(shape, rows, threads, dtype):
    height, width = shape
    a, b = np.ones((height, rows), dtype), np.ones((rows, width), dtype)
    out, others = np.full(shape, 7, dtype), np.full((rows, 4), 7, dtype)
    beside = Product(np.ones((rows, 3), dtype), np.ones((3, 4), dtype), others)
    for products in (
        [Product(a, b, out, over_rows=True)],
        [beside, Product(a, b, out, over_rows=True)],
    ):
        active().multiply(products, 8)
        assert (out == rows).all()
    assert (others == 3).all()
