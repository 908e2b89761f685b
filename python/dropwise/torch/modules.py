"""The dropout modules of `torch.nn`, computed by dropwise.

They are subclasses of PyTorch's, so that ``isinstance(module, torch.nn.Dropout)`` holds.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from torch import Tensor, nn

from dropwise._arguments import as_mask_streams
from dropwise.random import MaskStreams, Seed
from dropwise.torch import _streams, functional

__all__ = [
    "AlphaDropout",
    "DropPath",
    "Dropout",
    "Dropout1d",
    "Dropout2d",
    "Dropout3d",
    "FeatureAlphaDropout",
]


class _Masked(nn.modules.dropout._DropoutNd):
    """What the modules share: where their masks come from.

    The defaults are those of the class, so that ``module.__class__ = Dropout`` makes one of a
    module of `torch.nn`.
    """

    # [key, next stream] of a seed.  No buffer: models without a seed have none in their state, and
    # DistributedDataParallel and `to_empty` would write to it.
    _state: Tensor | None = None
    row_offset: int | None = None
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
        """What the function of the same name in `functional` gives."""
        return self._function(
            input,
            self.p,
            self.training,
            self.inplace,
            state=self._state,
            row_offset=self.row_offset,
        )

    def reseed(self, seed: Seed) -> None:
        """Start with the first mask of `seed`; None: torch's generator decides."""
        self._state = None if seed is None else functional.new_state(seed)

    def extra_repr(self) -> str:
        parts = [super().extra_repr()]
        if self._state is not None:
            parts.append(f"next_stream={int(self._state[1])}")
        if self.row_offset is not None:
            parts.append(f"row_offset={self.row_offset}")
        return ", ".join(parts)

    # The key and the next stream of a seed go to the metadata of a `state_dict`, where PyTorch
    # keeps the versions of modules.  As an entry they would make strict loading fail wherever one
    # side has no seed.

    def _save_to_state_dict(self, destination: Any, prefix: str, keep_vars: bool) -> None:
        super()._save_to_state_dict(destination, prefix, keep_vars)
        metadata = getattr(destination, "_metadata", None)
        if self._state is not None and metadata is not None:
            streams = MaskStreams(*_streams.unpack(self._state))
            metadata[prefix[:-1]]["dropwise"] = streams.state_dict()

    def _load_from_state_dict(
        self,
        state_dict: Mapping[str, Any],
        prefix: str,
        local_metadata: Mapping[str, Any],
        *arguments: Any,
    ) -> None:
        super()._load_from_state_dict(state_dict, prefix, local_metadata, *arguments)
        saved = local_metadata.get("dropwise")
        if self._state is not None and saved is not None:
            streams = as_mask_streams(saved, f"the state of {prefix[:-1] or type(self).__name__}")
            self._state = _streams.new_state(streams.key, streams.next_stream)


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

    Examples
    --------
    >>> import torch
    >>> from dropwise.torch import Dropout
    >>> drop = Dropout(0.5, seed=2)
    >>> drop(torch.arange(6.0))
    tensor([0., 2., 4., 6., 0., 0.])
    >>> drop.eval()(torch.arange(6.0))
    tensor([0., 1., 2., 3., 4., 5.])

    References
    ----------
    .. [1] Srivastava et al., "Dropout: a simple way to prevent neural networks from overfitting",
       JMLR 15 (2014).
    """

    def forward(self, input: Tensor) -> Tensor:
        """Dropout of a tensor of any shape."""
        return functional.dropout(
            input,
            self.p,
            self.training,
            self.inplace,
            state=self._state,
            row_offset=self.row_offset,
        )


class Dropout1d(_Masked, nn.Dropout1d):
    """`torch.nn.Dropout1d`: sets whole channels to zero.  For the parameters see `Dropout`.

    References
    ----------
    .. [1] Tompson et al., "Efficient object localization using convolutional networks", CVPR
       (2015).
    """

    def forward(self, input: Tensor) -> Tensor:
        """Dropout of a tensor of shape (N, C, L) or (C, L)."""
        return functional.dropout1d(
            input,
            self.p,
            self.training,
            self.inplace,
            state=self._state,
            row_offset=self.row_offset,
        )


class Dropout2d(_Masked, nn.Dropout2d):
    """`torch.nn.Dropout2d`: sets whole channels to zero.  For the parameters see `Dropout`.

    References
    ----------
    .. [1] Tompson et al., "Efficient object localization using convolutional networks", CVPR
       (2015).
    """

    def forward(self, input: Tensor) -> Tensor:
        """Dropout of a tensor of shape (N, C, H, W) or (N, C, L)."""
        return functional.dropout2d(
            input,
            self.p,
            self.training,
            self.inplace,
            state=self._state,
            row_offset=self.row_offset,
        )


class Dropout3d(_Masked, nn.Dropout3d):
    """`torch.nn.Dropout3d`: sets whole channels to zero.  For the parameters see `Dropout`.

    References
    ----------
    .. [1] Tompson et al., "Efficient object localization using convolutional networks", CVPR
       (2015).
    """

    def forward(self, input: Tensor) -> Tensor:
        """Dropout of a tensor of shape (N, C, D, H, W) or (C, D, H, W)."""
        return functional.dropout3d(
            input,
            self.p,
            self.training,
            self.inplace,
            state=self._state,
            row_offset=self.row_offset,
        )


class AlphaDropout(_Masked, nn.AlphaDropout):
    """`torch.nn.AlphaDropout`: keeps mean and variance.  For the parameters see `Dropout`.

    References
    ----------
    .. [1] Klambauer et al., "Self-normalizing neural networks", NIPS 30 (2017).
    """

    def forward(self, input: Tensor) -> Tensor:
        """Alpha dropout of a tensor of any shape."""
        return functional.alpha_dropout(
            input,
            self.p,
            self.training,
            self.inplace,
            state=self._state,
            row_offset=self.row_offset,
        )


class FeatureAlphaDropout(_Masked, nn.FeatureAlphaDropout):
    """`torch.nn.FeatureAlphaDropout`: alpha dropout of channels.  For the parameters see `Dropout`.

    References
    ----------
    .. [1] Klambauer et al., "Self-normalizing neural networks", NIPS 30 (2017).
    """

    def forward(self, input: Tensor) -> Tensor:
        """Alpha dropout of a tensor of shape (N, C, ...)."""
        return functional.feature_alpha_dropout(
            input,
            self.p,
            self.training,
            self.inplace,
            state=self._state,
            row_offset=self.row_offset,
        )


class DropPath(_Masked):
    """Stochastic depth: sets whole samples to zero.  For the parameters see `Dropout`.

    References
    ----------
    .. [1] Huang et al., "Deep networks with stochastic depth", ECCV (2016).
    """

    def forward(self, input: Tensor) -> Tensor:
        """Dropout of the samples of a tensor of shape (N, ...)."""
        return functional.drop_path(
            input,
            self.p,
            self.training,
            self.inplace,
            state=self._state,
            row_offset=self.row_offset,
        )
