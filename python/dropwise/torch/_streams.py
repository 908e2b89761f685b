"""Where the key and the stream of a call come from: torch's generator, or a seed of its own.

Without a seed a call draws both at once, as `torch.randint` would, so that `torch.manual_seed`,
`fork_rng` and activation checkpointing act on masks as they do on those of `torch.nn.Dropout`.
With a seed they are ``[key, next stream]``, an int64 tensor that each call counts up.
"""

from __future__ import annotations

import functools
import threading

import torch
from torch import Tensor

from dropwise.random import STREAM_END, spawned_key

_KEY_BITS = (1 << 64) - 1
CPU = torch.device("cpu")  # whatever the default device is
_lock = threading.Lock()


class _Drawn(threading.local):
    """Where a thread's draws go: a new tensor for each would take half of the time of a draw."""

    def __init__(self) -> None:
        with torch.inference_mode(False):  # else only inference could write to it
            pair = torch.empty(2, dtype=torch.int64, device=CPU)
        self.fill_and_read = pair.random_, pair.numpy().tolist


_drawn = _Drawn()


def new_state(key: int, next_stream: int = 0) -> Tensor:
    """The state of a seed: int64, ``[key, next stream]``, the key by its two's complement."""
    return torch.tensor([as_signed(key), next_stream], dtype=torch.int64, device=CPU)


def as_signed(key: int) -> int:
    """A 64-bit key as the int64 of the same bits, which is what tensors and operators take."""
    return key - (1 << 64) if key >> 63 else key


def unpack(state: Tensor) -> tuple[int, int]:
    """The key and the stream of an int64 tensor of two."""
    key, stream = state.tolist()
    return key & _KEY_BITS, stream


def draw() -> tuple[int, int]:
    """A key and a stream of torch's generator for the CPU: ``torch.randint(STREAM_END, (2,))``."""
    fill, read = _drawn.fill_and_read
    fill()  # 63 bits each, of which randint takes the lowest
    key, stream = read()
    return key % STREAM_END, stream % STREAM_END


def take(state: Tensor, by_rank: bool) -> tuple[int, int]:
    """The key and the next stream of a seed, which is counted as used.

    Where torch.distributed runs, each rank has a key of its own, unless its rows have their place
    in the batch of all.
    """
    if torch._C._current_graph_task_id() != -1:
        raise RuntimeError(
            "a dropout with seed=int ran forward inside a backward pass, as activation "
            "checkpointing does: it would use another mask there.  Use seed=None"
        )
    numbers = state.numpy()
    with _lock:
        key, stream = numbers.tolist()
        if not 0 <= stream < STREAM_END:
            raise RuntimeError("all 2**56 streams of this seed have been used; take another one")
        numbers[1] = stream + 1
    key &= _KEY_BITS
    return key_of_rank(key, _rank()) if by_rank else key, stream


def _rank() -> int:
    distributed = torch.distributed
    if distributed.is_available() and distributed.is_initialized():
        return distributed.get_rank()
    return 0


@functools.lru_cache(maxsize=1024)
def key_of_rank(key: int, rank: int) -> int:
    """The key that a rank uses for this seed: rank 0 that of a run without ranks."""
    return spawned_key(key, 0, rank) if rank else key
