"""The Dropout layer: elements, or groups of them that `noise_shape` says, become zero at random."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np

from dropwise import _arguments, _arrays
from dropwise._backends.protocol import Array
from dropwise.layers.base import register
from dropwise.layers.dropout_base import DropoutBase, DropoutPass
from dropwise.layers.run import RunContext
from dropwise.random import Seed


@register
class Dropout(DropoutBase):
    """Set elements to zero at random in training.

    Parameters
    ----------
    rate : float in [0, 1]
        Probability that an element is dropped.
    scaling : {"inverted", "vanilla"}
        "inverted" multiplies what is kept by ``1 / (1 - rate)`` in training; "vanilla" multiplies
        everything by ``1 - rate`` at inference.
    noise_shape : sequence of int or None, optional
        Shape of the mask: 1 for a dimension whose elements share the mask, None for others.
    seed : int, SeedSequence, Generator or None
        Fixes all masks.  None takes fresh entropy, once: copies go on with the same masks.
    save_mask : bool
        Keep the mask for ``backward``, 1 bit per element; False: generate it again there.

    Notes
    -----
    Each training forward takes the next stream of the layer's key; the mask is that of
    `functional.dropout_mask` for the key and stream in `state_dict`.  A forward that fails takes
    no stream.

    Examples
    --------
    >>> import numpy as np
    >>> import dropwise as dw
    >>> drop = dw.Dropout(0.5, seed=1)
    >>> y = drop.forward(np.ones(8, np.float32))
    >>> dx = drop.backward(np.ones(8, np.float32))
    >>> bool((dx == y).all())
    True
    """

    def __init__(
        self,
        rate: float = 0.5,
        *,
        scaling: str = "inverted",
        noise_shape: Sequence[int | None] | None = None,
        seed: Seed = None,
        save_mask: bool = True,
    ) -> None:
        super().__init__(rate, seed=seed, save_mask=save_mask)
        self._scaling = _arguments.check_scaling(scaling)
        self._noise_shape = _arguments.as_noise_shape(noise_shape)

    @property
    def scaling(self) -> str:
        """ "inverted" or "vanilla"."""
        return self._scaling

    @property
    def noise_shape(self) -> tuple[int | None, ...] | None:
        """Shape of the mask; None: that of the input."""
        return self._noise_shape

    @property
    def shares_rows(self) -> bool:
        """Whether all rows of a batch have the same mask."""
        return self._noise_shape is not None and self._noise_shape[:1] == (1,)

    def _noise_shape_of(self, shape: tuple[int, ...]) -> tuple[int, ...] | None:
        noise_shape = self._noise_shape
        return None if noise_shape is None else _arguments.fit_noise_shape(noise_shape, shape)

    def _run(self, x: Array, context: RunContext) -> tuple[Array, DropoutPass | None]:
        if context.training and context.samples and self.shares_rows:
            x = _arguments.as_input(x, keep_integers=self._scaling == "vanilla")
            return self.drop_samples(x, context), None
        return super()._run(x, context)

    def drop_samples(self, x: Array, context: RunContext) -> Array:
        """Monte Carlo dropout with a mask for each sample, which all rows of the batch share."""
        samples = context.samples
        row = self._noise((1, *x.shape[1:]), x.dtype, True, context.stream_of(self), 0)
        shape = (samples, *(row.noise_shape or x.shape)[1:])
        masks = _arrays.unpack_bits(
            _arrays.make_bits(math.prod(shape), row.rate, row.key, row.stream, 0), shape
        )
        kept = masks[np.arange(context.first_row, context.first_row + len(x)) % samples]
        bits = np.packbits(np.broadcast_to(kept, x.shape), bitorder="little")
        return _arrays.apply_mask(x, None, bits, row.scale, None)

    def _options(self) -> dict[str, tuple[Any, Any]]:
        noise = None if self._noise_shape is None else list(self._noise_shape)
        return {"scaling": (self._scaling, "inverted"), "noise_shape": (noise, None)}
