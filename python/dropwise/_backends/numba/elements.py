"""Elementwise kernels: what a mask keeps is scaled, the rest becomes +0.0; the bits of ReLU.

float16 and bfloat16 arrive as uint16 and int16 views, since Numba computes with neither.  An
element is ANDed with all ones or all zeros as an integer: written as a choice of values, LLVM would
fold it into masked loads, which halve the speed of arrays larger than the cache.
"""

from __future__ import annotations

import numpy as np
from numba import types
from numba.extending import overload

from dropwise._backends.numba.compilation import inlined, kernel
from dropwise._backends.protocol import Array

CHUNK = 8192  # elements whose mask is made, then applied: it stays in the first-level cache
WORDS = CHUNK // 64

_SIGN = np.uint32(0x8000)
_HALF_INF = {types.uint16: np.uint32(0x7C00), types.int16: np.uint32(0x7F80)}


def flat(x: Array) -> Array:
    """View an array as one run of a dtype that Numba knows."""
    x = x.reshape(-1)
    if x.dtype.itemsize == 2:
        return x.view(np.uint16 if x.dtype == np.float16 else np.int16)
    return x


def _scaled(x, scale):
    """Return ``x * scale`` rounded once."""


@overload(_scaled)
def _scaled_overload(x, scale):
    if x == types.float32:
        return lambda x, scale: np.float32(x * np.float32(scale))
    if x == types.float64:
        return lambda x, scale: x * scale
    if x == types.uint16:  # float16; the product of two is exact in float32
        return lambda x, scale: half_of_float(float_of_half(x) * np.float32(scale))

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


@inlined
def float_of_half(half):
    """Return the float32 of the same value."""
    half = np.uint32(half)
    # Moved into place, the exponent is too small by 112, for subnormals as well.
    magnitude = np.uint32((half & np.uint32(0x7FFF)) << np.uint32(13))
    word = np.float32(np.float32(magnitude.view(np.float32)) * np.float32(2.0**112)).view(np.uint32)
    if magnitude >= np.uint32(0x0F800000):  # infinity and NaN
        word = np.uint32(magnitude | np.uint32(0x7F800000))
    return np.uint32(word | (half & _SIGN) << np.uint32(16)).view(np.float32)


@inlined
def half_of_float(value):
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


@kernel
def apply_words(x, out, start, size, words, scale):
    """Scale what the mask keeps: 32 elements a turn, which LLVM turns into whole vectors."""
    for part in range(size >> 5):
        word = np.uint32(words[part >> 1] >> np.uint64((part & 1) << 5))
        first = start + part * 32
        for i in range(32):
            bit = np.uint32(word >> np.uint32(i)) & np.uint32(1)
            at = np.uint64(first + i)
            out[at] = _select(_scaled(x[at], scale), bit)
    for i in range(size & ~31, size):
        bit = np.uint32(words[i >> 6] >> np.uint64(i & 63)) & np.uint32(1)
        at = np.uint64(start + i)
        out[at] = _select(_scaled(x[at], scale), bit)


@kernel
def apply_bits(x, out, bits, scale):
    words = np.empty(WORDS, np.uint64)
    packed = words.view(np.uint8)
    for start in range(0, x.size, CHUNK):
        size = min(CHUNK, x.size - start)
        first = start >> 3
        for i in range((size + 7) >> 3):
            packed[i] = bits[np.uint64(first + i)]
        apply_words(x, out, start, size, words, scale)


@kernel
def compare(x, out, bits, positive):
    """Set the bits where not ``x <= 0``, or ``x != 0``; write ReLU to `out` unless it is empty."""
    words = np.empty(WORDS, np.uint64)
    packed = words.view(np.uint8)
    for start in range(0, x.size, CHUNK):
        size = min(CHUNK, x.size - start)
        for part in range(size >> 6):
            word = np.uint64(0)
            for i in range(64):
                element = x[np.uint64(start + part * 64 + i)]
                kept = _positive(element) if positive else _nonzero(element)
                word |= np.uint64(kept) << np.uint64(i)
            words[part] = word
        word = np.uint64(0)
        for i in range(size & ~63, size):
            element = x[np.uint64(start + i)]
            kept = _positive(element) if positive else _nonzero(element)
            word |= np.uint64(kept) << np.uint64(i & 63)
        if size & 63:
            words[size >> 6] = word
        first = start >> 3
        for i in range((size + 7) >> 3):
            bits[np.uint64(first + i)] = packed[i]
        if out.size > 0:
            for i in range(size):
                at = np.uint64(start + i)
                out[at] = _select(x[at], _positive(x[at]))
