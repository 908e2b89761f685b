"""Softmax with cross-entropy for rows whose class is known, its gradient, that of the sigmoid.

The operations and their order are those of the native kernels, so the bits are too.
"""

from __future__ import annotations

import numpy as np

from dropwise._backends.numba.compilation import ieee_kernel, inlined
from dropwise._backends.protocol import Array

_GROUP = 8  # parts of a sum
_LEAF = 128  # elements whose sum is not halved
_ZERO = -746.0  # where exp is 0
_PER_LN2 = float.fromhex("0x1.71547652b82fep0")
_LN2_HIGH = float.fromhex("0x1.62e42fefa3800p-1")
_LN2_LOW = float.fromhex("0x1.ef35793c76730p-45")
_ROOT_OF_HALF = np.uint64(0x3FE6A09E667F3BCD)  # the bits of sqrt(1/2)
_ROUND = float.fromhex("0x1.8p52")  # leaves an integer in the last bits of a sum


@inlined
def _power_of_two(shifted):
    """Return 2**n for the n in [-1022, 1023] of n + _ROUND."""
    exponent = np.float64(shifted).view(np.uint64) + np.uint64(1023)
    return np.uint64(exponent << np.uint64(52)).view(np.float64)


@inlined
def _exp_of_negative(x):
    """Return exp(x) for x <= 0.  NaN stays."""
    bounded = _ZERO if x < _ZERO else x
    n = bounded * _PER_LN2 + _ROUND - _ROUND
    r = bounded - n * _LN2_HIGH - n * _LN2_LOW
    total = 1.0 / 6227020800
    total = total * r + 1.0 / 479001600
    total = total * r + 1.0 / 39916800
    total = total * r + 1.0 / 3628800
    total = total * r + 1.0 / 362880
    total = total * r + 1.0 / 40320
    total = total * r + 1.0 / 5040
    total = total * r + 1.0 / 720
    total = total * r + 1.0 / 120
    total = total * r + 1.0 / 24
    total = total * r + 1.0 / 6
    total = total * r + 0.5
    total = total * r * r + r + 1.0
    half = n * 0.5 + _ROUND
    return total * _power_of_two(half) * _power_of_two(n - (half - _ROUND) + _ROUND)


@inlined
def _log_from_one(x):
    """Return log(x) for x >= 1.  NaN stays."""
    bits = np.float64(x).view(np.uint64)
    exponent = np.uint64(np.uint64(bits - _ROOT_OF_HALF) >> np.uint64(52))
    m = np.uint64(bits - np.uint64(exponent << np.uint64(52))).view(np.float64)
    n = np.float64(np.int64(exponent))
    s = (m - 1.0) / (m + 1.0)
    z = s * s
    total = 2.0 / 21
    total = total * z + 2.0 / 19
    total = total * z + 2.0 / 17
    total = total * z + 2.0 / 15
    total = total * z + 2.0 / 13
    total = total * z + 2.0 / 11
    total = total * z + 2.0 / 9
    total = total * z + 2.0 / 7
    total = total * z + 2.0 / 5
    total = total * z + 2.0 / 3
    return n * _LN2_HIGH + (2.0 * s + (s * z * total + n * _LN2_LOW)) + (x - x)


@ieee_kernel
def _first_largest(x):
    """Return the index of the first NaN, else of the first of the largest."""
    best = 0
    for i in range(x.size):
        if x[i] != x[i]:
            return i
        if x[i] > x[best]:
            best = i
    return best


@ieee_kernel
def _sum(x):
    """Return the sum of the elements, of more than 128 by halves."""
    if x.size > _LEAF:
        half = x.size // 2 // _GROUP * _GROUP
        return _sum(x[:half]) + _sum(x[half:])
    total, done = 0.0, 0
    if x.size >= _GROUP:
        part = x[:_GROUP].copy()
        done = x.size // _GROUP * _GROUP
        for i in range(_GROUP, done):
            part[i % _GROUP] += x[i]
        total = ((part[0] + part[1]) + (part[2] + part[3])) + (
            (part[4] + part[5]) + (part[6] + part[7])
        )
    for i in range(done, x.size):
        total += x[i]
    return total


@inlined
def _are_classes(labels, n):
    others = 0
    for row in range(labels.size):
        others += labels[row] < 0 or labels[row] >= n
    return others == 0


@ieee_kernel
def _forward(scores, labels, probabilities, losses, correct):
    if not _are_classes(labels, scores.shape[1]):
        return 0.0, -1
    part = np.empty(_GROUP)
    for row in range(scores.shape[0]):
        x, p, label = scores[row], probabilities[row], labels[row]
        largest = x[0]
        for i in range(x.size):
            largest = x[i] if x[i] > largest else largest
        top = np.float64(largest)
        for i in range(x.size):
            p[i] = _exp_of_negative(np.float64(x[i]) - top)
        part[:] = 0
        for i in range(x.size):
            part[i % _GROUP] += np.float64(p[i])
        total = ((part[0] + part[4]) + (part[2] + part[6])) + (
            (part[1] + part[5]) + (part[3] + part[7])
        )
        for i in range(x.size):
            p[i] = np.float64(p[i]) / total
        own = np.float64(x[label])
        losses[row] = _log_from_one(total) - (own - top)
        correct[row] = _first_largest(x) == label
    return _sum(losses), np.sum(correct)


@ieee_kernel
def _gradient(probabilities, labels, shares, out):
    if not _are_classes(labels, out.shape[1]):
        return False
    rows = out.dtype.type(out.shape[0])
    even = out.dtype.type(1.0 / out.shape[0])
    for row in range(out.shape[0]):
        p, to = probabilities[row], out[row]
        share = shares[row] if shares.size else even
        for i in range(p.size):
            to[i] = p[i] * share if shares.size else p[i] / rows
        to[labels[row]] -= share
    return True


@ieee_kernel
def _sigmoid_gradient(y, dy, out):
    one = out.dtype.type(1)
    for i in range(out.size):
        out[i] = dy[i] * (one - y[i]) * y[i]


def softmax_cross_entropy(
    scores: Array, labels: Array, probabilities: Array, losses: Array, correct: Array
) -> tuple[float, int] | None:
    total, count = _forward(scores, labels, probabilities, losses, correct)
    return None if count < 0 else (float(total), int(count))


def softmax_gradient(probabilities: Array, labels: Array, shares: Array | None, out: Array) -> None:
    if not _gradient(probabilities, labels, out[0, :0] if shares is None else shares, out):
        raise ValueError("labels must be in [0, C)")


def sigmoid_gradient(y: Array, dy: Array, out: Array) -> None:
    _sigmoid_gradient(y.reshape(-1), dy.reshape(-1), out.reshape(-1))
