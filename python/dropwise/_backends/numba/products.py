"""Matrix products: NumPy's BLAS, or a kernel that skips the zeros of a very sparse operand."""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from dataclasses import replace

import numpy as np

from dropwise._backends.numba.compilation import kernel
from dropwise._backends.protocol import Array, Product

# Below this density of `a`, and from this size on, one thread of ours that skips zeros takes less
# time than a dense product by NumPy's BLAS, which may use every core that the process has.
_CORES = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
_SPARSE_DENSITY = 0.12 / _CORES
_SPARSE_SIZE = 64  # columns of `a` and of `b`


def _worth_skipping(a: Array, b: Array) -> bool:
    large = min(b.shape) >= _SPARSE_SIZE
    return large and bool(np.count_nonzero(a) < _SPARSE_DENSITY * a.size)


@kernel
def _add_bias_and_relu(out, bias, relu):
    """Add the bias unless it is empty, then apply ReLU if asked."""
    for i in range(out.shape[0]):
        for j in range(out.shape[1]):
            value = out[i, j]
            if bias.size > 0:
                value += bias[j]
            out[i, j] = out.dtype.type(0) if relu and value <= 0 else value


@kernel
def _multiply_sparse(a, b, out):
    """Compute ``a @ b`` from the nonzero elements of `a`, four rows of `b` at a time."""
    n_columns = out.shape[1]
    columns = np.empty(a.shape[1] + 3, np.int64)
    values = np.empty(a.shape[1] + 3, a.dtype)
    for i in range(out.shape[0]):
        n = 0
        for k in range(a.shape[1]):
            columns[n], values[n] = k, a[i, k]
            n += int(a[i, k] != 0)
        row = out[i]
        row[:] = 0
        whole = n & ~3
        for first in range(0, whole, 4):
            a0, a1 = values[first], values[first + 1]
            a2, a3 = values[first + 2], values[first + 3]
            b0, b1 = b[columns[first]], b[columns[first + 1]]
            b2, b3 = b[columns[first + 2]], b[columns[first + 3]]
            for j in range(n_columns):
                row[j] += (a0 * b0[j] + a1 * b1[j]) + (a2 * b2[j] + a3 * b3[j])
        for last in range(whole, n):
            a0, b0 = values[last], b[columns[last]]
            for j in range(n_columns):
                row[j] += a0 * b0[j]


@kernel
def _multiply_nonzero(a, b, out, skip_a, skip_b):
    """Compute the rows of ``a @ b`` that are not finite in `out`, leaving exact zeros out."""
    for i in range(out.shape[0]):
        finite = True
        for j in range(out.shape[1]):
            finite &= np.isfinite(out[i, j])
        if finite:
            continue
        out[i] = 0
        for k in range(a.shape[1]):
            if skip_a and a[i, k] == 0:
                continue
            for j in range(out.shape[1]):
                if not (skip_b and b[k, j] == 0):
                    out[i, j] += a[i, k] * b[k, j]


def multiply(product: Product) -> None:
    """A product with its bias and ReLU; zeros of the operands in its `skip` may be skipped."""
    a, b, out, skip = product.a, product.b, product.out, product.skip
    with np.errstate(all="ignore"):
        if "a" in skip and _worth_skipping(a, b):
            result = np.empty(out.shape, out.dtype)
            _multiply_sparse(np.ascontiguousarray(a), np.ascontiguousarray(b), result)
            out[...] = result
        else:
            np.matmul(a, b, out=out)
        # A zero against NaN or infinity must count for nothing, and it cannot hide in the sum.
        if skip and not np.isfinite(out.sum()):
            exact = np.ascontiguousarray(out)
            a, b = np.ascontiguousarray(a), np.ascontiguousarray(b)
            _multiply_nonzero(a, b, exact, "a" in skip, "b" in skip)
            out[...] = exact
    if product.bias is not None or product.relu:
        bias = np.empty(0, out.dtype) if product.bias is None else product.bias
        _add_bias_and_relu(out, bias, product.relu)


def multiply_by_blocks(
    compute: Callable[[Sequence[Product]], None], products: Sequence[Product], block_rows: int
) -> None:
    """Let `compute` see blocks of rows, and add up the sums over rows in a tree."""
    first = products[0]
    rows = first.b.shape[0] if first.over_rows else first.a.shape[0]
    if not rows:
        compute(products)
        return
    nodes: dict[int, list[tuple[int, Array]]] = {}  # of the tree: their levels and sums
    for start in range(0, rows, block_rows):
        block = [_rows_of(product, slice(start, start + block_rows)) for product in products]
        for part, whole in zip(block, products, strict=True):
            if whole.over_rows and start:  # the first is added to in place
                part.out = np.empty_like(whole.out)
        compute(block)
        for i, part in enumerate(block):
            if part.over_rows:
                _add_node(nodes.setdefault(i, []), part.out)
    for left in nodes.values():
        while len(left) > 1:
            _, right = left.pop()
            with np.errstate(all="ignore"):
                left[-1][1][...] += right


def _add_node(nodes: list[tuple[int, Array]], leaf: Array) -> None:
    """Add a leaf after those that the nodes stand for; two nodes of a level become one."""
    level, total = 0, leaf
    while nodes and nodes[-1][0] == level:
        _, left = nodes.pop()
        with np.errstate(all="ignore"):
            left += total
        level, total = level + 1, left
    nodes.append((level, total))


def _rows_of(product: Product, rows: slice) -> Product:
    """The product for some of the rows that a chain shares."""
    if product.over_rows:
        return replace(product, a=product.a[:, rows], b=product.b[rows])
    part = replace(product, a=product.a[rows], out=product.out[rows])
    columns = product.out.shape[1]
    packed = slice(rows.start * columns // 8, (rows.stop * columns + 7) // 8)
    if product.bits is not None:
        part.bits = product.bits[packed]
    if product.nonzero is not None:
        part.nonzero = product.nonzero[packed]
    return part
