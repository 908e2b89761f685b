"""`convert` and `revert`: the modules of a model computed by dropwise, and by PyTorch again."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass
from typing import Any

from torch import nn

from dropwise._arguments import as_integer
from dropwise.random import Seed, seed_sequence, spawn
from dropwise.torch import modules
from dropwise.torch._layers import (
    Sequential,
    TransformerDecoderLayer,
    TransformerEncoderLayer,
    feed_forward_end,
    is_relu,
)
from dropwise.torch._multihead_attention import MultiheadAttention
from dropwise.torch._seeded import Seeded

_DROPOUTS: dict[type[nn.Module], type[nn.Module]] = {
    getattr(nn, name): getattr(modules, name) for name in modules.__all__ if hasattr(nn, name)
}
_BLOCKS: dict[type[nn.Module], type[nn.Module]] = {
    nn.TransformerEncoderLayer: TransformerEncoderLayer,
    nn.TransformerDecoderLayer: TransformerDecoderLayer,
    nn.Sequential: Sequential,
}
_SWAPS = {**_DROPOUTS, nn.MultiheadAttention: MultiheadAttention, **_BLOCKS}
_ORIGINALS = {ours: theirs for theirs, ours in _SWAPS.items()}
# In the instance, so that copies and pickles have it.
_MARK = "_converted"


@dataclass(frozen=True)
class Conversion:
    """What `convert` has done.

    Parameters
    ----------
    swapped : dict of str to str
        Names of modules, and the classes that they had.
    kept : dict of str to str
        Names of modules that stay as they are, and why.
    """

    swapped: dict[str, str]
    kept: dict[str, str]

    def __repr__(self) -> str:
        counts = Counter(self.swapped.values())
        lines = [_counted(len(self.swapped), "converted", "converted") + (":" if counts else "")]
        lines += [f"  {n} {name}" for name, n in counts.items()]
        if self.kept:
            lines.append(_counted(len(self.kept), "stays as it is:", "stay as they are:"))
            lines += [f"  {name or 'the model'}: {why}" for name, why in self.kept.items()]
        return "\n".join(lines)


def _counted(n: int, one: str, many: str) -> str:
    return f"{n} module {one}" if n == 1 else f"{n} modules {many}"


def convert(
    model: nn.Module,
    *,
    seed: Seed = None,
    row_offset: int | None = None,
    attention: bool = True,
    feed_forward: bool = True,
) -> Conversion:
    """Let dropwise compute the dropout, attention and feed-forward blocks of a model.

    Parameters
    ----------
    model : nn.Module
        Changed in place: modules of exactly these classes become their counterparts here.

        * the dropouts of `torch.nn`;
        * `torch.nn.MultiheadAttention`, if `attention`;
        * `torch.nn.TransformerEncoderLayer` and `TransformerDecoderLayer`, if `feed_forward`, whose
          block of two linear layers becomes one step;
        * `torch.nn.Sequential`, likewise, if it has a linear layer, ReLU, dropout and a linear
          layer in a row.
    seed : int, SeedSequence, Generator or None
        None draws masks from torch's generator, as PyTorch does.  Otherwise each module gets a key
        of its own, which follows from the seed and its place among the model's modules.
    row_offset : int, optional
        Index of the first row of each call in the batch of all processes.
    attention, feed_forward : bool
        Whether these are converted.

    Returns
    -------
    Conversion
        Which modules were swapped, and which were not and why.

    See Also
    --------
    revert : Undo it.

    Notes
    -----
    A module keeps its identity: parameters, buffers, hooks, optimizers and the keys of state
    dictionaries stay what they are, and so do results in eval mode.  Copies and pickles are
    converted, too; a pickle then needs dropwise where it is loaded.  Subclasses are left alone:
    what they compute is theirs.  Calls of ``F.dropout`` in a module cannot be seen from outside.

    Examples
    --------
    >>> import dropwise.torch as dt
    >>> from torch import nn
    >>> model = nn.Sequential(nn.Linear(8, 32), nn.ReLU(), nn.Dropout(0.5), nn.Linear(32, 2))
    >>> dt.convert(model)
    2 modules converted:
      1 Sequential
      1 Dropout
    """
    if not isinstance(model, nn.Module):
        raise TypeError(f"model must be a torch.nn.Module, got {type(model).__name__}")
    if row_offset is not None:
        number = as_integer(row_offset, "row_offset")
        if number < 0:
            raise ValueError(f"row_offset must be in [0, 2**64), got {row_offset!r}")
    sequence = None if seed is None else seed_sequence(seed)
    unwanted: set[type[nn.Module]] = set() if feed_forward else set(_BLOCKS)
    if not attention:
        unwanted.add(nn.MultiheadAttention)
    swapped: dict[str, str] = {}
    kept: dict[str, str] = {}
    for i, (name, module) in enumerate(model.named_modules()):
        theirs = type(module)
        if theirs not in _SWAPS:
            base = _swappable_base(module)
            if base is not None:
                kept[name] = f"{theirs.__name__} is a subclass of {base.__name__}"
            continue
        if theirs in unwanted or (theirs is nn.Sequential and not _has_feed_forward(module)):
            continue
        reason = _obstacle(module)
        if reason is not None:
            kept[name] = reason
            continue
        module.__class__ = _SWAPS[theirs]
        module.__dict__[_MARK] = True
        if isinstance(module, Seeded):
            module.row_offset = row_offset
            module.reseed(None if sequence is None else spawn(sequence, i))
        swapped[name] = theirs.__name__
    return Conversion(swapped, kept)


def revert(model: nn.Module) -> None:
    """Make the modules that `convert` has swapped those of PyTorch again.

    Parameters
    ----------
    model : nn.Module
        Changed in place.  Modules of `dropwise.torch` that were built as such stay.

    Examples
    --------
    >>> import dropwise.torch as dt
    >>> from torch import nn
    >>> model = nn.Sequential(nn.Dropout(0.5))
    >>> report = dt.convert(model)
    >>> dt.revert(model)
    >>> type(model[0]) is nn.Dropout
    True
    """
    for module in model.modules():
        if module.__dict__.get(_MARK) and type(module) in _ORIGINALS:
            module.__class__ = _ORIGINALS[type(module)]
            for name in (_MARK, "_state", "row_offset"):
                module.__dict__.pop(name, None)


def _swappable_base(module: nn.Module) -> type[nn.Module] | None:
    """The class that would be swapped, if that of the module is a subclass of one."""
    if type(module) in _ORIGINALS or isinstance(module, nn.Sequential):
        return None
    return next((base for base in type(module).__mro__ if base in _SWAPS), None)


def _has_feed_forward(module: Any) -> bool:
    children = list(module)
    return any(feed_forward_end(children, i) > i for i in range(len(children)))


def _obstacle(module: Any) -> str | None:
    """Why the class of this module cannot be swapped with any effect."""
    if "forward" in module.__dict__:
        return "has a forward of its own"
    if isinstance(module, nn.MultiheadAttention):
        if module.dropout == 0:
            return "has no dropout"
        if module.bias_k is not None or module.add_zero_attn:
            return "add_bias_kv and add_zero_attn are PyTorch's"
    transformers = (nn.TransformerEncoderLayer, nn.TransformerDecoderLayer)
    if isinstance(module, transformers) and not is_relu(module.activation):
        return "its activation is not ReLU"
    return None
