"""DropConnect: a Dense layer that drops weights instead of outputs."""

from __future__ import annotations

import copy
from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, DTypeLike, NDArray

from dropwise import _arguments, _arrays
from dropwise._backends.protocol import Array, Bits
from dropwise.layers.base import register
from dropwise.layers.dense import Dense, DensePass
from dropwise.layers.dropout import Dropout
from dropwise.layers.run import RunContext
from dropwise.random import Seed, spawn


@register
class DropConnect(Dense):
    """A fully connected layer whose weights are dropped at random in training.

    Parameters
    ----------
    in_features, out_features : int
    rate : float in [0, 1]
        Probability that a weight is dropped.  Biases are not.
    l1, l2, bias_l1, bias_l2, init, dtype : as for `Dense`
    seed : int, SeedSequence, Generator or None
        Fixes the initial weights and all masks.
    skip_zeros : bool
        Leave out products with exact zeros, those of dropped weights among them, where that is
        faster.  A zero then contributes nothing even against a non-finite value; False gives IEEE
        results.
    save_mask : bool
        Keep the mask for ``backward``, 1 bit per weight; False: generate it again there.

    Notes
    -----
    Each training forward takes the next stream of the layer's key, and has one mask of the weights
    for the whole batch; the paper draws one for each sample.  Weights that are kept are multiplied
    by ``1 / (1 - rate)``, and inference uses all weights as they are, where the paper samples from
    a normal distribution.  At rate 1 only the bias is left.  ``Sequential.predict_mc`` draws a mask
    for each of its samples.

    References
    ----------
    .. [1] Wan et al., "Regularization of neural networks using DropConnect", ICML (2013).

    Examples
    --------
    >>> import numpy as np
    >>> import dropwise as dw
    >>> layer = dw.DropConnect(3, 2, 0.5, seed=1)
    >>> y = layer.forward(np.ones((4, 3)))
    >>> layer.mask.shape
    (3, 2)
    """

    def __init__(
        self,
        in_features: int,
        out_features: int,
        rate: float = 0.5,
        *,
        l1: float = 0.0,
        l2: float = 0.0,
        bias_l1: float = 0.0,
        bias_l2: float = 0.0,
        init: str | float = "glorot_uniform",
        dtype: DTypeLike = "float32",
        seed: Seed = None,
        skip_zeros: bool = True,
        save_mask: bool = True,
    ) -> None:
        super().__init__(
            in_features,
            out_features,
            l1=l1,
            l2=l2,
            bias_l1=bias_l1,
            bias_l2=bias_l2,
            init=init,
            dtype=dtype,
            seed=seed,
            skip_zeros=skip_zeros,
        )
        mask_seed = spawn(self._seed, 0) if self._seeded else None
        self._dropout = Dropout(rate, seed=mask_seed, save_mask=save_mask)

    @property
    def rate(self) -> float:
        """Probability that a weight is dropped; may be changed between calls."""
        return self._dropout.rate

    @rate.setter
    def rate(self, rate: float) -> None:
        self._dropout.rate = rate

    @property
    def mask(self) -> NDArray[np.bool_]:
        """The mask of the last training forward: bool (in_features, out_features), True: kept."""
        return self._dropout.mask

    # ---- computation

    def forward(self, x: ArrayLike, training: bool = True) -> Array:
        """``x @ weight + bias``, in training with the weights that are kept.

        Parameters
        ----------
        x : array_like, shape (..., in_features)
        training : bool
            At inference no weight is dropped, and no stream is taken.

        Returns
        -------
        ndarray, shape (..., out_features)
        """
        if not training:
            return super().forward(x)
        stream = self._dropout.take_stream()
        try:
            y, record = self._compute_dropped(x, stream)
        except BaseException:
            self._dropout.give_back(stream)
            raise
        assert record.drop is not None
        self._dropout.remember(record.drop)
        self._pass = record
        return y

    def predict(self, x: ArrayLike) -> Array:
        """Like ``forward(x, training=False)``, but remembers nothing.

        Parameters
        ----------
        x : array_like, shape (..., in_features)

        Returns
        -------
        ndarray, shape (..., out_features)
        """
        return super().predict(x)

    def _run(self, x: Array, context: RunContext) -> tuple[Array, DensePass | None]:
        if not context.training:
            return self._compute(x)
        stream = context.stream_of(self._dropout)
        if context.samples:
            return self._run_samples(x, context, stream), None
        y, record = self._compute_dropped(x, stream)
        context.remember(self._dropout, record.drop)
        return y, record

    def _compute_dropped(
        self, x: ArrayLike, stream: int, sample: int = 0
    ) -> tuple[Array, DensePass]:
        """The result with the weights that are kept; a sample of several has its own mask."""
        weight = self.weight
        noise = self._dropout._noise(weight.shape, self.dtype, True, stream, sample * weight.size)
        kept, drop = self._dropout._compute(weight, noise, True)
        y, record = self._compute(x, kept)
        return y, record._replace(drop=drop)

    def _run_samples(self, x: Array, context: RunContext, stream: int) -> Array:
        """Monte Carlo dropout: all rows of a sample share its mask."""
        sample_of = np.arange(context.first_row, context.first_row + len(x)) % context.samples
        y = np.empty((*x.shape[:-1], self.out_features), self.dtype)
        for sample in np.unique(sample_of).tolist():
            rows = sample_of == sample
            y[rows] = self._compute_dropped(x[rows], stream, sample)[0]
        return y

    def _weight_of(self, record: DensePass) -> Array:
        if record.drop is None:
            return super()._weight_of(record)
        return self._dropout._gradient(record.drop, self.weight)

    def _weight_gradient(self, record: DensePass, dy: Array, out: Array) -> None:
        drop = record.drop
        if drop is None:
            super()._weight_gradient(record, dy, out)
            return
        bits: Bits | None = drop.bits
        if bits is None:
            bits = _arrays.make_bits(out.size, drop.rate, drop.key, drop.stream, drop.offset)
        skip = "ab" if self.skip_zeros else ""
        _arrays.masked_product(record.rows.T, dy, out, bits, drop.scale, skip)

    # ---- state

    def reseed(self, sequence: np.random.SeedSequence) -> None:
        """Take weights and masks from `sequence`, each unless it is decided already.

        Parameters
        ----------
        sequence : SeedSequence
        """
        super().reseed(sequence)
        self._dropout.reseed(spawn(sequence, 0))

    def _go_on_from(self, stand_in: DropConnect) -> None:  # type: ignore[override]
        self._dropout._go_on_from(stand_in._dropout)

    def _become_child(self, i: int) -> None:
        self._dropout._become_child(i)

    def config(self) -> dict[str, Any]:
        """Arguments that make such a layer again: JSON-safe."""
        names = ("in_features", "out_features")
        config = super().config()
        return {name: config.pop(name) for name in names} | self._dropout.config() | config

    def state_dict(self) -> dict[str, Any]:
        """Copies of weight and bias, the key and the next stream."""
        return super().state_dict() | self._dropout.state_dict()

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Set weights and masks, or nothing if something does not fit.

        Parameters
        ----------
        state : mapping
            What `state_dict` gave.
        """
        DropConnect._set_state(self, DropConnect._checked_state(self, state))

    def _checked_state(self, state: Mapping[str, Any]) -> Any:
        own, masks = ("weight", "bias"), tuple(self._dropout.state_dict())
        _arguments.check_names(state, own + masks, f"{self}: state")
        return (
            Dense._checked_state(self, {name: state[name] for name in own}),
            self._dropout._checked_state({name: state[name] for name in masks}),
        )

    def _set_state(self, checked: Any) -> None:
        parameters, streams = checked
        Dense._set_state(self, parameters)
        self._dropout._set_state(streams)

    def __getstate__(self) -> dict[str, Any]:
        return super().__getstate__() | {"_dropout": copy.copy(self._dropout)}
