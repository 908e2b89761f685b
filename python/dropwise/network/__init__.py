"""Networks: layers that are run, trained and saved together."""

from dropwise.network.checkpoint import load_checkpoint
from dropwise.network.history import Epoch
from dropwise.network.sequential import Sequential

__all__ = ["Epoch", "Sequential", "load_checkpoint"]
