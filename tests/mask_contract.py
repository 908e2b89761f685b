"""The mask contract, version 1, twice: slow and obvious, and on NumPy arrays for long masks.

The first half is the judge of every kernel and uses only Python integers, so that nothing can
overflow or round.  The second half is judged by the first.
"""

from __future__ import annotations

from fractions import Fraction

import numpy as np

U32 = 0xFFFFFFFF
N_PLANES = 8
REFINE_TAG = 0x80


def philox4x32_10(counter, key):
    """Ten rounds of Philox4x32 (Salmon et al., SC11, 2011): 4 counter and 2 key words -> 4 words.

    The words may also be arrays of uint64 that hold 32-bit values.
    """
    c0, c1, c2, c3 = counter
    k0, k1 = key
    for _ in range(10):
        p0, p1 = 0xD2511F53 * c0, 0xCD9E8D57 * c2
        c0, c1, c2, c3 = (p1 >> 32) ^ c1 ^ k0, p1 & U32, (p0 >> 32) ^ c3 ^ k1, p0 & U32
        k0, k1 = (k0 + 0x9E3779B9) & U32, (k1 + 0xBB67AE85) & U32
    return c0, c1, c2, c3


def block(key, stream, tag, position):
    """The Philox output for one tag (1..8 plane, 0x80 refinement) at a position of a stream."""
    counter = (position & U32, position >> 32, stream & U32, (tag << 24) | (stream >> 32))
    return philox4x32_10(counter, (key & U32, key >> 32))


def uniform72(key, stream, i):
    """V(i) * 2**72: 8 bits from the planes, then 64 from the refinement."""
    high = 0
    for plane in range(1, N_PLANES + 1):  # plane 1 holds the most significant bit
        words = block(key, stream, plane, i >> 7)
        high = high << 1 | words[(i & 127) >> 5] >> (i & 31) & 1
    w0, w1, _, _ = block(key, stream, REFINE_TAG, i)
    return high << 64 | w1 << 32 | w0


def threshold72(rate):
    """floor(rate * 2**72), exactly; 2**72 at rate 1, so that everything is dropped."""
    return int(Fraction(rate) * 2**72)


def kept(key, stream, i, rate):
    """True where element i survives: it is dropped if and only if V(i) < rate."""
    return uniform72(key, stream, i) >= threshold72(rate)


def packed_mask(key, stream, start, n, rate):
    """The mask of elements [start, start + n): 1 = kept, element e in bit e % 8 of byte e // 8."""
    out = bytearray((n + 7) // 8)
    for e in range(n):
        out[e >> 3] |= kept(key, stream, start + e, rate) << (e & 7)
    return bytes(out)


def mask_array(key, stream, start, n, rate):
    """Like `packed_mask`, as a bool array and fast enough for millions of elements."""
    threshold = threshold72(rate)
    group = np.uint64(start >> 7) + np.arange((start % 128 + n + 127) // 128, dtype=np.uint64)
    high = np.zeros((group.size, 4, 32), np.uint16)
    for plane in range(1, N_PLANES + 1):
        words = np.stack(block(key, stream, plane, group), axis=-1).astype("<u4")
        bits = np.unpackbits(words.view(np.uint8), axis=-1, bitorder="little")
        high = high << 1 | bits.reshape(high.shape)
    high = high.ravel()[start % 128 :][:n]
    result = high >= threshold >> 64
    tied = np.flatnonzero(high == threshold >> 64)
    w0, w1, _, _ = block(key, stream, REFINE_TAG, np.uint64(start) + tied.astype(np.uint64))
    result[tied] = (w1 << 32 | w0) >= threshold % 2**64
    return result
