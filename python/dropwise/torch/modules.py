"""The dropout modules of `torch.nn`, computed by dropwise."""

from __future__ import annotations

from torch import Tensor, nn

from dropwise.random import Seed, key_from_seed
from dropwise.torch import _ops, _streams, functional

__all__ = ["Dropout"]


class _Masked(nn.modules.dropout._DropoutNd):
    """What the modules share: where their masks come from.

    Defaults are those of the class, so that ``module.__class__ = Dropout`` makes one of a module
    of `torch.nn`.
    """

    # int64 [key, next stream] of a seed; no buffer, which checkpoints of other modules lack, and
    # which DistributedDataParallel and `to_empty` would write to.
    _state: Tensor | None = None
    row_offset: int | None = None

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

    def reseed(self, seed: Seed) -> None:
        """Start the masks of `seed`; None takes them from torch's generator."""
        self._state = None if seed is None else _streams.new_state(key_from_seed(seed))


class Dropout(_Masked, nn.Dropout):
    """`torch.nn.Dropout`."""

    def forward(self, input: Tensor) -> Tensor:
        if not self.training or self.p == 0 or not _ops.is_ours(input):
            return super().forward(input)
        result = functional.drop(input, self.p, self._state, self.row_offset)
        return input.copy_(result) if self.inplace else result
