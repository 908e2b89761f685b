"""Matrices for tests of products, and what they must give."""

from __future__ import annotations

import numpy as np

from dropwise._backends.protocol import Product
from support import require

native = require("dropwise._native")


def integers(rng, shape, dtype, density=1.0):
    """Integers in [-8, 8]; about 1 - density of them are zeros of either sign."""
    x = rng.integers(1, 9, shape) * rng.choice([-1, 1], shape)
    kept = rng.random(shape) < density
    return np.where(kept, x, rng.choice([0.0, -0.0], shape)).astype(dtype)


def strided(x, layout):
    """The values of x in memory that is laid out in another way."""
    m, n = x.shape
    if layout == "C":
        return np.ascontiguousarray(x)
    if layout == "F":
        return np.asfortranarray(x)
    if layout == "odd":  # neither stride is one element
        big = np.full((2 * m, 3 * n), np.nan, x.dtype)
        view = big[::2, 1::3]
    elif layout == "wide":  # rows apart
        view = np.full((m, n + 5), np.nan, x.dtype)[:, 2 : n + 2]
    elif layout == "negative":
        view = np.full((m, n), np.nan, x.dtype)[::-1, ::-1]
    elif layout == "negative-rows-F":
        view = np.full((n, m), np.nan, x.dtype)[:, ::-1].T
    view[...] = x
    return view


LAYOUTS = ["C", "F", "odd", "wide", "negative", "negative-rows-F"]


def guarded(shape, dtype, layout="C"):
    """An output and the whole block of memory around it, all of it 77."""
    m, n = shape
    if layout == "C":
        memory = np.full(m * n + 64, 77, dtype)
        return memory, memory[32 : 32 + m * n].reshape(m, n)
    if layout == "F":
        memory = np.full(m * n + 64, 77, dtype)
        return memory, memory[32 : 32 + m * n].reshape(n, m).T
    memory = np.full((2 * m + 2, 3 * n + 2), 77, dtype)
    view = memory[1 : 2 * m + 1 : 2, 1 : 3 * n + 1 : 3]
    return memory, view[::-1] if layout == "negative" else view


def untouched(memory, out):
    """True if nothing but out was written: out is set to 77 on the way."""
    out[...] = 77
    return bool((memory == 77).all())


def same_bits(x, y):
    return x.shape == y.shape and x.tobytes() == np.ascontiguousarray(y, x.dtype).tobytes()


def reference(a, b, bias=None, relu=False, keep=None, scale=1.0):
    out = a.astype(np.float64) @ b.astype(np.float64) + 0.0
    if bias is not None:
        out = out + bias + 0.0
    if relu:
        out = np.where(out <= 0, 0.0, out)
    if keep is not None:
        out = np.where(keep, out * scale, 0.0)
    return out.astype(a.dtype)


def multiply(a, b, out, bias=None, relu=False, skip="", nonzero=None, **others):
    native.multiply([Product(a, b, out, bias, relu, skip, nonzero, **others)])


def pack(keep):
    return np.packbits(keep.ravel(), bitorder="little")


EDGES = [0, 1, 2, 3, 5, 6, 7, 8, 9, 13, 14, 15, 16, 17, 28, 31, 32, 33, 63, 64, 65, 127, 128, 129]
