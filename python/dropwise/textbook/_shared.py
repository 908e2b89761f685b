"""What the modules of the three texts share: masks that are arrays, attributes with two names.

An object of a text is its ``__dict__``: scripts fill it from pickles of the text's own classes, pop
names from it, assign and delete attributes.  So classes keep all they know there, under the text's
names, and nothing that a text's object would lack.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import ArrayLike

from dropwise import _arguments, _arrays, _dtypes
from dropwise._arrays import NoiseSpec
from dropwise._backends import active
from dropwise._backends.protocol import Array, Bits
from dropwise.textbook._compute import FEW_ELEMENTS, numbers

_draw = np.random.random_sample  # of the texts' generator; its `bytes` takes ten times as long
_SIMPLE = 1 << 16  # elements: below that a result needs no memory that is recycled
_empty, _maximum, _UINT8 = np.empty, np.maximum, np.dtype(np.uint8)


def fresh_key() -> int:
    """A key for one forward call, so that ``np.random.seed`` fixes masks as in the texts."""
    return int(_draw() * 9007199254740992.0)  # 53 bits, all that a number of it has


# ---- masks ---------------------------------------------------------------------------------------


@functools.lru_cache(maxsize=64)
def _ones(shape: tuple[int, ...], dtype: np.dtype[Any]) -> Array:
    return np.ones(shape, dtype)


class MaskRecord(NamedTuple):
    """The mask of a forward call, kept for backward."""

    bits: Bits  # packed, 1 = passed
    shape: tuple[int, ...]
    dtype: np.dtype[Any]  # of the forward call's result
    scale: float = 1.0  # of what passed

    def kept(self) -> Array:
        """True where an element passed."""
        return _arrays.unpack_bits(self.bits, self.shape)

    def dropped(self) -> Array:
        """True where an element did not pass."""
        return ~_arrays.unpack_bits(self.bits, self.shape)

    def factors(self) -> Array:
        """What multiplied each element."""
        scales = np.full(self.shape, self.scale, self.dtype)
        return _arrays.apply_mask(scales, scales, self.bits, 1.0, None)


_record = functools.partial(tuple.__new__, MaskRecord)  # a NamedTuple's own way takes twice as long


class MaskAttribute:
    """A mask under the text's name: a record, until a script asks for the array or sets its own.

    Parameters
    ----------
    as_array : callable
        Makes the array of a record.
    """

    def __init__(self, as_array: Callable[[MaskRecord], Array]) -> None:
        self._as_array = as_array

    def __set_name__(self, owner: type, name: str) -> None:
        self._name = name

    def __get__(self, layer: Any, owner: type | None = None) -> Any:
        if layer is None:
            return self
        try:
            mask = layer.__dict__[self._name]
        except KeyError:
            message = f"{type(layer).__name__} has no {self._name} before a training forward"
            raise AttributeError(message) from None
        if type(mask) is MaskRecord:
            mask = layer.__dict__[self._name] = self._as_array(mask)
        return mask

    def __set__(self, layer: Any, mask: Any) -> None:
        layer.__dict__[self._name] = mask

    def __delete__(self, layer: Any) -> None:
        if layer.__dict__.pop(self._name, self) is self:
            raise AttributeError(self._name)


class Alias:
    """A second name of an attribute."""

    def __init__(self, name: str) -> None:
        self._name = name

    def __get__(self, layer: Any, owner: type | None = None) -> Any:
        return self if layer is None else getattr(layer, self._name)

    def __set__(self, layer: Any, value: Any) -> None:
        setattr(layer, self._name, value)

    def __delete__(self, layer: Any) -> None:
        delattr(layer, self._name)


class TextObject:
    """Pickles and copies that the text's own class can read, and that may come from it."""

    def __getstate__(self) -> dict[str, Any]:
        return {
            name: getattr(self, name) if type(value) is MaskRecord else value
            for name, value in self.__dict__.items()
        }

    def __setstate__(self, state: Mapping[str, Any]) -> None:
        for name, value in state.items():
            setattr(self, name, value)


# ---- dropout -------------------------------------------------------------------------------------


def training_dropout(
    x: ArrayLike, rate: float, scaling: str, key: int | None = None
) -> tuple[Array, MaskRecord]:
    """Dropout of `x` and its mask, which without a `key` is a new one at each call."""
    if type(x) is not np.ndarray or x.dtype not in _dtypes.STANDARD:
        x = _arguments.as_input(x, keep_integers=scaling == "vanilla")
    if type(rate) is not float or not 0.0 <= rate <= 1.0:
        rate = _arguments.check_rate(rate)
    dtype = x.dtype
    rate, scale = _dtypes.rate_and_scale(rate, scaling, True, dtype)
    size = x.size
    bits = _empty((size + 7) >> 3, _UINT8)
    if key is None:
        key = fresh_key()
    if 0 < size < _SIMPLE and x.flags.carray and dtype in _dtypes.STANDARD:
        y = _empty(x.shape, dtype)
        active().dropout_forward(x, y, bits, rate, scale, key, 0, 0)
    else:
        y = _arrays.apply_dropout(x, None, bits, NoiseSpec(rate, scale, key))
    return y, _record((bits, y.shape, dtype, scale))


