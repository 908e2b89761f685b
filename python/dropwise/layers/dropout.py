"""The Dropout layer: a key, the next stream, and what the last forward left for backward."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import ArrayLike, NDArray

from dropwise import _arguments, _arrays, _dtypes, _memory, functional
from dropwise._backends import active
from dropwise._backends.protocol import Array, Bits
from dropwise.layers.base import Layer, check_gradient, no_forward, register
from dropwise.random import MaskStreams, Seed, key_from_seed


class DropoutPass(NamedTuple):
    """What a forward leaves for backward."""

    shape: tuple[int, ...]  # of the input
    dtype: np.dtype[Any]
    rate: float  # of the mask: 0 at inference
    scale: float
    key: int
    stream: int
    offset: int
    noise_shape: tuple[int, ...] | None  # of the noise array; None: that of the input
    bits: Bits | None  # packed mask; None: backward generates it again

    def noise_spec(self) -> _arrays.NoiseSpec:
        """The mask and its scale, as the functions on arrays take them."""
        return _arrays.NoiseSpec(*self[2:8])


_new_pass = tuple.__new__  # takes a third of the time of the constructor

# Results of fewer elements are smaller than what `_memory` recycles, whatever their dtype.
_SMALL = _memory.LARGE // 8


@register
class Dropout(Layer):
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
        Fixes all masks.
    save_mask : bool
        Keep the mask for ``backward``, 1 bit per element; False: generate it again there.

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
        self._rate = _arguments.check_rate(rate)
        self._scaling = _arguments.check_scaling(scaling)
        self._noise_shape = None if noise_shape is None else tuple(noise_shape)
        self._save_mask = bool(save_mask)
        self._streams = MaskStreams(key_from_seed(seed))
        self._seeded = seed is not None
        self._fast_path: DropoutPass | None = None  # for inputs of its shape and dtype
        self._bits: Bits | None = None
        self._pass: DropoutPass | None = None  # of the last forward
        self._training_pass: DropoutPass | None = None  # of the last forward in training

    @property
    def rate(self) -> float:
        """Probability that an element is dropped; may be changed between calls."""
        return self._rate

    @rate.setter
    def rate(self, rate: float) -> None:
        self._rate = _arguments.check_rate(rate)
        self._fast_path = None

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
        """Whether the mask is kept for ``backward``; otherwise it is generated again there."""
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
            False: drop nothing and take no stream.
        out : ndarray, optional
            Where the result goes; may be `x`.
        offset : int
            Index of the first element in the global array of which `x` is a part.

        Returns
        -------
        ndarray, shape of `x`
        """
        if self._fast_path is not None and training and not offset and type(x) is np.ndarray:
            # The fewest steps possible: they decide what calls of a few elements cost.
            shape, dtype, rate, scale, key, _, _, _, bits = self._fast_path
            if (
                x.shape == shape
                and x.dtype is dtype
                and x.flags.carray
                and (out is None or _arrays.can_write_directly(x, out))
            ):
                streams = self._streams
                stream = streams.next_stream
                streams.next_stream = stream + 1
                if out is None:
                    y = np.empty(shape, dtype) if x.size < _SMALL else _memory.empty(shape, dtype)
                else:
                    y = out
                active().dropout_forward(x, y, bits, rate, scale, key, stream, 0)
                self._pass = self._training_pass = _new_pass(
                    DropoutPass, (shape, dtype, rate, scale, key, stream, 0, None, bits)
                )
                return y
        x = _arguments.as_input(x, keep_integers=training and self._scaling == "vanilla")
        if out is not None:
            _arguments.check_out(out, x.shape, x.dtype)
        this = self.begin(x.shape, x.dtype, training, offset)
        y = _arrays.apply_dropout(x, out, this.bits, this.noise_spec())
        if training and x.size and self._noise_shape is None and this.dtype in _dtypes.STANDARD:
            self._fast_path = this
        return y

    def begin(
        self, shape: tuple[int, ...], dtype: np.dtype[Any], training: bool, offset: int = 0
    ) -> DropoutPass:
        """What ``forward`` does before it computes: take a stream, and record the pass.

        The caller then writes the packed mask, if the record has one.
        """
        noise = _arguments.check_noise_shape(self._noise_shape, shape)
        size = math.prod(shape if noise is None else noise)
        _arguments.check_offset(offset, size)
        rate, scale = _dtypes.rate_and_scale(self._rate, self._scaling, training, dtype)
        streams = self._streams
        stream = streams.next_stream
        bits = self._mask_memory(size) if training else None
        this = _new_pass(
            DropoutPass, (shape, dtype, rate, scale, streams.key, stream, offset, noise, bits)
        )
        self._pass = this
        if training:
            streams.next_stream = stream + 1
            self._training_pass = this
        return this

    def _mask_memory(self, size: int) -> Bits | None:
        """Memory for a mask that is saved; it overwrites the last one."""
        if not self._save_mask:
            return None
        n_bytes = (size + 7) >> 3
        if self._bits is None or self._bits.size != n_bytes:
            self._bits = np.empty(n_bytes, np.uint8)
        return self._bits

    def backward(self, dy: ArrayLike, *, out: Array | None = None) -> Array:
        """The gradient with respect to `x` of the last forward.

        Parameters
        ----------
        dy : array_like, shape and dtype of what ``forward`` returned
        out : ndarray, optional
            Where the result goes; may be `dy`.
        """
        last = self._pass
        if last is None:
            raise no_forward(self)
        shape, dtype, _, scale, _, _, _, noise, bits = last
        if type(dy) is np.ndarray and dy.dtype is dtype and dy.shape == shape:
            if out is None and bits is not None and noise is None and dy.flags.carray:
                # The fewest steps possible, as in forward.
                dx = np.empty(shape, dtype) if dy.size < _SMALL else _memory.empty(shape, dtype)
                active().apply_bits(dy, dx, bits, scale)
                return dx
        else:
            dy = _arguments.as_input(check_gradient(dy, shape, dtype, self), keep_integers=False)
        if out is not None:
            _arguments.check_out(out, dy.shape, dy.dtype)
        if bits is not None:
            return _arrays.apply_mask(dy, out, bits, scale, noise)
        return _arrays.apply_dropout(dy, out, None, last.noise_spec())

    def predict(self, x: ArrayLike) -> Array:
        """Like ``forward(x, training=False)``, but remembers nothing."""
        return functional.dropout(x, self._rate, key=0, scaling=self._scaling, training=False)

    @property
    def mask(self) -> NDArray[np.bool_]:
        """The mask of the last training forward: bool, True where kept."""
        if self._training_pass is None:
            raise RuntimeError(f"{self}: there is no mask before a training forward")
        last = self._training_pass
        shape = last.shape if last.noise_shape is None else last.noise_shape
        bits = last.bits
        if bits is None:
            size = math.prod(shape)
            bits = _arrays.make_bits(size, last.rate, last.key, last.stream, last.offset)
        return _arrays.unpack_bits(bits, shape)

    def reseed(self, sequence: np.random.SeedSequence) -> None:
        """Take the key from `sequence`, unless the layer was given a seed."""
        if not self._seeded:
            self._set_streams(MaskStreams(key_from_seed(sequence)))

    def config(self) -> dict[str, Any]:
        """Constructor arguments that give an equal layer, JSON-safe."""
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
        self._fast_path = None  # its key is an old one
