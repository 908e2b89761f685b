"""The Dropout layer: a key, a count of streams, and the mask of the last training forward."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import ArrayLike, NDArray

from dropwise import functional
from dropwise._backends.protocol import Array, Bits
from dropwise.layers.base import Layer, check_gradient, no_forward
from dropwise.random import MaskStreams, Seed, key_from_seed


class Pass(NamedTuple):
    """What a forward call leaves for backward."""

    shape: tuple[int, ...]
    dtype: np.dtype[Any]
    rate: float  # of the mask: 0 at inference
    scale: float
    key: int
    stream: int
    offset: int
    noise: tuple[int, ...] | None
    bits: Bits | None


class Dropout(Layer):
    """Set elements to zero at random in training.

    Parameters
    ----------
    rate : float in [0, 1]
        Probability that an element is dropped.
    scaling : {"inverted", "vanilla"}
        Multiply what is kept by ``1 / (1 - rate)`` in training, or everything by ``1 - rate`` at
        inference.
    noise_shape : sequence of int or None, optional
        Shape of the mask: 1 where all elements of a dimension share it, None where they do not.
    seed : int, SeedSequence, Generator or None
        Fixes all masks.
    save_mask : bool
        Keep the mask for ``backward`` (1 bit an element), or keep nothing and make it again.

    Notes
    -----
    Each training forward takes the next stream of the layer's key; the mask is that of
    `functional.dropout_mask` for the key and stream in `state_dict`.

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
        self._rate = functional.check_rate(rate)
        self.scaling = functional.check_scaling(scaling)
        self.noise_shape = None if noise_shape is None else tuple(noise_shape)
        self.save_mask = bool(save_mask)
        self._streams = MaskStreams(key_from_seed(seed))
        self._seeded = seed is not None
        self._last: Pass | None = None
        self._last_training: Pass | None = None

    @property
    def rate(self) -> float:
        """Probability that an element is dropped; may be changed between calls."""
        return self._rate

    @rate.setter
    def rate(self, rate: float) -> None:
        self._rate = functional.check_rate(rate)

    def forward(
        self,
        x: ArrayLike,
        training: bool = True,
        *,
        out: Array | None = None,
        offset: int = 0,
    ) -> Array:
        """Drop elements of `x`.

        Parameters
        ----------
        x : array_like, any shape
        training : bool
            At inference nothing is dropped, and no stream is taken.
        out : ndarray, optional
            Where the result goes; may be `x`.
        offset : int
            Index of the first element in the global array of which `x` is a part.

        Returns
        -------
        ndarray, shape of `x`
        """
        x = functional.as_input(x, keep_integers=training and self.scaling == "vanilla")
        if out is not None:
            functional.check_out(out, x.shape, x.dtype)
        call = self.begin(x.shape, x.dtype, training, offset)
        return functional.apply_dropout(
            x, out, call.bits, call.rate, call.scale, call.key, call.stream, offset, call.noise
        )

    def begin(
        self, shape: tuple[int, ...], dtype: np.dtype[Any], training: bool, offset: int = 0
    ) -> Pass:
        """Take a stream and remember the pass: what ``forward`` does before it computes.

        The caller fills ``bits``, if there are any, with the mask.
        """
        noise = None
        if self.noise_shape is not None:
            noise = functional.check_noise_shape(self.noise_shape, shape)
        size = math.prod(shape if noise is None else noise)
        functional.check_offset(offset, size)
        rate, scale = functional.rate_and_scale(self._rate, self.scaling, training, dtype)
        streams = self._streams
        key, stream = streams.key, streams.next_stream
        bits: Bits | None = None
        if training:
            streams.next_stream = stream + 1
            if self.save_mask:
                # The last mask is void from here on: its memory is as good as fresh.
                old = self._last_training
                bits = None if old is None else old.bits
                if bits is None or bits.size != (size + 7) >> 3:
                    bits = np.empty((size + 7) >> 3, np.uint8)
        call = self._last = Pass(shape, dtype, rate, scale, key, stream, offset, noise, bits)
        if training:
            self._last_training = call
        return call

    def backward(self, dy: ArrayLike, *, out: Array | None = None) -> Array:
        """The gradient with respect to `x` of the last forward.

        Parameters
        ----------
        dy : array_like, shape and dtype of what ``forward`` returned
        out : ndarray, optional
            Where the result goes; may be `dy`.
        """
        last = self._last
        if last is None:
            raise no_forward(self)
        dy = functional.as_input(
            check_gradient(dy, last.shape, last.dtype, self), keep_integers=False
        )
        if out is not None:
            functional.check_out(out, dy.shape, dy.dtype)
        if last.bits is not None:
            return functional.apply_mask(dy, out, last.bits, last.scale, last.noise)
        return functional.apply_dropout(
            dy, out, None, last.rate, last.scale, last.key, last.stream, last.offset, last.noise
        )

    def predict(self, x: ArrayLike) -> Array:
        """``forward(x, training=False)``, but remembers nothing."""
        return functional.dropout(x, self._rate, key=0, scaling=self.scaling, training=False)

    @property
    def mask(self) -> NDArray[np.bool_]:
        """The mask of the last training forward: bool, True where kept."""
        last = self._last_training
        if last is None:
            raise RuntimeError(f"{self}: there is no mask before a training forward")
        shape = last.shape if last.noise is None else last.noise
        bits = last.bits
        if bits is None:
            size = math.prod(shape)
            bits = functional.make_bits(size, last.rate, last.key, last.stream, last.offset)
        return functional.unpack_bits(bits, shape)

    def reseed(self, sequence: np.random.SeedSequence) -> None:
        """Take the key from `sequence`, unless the layer was given a seed."""
        if not self._seeded:
            self._streams = MaskStreams(key_from_seed(sequence))
            self._seeded = True

    def config(self) -> dict[str, Any]:
        """Arguments that make such a layer again: JSON-safe."""
        noise = None if self.noise_shape is None else list(self.noise_shape)
        config = {
            "rate": self._rate,
            "scaling": self.scaling,
            "noise_shape": noise,
            "save_mask": self.save_mask,
        }
        defaults = {"scaling": "inverted", "noise_shape": None, "save_mask": True}
        return {name: v for name, v in config.items() if v != defaults.get(name, math.nan)}

    def state_dict(self) -> dict[str, int | str]:
        """The key and the next stream as plain ints and strings, JSON-safe."""
        return self._streams.state_dict()

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Continue with the masks that follow `state`."""
        self._streams = MaskStreams.from_state_dict(state)
        self._seeded = True
