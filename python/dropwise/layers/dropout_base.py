"""What all dropout layers share: a key, a count of streams, the mask of the last forward.

A kind of dropout says which elements share a bit of the mask (`_noise_shape_of`) and what becomes
of those kept and those dropped (`_spec`).
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any, NamedTuple, TypeAlias

import numpy as np
from numpy.typing import ArrayLike, NDArray

from dropwise import _arguments, _arrays, _dtypes, _memory, functional
from dropwise._backends import active
from dropwise._backends.protocol import Array, Bits, Box
from dropwise.layers.base import Layer, no_forward
from dropwise.layers.run import RunContext
from dropwise.random import MaskStreams, Seed, key_from_seed, spawned_key


class DropoutPass(NamedTuple):
    """What a forward leaves for backward."""

    shape: tuple[int, ...]  # of the input
    dtype: np.dtype[Any]  # of the result
    bits: Bits | None  # packed mask; None: backward generates it again
    # As in `_arrays.NoiseSpec`; one record in another would show in calls of a few elements.
    rate: float
    scale: float
    key: int
    stream: int
    offset: int | Box = 0
    noise_shape: tuple[int, ...] | None = None
    shift: float = 0.0
    dropped: float = 0.0

    @property
    def noise(self) -> _arrays.NoiseSpec:
        """What the call did, as the functions on arrays take it."""
        return _arrays.NoiseSpec(*self[3:])


# The first fields of a DropoutPass whose others have their defaults, of a dtype in `STANDARD`, and
# whether the result is small.  In calls of a few elements the class would show.
_PlainPass: TypeAlias = (
    "tuple[tuple[int, ...], np.dtype[Any], Bits | None, float, float, int, int, bool]"
)
# What a forward like the last one needs, and nothing has to be checked for: shape, dtype, whether
# the result is small, rate, scale, key and the bytes of the mask (0: it is not kept).
_SameCall: TypeAlias = "tuple[tuple[int, ...], np.dtype[Any], bool, float, float, int, int]"

_empty, _ndarray = np.empty, np.ndarray
_UINT8 = np.dtype(np.uint8)
# Results of fewer elements are smaller than what `_memory` recycles, whatever their dtype.
_SMALL = _memory.LARGE // 8


def _in_full(record: DropoutPass | _PlainPass) -> DropoutPass:
    return record if isinstance(record, DropoutPass) else DropoutPass(*record[:7])


class DropoutBase(Layer):
    """A layer that drops elements by a mask: `Dropout` and its relatives.

    Parameters
    ----------
    rate, seed, save_mask
        As for `Dropout`.
    """

    _pass: DropoutPass | _PlainPass | None = None
    _training_pass: DropoutPass | _PlainPass | None = None  # the last in training
    _scaling = "inverted"

    def __init__(
        self,
        rate: float = 0.5,
        *,
        seed: Seed = None,
        save_mask: bool = True,
    ) -> None:
        self._rate = _arguments.check_rate(rate)
        self._save_mask = bool(save_mask)
        self._streams = MaskStreams(key_from_seed(seed))
        self._seeded = seed is not None
        self._same_call: _SameCall | None = None

    @property
    def rate(self) -> float:
        """Probability that an element is dropped; may be changed between calls."""
        return self._rate

    @rate.setter
    def rate(self, rate: float) -> None:
        self._rate = _arguments.check_rate(rate)
        self._same_call = None

    @property
    def save_mask(self) -> bool:
        """Whether the mask is kept for ``backward``, or generated again there."""
        return self._save_mask

    def forward(
        self,
        x: ArrayLike,
        training: bool = True,
        *,
        out: Array | None = None,
        offset: int = 0,
        within: functional.Within | None = None,
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
            Index of the first element in the global array of which `x` is a part, if `x` is one
            run of its elements.
        within : (start, global_shape), optional
            In the place of `offset`: the index of the first element of `x` in each dimension of
            the global array, and the shape of that.

        Returns
        -------
        ndarray, shape of `x`
        """
        if (
            self._same_call is not None
            and training
            and not offset
            and within is None
            and type(x) is _ndarray
        ):
            # The fewest steps possible: they decide what calls of a few elements cost.
            shape, dtype, small, rate, scale, key, mask_bytes = self._same_call
            if (
                x.shape == shape
                and x.dtype is dtype
                and x.flags.carray
                and (out is None or _arrays.can_write_directly(x, out))
            ):
                if out is not None:
                    y = out
                else:
                    y = _empty(shape, dtype) if small else _memory.empty(shape, dtype)
                bits: Bits | None
                if small and mask_bytes:
                    bits = _empty(mask_bytes, _UINT8)
                else:
                    bits = _memory.empty_bits(x.size) if mask_bytes else None
                streams = self._streams
                stream = streams.take()
                try:
                    active().dropout_forward(x, y, bits, rate, scale, key, stream, 0)
                except BaseException:
                    streams.give_back(stream)
                    raise
                self._pass = self._training_pass = (
                    shape,
                    dtype,
                    bits,
                    rate,
                    scale,
                    key,
                    stream,
                    small,
                )
                return y
        x = _arguments.as_input(x, keep_integers=training and self._scaling == "vanilla")
        if out is not None:
            _arguments.check_out(out, x.shape, x.dtype)
        streams = self._streams
        stream = streams.take() if training else 0
        try:
            noise = self._noise(x.shape, x.dtype, training, stream, offset, within)
            y, record = self._compute(x, noise, training, out)
        except BaseException:
            if training:
                streams.give_back(stream)
            raise
        if training:
            self._training_pass = record
            plain = noise.noise_shape is None and not (noise.shift or noise.dropped)
            if plain and x.size and x.dtype in _dtypes.STANDARD:
                mask_bytes = 0 if record.bits is None else record.bits.size
                small = x.size < _SMALL
                self._same_call = (
                    x.shape,
                    x.dtype,
                    small,
                    noise.rate,
                    noise.scale,
                    noise.key,
                    mask_bytes,
                )
        self._pass = record
        return y

    def _noise(
        self,
        shape: tuple[int, ...],
        dtype: np.dtype[Any],
        training: bool,
        stream: int,
        offset: int,
        within: functional.Within | None = None,
    ) -> _arrays.NoiseSpec:
        """What a call does, checked against its input."""
        if within is not None:
            if type(offset) is not int or offset:
                raise ValueError("give offset or within, not both")
            start, whole = _arguments.as_within(within, shape)
            part, first = _arrays.box_of(start, shape, self._noise_shape_of(whole) or whole)
            return self._spec(training, dtype, stream, first, None if part == shape else part)
        noise_shape = self._noise_shape_of(shape)
        if type(offset) is not int or offset:
            size = math.prod(shape if noise_shape is None else noise_shape)
            offset = _arguments.as_offset(offset, size)
        return self._spec(training, dtype, stream, offset, noise_shape)

    def _noise_shape_of(self, shape: tuple[int, ...]) -> tuple[int, ...] | None:
        """Shape of the mask for an input of this shape; None: the same."""
        return None

    def _spec(
        self,
        training: bool,
        dtype: np.dtype[Any],
        stream: int,
        offset: int | Box,
        noise_shape: tuple[int, ...] | None,
    ) -> _arrays.NoiseSpec:
        """The mask, and what becomes of the elements."""
        rate, scale = _dtypes.rate_and_scale(self._rate, self._scaling, training, dtype)
        return _arrays.NoiseSpec(rate, scale, self._streams.key, stream, offset, noise_shape)

    def _compute(
        self, x: Array, noise: _arrays.NoiseSpec, training: bool, out: Array | None = None
    ) -> tuple[Array, DropoutPass]:
        """The result, and the record of the call."""
        shape, dtype = x.shape, x.dtype
        bits = None
        if training and self._save_mask:
            # New for each call: whoever made an earlier call may still need the mask of that one.
            size = math.prod(shape if noise.noise_shape is None else noise.noise_shape)
            bits = _memory.empty_bits(size)
        y = _arrays.apply_dropout(x, out, bits, noise)
        return y, DropoutPass(shape, dtype, bits, *noise)

    def backward(self, dy: ArrayLike, *, out: Array | None = None) -> Array:
        """The gradient with respect to `x` of the last forward.

        Parameters
        ----------
        dy : array_like, shape of what ``forward`` returned
            Real numbers.  They are cast to the dtype of the result, unless that is an integer one.
        out : ndarray, optional
            Where the result goes; may be `dy`.
        """
        record = self._pass
        if record is None:
            raise no_forward(self)
        if type(record) is tuple:
            # The fewest steps possible, as in forward.
            shape, dtype, bits, _, scale, _, _, small = record  # type: ignore[misc]
            if (
                bits is not None
                and type(dy) is _ndarray
                and dy.dtype is dtype
                and dy.shape == shape
                and dy.flags.carray
                and (out is None or _arrays.can_write_directly(dy, out))
            ):
                if out is not None:
                    dx = out
                else:
                    dx = _empty(shape, dtype) if small else _memory.empty(shape, dtype)
                active().apply_bits(dy, dx, bits, scale)
                return dx
        return self._gradient(_in_full(record), dy, out)

    def _gradient(self, record: DropoutPass, dy: ArrayLike, out: Array | None = None) -> Array:
        dy = _arguments.as_gradient(dy, record.shape, record.dtype, self)
        if out is not None:
            _arguments.check_out(out, dy.shape, dy.dtype)
        if record.bits is not None:
            return _arrays.apply_mask(dy, out, record.bits, record.scale, record.noise_shape)
        return _arrays.apply_dropout(dy, out, None, record.noise.of_gradient)

    def predict(self, x: ArrayLike) -> Array:
        """Like ``forward(x, training=False)``, but remembers nothing.

        Parameters
        ----------
        x : array_like, any shape

        Returns
        -------
        ndarray, shape of `x`
        """
        return functional.dropout(x, self._rate, key=0, scaling=self._scaling, training=False)

    @property
    def mask(self) -> NDArray[np.bool_]:
        """The mask of the last training forward: bool, True where kept."""
        if self._training_pass is None:
            raise RuntimeError(f"{self}: there is no mask before a training forward")
        record = _in_full(self._training_pass)
        shape = record.shape if record.noise_shape is None else record.noise_shape
        bits = record.bits
        if bits is None:
            _, _, _, rate, _, key, stream, offset, *_ = record
            bits = _arrays.make_bits(math.prod(shape), rate, key, stream, offset)
        return _arrays.unpack_bits(bits, shape)

    # ---- in a network

    @property
    def shares_rows(self) -> bool:
        """Whether all rows of a batch have the same mask."""
        return False

    def _run(self, x: Array, context: RunContext) -> tuple[Array, DropoutPass | None]:
        training = context.training
        x = _arguments.as_input(x, keep_integers=training and self._scaling == "vanilla")
        noise = self.noise_in(context, x.shape, x.dtype)
        y, record = self._compute(x, noise, training)
        if training:
            context.remember(self, record)
        return y, record

    def noise_in(
        self, context: RunContext, shape: tuple[int, ...], dtype: np.dtype[Any]
    ) -> _arrays.NoiseSpec:
        """What one run of a network does to an input like this."""
        training = context.training
        stream = context.stream_of(self) if training else 0
        noise_shape, offset = self._noise_shape_of(shape), 0
        if context.first_row and training and not self.shares_rows:
            offset = context.offset(shape if noise_shape is None else noise_shape)
        return self._spec(training, dtype, stream, offset, noise_shape)

    def next_noise(self, dtype: np.dtype[Any]) -> tuple[float, float, int, int]:
        """Rate, scale, key and stream, taken, of a training run over a whole batch."""
        rate, scale = _dtypes.rate_and_scale(self._rate, self._scaling, True, dtype)
        return rate, scale, self._streams.key, self._streams.take()

    def next_stream(self) -> int:
        """The stream of the next training forward."""
        return self._streams.peek()

    def take_stream(self) -> int:
        """The same, which is used up."""
        return self._streams.take()

    def give_back(self, stream: int) -> None:
        """Undo `take_stream`, after a run that failed."""
        self._streams.give_back(stream)

    def remember(self, record: DropoutPass | _PlainPass) -> None:
        """Keep the record of a training run, for `mask`."""
        self._training_pass = record

    def _go_on_from(self, stand_in: DropoutBase) -> None:  # type: ignore[override]
        self._streams = stand_in._streams

    # ---- state

    def reseed(self, sequence: np.random.SeedSequence) -> None:
        """Take the key from `sequence`, unless the layer was given a seed.

        Parameters
        ----------
        sequence : SeedSequence
        """
        if not self._seeded:
            self._set_streams(MaskStreams(key_from_seed(sequence)))

    def _become_child(self, i: int) -> None:
        key = spawned_key(self._streams.key, self._streams.next_stream, i)
        self._set_streams(MaskStreams(key))

    def config(self) -> dict[str, Any]:
        """Arguments that make such a layer again: JSON-safe."""
        options = self._options() | {"save_mask": (self._save_mask, True)}
        changed = {name: v for name, (v, default) in options.items() if v != default}
        return {"rate": self._rate} | changed

    def _options(self) -> dict[str, tuple[Any, Any]]:
        """The arguments of this kind of dropout alone, and their defaults."""
        return {}

    def state_dict(self) -> dict[str, int | str]:
        """The key and the next stream as plain ints and strings, JSON-safe."""
        return self._streams.state_dict()

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Continue with the masks that follow `state`.

        Parameters
        ----------
        state : mapping
            What `state_dict` gave.

        Raises
        ------
        TypeError, ValueError
            If it is no such state; nothing has changed then.
        """
        self._set_streams(DropoutBase._checked_state(self, state))

    def _checked_state(self, state: Mapping[str, Any]) -> MaskStreams:
        return _arguments.as_mask_streams(state, f"{self}: state")

    def _set_state(self, checked: MaskStreams) -> None:
        self._set_streams(checked)

    def _set_streams(self, streams: MaskStreams) -> None:
        self._streams = streams
        self._seeded = True
        self._same_call = None  # it has the key

    def __getstate__(self) -> dict[str, Any]:
        state = super().__getstate__()
        state.pop("_training_pass", None)
        return state | {"_streams": self._streams.copy()}
