"""Dropout of tensors, with the names and the arguments of `torch.nn.functional`.

All functions share the keyword arguments `state` and `row_offset`; see `dropout`.  Tensors on other
devices than the CPU, of other dtypes than float32, float64, float16 and bfloat16, sparse ones and
those of a subclass go to PyTorch's own functions, which know neither.
"""

from __future__ import annotations

from torch import Tensor

# By name: a program may put the functions of this file in the place of those of `torch.nn`.
from torch.nn.functional import alpha_dropout as torch_alpha_dropout
from torch.nn.functional import dropout as torch_dropout
from torch.nn.functional import dropout1d as torch_dropout1d
from torch.nn.functional import dropout2d as torch_dropout2d
from torch.nn.functional import dropout3d as torch_dropout3d
from torch.nn.functional import feature_alpha_dropout as torch_feature_alpha_dropout

from dropwise._dtypes import F64, alpha_constants
from dropwise.random import Seed, key_from_seed
from dropwise.torch import _streams
from dropwise.torch._autograd import drop, when_traced
from dropwise.torch._tensors import is_ours

__all__ = [
    "alpha_dropout",
    "drop_path",
    "dropout",
    "dropout1d",
    "dropout2d",
    "dropout3d",
    "feature_alpha_dropout",
    "new_state",
]


def new_state(seed: Seed) -> Tensor:
    """The masks of a seed, for the argument `state` of the functions here.

    Parameters
    ----------
    seed : int, SeedSequence, Generator or None
        None takes fresh entropy.

    Returns
    -------
    Tensor of int64, shape (2,)
        The key of the mask contract and the next stream, 0.  Each call that gets the tensor counts
        the stream up.
    """
    return _streams.new_state(key_from_seed(seed))


def dropout(
    input: Tensor,
    p: float = 0.5,
    training: bool = True,
    inplace: bool = False,
    *,
    state: Tensor | None = None,
    row_offset: int | None = None,
) -> Tensor:
    """Set elements to zero at random and multiply those that are kept by ``1 / (1 - p)``.

    Parameters
    ----------
    input : Tensor, any shape
    p : float in [0, 1]
        Probability that an element is dropped.
    training : bool
        Without it the result is `input` itself.
    inplace : bool
        Write the result to `input`.
    state : Tensor, optional
        The masks of a seed, from `new_state`.  None: torch's generator decides, as it does for
        `torch.nn.functional.dropout`.
    row_offset : int, optional
        Index of the first row of `input` (along dimension 0) in the batch of which it is a part.
        With a `state` and without this, each rank of `torch.distributed` has masks of its own.

    Returns
    -------
    Tensor, shape, dtype and memory format of `input`
        Dropped elements are +0.0, even where `input` is NaN or infinite.

    Raises
    ------
    ValueError
        If `p` is not in [0, 1].
    RuntimeError
        If there is a `state` and this runs in activation checkpointing, which would run it twice,
        or in `torch.vmap`.

    Notes
    -----
    The mask is that of `dropwise.functional.dropout_mask`: it depends on the generator (or the
    seed and the number of the call) and the C-order index of an element only, not on strides,
    dtype, threads or CPU.

    References
    ----------
    .. [1] Srivastava et al., "Dropout: a simple way to prevent neural networks from overfitting",
       JMLR 15 (2014).

    Examples
    --------
    >>> import torch
    >>> from dropwise.torch import functional as F
    >>> F.dropout(torch.arange(6.0), 0.5, state=F.new_state(2))
    tensor([0., 2., 4., 6., 0., 0.])
    """
    if not training or p == 0 or not is_ours(input):
        return torch_dropout(input, p, training, inplace)
    result = drop(input, p, state, row_offset)
    return input.copy_(result) if inplace else result


def dropout1d(
    input: Tensor,
    p: float = 0.5,
    training: bool = True,
    inplace: bool = False,
    *,
    state: Tensor | None = None,
    row_offset: int | None = None,
) -> Tensor:
    """`dropout` of whole channels of an input of shape (N, C, L) or (C, L).

    Parameters
    ----------
    input, p, training, inplace, state, row_offset : as for `dropout`

    Returns
    -------
    Tensor, shape, dtype and memory format of `input`
    """
    if not training or p == 0 or not is_ours(input):
        return torch_dropout1d(input, p, training, inplace)
    torch_dropout1d(input, training=False)  # PyTorch's checks of the shape, and nothing else
    result = _drop_channels(input, p, state, row_offset, unbatched=input.dim() == 2)
    return input.copy_(result) if inplace else result


def dropout2d(
    input: Tensor,
    p: float = 0.5,
    training: bool = True,
    inplace: bool = False,
    *,
    state: Tensor | None = None,
    row_offset: int | None = None,
) -> Tensor:
    """`dropout` of whole channels of an input of shape (N, C, H, W) or (N, C, L).

    Parameters
    ----------
    input, p, training, inplace, state, row_offset : as for `dropout`

    Returns
    -------
    Tensor, shape, dtype and memory format of `input`
    """
    if not training or p == 0 or not is_ours(input):
        return torch_dropout2d(input, p, training, inplace)
    torch_dropout2d(input, training=False)  # as in `dropout1d`
    result = _drop_channels(input, p, state, row_offset)
    return input.copy_(result) if inplace else result


