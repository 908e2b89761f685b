"""The dropout modules of `torch.nn`, computed by dropwise.

They are subclasses of PyTorch's, so that ``isinstance(module, torch.nn.Dropout)`` holds.
"""

from __future__ import annotations

from collections.abc import Callable

from torch import Tensor, nn

from dropwise.random import Seed
from dropwise.torch import functional
from dropwise.torch._seeded import Seeded

__all__ = [
    "AlphaDropout",
    "DropPath",
    "Dropout",
    "Dropout1d",
    "Dropout2d",
    "Dropout3d",
    "FeatureAlphaDropout",
]


class _Masked(Seeded, nn.modules.dropout._DropoutNd):
    """What the modules share."""

    _function: Callable[..., Tensor]

    def __init__(
        self,
        p: float = 0.5,
        inplace: bool = False,
        *,
        seed: Seed = None,
        row_offset: int | None = None,
    ) -> None:
        super().__init__(p, inplace)
        self.row_offset = row_offset
        self.reseed(seed)

    def forward(self, input: Tensor) -> Tensor:
        """What the function of the same name in `functional` gives.

        Parameters
        ----------
        input : Tensor

        Returns
        -------
        Tensor, shape, dtype and memory format of `input`
        """
        return self._function(
            input,
            self.p,
            self.training,
            self.inplace,
            state=self._state,
            row_offset=self.row_offset,
        )


class Dropout(_Masked, nn.Dropout):
    """`torch.nn.Dropout`: sets elements to zero at random in training.

    Parameters
    ----------
    p : float in [0, 1]
        Probability that an element is dropped.
    inplace : bool
        Write the result to the input.
    seed : int, SeedSequence, Generator or None
        Fixes all masks.  None: torch's generator decides, as it does for `torch.nn.Dropout`.
    row_offset : int, optional
        Index of the first row of the input in the batch of which it is a part; may be changed
        between calls.  With a seed and without this, each rank of `torch.distributed` has masks of
        its own.

    Raises
    ------
    ValueError
        If `p` is not in [0, 1].

    See Also
    --------
    functional.dropout : What a call computes, and when it raises.

    Notes
    -----
    Nothing but the key and the number of the mask is kept for the backward pass, or 1 bit for each
    element where that takes less time.

    References
    ----------
    .. [1] Srivastava et al., "Dropout: a simple way to prevent neural networks from overfitting",
       JMLR 15 (2014).

    Examples
    --------
    >>> import torch
    >>> from dropwise.torch import Dropout
    >>> drop = Dropout(0.5, seed=2)
    >>> drop(torch.arange(6.0))
    tensor([0., 2., 4., 6., 0., 0.])
    >>> drop.eval()(torch.arange(6.0))
    tensor([0., 1., 2., 3., 4., 5.])
    """

    def forward(self, input: Tensor) -> Tensor:
        """Dropout of a tensor of any shape.

        Parameters
        ----------
        input : Tensor

        Returns
        -------
        Tensor, shape, dtype and memory format of `input`
        """
        return functional.dropout(
            input,
            self.p,
            self.training,
            self.inplace,
            state=self._state,
            row_offset=self.row_offset,
        )


class Dropout1d(_Masked, nn.Dropout1d):
    """`torch.nn.Dropout1d`: sets whole channels to zero.

    Parameters
    ----------
    p, inplace, seed, row_offset : as for `Dropout`

    References
    ----------
    .. [1] Tompson et al., "Efficient object localization using convolutional networks", CVPR
       (2015).
    """

    def forward(self, input: Tensor) -> Tensor:
        """Dropout of a tensor of shape (N, C, L) or (C, L).

        Parameters
        ----------
        input : Tensor

        Returns
        -------
        Tensor, shape, dtype and memory format of `input`
        """
        return functional.dropout1d(
            input,
            self.p,
            self.training,
            self.inplace,
            state=self._state,
            row_offset=self.row_offset,
        )


class Dropout2d(_Masked, nn.Dropout2d):
    """`torch.nn.Dropout2d`: sets whole channels to zero.

    Parameters
    ----------
    p, inplace, seed, row_offset : as for `Dropout`

    References
    ----------
    .. [1] Tompson et al., "Efficient object localization using convolutional networks", CVPR
       (2015).
    """

    def forward(self, input: Tensor) -> Tensor:
        """Dropout of a tensor of shape (N, C, H, W) or (N, C, L).

        Parameters
        ----------
        input : Tensor

        Returns
        -------
        Tensor, shape, dtype and memory format of `input`
        """
        return functional.dropout2d(
            input,
            self.p,
            self.training,
            self.inplace,
            state=self._state,
            row_offset=self.row_offset,
        )


class Dropout3d(_Masked, nn.Dropout3d):
    """`torch.nn.Dropout3d`: sets whole channels to zero.

    Parameters
    ----------
    p, inplace, seed, row_offset : as for `Dropout`

    References
    ----------
    .. [1] Tompson et al., "Efficient object localization using convolutional networks", CVPR
       (2015).
    """

    def forward(self, input: Tensor) -> Tensor:
        """Dropout of a tensor of shape (N, C, D, H, W) or (C, D, H, W).

        Parameters
        ----------
        input : Tensor

        Returns
        -------
        Tensor, shape, dtype and memory format of `input`
        """
        return functional.dropout3d(
            input,
            self.p,
            self.training,
            self.inplace,
            state=self._state,
            row_offset=self.row_offset,
        )


class AlphaDropout(_Masked, nn.AlphaDropout):
    """`torch.nn.AlphaDropout`: keeps mean and variance.

    Parameters
    ----------
    p, inplace, seed, row_offset : as for `Dropout`

    References
    ----------
    .. [1] Klambauer et al., "Self-normalizing neural networks", NIPS 30 (2017).
    """

    def forward(self, input: Tensor) -> Tensor:
        """Alpha dropout of a tensor of any shape.

        Parameters
        ----------
        input : Tensor

        Returns
        -------
        Tensor, shape, dtype and memory format of `input`
        """
        return functional.alpha_dropout(
            input,
            self.p,
            self.training,
            self.inplace,
            state=self._state,
            row_offset=self.row_offset,
        )


class FeatureAlphaDropout(_Masked, nn.FeatureAlphaDropout):
    """`torch.nn.FeatureAlphaDropout`: alpha dropout of channels.

    Parameters
    ----------
    p, inplace, seed, row_offset : as for `Dropout`

    References
    ----------
    .. [1] Klambauer et al., "Self-normalizing neural networks", NIPS 30 (2017).
    """

    def forward(self, input: Tensor) -> Tensor:
        """Alpha dropout of a tensor of shape (N, C, ...).

        Parameters
        ----------
        input : Tensor

        Returns
        -------
        Tensor, shape, dtype and memory format of `input`
        """
        return functional.feature_alpha_dropout(
            input,
            self.p,
            self.training,
            self.inplace,
            state=self._state,
            row_offset=self.row_offset,
        )


class DropPath(_Masked):
    """Stochastic depth: sets whole samples to zero.

    Parameters
    ----------
    p, inplace, seed, row_offset : as for `Dropout`

    References
    ----------
    .. [1] Huang et al., "Deep networks with stochastic depth", ECCV (2016).
    """

    def forward(self, input: Tensor) -> Tensor:
        """Dropout of the samples of a tensor of shape (N, ...).

        Parameters
        ----------
        input : Tensor

        Returns
        -------
        Tensor, shape, dtype and memory format of `input`
        """
        return functional.drop_path(
            input,
            self.p,
            self.training,
            self.inplace,
            state=self._state,
            row_offset=self.row_offset,
        )
