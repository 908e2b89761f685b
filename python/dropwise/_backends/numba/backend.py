"""The class `NumbaBackend`: the functions of the protocol over the kernels of this folder."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from dropwise._backends.numba import elements, losses, masks, optimizers
from dropwise._backends.numba.elements import flat
from dropwise._backends.numba.products import multiply, multiply_by_blocks
from dropwise._backends.protocol import Array, Bits, Product

_PIECE = 1 << 26  # elements
_NOTHING: Array = np.empty((0, 0))


def _signed(word: int) -> int:
    """The int64 with the bits of a 64-bit word, so that Numba compiles for one type only."""
    return word - (word >> 63 << 64)


def _threshold(rate: float) -> tuple[int, int]:
    """``floor(rate * 2**72)`` as its bits from bit 64 on, and its lower 64 bits."""
    threshold = int(rate * 2.0**72)  # exact: scaling by a power of two rounds nothing
    return threshold >> 64, _signed(threshold & (2**64 - 1))


def _pieces(n: int) -> list[tuple[int, int, slice]]:
    """Where pieces of `n` elements begin and end, and their bytes of a mask.

    Between two calls of kernels Python handles signals; none takes longer than half a second.
    """
    ends = [*range(_PIECE, n, _PIECE), n]
    return [(b, e, slice(b // 8, (e + 7) // 8)) for b, e in zip([0, *ends], ends, strict=False)]


class NumbaBackend:
    """The functions of the protocol in kernels built by Numba and products by NumPy's BLAS."""

    name = "numba"
    dropout_of_tensor = None

    def mask_bits(
        self, bits: Bits, n: int, rate: float, key: int, stream: int, offset: int
    ) -> None:
        no_array = np.empty(0, np.float32)
        for begin, end, bytes_ in _pieces(n):
            spec = (*_threshold(rate), _signed(key), stream, _signed(offset + begin))
            masks.dropout(no_array, no_array, bits[bytes_], end - begin, 1.0, spec)

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
        x, out = flat(x), flat(out)
        for begin, end, bytes_ in _pieces(x.size):
            spec = (*_threshold(rate), _signed(key), stream, _signed(offset + begin))
            masks.dropout(x[begin:end], out[begin:end], bits[bytes_], end - begin, scale, spec)

    def apply_bits(self, x: Array, out: Array, bits: Bits, scale: float) -> None:
        x, out = flat(x), flat(out)
        for begin, end, bytes_ in _pieces(x.size):
            elements.apply_bits(x[begin:end], out[begin:end], bits[bytes_], scale)

    def relu(self, x: Array, out: Array, bits: Bits) -> None:
        x, out = flat(x), flat(out)
        for begin, end, bytes_ in _pieces(x.size):
            elements.compare(x[begin:end], out[begin:end], bits[bytes_], True)

    def nonzero_bits(self, x: Array, bits: Bits) -> None:
        x = flat(x)
        for begin, end, bytes_ in _pieces(x.size):
            elements.compare(x[begin:end], x[:0], bits[bytes_], False)

    def take_rows(self, x: Array, rows: NDArray[np.int64], out: Array) -> None:
        x.take(rows, 0, out, "clip")

    def multiply(self, products: Sequence[Product], block_rows: int = 0) -> None:
        if block_rows:
            multiply_by_blocks(self.multiply, products, block_rows)
            return
        for product in products:
            multiply(product)
            if product.bits is not None:
                self.apply_bits(product.out, product.out, product.bits, product.scale)
            if product.nonzero is not None:
                self.nonzero_bits(product.out, product.nonzero)

    def prepare(
        self, products: Sequence[Product], varying: Sequence[tuple[int, str]], block_rows: int = 0
    ) -> Callable[[tuple[Any, ...]], None]:
        prepared = [replace(product) for product in products]
        for i, name in varying:
            if name != "scale":
                setattr(prepared[i], name, _NOTHING)

        def multiply(values: tuple[Any, ...]) -> None:
            ready = [replace(product) for product in prepared]
            for (i, name), value in zip(varying, values, strict=True):
                setattr(ready[i], name, value)
            self.multiply(ready, block_rows)

        return multiply

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
