"""The backend for machines without a compiler: the contract's masks from kernels that Numba builds.

The bits are those of the native kernels, which this file does not need.  Importing it imports Numba
and is left to the moment the backend is chosen; every kernel is compiled on its first call and kept
on disk.  float16 and bfloat16 arrive in the kernels as uint16 and int16 views, since Numba computes
with neither.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
from numba import njit, types
from numba.extending import overload

from dropwise._backends.protocol import Array, Bits, Product

_CHUNK = 8192  # elements whose mask is made, then applied: it stays in the first-level cache
_GROUP = 128  # elements that share one Philox counter
_LANES = _CHUNK // _GROUP
_WORDS = _CHUNK // 64


def _kernel(function: Callable[..., Any]) -> Any:
    """Compile on first use, kept on disk unless neither the package nor the user has a place."""
    try:
        return njit(nogil=True, cache=True)(function)
    except RuntimeError:  # "no locator available"
        return njit(nogil=True)(function)


# Part of the kernel that calls it, instead of being compiled by itself first.
_inlined = njit(nogil=True, inline="always")


# ---- Philox4x32-10 -------------------------------------------------------------------------------
# One 32-bit word per 64-bit lane, as in the native kernels: LLVM makes each `(c & _LOW) * M` one
# widening multiply.  The upper halves of the lanes hold garbage that no multiply looks at.

_LOW = np.uint64(0xFFFFFFFF)
_SHIFT = np.uint64(32)
_M0, _M1 = np.uint64(0xD2511F53), np.uint64(0xCD9E8D57)
_W0, _W1 = np.uint64(0x9E3779B9), np.uint64(0xBB67AE85)
_ONE = np.uint64(1)
_REFINE_TAG = 0x80


@_inlined
def _philox(position, stream, tag, key):
    """Return the 128-bit output at one 64-bit position, as two words."""
    c0, c1 = position, position >> _SHIFT
    c2, c3 = stream, np.uint64(tag) << np.uint64(24) | stream >> _SHIFT
    k0, k1 = key & _LOW, key >> _SHIFT
    for _ in range(10):
        p0, p1 = (c0 & _LOW) * _M0, (c2 & _LOW) * _M1
        c0, c1, c2, c3 = p1 >> _SHIFT ^ c1 ^ k0, p1, p0 >> _SHIFT ^ c3 ^ k1, p0
        k0, k1 = (k0 + _W0) & _LOW, (k1 + _W1) & _LOW
    return c0 & _LOW | c1 << _SHIFT, c2 & _LOW | c3 << _SHIFT


# ---- masks ---------------------------------------------------------------------------------------


# The kernels share one array of 64-bit words to work in: passing several objects between them would
# cost more, in reference counts, than the planes of a chunk.  Its parts:
_KEPT = 0  # per lane: the mask of 64 elements, then that of the 64 after them
_TIED = _KEPT + 2 * _LANES  # likewise: the elements that no plane has decided
_QUEUE = _TIED + 2 * _LANES  # the words of `_TIED` that are not zero
_ELEMENTS = _QUEUE + _WORDS + 1
_BLOCK = _ELEMENTS + _CHUNK  # two chunks of mask, from multiples of 128 elements on
_MASK = _BLOCK + 2 * _WORDS  # the mask of the current chunk of the call
_WORK = _MASK + _WORDS


@_kernel
def _fill(work, block, group, lanes, high, low, key, stream):
    """Write the mask of `lanes` groups to `block`: 1 where V >= threshold.

    The threshold's first 8 bits are `high`, the 64 after them `low`; planes are compared from the
    least significant one up.
    """
    ones = ~np.uint64(0)
    for i in range(2 * _LANES):
        # Where all planes tie, V >= threshold hangs on the refinement; there is none if low == 0.
        work[_KEPT + i] = ones if low == 0 and high < 256 else np.uint64(0)
        work[_TIED + i] = ones
    for plane in range(8, 0, -1):
        place = np.uint64(8 - plane)
        if low == 0 and high & ((np.uint64(2) << place) - _ONE) == 0:
            continue  # the threshold ends before this plane
        wanted = np.uint64(0) - (high >> place & _ONE)
        for lane in range(lanes):
            b0, b1 = _philox(group + np.uint64(lane), stream, plane, key)
            kept0, kept1 = work[_KEPT + lane], work[_KEPT + _LANES + lane]
            work[_KEPT + lane] = b0 & kept0 | ~wanted & (b0 | kept0)
            work[_KEPT + _LANES + lane] = b1 & kept1 | ~wanted & (b1 | kept1)
            work[_TIED + lane] &= ~(b0 ^ wanted)
            work[_TIED + _LANES + lane] &= ~(b1 ^ wanted)
    for lane in range(lanes):
        work[np.uint64(block + 2 * lane)] = work[_KEPT + lane]
        work[np.uint64(block + 2 * lane + 1)] = work[_KEPT + _LANES + lane]
    if low != 0:
        _refine(work, block, group, lanes, low, key, stream)


@_kernel
def _refine(work, block, group, lanes, low, key, stream):
    """Decide the elements whose first 8 bits equal the threshold's, 1 in 256, by 64 more bits."""
    # Queued first, so that the branches below are taken as predicted and Philox runs in lanes.
    n_tied = 0
    for half in range(2):
        for lane in range(lanes):
            work[_QUEUE + n_tied] = np.uint64(half * _LANES + lane)
            n_tied += int(work[_TIED + half * _LANES + lane] != 0)
    n = 0
    for i in range(n_tied):
        tied = np.int64(work[_QUEUE + i])
        first = np.uint64(tied % _LANES * 128 + tied // _LANES * 64)
        rest = work[_TIED + tied]
        while rest != 0:
            lowest = rest & (~rest + _ONE)
            place = (np.float64(lowest).view(np.uint64) >> np.uint64(52)) - np.uint64(1023)
            work[_ELEMENTS + n] = first + place
            n += 1
            rest ^= lowest
    start = group << np.uint64(7)
    for i in range(n):
        element = work[_ELEMENTS + i]
        drawn, _ = _philox(start + element, stream, _REFINE_TAG, key)
        work[_ELEMENTS + i] = element | np.uint64(drawn >= low) << _SHIFT
    for i in range(n):
        element, kept = work[_ELEMENTS + i] & _LOW, work[_ELEMENTS + i] >> _SHIFT
        work[block + np.int64(element >> np.uint64(6))] |= kept << (element & np.uint64(63))


@_inlined
def _groups(n):
    """Return how many groups to make for n elements: whole vectors of lanes, a chunk at most."""
    return min((n + _GROUP - 1) // _GROUP + 7 & ~7, _LANES)


@_kernel
def _dropout(x, out, bits, n, scale, high, low, key, stream, offset):
    """Write the packed mask to `bits` and the result to `out`, each only if it is not empty."""
    high, low, key = np.uint64(high), np.uint64(low), np.uint64(key)
    stream, offset = np.uint64(stream), np.uint64(offset)
    group, shift = offset >> np.uint64(7), np.int64(offset & np.uint64(127))
    skipped, up = shift >> 6, np.uint64(shift & 63)
    work = np.empty(_WORK, np.uint64)
    packed = work[_MASK:].view(np.uint8)
    # Groups start at multiples of 128 elements.  If the call does not, each chunk needs the end of
    # one block of groups and the beginning of the next.
    next_block = np.int64(_BLOCK + _WORDS)
    if shift > 0 and n > 0:
        _fill(work, next_block, group, _groups(shift + n), high, low, key, stream)
    for start in range(0, n, _CHUNK):
        size = min(_CHUNK, n - start)
        if shift == 0:
            _fill(work, np.int64(_MASK), group, _groups(size), high, low, key, stream)
        else:
            for w in range(_WORDS):
                work[_BLOCK + w] = work[next_block + w]
            rest = shift + size - _CHUNK
            if rest > 0:
                more = _groups(rest + n - start - size)
                _fill(work, next_block, group + np.uint64(_LANES), more, high, low, key, stream)
            for w in range(_WORDS):
                lower, upper = work[_BLOCK + w + skipped], work[_BLOCK + w + skipped + 1]
                work[_MASK + w] = lower >> up | upper << _ONE << (np.uint64(63) - up)
        group += np.uint64(_LANES)
        if size & 63:
            work[_MASK + (size >> 6)] &= (_ONE << np.uint64(size & 63)) - _ONE
        if bits.size > 0:
            first = start >> 3
            for i in range((size + 7) >> 3):
                bits[np.uint64(first + i)] = packed[i]
        if out.size > 0:
            _apply(x, out, start, size, work, scale)


# ---- elements ------------------------------------------------------------------------------------
# An element is ANDed with all ones or all zeros as an integer.  Written as a choice of values, LLVM
# would fold it into masked loads, which halve the speed of arrays larger than the cache.

_SIGN = np.uint32(0x8000)
_HALF_INF = {types.uint16: np.uint32(0x7C00), types.int16: np.uint32(0x7F80)}


def _product(x, scale):
    """Return ``x * scale`` rounded once."""


@overload(_product)
def _product_overload(x, scale):
    if x == types.float32:
        return lambda x, scale: np.float32(x * np.float32(scale))
    if x == types.float64:
        return lambda x, scale: x * scale
    if x == types.uint16:  # float16; the product of two is exact in float32
        return lambda x, scale: _half_of_float(_float_of_half(x) * np.float32(scale))

    def bfloat16_product(x, scale):  # the upper half of a float32
        wide = np.uint32(np.uint32(x) << np.uint32(16)).view(np.float32)
        product = np.float32(wide * np.float32(scale)).view(np.uint32)
        nearest = product + np.uint32(0x7FFF) + (product >> np.uint32(16) & np.uint32(1))
        if product & np.uint32(0x7FFFFFFF) > np.uint32(0x7F800000):
            nearest = product | np.uint32(0x400000)  # rounding could end a NaN as infinity
        return np.int16(nearest >> np.uint32(16))

    return bfloat16_product


def _select(x, bit):
    """Return x if the bit is 1, else +0.0."""


@overload(_select)
def _select_overload(x, bit):
    if x == types.float32:
        return lambda x, bit: np.int32(np.float32(x).view(np.int32) & -np.int32(bit)).view(
            np.float32
        )
    if x == types.float64:
        return lambda x, bit: np.int64(np.float64(x).view(np.int64) & -np.int64(bit)).view(
            np.float64
        )
    if x == types.uint16:
        return lambda x, bit: np.uint16(x & -np.int16(bit))
    return lambda x, bit: np.int16(x & -np.int16(bit))


@_inlined
def _float_of_half(half):
    """Return the float32 of the same value."""
    half = np.uint32(half)
    # Moved into place, the exponent is too small by 112, for subnormals as well.
    magnitude = np.uint32((half & np.uint32(0x7FFF)) << np.uint32(13))
    word = np.float32(np.float32(magnitude.view(np.float32)) * np.float32(2.0**112)).view(np.uint32)
    if magnitude >= np.uint32(0x0F800000):  # infinity and NaN
        word = np.uint32(magnitude | np.uint32(0x7F800000))
    return np.uint32(word | (half & _SIGN) << np.uint32(16)).view(np.float32)


@_inlined
def _half_of_float(value):
    """Return the bits of the nearest float16, ties to even."""
    word = np.float32(value).view(np.uint32)
    magnitude = np.uint32(word & np.uint32(0x7FFFFFFF))
    odd = np.uint32(magnitude >> np.uint32(13)) & np.uint32(1)
    rounded = np.uint32(magnitude - np.uint32(112 << 23) + np.uint32(0xFFF) + odd)
    half = np.uint32(rounded >> np.uint32(13))
    if magnitude < np.uint32(113 << 23):
        # Subnormal in float16: the sum with 0.5 has its last place there and rounds as we want.
        shifted = np.float32(np.float32(magnitude.view(np.float32)) + np.float32(0.5))
        half = np.uint32(shifted.view(np.uint32) - np.uint32(126 << 23))
    if magnitude >= np.uint32(143 << 23):
        half = np.uint32(0x7C00)
    if magnitude > np.uint32(0x7F800000):  # quiet, with what fits of the payload
        payload = np.uint32(magnitude >> np.uint32(13)) & np.uint32(0x3FF)
        half = np.uint32(payload | np.uint32(0x7E00))
    return np.uint16(half | np.uint32(word >> np.uint32(16)) & _SIGN)


def _positive(x):
    """Return whether not ``x <= 0``."""


@overload(_positive)
def _positive_overload(x):
    if isinstance(x, types.Float):
        return lambda x: not x <= 0
    infinity = _HALF_INF[x]

    def positive(x):
        word = np.uint32(x) & np.uint32(0xFFFF)
        magnitude = word & np.uint32(0x7FFF)
        return (magnitude > 0) & (word < _SIGN) | (magnitude > infinity)

    return positive


def _nonzero(x):
    """Return whether ``x != 0``."""


@overload(_nonzero)
def _nonzero_overload(x):
    if isinstance(x, types.Float):
        return lambda x: x != 0
    return lambda x: np.uint32(x) & np.uint32(0x7FFF) != 0


@_kernel
def _apply(x, out, start, size, work, scale):
    """Scale what the mask words keep: 32 elements a turn, which LLVM makes whole vectors of."""
    for part in range(size >> 5):
        word = np.uint32(work[_MASK + (part >> 1)] >> np.uint64((part & 1) << 5))
        first = start + part * 32
        for i in range(32):
            bit = np.uint32(word >> np.uint32(i)) & np.uint32(1)
            at = np.uint64(first + i)
            out[at] = _select(_product(x[at], scale), bit)
    for i in range(size & ~31, size):
        bit = np.uint32(work[_MASK + (i >> 6)] >> np.uint64(i & 63)) & np.uint32(1)
        at = np.uint64(start + i)
        out[at] = _select(_product(x[at], scale), bit)


@_kernel
def _apply_bits(x, out, bits, scale):
    work = np.empty(_WORK, np.uint64)
    packed = work[_MASK:].view(np.uint8)
    for start in range(0, x.size, _CHUNK):
        size = min(_CHUNK, x.size - start)
        first = start >> 3
        for i in range((size + 7) >> 3):
            packed[i] = bits[np.uint64(first + i)]
        _apply(x, out, start, size, work, scale)


@_kernel
def _compare(x, out, bits, positive):
    """Set the bits where not ``x <= 0``, or ``x != 0``; write what they keep if `out` has room."""
    work = np.empty(_WORK, np.uint64)
    packed = work[_MASK:].view(np.uint8)
    for start in range(0, x.size, _CHUNK):
        size = min(_CHUNK, x.size - start)
        for part in range(size >> 6):
            word = np.uint64(0)
            for i in range(64):
                element = x[np.uint64(start + part * 64 + i)]
                kept = _positive(element) if positive else _nonzero(element)
                word |= np.uint64(kept) << np.uint64(i)
            work[_MASK + part] = word
        word = np.uint64(0)
        for i in range(size & ~63, size):
            element = x[np.uint64(start + i)]
            kept = _positive(element) if positive else _nonzero(element)
            word |= np.uint64(kept) << np.uint64(i & 63)
        if size & 63:
            work[_MASK + (size >> 6)] = word
        first = start >> 3
        for i in range((size + 7) >> 3):
            bits[np.uint64(first + i)] = packed[i]
        if out.size > 0:
            for i in range(size):
                at = np.uint64(start + i)
                out[at] = _select(x[at], _positive(x[at]))


# ---- products ------------------------------------------------------------------------------------

# Below this density of `a`, and from this size on, one thread of ours that skips zeros takes less
# time than a dense product by NumPy's BLAS, which may use every core that the process has.
_CORES = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
_SPARSE_DENSITY = 0.12 / _CORES
_SPARSE_SIZE = 64  # columns of `a` and of `b`


def _worth_skipping(a: Array, b: Array) -> bool:
    large = min(b.shape) >= _SPARSE_SIZE
    return large and bool(np.count_nonzero(a) < _SPARSE_DENSITY * a.size)


@_kernel
def _finish(out, bias, relu):
    """Add the bias unless it is empty, then apply ReLU if asked."""
    for i in range(out.shape[0]):
        for j in range(out.shape[1]):
            value = out[i, j]
            if bias.size > 0:
                value += bias[j]
            out[i, j] = out.dtype.type(0) if relu and value <= 0 else value


@_kernel
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


@_kernel
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


# ---- the protocol --------------------------------------------------------------------------------


def _flat(x: Array) -> Array:
    """View an array as one run of a dtype that Numba knows."""
    x = x.reshape(-1)
    if x.dtype.itemsize == 2:
        return x.view(np.uint16 if x.dtype == np.float16 else np.int16)
    return x


def _signed(word: int) -> int:
    """Move a 64-bit word to where Numba takes a Python int for int64, whatever its value."""
    return word - (word >> 63 << 64)


class NumbaBackend:
    """The functions of the protocol in kernels built by Numba and products by NumPy's BLAS."""

    name = "numba"

    def mask_bits(
        self, bits: Bits, n: int, rate: float, key: int, stream: int, offset: int
    ) -> None:
        nothing = np.empty(0, np.float32)
        self._dropout(nothing, nothing, bits, n, rate, 1.0, key, stream, offset)

    def dropout_forward(
        self,
        x: Array,
        out: Array,
        bits: Bits | None,
        rate: float,
        scale: float,
        key: int,
        stream: int,
        offset: int,
    ) -> None:
        if bits is None:
            bits = np.empty(0, np.uint8)
        self._dropout(_flat(x), _flat(out), bits, x.size, rate, scale, key, stream, offset)

    def _dropout(
        self,
        x: Array,
        out: Array,
        bits: Bits,
        n: int,
        rate: float,
        scale: float,
        key: int,
        stream: int,
        offset: int,
    ) -> None:
        threshold = int(rate * 2.0**72)  # exact: scaling by a power of two rounds nothing
        high, low = threshold >> 64, _signed(threshold & (2**64 - 1))
        _dropout(x, out, bits, n, scale, high, low, _signed(key), stream, _signed(offset))

    def apply_bits(self, x: Array, out: Array, bits: Bits, scale: float) -> None:
        _apply_bits(_flat(x), _flat(out), bits, scale)

    def relu(self, x: Array, out: Array, bits: Bits) -> None:
        _compare(_flat(x), _flat(out), bits, True)

    def nonzero_bits(self, x: Array, bits: Bits) -> None:
        flat = _flat(x)
        _compare(flat, flat[:0], bits, False)

    def multiply(self, products: Sequence[Product]) -> None:
        for p in products:
            self._multiply(p)
            if p.bits is not None:
                self.apply_bits(p.out, p.out, p.bits, p.scale)
            if p.nonzero is not None:
                self.nonzero_bits(p.out, p.nonzero)

    def _multiply(self, p: Product) -> None:
        """A product with its bias and ReLU."""
        a, b, out = p.a, p.b, p.out
        with np.errstate(all="ignore"):
            if "a" in p.skip and _worth_skipping(a, b):
                result = np.empty(out.shape, out.dtype)
                _multiply_sparse(np.ascontiguousarray(a), np.ascontiguousarray(b), result)
                out[...] = result
            else:
                np.matmul(a, b, out=out)
            # A zero against NaN or infinity must count for nothing, and it cannot hide in the sum.
            if p.skip and not np.isfinite(out.sum()):
                exact = np.ascontiguousarray(out)
                a, b = np.ascontiguousarray(a), np.ascontiguousarray(b)
                _multiply_nonzero(a, b, exact, "a" in p.skip, "b" in p.skip)
                out[...] = exact
        if p.bias is not None or p.relu:
            _finish(out, np.empty(0, out.dtype) if p.bias is None else p.bias, p.relu)

    def adam_step(self, *arguments: Any, **more: Any) -> None:
        from dropwise._backends import numba_optimizers

        numba_optimizers.adam_step(*arguments, **more)

    def sgd_step(self, *arguments: Any, **more: Any) -> None:
        from dropwise._backends import numba_optimizers

        numba_optimizers.sgd_step(*arguments, **more)

    def softmax_cross_entropy(self, *arguments: Any) -> None:
        from dropwise._backends import numba_losses

        numba_losses.softmax_cross_entropy(*arguments)

    def softmax_gradient(self, *arguments: Any) -> None:
        from dropwise._backends import numba_losses

        numba_losses.softmax_gradient(*arguments)

    def num_threads(self) -> int:
        return 1

    def set_num_threads(self, n: int) -> None:
        pass
