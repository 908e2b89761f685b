"""`cs231n` for the course's editions of 2016 and 2017, where "p" is the probability of dropping.

Put ``from dropwise.textbook.cs231n_2017 import *`` at the end of ``cs231n/layers.py``.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from dropwise._backends.protocol import Array
from dropwise.textbook import cs231n
from dropwise.textbook.cs231n import (
    DropoutCache,
    affine_backward,
    affine_forward,
    dropout_backward,
    relu_backward,
    relu_forward,
)

__all__ = [
    "affine_backward",
    "affine_forward",
    "dropout_backward",
    "dropout_forward",
    "relu_backward",
    "relu_forward",
]


def dropout_forward(x: Array, dropout_param: Mapping[str, Any]) -> tuple[Array, DropoutCache]:
    """Inverted dropout, as `cs231n.dropout_forward` with ``p_is="drop"``."""
    return cs231n.dropout_forward(x, dropout_param, p_is="drop")
