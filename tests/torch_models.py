"""A small transformer for tests of the door to PyTorch."""

from __future__ import annotations

import torch
from torch import nn


def encoder(rate: float = 0.1, **options) -> nn.TransformerEncoder:
    torch.manual_seed(0)
    layer = nn.TransformerEncoderLayer(24, 4, 48, rate, batch_first=True, **options)
    return nn.TransformerEncoder(layer, 2, enable_nested_tensor=False)


def sample(rows: int = 3) -> torch.Tensor:
    return torch.randn(rows, 10, 24, generator=torch.Generator().manual_seed(1))
