"""Where the masks of a module come from: PyTorch's generator, or a seed of its own."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from torch import Tensor, nn

from dropwise._arguments import as_mask_streams
from dropwise.random import MaskStreams, Seed, key_from_seed
from dropwise.torch import _streams


class Seeded(nn.Module):
    """A module with masks of its own.

    The defaults are those of the class, so that ``module.__class__ = Dropout`` makes one of a
    module of `torch.nn`.
    """

    # [key, next stream] of a seed.  No buffer: models without a seed have none in their state, and
    # DistributedDataParallel and `to_empty` would write to it.
    _state: Tensor | None = None
    row_offset: int | None = None

    def reseed(self, seed: Seed) -> None:
        """Start with the first mask of `seed`; None: torch's generator decides.

        Parameters
        ----------
        seed : int, SeedSequence, Generator or None
        """
        self._state = None if seed is None else _streams.new_state(key_from_seed(seed))

    def extra_repr(self) -> str:
        parts = [text] if (text := super().extra_repr()) else []
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
