"""What a backend computes, and what it may rely on.

Backends differ in arithmetic only.  Arguments are checked before, so a backend gets

* arrays for masks, dropout and ReLU that are aligned, C-contiguous, in native byte order and of one
  of the dtypes float32, float64, float16 and bfloat16, with ``out`` of the same dtype and size, and
  either the very memory of the input or none of it;
* matrices for the products that are aligned, float32 or float64 (both operands and ``out`` alike),
  of matching shapes, in native byte order, with *any* strides (a transposed view is how a transpose
  is asked for), ``out`` sharing no memory with an operand;
* ``rate``, ``scale`` as Python floats (``scale`` already rounded to the dtype), ``key``, ``stream``
  and ``offset`` as Python ints in the range of the mask contract;
* packed masks as uint8 arrays of ``ceil(n / 8)`` bytes: element e is bit ``e & 7`` of byte
  ``e >> 3``, 1 = kept; bits past the last element are 0.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple, Protocol

import numpy as np
from numpy.typing import NDArray

Bits = NDArray[np.uint8]
Array = NDArray[Any]


class Product(NamedTuple):
    """One of a chain: the arguments of ``matmul``, or of ``matmul_kept`` if there are bits.

    An operand may be what an earlier one wrote: all of it, perhaps transposed, over the same rows.
    What is summed `over_rows` is there when the chain has ended.
    """

    a: Array
    b: Array
    out: Array
    bias: Array | None = None
    relu: bool = False
    skip: str = ""
    nonzero: Bits | None = None
    bits: Bits | None = None
    scale: float = 1.0
    # The rows that the chain is about are those of a and out or, with `over_rows`, those of b, and
    # this is the sum over them, with no bias or any other step.
    over_rows: bool = False
    # Nobody but products that follow takes `out`, which is C-contiguous: it may be left as it is.
    temporary: bool = False


class Backend(Protocol):
    """The functions that every backend has."""

    name: str

    def mask_bits(
        self, bits: Bits, n: int, rate: float, key: int, stream: int, offset: int
    ) -> None:
        """Write the packed mask of elements ``offset`` to ``offset + n``."""

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
        """Write ``scale * x`` where the mask keeps, else +0.0; the mask to ``bits`` if given."""

    def apply_bits(self, x: Array, out: Array, bits: Bits, scale: float) -> None:
        """Write ``scale * x`` where the bit is 1, +0.0 elsewhere."""

    def relu(self, x: Array, out: Array, bits: Bits) -> None:
        """Write +0.0 where ``x <= 0``, else ``x`` (so NaN stays), with a bit of 1."""

    def nonzero_bits(self, x: Array, bits: Bits) -> None:
        """Set the bit where ``x != 0`` (NaN counts as nonzero, -0.0 as zero)."""

    def matmul(
        self,
        a: Array,
        b: Array,
        out: Array,
        bias: Array | None = None,
        relu: bool = False,
        skip: str = "",
        nonzero: Bits | None = None,
    ) -> None:
        """Write ``a @ b (+ bias) (then ReLU)``: a [M, K], b [K, N], out [M, N].

        ``bias`` [N] is contiguous.
        ``skip`` names the operands whose exact zeros may be skipped ("", "a", "b" or "ab"); whether
        that is done depends on the measured density.  ``nonzero``, if given, gets the bits that
        ``nonzero_bits`` finds in ``out``, which is C-contiguous then.
        """

    def matmul_kept(
        self,
        a: Array,
        b: Array,
        bits: Bits,
        out: Array,
        bias: Array | None = None,
        relu: bool = False,
        scale: float = 1.0,
        skip: str = "",
        nonzero: Bits | None = None,
    ) -> None:
        """Like ``matmul``, times ``scale``, but only where the bit is 1: +0.0 elsewhere.

        ``bits`` is the packed mask over the C order of ``out``, which is C-contiguous here.
        """

    def matmul_chain(self, products: Sequence[Product]) -> None:
        """Compute them, in an order in which each finds what those before it wrote."""

    def num_threads(self) -> int:
        """Threads a call may use."""

    def set_num_threads(self, n: int) -> None:
        """Change that number (n >= 1)."""
