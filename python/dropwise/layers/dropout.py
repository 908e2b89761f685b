"""The Dropout layer: a key, a count of streams, and the mask of the last training forward."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any, TypeAlias

import numpy as np
from numpy.typing import ArrayLike, NDArray

from dropwise import _memory, functional
from dropwise._backends import active
from dropwise._backends.protocol import Array, Bits
from dropwise.layers.base import Layer, check_gradient, no_forward
from dropwise.random import MaskStreams, Seed, key_from_seed

# What a forward call leaves for backward: shape, dtype, rate (of the mask: 0 at inference), scale,
# key, stream, offset, shape of the noise array (None: that of x), packed mask (None: make it).
# A plain tuple, because building anything else shows in calls of a few elements.
Pass: TypeAlias = (
    "tuple[tuple[int, ...], np.dtype[Any], float, float, int, int, int, "
    "tuple[int, ...] | None, Bits | None]"
)

_SMALL = _memory.LARGE // 8  # elements whose result is a small one in every dtype


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
        self._scaling = functional.check_scaling(scaling)
        self._noise_shape = None if noise_shape is None else tuple(noise_shape)
        self._save_mask = bool(save_mask)
        self._streams = MaskStreams(key_from_seed(seed))
        self._seeded = seed is not None
        self._short: Pass | None = None  # an input like this one may go the short way
        self._bits: Bits | None = None
        self._last: Pass | None = None
        self._trained: Pass | None = None  # the last in training

    @property
    def rate(self) -> float:
        """Probability that an element is dropped; may be changed between calls."""
        return self._rate

    @rate.setter
    def rate(self, rate: float) -> None:
        self._rate = functional.check_rate(rate)
        self._short = None

    @property
    def scaling(self) -> str:
        """ "inverted" or "vanilla"."""
        return self._scaling

    @property
    def noise_shape(self) -> tuple[int | None, ...] | None:
        """Shape of the mask; None: that of the input."""
        return self._noise_shape

    @property
    def save_mask(self) -> bool:
        """Whether the mask is kept for ``backward``, or made again."""
        return self._save_mask

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
        short = self._short
        if (
            short is not None
            and type(x) is np.ndarray
            and x.shape == short[0]
            and x.dtype is short[1]
            and training
            and not offset
            and x.flags.carray
            and (out is None or functional.takes_result_of(x, out))
        ):
            # The short way: it decides what calls of a few elements cost.
            shape, dtype, rate, scale, key, _, _, _, bits = short
            streams = self._streams
            stream = streams.next_stream
            streams.next_stream = stream + 1
            if out is None:
                y = np.empty(shape, dtype) if x.size < _SMALL else _memory.empty(shape, dtype)
            else:
                y = out
            active().dropout_forward(x, y, bits, rate, scale, key, stream, 0)
            self._last = self._trained = (shape, dtype, rate, scale, key, stream, 0, None, bits)
            return y
        x = functional.as_input(x, keep_integers=training and self._scaling == "vanilla")
        if out is not None:
            functional.check_out(out, x.shape, x.dtype)
        call = self.begin(x.shape, x.dtype, training, offset)
        _, dtype, rate, scale, key, stream, offset, noise, bits = call
        y = functional.apply_dropout(x, out, bits, rate, scale, key, stream, offset, noise)
        if training and x.size and self._noise_shape is None and dtype in functional.STANDARD:
            self._short = call
        return y

    def begin(
        self, shape: tuple[int, ...], dtype: np.dtype[Any], training: bool, offset: int = 0
    ) -> Pass:
        """Take a stream and remember the pass: what ``forward`` does before it computes.

        The caller fills the packed mask, if there is one.
        """
        noise = functional.check_noise_shape(self._noise_shape, shape)
        size = math.prod(shape if noise is None else noise)
        functional.check_offset(offset, size)
        rate, scale = functional.rate_and_scale(self._rate, self._scaling, training, dtype)
        streams = self._streams
        stream = streams.next_stream
        bits = self._room(size) if training else None
        self._last = (shape, dtype, rate, scale, streams.key, stream, offset, noise, bits)
        if training:
            streams.next_stream = stream + 1
            self._trained = self._last
        return self._last

    def _room(self, size: int) -> Bits | None:
        """Memory for a mask, if it is saved: that of the last mask, which is void from here on."""
        if not self._save_mask:
            return None
        n_bytes = (size + 7) >> 3
        if self._bits is None or self._bits.size != n_bytes:
            self._bits = _memory.empty_bits(size)
        return self._bits

    def backward(self, dy: ArrayLike, *, out: Array | None = None) -> Array:
        """The gradient with respect to `x` of the last forward.

        Parameters
        ----------
        dy : array_like, shape and dtype of what ``forward`` returned
        out : ndarray, optional
            Where the result goes; may be `dy`.
        """
        if self._last is None:
            raise no_forward(self)
        shape, dtype, rate, scale, key, stream, offset, noise, bits = self._last
        if type(dy) is np.ndarray and dy.dtype is dtype and dy.shape == shape:
            if out is None and bits is not None and noise is None and dy.flags.carray:
                # The short way.
                dx = np.empty(shape, dtype) if dy.size < _SMALL else _memory.empty(shape, dtype)
                active().apply_bits(dy, dx, bits, scale)
                return dx
        else:
            dy = functional.as_input(check_gradient(dy, shape, dtype, self), keep_integers=False)
        if out is not None:
            functional.check_out(out, dy.shape, dy.dtype)
        if bits is not None:
            return functional.apply_mask(dy, out, bits, scale, noise)
        return functional.apply_dropout(dy, out, None, rate, scale, key, stream, offset, noise)

    def predict(self, x: ArrayLike) -> Array:
        """``forward(x, training=False)``, but remembers nothing."""
        return functional.dropout(x, self._rate, key=0, scaling=self._scaling, training=False)

    @property
    def mask(self) -> NDArray[np.bool_]:
        """The mask of the last training forward: bool, True where kept."""
        if self._trained is None:
            raise RuntimeError(f"{self}: there is no mask before a training forward")
        shape, _, rate, _, key, stream, offset, noise, bits = self._trained
        if noise is not None:
            shape = noise
        if bits is None:
            bits = functional.make_bits(math.prod(shape), rate, key, stream, offset)
        return functional.unpack_bits(bits, shape)

    def reseed(self, sequence: np.random.SeedSequence) -> None:
        """Take the key from `sequence`, unless the layer was given a seed."""
        if not self._seeded:
            self._set_streams(MaskStreams(key_from_seed(sequence)))

    def config(self) -> dict[str, Any]:
        """Arguments that make such a layer again: JSON-safe."""
        noise = None if self._noise_shape is None else list(self._noise_shape)
        options = {
            "scaling": (self._scaling, "inverted"),
            "noise_shape": (noise, None),
            "save_mask": (self._save_mask, True),
        }
        changed = {name: v for name, (v, default) in options.items() if v != default}
        return {"rate": self._rate} | changed

    def state_dict(self) -> dict[str, int | str]:
        """The key and the next stream as plain ints and strings, JSON-safe."""
        return self._streams.state_dict()

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Continue with the masks that follow `state`."""
        self._set_streams(MaskStreams.from_state_dict(state))

    def _set_streams(self, streams: MaskStreams) -> None:
        self._streams = streams
        self._seeded = True
        self._short = None  # it has the key