def dropout3d(
    input: Tensor,
    p: float = 0.5,
    training: bool = True,
    inplace: bool = False,
    *,
    state: Tensor | None = None,
    row_offset: int | None = None,
) -> Tensor:
    """`dropout` of whole channels of an input of shape (N, C, D, H, W) or (C, D, H, W).

    Parameters
    ----------
    input, p, training, inplace, state, row_offset : as for `dropout`

    Returns
    -------
    Tensor, shape, dtype and memory format of `input`
    """
    if not training or p == 0 or not is_ours(input):
        return torch_dropout3d(input, p, training, inplace)
    torch_dropout3d(input, training=False)  # as in `dropout1d`
    result = _drop_channels(input, p, state, row_offset, unbatched=input.dim() != 5)
    return input.copy_(result) if inplace else result


def drop_path(
    input: Tensor,
    p: float = 0.5,
    training: bool = True,
    inplace: bool = False,
    *,
    state: Tensor | None = None,
    row_offset: int | None = None,
) -> Tensor:
    """`dropout` of whole samples, along dimension 0: stochastic depth.

    Parameters
    ----------
    input, p, training, inplace, state, row_offset : as for `dropout`

    Returns
    -------
    Tensor, shape, dtype and memory format of `input`

    References
    ----------
    .. [1] Huang et al., "Deep networks with stochastic depth", ECCV (2016).
    """
    if not training or p == 0:
        return input
    noise_shape = (*input.shape[:1], *(1,) * (input.dim() - 1))
    if is_ours(input):
        result = drop(input, p, state, row_offset, noise_shape)
    else:
        result = input * torch_dropout(input.new_ones(noise_shape), p)
    return input.copy_(result) if inplace else result


def alpha_dropout(
    input: Tensor,
    p: float = 0.5,
    training: bool = False,
    inplace: bool = False,
    *,
    state: Tensor | None = None,
    row_offset: int | None = None,
) -> Tensor:
    """Dropout that keeps the mean and the variance of standardised inputs.

    Parameters
    ----------
    input, p, training, inplace, state, row_offset : as for `dropout`

    Returns
    -------
    Tensor, shape, dtype and memory format of `input`

    Notes
    -----
    What is dropped becomes the constant, and what is kept the linear function, of
    `dropwise.AlphaDropout`.

    References
    ----------
    .. [1] Klambauer et al., "Self-normalizing neural networks", NIPS 30 (2017).
    """
    if not training or p == 0 or not is_ours(input):
        return torch_alpha_dropout(input, p, training, inplace)
    result = _alpha(input, p, state, row_offset, None)
    return input.copy_(result) if inplace else result


def feature_alpha_dropout(
    input: Tensor,
    p: float = 0.5,
    training: bool = False,
    inplace: bool = False,
    *,
    state: Tensor | None = None,
    row_offset: int | None = None,
) -> Tensor:
    """`alpha_dropout` of whole channels of an input of shape (N, C, ...).

    Parameters
    ----------
    input, p, training, inplace, state, row_offset : as for `dropout`

    Returns
    -------
    Tensor, shape, dtype and memory format of `input`
    """
    if not training or p == 0 or not is_ours(input):
        return torch_feature_alpha_dropout(input, p, training, inplace)
    result = _alpha(input, p, state, row_offset, _channels(input))
    return input.copy_(result) if inplace else result


def _drop_channels(
    x: Tensor, p: float, state: Tensor | None, row_offset: int | None, unbatched: bool = False
) -> Tensor:
    if unbatched:
        return _drop_channels(x.unsqueeze(0), p, state, row_offset).squeeze(0)
    return drop(x, p, state, row_offset, _channels(x))


def _channels(x: Tensor) -> tuple[int, ...]:
    """The shape of a mask of channels, those of an input of shape (N, C, ...)."""
    if x.dim() < 2:
        raise RuntimeError("Feature dropout requires at least 2 dimensions in the input")
    return (*x.shape[:2], *(1,) * (x.dim() - 2))


def _alpha(
    x: Tensor,
    p: float,
    state: Tensor | None,
    row_offset: int | None,
    noise_shape: tuple[int, ...] | None,
) -> Tensor:
    if not 0.0 <= p <= 1.0:
        raise ValueError(f"dropout probability has to be between 0 and 1, but got {p}")
    before, factor, dropped = _alpha_constants(p)
    return drop(x + before, p, state, row_offset, noise_shape) * factor + dropped


@when_traced
def _alpha_constants(p: float) -> tuple[float, float, float]:
    """What alpha dropout adds before dropout, multiplies by, and adds after it.

    ``scale * x + shift`` is ``scale * (x + (shift - dropped) / scale) + dropped``, and dropout,
    with a scale of its own, makes zeros of the first summand.
    """
    _, scale, shift, dropped = alpha_constants(p, True, F64)
    return (shift - dropped) / scale, scale * (1.0 - p) if p < 1.0 else 1.0, dropped
