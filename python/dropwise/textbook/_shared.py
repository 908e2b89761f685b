"""What the three modules share: keys from NumPy's global generator, and masks that are arrays."""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
from numpy.typing import ArrayLike

from dropwise import _arguments, _arrays, _dtypes, functional
from dropwise._backends.protocol import Array, Bits


def fresh_key() -> int:
    """A key for one forward call, so that ``np.random.seed`` fixes masks as in the texts."""
    draw = np.random.random_sample  # the texts' generator; its `bytes` takes ten times as long
    return int(draw() * 2**32) << 32 | int(draw() * 2**32)


class Made(NamedTuple):
    """What a forward call leaves for backward."""

    bits: Bits  # packed, 1 = passed
    shape: tuple[int, ...]
    scale: float = 1.0  # of what passed

    def factors(self, dtype: np.dtype[Any]) -> Array:
        """The mask as the texts have it: what multiplied each element."""
        scales = np.full(self.shape, self.scale, dtype)
        return _arrays.apply_mask(scales, scales, self.bits, 1.0, None)


def drop(x: ArrayLike, rate: float, scaling: str, key: int | None = None) -> tuple[Array, Made]:
    """Dropout in training, with a mask of its own at each call unless there is a key."""
    x = _arguments.as_input(x, keep_integers=scaling == "vanilla")
    mask_rate, scale = _dtypes.rate_and_scale(_arguments.check_rate(rate), scaling, True, x.dtype)
    bits = np.empty((x.size + 7) >> 3, np.uint8)
    key = fresh_key() if key is None else key
    y = _arrays.apply_dropout(x, None, bits, mask_rate, scale, key, 0, 0, None)
    return y, Made(bits, x.shape, scale)


def gate(dy: ArrayLike, bits: Bits, shape: tuple[int, ...], scale: float = 1.0) -> Array:
    """``scale * dy`` where the packed mask over `shape` keeps, +0.0 elsewhere."""
    dy = _arguments.as_input(dy, keep_integers=True)
    if dy.shape != shape:
        raise ValueError(f"backward got a gradient of shape {dy.shape}; forward gave {shape}")
    return _arrays.apply_mask(dy, None, bits, scale, None)


def weight_gradients(x: Array, dy: Array) -> tuple[Array, Array]:
    """``x.T @ dy`` and the sum of dy's rows, the gradients of weights and bias."""
    if x.shape[1] >= 32:
        return functional.matmul(x.T, dy), _arrays.sum_rows(dy)
    # With a column of ones in x, reading dy once gives both.
    x1 = np.empty((x.shape[1] + 1, x.shape[0]), x.dtype)
    x1[:-1] = x.T
    x1[-1] = 1
    both = functional.matmul(x1, dy)
    return both[:-1], both[-1]


def multiply_kept(x: ArrayLike, mask: ArrayLike) -> Array:
    """``x * mask`` for a mask that a script has seen or set: of x's dtype, and 0 where it is 0."""
    x, mask = _arguments.as_input(x, keep_integers=True), np.asarray(mask)
    dtype = np.result_type(x, mask) if x.dtype.kind in "biu" else x.dtype
    kept = mask != 0
    if kept.shape != x.shape:
        x, kept = np.broadcast_arrays(x, kept)
    y = _arrays.apply_mask(x, None, np.packbits(kept, bitorder="little"), 1.0, None)
    out = y if y.dtype == dtype else None
    return np.asarray(np.multiply(y, mask, out=out, dtype=dtype, casting="same_kind"))
