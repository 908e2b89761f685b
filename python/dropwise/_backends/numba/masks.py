"""Kernels that make the masks of the contract, and apply them chunk by chunk.

Philox4x32-10 runs with one 32-bit word per 64-bit lane, as in the native kernels: LLVM makes each
``(c & _LOW) * M`` one widening multiply.  The upper halves of the lanes hold bits that no
multiplication reads.
"""

from __future__ import annotations

import numpy as np

from dropwise._backends.numba.compilation import inlined, kernel
from dropwise._backends.numba.elements import CHUNK, WORDS, apply_words

_GROUP = 128  # elements that share one Philox counter
_LANES = CHUNK // _GROUP

_LOW = np.uint64(0xFFFFFFFF)
_SHIFT = np.uint64(32)
_M0, _M1 = np.uint64(0xD2511F53), np.uint64(0xCD9E8D57)
_W0, _W1 = np.uint64(0x9E3779B9), np.uint64(0xBB67AE85)
_ONE = np.uint64(1)
_REFINE_TAG = 0x80


@inlined
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


# The kernels share one array of 64-bit words to work in: passing several objects between them would
# cost more, in reference counts, than the planes of a chunk.  Its parts:
_KEPT = 0  # per lane: the mask of 64 elements, then that of the 64 after them
_TIED = _KEPT + 2 * _LANES  # likewise: the elements that no plane has decided
_QUEUE = _TIED + 2 * _LANES  # the words of `_TIED` that are not zero
_ELEMENTS = _QUEUE + WORDS + 1
_BLOCK = _ELEMENTS + CHUNK  # two chunks of mask, from multiples of 128 elements on
_MASK = _BLOCK + 2 * WORDS  # the mask of the current chunk of the call
_WORK = _MASK + WORDS


@kernel
def _fill(work, block, group, lanes, threshold, source):
    """Write the mask of `lanes` groups to `block`: 1 where V >= threshold.

    The threshold's first 8 bits are `high`, the 64 after them `low`; planes are compared from the
    least significant one up.  `source` is the key and the stream.
    """
    high, low = threshold
    key, stream = source
    ones = ~np.uint64(0)
    for i in range(2 * _LANES):
        # Where all planes tie, the refinement decides V >= threshold; there is none if low == 0.
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
        _refine(work, block, group, lanes, low, source)


@kernel
def _refine(work, block, group, lanes, low, source):
    """Decide the elements whose first 8 bits equal the threshold's, 1 in 256, by 64 more bits."""
    key, stream = source
    # Queued first: the branches below are then predicted well, and Philox runs in vector lanes.
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


@inlined
def _groups(n):
    """Return how many groups to make for n elements: whole vectors of lanes, a chunk at most."""
    return min((n + _GROUP - 1) // _GROUP + 7 & ~7, _LANES)


@kernel
def dropout(x, out, bits, n, scale, spec):
    """Write the packed mask to `bits` and the result to `out`, each only if it is not empty.

    `spec` is the threshold as two words, the key, the stream and the offset.
    """
    threshold = np.uint64(spec[0]), np.uint64(spec[1])
    source, offset = (np.uint64(spec[2]), np.uint64(spec[3])), np.uint64(spec[4])
    group, shift = offset >> np.uint64(7), np.int64(offset & np.uint64(127))
    skipped, up = shift >> 6, np.uint64(shift & 63)
    work = np.empty(_WORK, np.uint64)
    mask = work[_MASK:]
    packed = mask.view(np.uint8)
    # Groups start at multiples of 128 elements.  If the call does not, each chunk needs the end of
    # one block of groups and the beginning of the next.
    next_block = np.int64(_BLOCK + WORDS)
    if shift > 0 and n > 0:
        _fill(work, next_block, group, _groups(shift + n), threshold, source)
    for start in range(0, n, CHUNK):
        size = min(CHUNK, n - start)
        if shift == 0:
            _fill(work, np.int64(_MASK), group, _groups(size), threshold, source)
        else:
            for w in range(WORDS):
                work[_BLOCK + w] = work[next_block + w]
            rest = shift + size - CHUNK
            if rest > 0:
                more = _groups(rest + n - start - size)
                _fill(work, next_block, group + np.uint64(_LANES), more, threshold, source)
            for w in range(WORDS):
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
            apply_words(x, out, start, size, mask, scale)


@kernel
def add_runs(bits, starts, length, spec):
    """Write the mask of `length` elements from each start on to `bits`, which are 0.

    `spec` is that of `dropout` without the offset.
    """
    none = np.empty(0, np.float32)
    part = np.empty((length + 7) >> 3, np.uint8)
    for i in range(starts.size):
        first = i * length
        offset = np.int64(starts[i])
        dropout(none, none, part, length, 1.0, (spec[0], spec[1], spec[2], spec[3], offset))
        shift = np.uint8(first & 7)
        for b in range(part.size):
            at = (first >> 3) + b
            bits[at] |= np.uint8(part[b] << shift)
            spill = np.uint8(np.uint16(part[b]) << np.uint16(shift) >> np.uint16(8))
            if spill:
                bits[at + 1] |= spill
