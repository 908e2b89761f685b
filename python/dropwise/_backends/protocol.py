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
  ``e >> 3``, 1 = kept; bits past the last element are 0;
* arrays for optimizers and losses that are aligned, C-contiguous, in native byte order and share no
  memory, those of the optimizers of one size (`out` of `softmax_gradient` may be `probabilities`).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple, Protocol

import numpy as np
from numpy.typing import NDArray

Bits = NDArray[np.uint8]
Array = NDArray[Any]


@dataclass(slots=True)
class Product:
    """``out = a @ b (+ bias) (then ReLU) (then times scale where the bit is 1, else +0.0)``.

    Several of them in one call are a chain.  An operand may then be the `out` of an earlier one:
    all of it, perhaps transposed, over the same rows.  What is summed `over_rows` is there when the
    call returns.  Products that do not depend on each other may be computed at once.
    """

    a: Array  # [M, K]
    b: Array  # [K, N]
    out: Array  # [M, N]; C-contiguous if there are bits, nonzero or `temporary`
    bias: Array | None = None  # [N], contiguous
    relu: bool = False
    # The operands whose exact zeros may be skipped: "", "a", "b" or "ab".  Whether they are depends
    # on the measured density.
    skip: str = ""
    nonzero: Bits | None = None  # gets the bits that `nonzero_bits` finds in `out`
    bits: Bits | None = None  # a packed mask over the C order of `out`
    scale: float = 1.0
    # The rows that a chain shares are those of a and out or, with `over_rows`, those of b, and this
    # is the sum over them, with no bias or any other step.
    over_rows: bool = False
    # Only later products of the chain read `out`.  What it holds in the end is undefined.
    temporary: bool = False
    # How the native backend computes it: "dense", "skip_a", "skip_b" or "kept", as far as `skip`
    # and `bits` allow; "" takes the cheapest, which `_native.strategy_of` names.  The results are
    # the same, to rounding.  For tests and benches; other backends ignore it.
    strategy: str = ""


class Box(NamedTuple):
    """A part of a global array in C order: an offset, and how to go on from it.

    The elements are ``first`` + the sum of index * stride, for all indices below `lengths` in C
    order.
    """

    first: int
    lengths: tuple[int, ...]
    strides: tuple[int, ...]  # the last is 1


class Backend(Protocol):
    """The functions that every backend has."""

    name: str
    # ``dropout_forward(exchange, x, bits, ...)`` of a tensor in C order of another library, which
    # has the C functions of DLPack in the capsule `exchange`.  Returns a new tensor, or None if
    # they do not say where the memory of x is.  None: the backend takes arrays only.
    dropout_of_tensor: Callable[..., Any] | None

    def mask_bits(
        self, bits: Bits, n: int, rate: float, key: int, stream: int, offset: int
    ) -> None:
        """Write the packed mask of elements ``offset`` to ``offset + n``."""

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
        """Write the packed mask of the elements of a `Box` whose `first` is `offset`.

        It is not empty, and all indices are in [0, 2**64).
        """

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

    def take_rows(self, x: Array, rows: NDArray[np.int64], out: Array) -> None:
        """Write the rows of `x` with these indices, all of which there are, to the rows of `out`.

        Both are as for dropout, of any shape.
        """

    def multiply(self, products: Sequence[Product], block_rows: int = 0) -> None:
        """Compute products, in an order in which each finds what those before it wrote.

        With `block_rows`, a multiple of 8, they share their rows, and each block of so many rows
        is computed as if it were alone, whatever the number of blocks.  Sums over rows are then
        added up in a binary tree: neighbours in pairs, these again in pairs, and so on; one that is
        left over goes on to the next round.
        """

    def prepare(
        self, products: Sequence[Product], varying: Sequence[tuple[int, str]], block_rows: int = 0
    ) -> Callable[[tuple[Any, ...]], None]:
        """Return ``multiply`` of these products, as they are now, for calls that differ in values.

        Each call gives a tuple of the values of the fields in `varying`: pairs of the index of a
        product and "a", "b", "out" or "scale".  Arrays have the shape and dtype that they have
        now, and `out` the strides.  They are held no longer than the call.
        """

    def adam_step(
        self,
        parameters: Sequence[tuple[Array, Array, Array, Array, Array | None]],
        scalars: tuple[float, float, float, float, float, float, float],
    ) -> None:
        """Change each (p, g, m, v, master) by a step of Adam with decoupled weight decay.

        `scalars` are learning_rate, beta_1, beta_2, correction_1, correction_2, epsilon and
        weight_decay, with corrections ``1 / (1 - beta**t)`` in step t = 1, 2, ...

        ``m = beta_1 * m + (1 - beta_1) * g``, ``v = beta_2 * v + (1 - beta_2) * g**2``, and
        ``p -= learning_rate * (weight_decay * p + m * correction_1 / (sqrt(v * correction_2) +
        epsilon))``.

        For 16-bit p and g, m and v are float32 and so is master, a copy of p that is changed
        instead; p becomes that, rounded.  For others, master is None.
        """

    def sgd_step(
        self,
        parameters: Sequence[tuple[Array, Array, Array | None, Array | None]],
        scalars: tuple[float, float, bool, float],
    ) -> None:
        """Change each (p, g, velocity, master) by a step of gradient descent.

        `scalars` are learning_rate, momentum, nesterov and weight_decay (decoupled).

        ``velocity = momentum * velocity - learning_rate * g``, and ``p += velocity`` after
        ``p -= learning_rate * weight_decay * p``; with nesterov it is
        ``p += momentum * velocity - learning_rate * g``.  No `velocity`: no momentum.  The rest is
        as in `adam_step`.
        """

    def softmax_cross_entropy(
        self,
        scores: Array,
        labels: NDArray[np.int64],
        probabilities: Array,
        losses: NDArray[np.float64],
        correct: NDArray[np.bool_],
    ) -> tuple[float, int] | None:
        """Write the softmax of each row of `scores` [B, C], and what follows for its class.

        `losses` [B] get -log of what the softmax gives the class in `labels` [B], and `correct` [B]
        whether the first of the largest scores (NaN being the largest) is that of the class.
        `scores` and `probabilities` are float32 or float64 alike.

        Returns the sum of the losses, added up in pairs of halves down to 128 rows, and how many
        are correct.  None, and nothing is written, if a label is not in [0, C).
        """

    def softmax_gradient(
        self,
        probabilities: Array,
        labels: NDArray[np.int64],
        shares: Array | None,
        out: Array,
    ) -> None:
        """Write ``shares[:, None] * (probabilities - one_hot(labels))``.

        `shares` [B] have the dtype of the rest; None: ``1 / B`` each.
        """

    def sigmoid_gradient(self, y: Array, dy: Array, out: Array) -> None:
        """Write ``dy * (1 - y) * y``, `y` being results of the sigmoid; `out` may be either.

        All are float32 or float64 alike, of one size.
        """

    def num_threads(self) -> int:
        """Threads a call may use."""

    def set_num_threads(self, n: int) -> None:
        """Change that number (n >= 1)."""

    def set_serial(self, on: bool) -> bool:
        """Whether calls of the calling thread take that thread alone; returns what was set."""
