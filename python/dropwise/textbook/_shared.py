"""What the modules of the three texts share: keys, masks that are arrays, gradients of weights."""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
from numpy.typing import ArrayLike

from dropwise import _arguments, _arrays, _dtypes, functional
from dropwise._arrays import NoiseSpec
from dropwise._backends.protocol import Array, Bits


def fresh_key() -> int:
    """A key for one forward call, so that ``np.random.seed`` fixes masks as in the texts."""
    draw = np.random.random_sample  # of the texts' generator; its `bytes` takes ten times as long
    return int(draw() * 2**32) << 32 | int(draw() * 2**32)


class MaskRecord(NamedTuple):
    """The mask of a forward call, kept for backward."""

    bits: Bits  # packed, 1 = passed
    shape: tuple[int, ...]
    scale: float = 1.0  # of what passed

    def factors(self, dtype: np.dtype[Any]) -> Array:
        """The mask as the texts have it: what multiplied each element."""
        scales = np.full(self.shape, self.scale, dtype)
        return _arrays.apply_mask(scales, scales, self.bits, 1.0, None)


def training_dropout(
    x: ArrayLike, rate: float, scaling: str, key: int | None = None
) -> tuple[Array, MaskRecord]:
    """Dropout of `x` and its mask, which without a `key` is a new one at each call."""
    x = _arguments.as_input(x, keep_integers=scaling == "vanilla")
    mask_rate, scale = _dtypes.rate_and_scale(_arguments.check_rate(rate), scaling, True, x.dtype)
    bits = np.empty((x.size + 7) >> 3, np.uint8)
    noise = NoiseSpec(mask_rate, scale, fresh_key() if key is None else key)
    return _arrays.apply_dropout(x, None, bits, noise), MaskRecord(bits, x.shape, scale)


def masked_gradient(dy: ArrayLike, record: MaskRecord) -> Array:
    """``scale * dy`` where the mask of the forward call keeps, +0.0 elsewhere."""
    dy = _arguments.as_input(dy, keep_integers=True)
    if dy.shape != record.shape:
        raise ValueError(
            f"backward got a gradient of shape {dy.shape}; forward gave {record.shape}"
        )
    return _arrays.apply_mask(dy, None, record.bits, record.scale, None)


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


def multiply_by_mask(x: ArrayLike, mask: ArrayLike) -> Array:
    """``x * mask`` in the dtype of `x`, and +0.0 where the mask is 0, also where `x` is not finite.

    For masks that a script has read or assigned.
    """
    x, mask = _arguments.as_input(x, keep_integers=True), np.asarray(mask)
    dtype = np.result_type(x, mask) if x.dtype.kind in "biu" else x.dtype
    kept = mask != 0
    if kept.shape != x.shape:
        x, kept = np.broadcast_arrays(x, kept)
    y = _arrays.apply_mask(x, None, np.packbits(kept, bitorder="little"), 1.0, None)
    out = y if y.dtype == dtype else None
    return np.asarray(np.multiply(y, mask, out=out, dtype=dtype, casting="same_kind"))