def dropout_and_factors(x: Array, rate: float, key: int | None = None) -> tuple[Array, Array]:
    """Inverted dropout of `x`, and what each element was multiplied by."""
    dtype = x.dtype
    if 0 < x.size <= FEW_ELEMENTS and dtype in _dtypes.STANDARD and x.flags.carray:
        # To draw so few bits twice takes less time than to keep them in between.
        rate, scale = _dtypes.rate_and_scale(rate, "inverted", True, dtype)
        shape, kernel = x.shape, active().dropout_forward
        y, factors = _empty(shape, dtype), _empty(shape, dtype)
        if key is None:
            key = fresh_key()
        kernel(x, y, None, rate, scale, key, 0, 0)
        kernel(_ones(shape, dtype), factors, None, rate, scale, key, 0, 0)
        return y, factors
    y, record = training_dropout(x, rate, "inverted", key)
    return y, record.factors()


def masked_gradient(dy: ArrayLike, record: MaskRecord) -> Array:
    """``scale * dy`` where the mask of the forward call keeps, +0.0 elsewhere."""
    bits, shape, _, scale = record
    if type(dy) is not np.ndarray or dy.dtype not in _dtypes.STANDARD:
        dy = _arguments.as_input(dy, keep_integers=scale == 1.0)
    if dy.shape != shape:
        return multiply_by_mask(dy, record.factors())
    if 0 < dy.size < _SIMPLE and dy.flags.carray and dy.dtype in _dtypes.STANDARD:
        dx = _empty(shape, dy.dtype)
        active().apply_bits(dy, dx, bits, scale)
        return dx
    return _arrays.apply_mask(dy, None, bits, scale, None)


def relu_masked_gradient(dy: ArrayLike, record: MaskRecord) -> Array:
    """The same for ReLU, where the texts assign zeros: the shapes have to agree."""
    if np.shape(dy) != record.shape:
        raise ValueError(
            f"Relu: the gradient has shape {np.shape(dy)}, and the mask {record.shape}"
        )
    return masked_gradient(dy, record)


def _is_finite(x: Array) -> bool:
    return b"\0" not in np.isfinite(x).tobytes()  # in half the time of NumPy's `all`


def multiply_by_mask(x: ArrayLike, mask: ArrayLike) -> Array:
    """``x * mask`` in the dtype of `x`, and +0.0 where the mask is 0, also where `x` is not finite.

    For masks that a script has read or assigned.
    """
    if type(x) is np.ndarray and type(mask) is np.ndarray:
        dtype = x.dtype
        if dtype is mask.dtype and dtype.kind == "f" and x.shape == mask.shape and _is_finite(x):
            return x * mask
    x, mask = _arguments.as_input(x, keep_integers=True), np.asarray(mask)
    dtype = np.result_type(x, mask) if x.dtype.kind in "biu" else x.dtype
    kept = mask != 0
    if kept.shape != x.shape:
        x, kept = np.broadcast_arrays(x, kept)
    y = _arrays.apply_mask(x, None, np.packbits(kept, bitorder="little"), 1.0, None)
    out = y if y.dtype == dtype else None
    return np.asarray(np.multiply(y, mask, out=out, dtype=dtype, casting="same_kind"))


# ---- ReLU ----------------------------------------------------------------------------------------


def relu(x: ArrayLike) -> Array:
    """``max(x, 0)``."""
    if type(x) is np.ndarray and x.size <= FEW_ELEMENTS:
        y: Array = _maximum(x, numbers(x.dtype)[0])
        return y
    return relu_mask(x)[0]


def relu_mask(x: ArrayLike) -> tuple[Array, MaskRecord]:
    """``max(x, 0)`` and the mask of what passes."""
    if type(x) is not np.ndarray or x.dtype not in _dtypes.STANDARD:
        x = _arguments.as_input(x, keep_integers=True)
    size, dtype = x.size, x.dtype
    if 0 < size < _SIMPLE and x.flags.carray and dtype in _dtypes.STANDARD:
        y, bits = _empty(x.shape, dtype), _empty((size + 7) >> 3, _UINT8)
        active().relu(x, y, bits)
    else:
        y, bits = _arrays.apply_relu(x, None)
    return y, _record((bits, y.shape, dtype, 1.0))


def relu_gradient(dy: ArrayLike, x: ArrayLike) -> Array:
    """`dy` where `x` is positive, 0 elsewhere."""
    if type(x) is not np.ndarray:
        x = np.asarray(x)
    if x.size <= FEW_ELEMENTS:
        dx = np.array(dy)
        dx[x <= numbers(x.dtype)[0]] = 0
        return dx
    return relu_masked_gradient(dy, relu_mask(x)[1])
