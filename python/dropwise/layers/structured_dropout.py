"""Dropout of whole groups of elements: SpatialDropout and DropPath.

Both are dropout with a mask whose shape follows from that of the input.
"""

from __future__ import annotations

from typing import Any

from dropwise import _arguments
from dropwise.layers.base import register
from dropwise.layers.dropout_base import DropoutBase
from dropwise.random import Seed


@register
class SpatialDropout(DropoutBase):
    """Set whole channels of a sample to zero at random in training.

    Parameters
    ----------
    rate : float in [0, 1]
        Probability that a channel of a sample is dropped.
    data_format : {"channels_last", "channels_first"}
        Whether inputs have shape (B, ..., channels) or (B, channels, ...), with any number of
        dimensions between or after; for 2-D inputs it is `Dropout` of each element.
    seed : int, SeedSequence, Generator or None
        Fixes all masks.  None takes fresh entropy, once: copies go on with the same masks.
    save_mask : bool
        Keep the mask for ``backward``, 1 bit per channel of a sample; False: generate it again
        there.

    Raises
    ------
    ValueError
        If the input has fewer than 2 dimensions.

    Notes
    -----
    Neighbours in an image or a sequence are alike: what one of them loses the others still say, so
    that dropping single elements regularises little.  What is kept is multiplied by
    ``1 / (1 - rate)``.  The mask has an element for each sample and channel: it is that of
    ``Dropout(rate, noise_shape=(None, 1, ..., None))``, or ``(None, None, 1, ...)`` with channels
    first.

    References
    ----------
    .. [1] Tompson et al., "Efficient object localization using convolutional networks", CVPR
       (2015).

    Examples
    --------
    >>> import numpy as np
    >>> import dropwise as dw
    >>> drop = dw.SpatialDropout(0.5, seed=1)
    >>> drop.forward(np.ones((1, 3, 4), np.float32))
    array([[[2., 0., 0., 2.],
            [2., 0., 0., 2.],
            [2., 0., 0., 2.]]], dtype=float32)
    """

    def __init__(
        self,
        rate: float = 0.5,
        *,
        data_format: str = "channels_last",
        seed: Seed = None,
        save_mask: bool = True,
    ) -> None:
        super().__init__(rate, seed=seed, save_mask=save_mask)
        self._data_format = _arguments.check_data_format(data_format)

    @property
    def data_format(self) -> str:
        """ "channels_last" or "channels_first"."""
        return self._data_format

    def _noise_shape_of(self, shape: tuple[int, ...]) -> tuple[int, ...] | None:
        if len(shape) < 2:
            raise ValueError(f"{self} needs x of at least 2 dimensions, got shape {shape}")
        ones = (1,) * (len(shape) - 2)
        if self._data_format == "channels_last":
            return _arguments.fit_noise_shape((None, *ones, None), shape)
        return _arguments.fit_noise_shape((None, None, *ones), shape)

    def _options(self) -> dict[str, tuple[Any, Any]]:
        return {"data_format": (self._data_format, "channels_last")}


@register
class DropPath(DropoutBase):
    """Set whole samples to zero at random in training: stochastic depth.

    The last layer of a residual branch: a sample whose branch is dropped goes on by the identity
    alone, as in a network that has fewer layers.

    Parameters
    ----------
    rate : float in [0, 1]
        Probability that a sample is dropped.
    seed : int, SeedSequence, Generator or None
        Fixes all masks.  None takes fresh entropy, once: copies go on with the same masks.
    save_mask : bool
        Keep the mask for ``backward``, 1 bit per sample; False: generate it again there.

    Raises
    ------
    ValueError
        If the input has no dimension: the first one is that of the samples.

    Notes
    -----
    What is kept is multiplied by ``1 / (1 - rate)``; the paper multiplies by ``1 - rate`` at
    inference instead.  The mask has an element for each sample: it is that of
    ``Dropout(rate, noise_shape=(None, 1, ...))``.  In backward, dropped rows are zeros, which the
    Dense layers of the branch can skip.

    References
    ----------
    .. [1] Huang et al., "Deep networks with stochastic depth", ECCV (2016).

    Examples
    --------
    >>> import numpy as np
    >>> import dropwise as dw
    >>> branch = dw.Sequential([dw.Dense(8, 8), dw.ReLU(), dw.DropPath(0.5)], seed=1)
    >>> x = np.ones((4, 8), np.float32)
    >>> y = x + branch.forward(x)
    >>> (y == x).all(axis=1)  # these went by the identity alone
    array([ True,  True,  True, False])
    """

    def _noise_shape_of(self, shape: tuple[int, ...]) -> tuple[int, ...] | None:
        if not shape:
            raise ValueError(f"{self} needs x of shape (B, ...), got shape {shape}")
        return _arguments.fit_noise_shape((None, *(1,) * (len(shape) - 1)), shape)
