"""`torch.nn.MultiheadAttention` with dropwise's attention in training."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from dropwise.random import Seed
from dropwise.torch._attention import Layout, attend
from dropwise.torch._eager import is_eager, is_plain, next_mask
from dropwise.torch._seeded import Seeded
from dropwise.torch._tensors import DTYPES

_FLOATS = tuple(DTYPES)


class MultiheadAttention(Seeded, nn.MultiheadAttention):
    """`torch.nn.MultiheadAttention`, in less time where it drops probabilities in training.

    Parameters
    ----------
    embed_dim, num_heads, dropout, bias, add_bias_kv : as for `torch.nn.MultiheadAttention`
    add_zero_attn, kdim, vdim, batch_first, device, dtype : as for `torch.nn.MultiheadAttention`
    seed : int, SeedSequence, Generator or None
        Where masks come from; None: from torch's generator.
    row_offset : int, optional
        Index of the first sample of each call in the batch of all processes.

    Notes
    -----
    The mask of the dropout is that of the probabilities, [batch, heads, queries, keys].  Masks for
    attention, causal or not, and for padded keys are those of the base class, and a query that may
    attend to no key gets zeros, as it does there.

    The base class computes in eval mode and without dropout; with ``need_weights=True``,
    ``add_bias_kv`` or ``add_zero_attn``; for a mask that needs a gradient, or masks of unlike
    dtypes; on other devices, for nested tensors and subclasses of tensors; and under a compiler, a
    tracer or a transform of `torch.func`.  Its dropout is then PyTorch's, which takes no seed.

    References
    ----------
    .. [1] Vaswani et al., "Attention is all you need", NeurIPS (2017).

    Examples
    --------
    >>> import torch
    >>> import dropwise.torch as dt
    >>> attention = dt.MultiheadAttention(8, 2, dropout=0.1, batch_first=True, seed=0)
    >>> x = torch.ones(3, 5, 8)
    >>> attention(x, x, x, need_weights=False)[0].shape
    torch.Size([3, 5, 8])
    """

    def __init__(
        self,
        embed_dim: int,
        num_heads: int,
        dropout: float = 0.0,
        bias: bool = True,
        add_bias_kv: bool = False,
        add_zero_attn: bool = False,
        kdim: int | None = None,
        vdim: int | None = None,
        batch_first: bool = False,
        device: Any = None,
        dtype: torch.dtype | None = None,
        *,
        seed: Seed = None,
        row_offset: int | None = None,
    ) -> None:
        super().__init__(
            embed_dim,
            num_heads,
            dropout,
            bias,
            add_bias_kv,
            add_zero_attn,
            kdim,
            vdim,
            batch_first,
            device,
            dtype,
        )
        self.row_offset = row_offset
        self.reseed(seed)

    def forward(
        self,
        query: Tensor,
        key: Tensor,
        value: Tensor,
        key_padding_mask: Tensor | None = None,
        need_weights: bool = True,
        attn_mask: Tensor | None = None,
        average_attn_weights: bool = True,
        is_causal: bool = False,
    ) -> tuple[Tensor, Tensor | None]:
        """Attention of queries to keys and values, as that of `torch.nn.MultiheadAttention`.

        Parameters
        ----------
        query, key, value, key_padding_mask : as for `torch.nn.MultiheadAttention`
        need_weights, attn_mask, average_attn_weights, is_causal : likewise

        Returns
        -------
        output : Tensor, shape of `query` with embed_dim as its last size
        weights : Tensor or None
            The mean weights, with `need_weights`.
        """
        ours = (
            not need_weights
            and not (is_causal and attn_mask is None)  # which is an error
            and self._computes(query, key, value)
            and self._takes_masks(query, key, attn_mask, key_padding_mask)
        )
        if not ours:
            return super().forward(
                query,
                key,
                value,
                key_padding_mask,
                need_weights,
                attn_mask,
                average_attn_weights,
                is_causal,
            )
        projected = self._project(query, key, value)
        is_batched = query.dim() == 3
        if not is_batched:
            projected = [x.unsqueeze(0) for x in projected]
        batch_first = self.batch_first or not is_batched
        batch, queries = projected[0].shape[:2]
        if not batch_first:
            batch, queries = queries, batch
        keys = len(key) if not is_batched else key.shape[1 if batch_first else 0]
        shape = (batch, self.num_heads, queries, keys)
        mask = next_mask(self, self.dropout, shape)
        assert mask is not None
        additive = _additive_mask(shape, attn_mask, key_padding_mask, is_causal)
        y = attend(projected, Layout(self.num_heads, batch_first), mask, additive)
        y = F.linear(y, self.out_proj.weight, self.out_proj.bias)
        return y if is_batched else y.squeeze(0), None

    def _computes(self, query: Tensor, key: Tensor, value: Tensor) -> bool:
        """Whether the step of `attend` is what this module would do with such tensors."""
        if not (self.training and 0.0 < self.dropout <= 1.0 and is_eager(query)):
            return False
        if self.bias_k is not None or self.bias_v is not None or self.add_zero_attn:
            return False
        parameters = (
            self.in_proj_weight,
            self.q_proj_weight,
            self.k_proj_weight,
            self.v_proj_weight,
            self.in_proj_bias,
            self.out_proj.weight,
            self.out_proj.bias,
        )
        # What else may be wrong with the shapes, the base class says best.
        return (
            all(is_plain(x, _FLOATS) for x in (query, key, value, *parameters))
            and query.dtype == key.dtype == value.dtype
            and query.dim() in (2, 3)
            and query.dim() == key.dim() == value.dim()
            and query.numel() > 0
            and key.numel() > 0
            and key.shape[:-1] == value.shape[:-1]
            and (query.shape[-1], key.shape[-1], value.shape[-1])
            == (self.embed_dim, self.kdim, self.vdim)
            and (query.dim() == 2 or self._batch_of(query) == self._batch_of(key))
        )

    def _batch_of(self, x: Tensor) -> int:
        return x.shape[0 if self.batch_first else 1]

    def _takes_masks(
        self, query: Tensor, key: Tensor, attn_mask: Tensor | None, padding: Tensor | None
    ) -> bool:
        """Whether masks have the shapes and dtypes that they should have."""
        masks = [mask for mask in (attn_mask, padding) if mask is not None]
        dtypes = (torch.bool, query.dtype)
        if not all(is_plain(mask, dtypes) and not mask.requires_grad for mask in masks):
            return False
        if len({mask.dtype for mask in masks}) > 1:
            return False
        length_first = query.dim() == 2 or not self.batch_first
        queries, keys = (x.shape[0 if length_first else 1] for x in (query, key))
        batch = () if query.dim() == 2 else (self._batch_of(query),)
        of_all = (self.num_heads * (batch[0] if batch else 1), queries, keys)
        return (attn_mask is None or attn_mask.shape in ((queries, keys), of_all)) and (
            padding is None or padding.shape == (*batch, keys)
        )

    def _project(self, query: Tensor, key: Tensor, value: Tensor) -> list[Tensor]:
        """Queries, keys and values side by side, in as few products as there are tensors."""
        e, bias = self.embed_dim, self.in_proj_bias
        if self.in_proj_weight is not None and query is key and key is value:
            return [F.linear(query, self.in_proj_weight, bias)]
        inputs: tuple[Tensor, ...] = (query, key, value)
        sizes = [e, e, e]
        if self.in_proj_weight is None:
            weights = (self.q_proj_weight, self.k_proj_weight, self.v_proj_weight)
        else:
            if key is value:
                inputs, sizes = inputs[:2], [e, 2 * e]
            weights = torch.split(self.in_proj_weight, sizes)
        biases = [None] * len(sizes) if bias is None else torch.split(bias, sizes)
        return [F.linear(*given) for given in zip(inputs, weights, biases, strict=True)]


def _additive_mask(
    shape: tuple[int, int, int, int],
    attn_mask: Tensor | None,
    padding: Tensor | None,
    is_causal: bool,
) -> Tensor | None:
    """The sum of the masks, broadcast against [batch, heads, queries, keys]; None: no mask."""
    batch, heads, queries, keys = shape
    if is_causal and padding is None:  # what the caller says about the mask decides, as in PyTorch
        attn_mask = torch.ones(queries, keys, dtype=torch.bool, device="cpu").triu(1)
    masks = []
    if attn_mask is not None:
        of_all = attn_mask.dim() == 3
        masks.append(attn_mask.reshape(*((batch, heads) if of_all else (1, 1)), queries, keys))
    if padding is not None:
        masks.append(padding.reshape(batch, 1, 1, keys))
    floats = [
        torch.zeros(mask.shape, device="cpu").masked_fill_(mask, -torch.inf)
        if mask.dtype == torch.bool
        else mask
        for mask in masks
    ]
    return sum(floats[1:], floats[0]) if floats else None
