"""Dropout that keeps mean and variance, for networks of SELU: of elements, or of channels."""

from __future__ import annotations

from typing import Any

import numpy as np

from dropwise import _arrays
from dropwise._backends.protocol import Box
from dropwise.layers.base import register
from dropwise.layers.dropout_base import DropoutBase
from dropwise.layers.structured_dropout import SpatialDropout


class _Alpha(DropoutBase):
    """What alpha dropout makes of the elements, whichever of them share a mask."""

    def _spec(
        self,
        training: bool,
        dtype: np.dtype[Any],
        stream: int,
        offset: int | Box,
        noise_shape: tuple[int, ...] | None,
    ) -> _arrays.NoiseSpec:
        key = self._streams.key
        return _arrays.alpha_noise(
            self._rate, dtype, key, stream, offset, noise_shape, training=training
        )


@register
class AlphaDropout(_Alpha):
    """Dropout that keeps the mean and the variance of standardised inputs.

    Parameters
    ----------
    rate : float in [0, 1]
        Probability that an element is dropped.
    seed : int, SeedSequence, Generator or None
        Fixes all masks.  None takes fresh entropy, once: copies go on with the same masks.
    save_mask : bool
        Keep the mask for ``backward``, 1 bit per element; False: generate it again there.

    Notes
    -----
    In training a dropped element becomes a' = -1.7580993, to which SELU tends for large negative
    inputs, a kept one stays what it is, and then everything becomes ``a * x + b`` with
    ``a = 1 / sqrt(q + rate * q * a'**2)``, ``b = -a * rate * a'`` and ``q = 1 - rate``: if inputs
    have mean 0 and variance 1, so have the results.  Dropped elements hence are
    ``a * q * a'``, not zero.  With the rate that constant goes to 0, and at rate 1 all results are
    zeros.  The mask is that of `Dropout`.

    The gradient is ``a * dy`` where the mask keeps, +0.0 elsewhere.

    References
    ----------
    .. [1] Klambauer et al., "Self-normalizing neural networks", NIPS 30 (2017).

    Examples
    --------
    >>> import numpy as np
    >>> import dropwise as dw
    >>> x = np.random.default_rng(0).standard_normal(100_000)
    >>> y = dw.AlphaDropout(0.3, seed=1).forward(x)
    >>> bool(abs(y.mean()) < 0.02 and abs(y.std() - 1) < 0.02)
    True
    """


@register
class FeatureAlphaDropout(_Alpha, SpatialDropout):
    """`AlphaDropout` of whole channels of a sample.

    Parameters
    ----------
    rate : float in [0, 1]
        Probability that a channel of a sample is dropped.
    data_format : {"channels_last", "channels_first"}
        Whether inputs have shape (B, ..., channels) or (B, channels, ...).
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
    The mask is that of `SpatialDropout`, what becomes of the elements that of `AlphaDropout`.

    References
    ----------
    .. [1] Klambauer et al., "Self-normalizing neural networks", NIPS 30 (2017).
    .. [2] Tompson et al., "Efficient object localization using convolutional networks", CVPR
       (2015).

    Examples
    --------
    >>> import numpy as np
    >>> import dropwise as dw
    >>> drop = dw.FeatureAlphaDropout(0.5, seed=1)
    >>> drop.forward(np.ones((1, 2, 3))).round(3)
    array([[[ 1.666, -0.779, -0.779],
            [ 1.666, -0.779, -0.779]]])
    """
