"""The class `NumbaBackend`: the functions of the protocol over the kernels of this folder."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from dropwise._backends.numba import elements, losses, masks, optimizers
from dropwise._backends.numba.elements import flat
from dropwise._backends.numba.products import multiply
from dropwise._backends.protocol import Array, Bits, Product


def _signed(word: int) -> int:
    """The int64 with the bits of a 64-bit word, so that Numba compiles for one type only."""
    return word - (word >> 63 << 64)


def _threshold(rate: float) -> tuple[int, int]:
    """``floor(rate * 2**72)`` as its bits from bit 64 on, and its lower 64 bits."""
    threshold = int(rate * 2.0**72)  # exact: scaling by a power of two rounds nothing
    return threshold >> 64, _signed(threshold & (2**64 - 1))


class NumbaBackend:
    """The functions of the protocol in kernels built by Numba and products by NumPy's BLAS."""

    name = "numba"

    def mask_bits(
        self, bits: Bits, n: int, rate: float, key: int, stream: int, offset: int
    ) -> None:
        no_array = np.empty(0, np.float32)
        spec = (*_threshold(rate), _signed(key), stream, _signed(offset))
        masks.dropout(no_array, no_array, bits, n, 1.0, spec)

    def mask_box(
        self,
        bits: Bits,
        lengths: tuple[int, ...],
        strides: tuple[int, ...],
        rate: float,
        key: int,
        stream: int,
        offset: int,
    ) -> None:
        starts = np.array([offset], np.uint64)
        for length, stride in zip(lengths[:-1], strides[:-1], strict=True):
            steps = np.arange(length, dtype=np.uint64) * np.uint64(stride)
            starts = (starts[:, None] + steps).reshape(-1)
        bits[...] = 0
        masks.add_runs(bits, starts, lengths[-1], (*_threshold(rate), _signed(key), stream))

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
        spec = (*_threshold(rate), _signed(key), stream, _signed(offset))
        masks.dropout(flat(x), flat(out), bits, x.size, scale, spec)

    def apply_bits(self, x: Array, out: Array, bits: Bits, scale: float) -> None:
        elements.apply_bits(flat(x), flat(out), bits, scale)

    def relu(self, x: Array, out: Array, bits: Bits) -> None:
        elements.compare(flat(x), flat(out), bits, True)

    def nonzero_bits(self, x: Array, bits: Bits) -> None:
        run = flat(x)
        elements.compare(run, run[:0], bits, False)

    def multiply(self, products: Sequence[Product]) -> None:
        for product in products:
            multiply(product)
            if product.bits is not None:
                self.apply_bits(product.out, product.out, product.bits, product.scale)
            if product.nonzero is not None:
                self.nonzero_bits(product.out, product.nonzero)

    adam_step = staticmethod(optimizers.adam_step)
    sgd_step = staticmethod(optimizers.sgd_step)
    softmax_cross_entropy = staticmethod(losses.softmax_cross_entropy)
    softmax_gradient = staticmethod(losses.softmax_gradient)
    sigmoid_gradient = staticmethod(losses.sigmoid_gradient)

    def num_threads(self) -> int:
        return 1

    def set_num_threads(self, n: int) -> None:
        pass

    def set_serial(self, on: bool) -> bool:
        return True
