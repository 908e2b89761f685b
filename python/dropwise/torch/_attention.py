"""Attention whose softmax, dropout and products are one step that keeps a mask of bits.

PyTorch's fused attention for the CPU has no dropout, so in training PyTorch goes through whole
tensors of probabilities several times.  Here a few samples at a time go through all steps, and what
passes between the steps stays in cache.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor

from dropwise import _memory
from dropwise._backends import active
from dropwise._backends.protocol import Product
from dropwise._dtypes import F32, F64, rate_and_scale
from dropwise.torch._eager import differentiable_gradients
from dropwise.torch._tensors import Mask

# Samples at a time for each thread, if there are several: a change of threads costs some 5 us.
_SAMPLES_PER_THREAD = 2


class Layout(NamedTuple):
    """How heads lie in tensors [batch, length, features]."""

    heads: int
    batch_first: bool  # else the tensors are [length, batch, features]

    def split(self, tensors: Sequence[Tensor], parts: int) -> list[Tensor]:
        """Views [batch, heads, length, head size] of that many parts of equal width, which lie side
        by side in the last dimension of one tensor or of several.
        """
        width = sum(x.shape[-1] for x in tensors) // parts
        found: list[Tensor] = []
        for x in tensors:
            sizes = x.shape[-1] // width, self.heads, width // self.heads
            x = torch.unflatten(x, -1, sizes)
            found += x.permute(2, 0, 3, 1, 4) if self.batch_first else x.permute(2, 1, 3, 0, 4)
        return found

    def join(self, x: Tensor) -> Tensor:
        """The tensor [..., features] of a part [batch, heads, length, head size]."""
        return (x.permute(0, 2, 1, 3) if self.batch_first else x.permute(2, 0, 1, 3)).flatten(2)


def attend(
    projected: Sequence[Tensor], layout: Layout, mask: Mask, additive: Tensor | None
) -> Tensor:
    """``dropout(softmax(q @ k.T / sqrt(head size) + additive)) @ v`` for each sample and head.

    Parameters
    ----------
    projected : sequence of Tensor
        Queries, keys and values side by side: in one tensor, in two or in three.
    layout : Layout
    mask : Mask
        Of the dropout, over [batch, heads, queries, keys].
    additive : Tensor, optional
        Broadcast against [batch, heads, queries, keys].  A query for which all of it is -inf
        attends to nothing: its result is zero.

    Returns
    -------
    Tensor
        Laid out as the queries, and of their dtype.

    Notes
    -----
    The result does not depend on the number of threads.
    """
    blank = None
    if additive is not None:
        rows = (additive == -torch.inf).all(-1, keepdim=True)
        blank = rows if rows.any() else None
    return _apply(layout, mask, additive, blank, *projected)


class _Steps:
    """What forward and backward share: sizes, pieces of some samples, memory for a piece."""

    def __init__(self, q: Tensor, k: Tensor) -> None:
        self.batch, self.heads, self.queries, self.size = q.shape
        self.keys = k.shape[2]
        self.alpha: float = self.size**-0.5
        self.dtype = F64 if q.dtype == torch.float64 else F32
        threads = torch.get_num_threads()
        wanted = 1 if threads == 1 else _SAMPLES_PER_THREAD * threads
        self.samples = max(1, min(self.batch, wanted))  # of a piece; the last one may have fewer
        self.elements = self.queries * self.keys  # of a head
        self.bytes = (self.elements + 7) >> 3  # of its packed mask

    def matrices(self, samples: int, rows: int, columns: int) -> Tensor:
        """A matrix for each head of so many samples."""
        return torch.from_numpy(_memory.empty((samples, self.heads, rows, columns), self.dtype))

    def pieces(self) -> list[tuple[slice, int]]:
        """The samples of each piece, and how many matrices these have."""
        starts = range(0, self.batch, self.samples)
        ends = [min(start + self.samples, self.batch) for start in starts]
        return [(slice(a, b), (b - a) * self.heads) for a, b in zip(starts, ends, strict=True)]

    def runs(self, piece: slice) -> list[tuple[slice, slice, slice]]:
        """Runs of elements in a piece whose mask starts with a whole byte.

        For each the elements counted within the piece, those counted from the first sample on, and
        the bytes of its mask.
        """
        first, end = piece.start * self.heads, piece.stop * self.heads
        step = 1 if self.elements % 8 else end - first
        found = []
        for head in range(first, end, step):
            found.append(
                (
                    _run(head - first, step, self.elements),
                    _run(head, step, self.elements),
                    _run(head, step, self.bytes),
                )
            )
        return found


def _run(first: int, heads: int, size: int) -> slice:
    return slice(first * size, (first + heads) * size)


def _products(a: Tensor, b: Tensor, out: Tensor, skip: str = "") -> list[Product]:
    """``out = a @ b`` for each head of each sample."""
    x, y, z = a.numpy(), b.numpy(), out.numpy()
    return [Product(x[i], y[i], z[i], skip=skip) for i in np.ndindex(x.shape[:2])]


class _Attention(torch.autograd.Function):
    """`attend`, with the queries that attend to nothing as a tensor of bool, or None."""

    @staticmethod
    def forward(
        ctx: Any,
        layout: Layout,
        mask: Mask,
        additive: Tensor | None,
        blank: Tensor | None,
        *projected: Tensor,
    ) -> Tensor:
        parts = layout.split([x.detach() for x in projected], 3)
        steps = _Steps(*parts[:2])
        shape = (steps.batch, steps.heads, steps.queries, steps.keys)
        probabilities = steps.matrices(steps.batch, *shape[2:])
        bits = _memory.empty_bits(8 * steps.batch * steps.heads * steps.bytes)
        scale = rate_and_scale(mask.rate, "inverted", True, steps.dtype)[1]
        result = projected[0].new_empty((*projected[0].shape[:2], steps.heads * steps.size))
        (out,) = layout.split([result], 1)

        q, k, v = (steps.matrices(steps.samples, *x.shape[2:]) for x in parts)
        scores, y = steps.matrices(steps.samples, *shape[2:]), torch.empty_like(q)
        first = _products(q, k.mT, scores)
        second = _products(scores, v, y, skip="a")
        of_all, of_piece = probabilities.numpy().reshape(-1), scores.numpy().reshape(-1)
        backend = active()
        for piece, matrices in steps.pieces():
            n = piece.stop - piece.start
            for part, x in zip(parts, (q, k, v), strict=True):
                x[:n].copy_(part[piece])
            q.mul_(steps.alpha)
            backend.multiply(first[:matrices])
            if additive is not None:
                scores[:n].add_(additive.expand(shape)[piece])
            torch.softmax(scores[:n], -1, out=probabilities[piece])
            if blank is not None:
                probabilities[piece].masked_fill_(blank.expand(shape)[piece], 0.0)
            for here, there, packed in steps.runs(piece):
                backend.dropout_forward(
                    of_all[there],
                    of_piece[here],
                    bits[packed],
                    mask.rate,
                    scale,
                    mask.key,
                    mask.stream,
                    mask.offset + there.start,
                )
            backend.multiply(second[:matrices])
            out[piece].copy_(y[:n])
        ctx.layout, ctx.scale = layout, scale
        ctx.save_for_backward(additive, blank, probabilities, torch.from_numpy(bits), *projected)
        return result

    @staticmethod
    def backward(ctx: Any, dy: Tensor) -> tuple[Tensor | None, ...]:
        additive, blank, probabilities, bits, *projected = ctx.saved_tensors
        layout, scale, wanted = ctx.layout, ctx.scale, ctx.needs_input_grad[4:]
        if torch.is_grad_enabled():
            gradients = differentiable_gradients(
                lambda *projected: _masked(layout, scale, additive, blank, bits, projected),
                projected,
                wanted,
                dy,
            )
            return None, None, None, None, *gradients
        parts = layout.split(projected, 3)
        (dout,) = layout.split([dy], 1)
        steps = _Steps(*parts[:2])
        gradients = [torch.empty_like(x, memory_format=torch.contiguous_format) for x in projected]
        of_parts = layout.split(gradients, 3)

        inputs = (*parts, dout)
        q, k, v, dz = (steps.matrices(steps.samples, *x.shape[2:]) for x in inputs)
        dq, dk, dv = (torch.empty_like(x) for x in (q, k, v))
        dropped = steps.matrices(steps.samples, steps.queries, steps.keys)
        dp = torch.empty_like(dropped)
        for_dv = _products(dropped.mT, dz, dv, skip="a")
        for_dp = _products(dz, v.mT, dp)
        ds = dropped  # whose values for_dv has read
        for_dq, for_dk = _products(ds, k, dq), _products(ds.mT, q, dk)
        of_all, of_piece = probabilities.numpy().reshape(-1), dropped.numpy().reshape(-1)
        packed_bits = bits.numpy()
        backend = active()
        for piece, matrices in steps.pieces():
            n = piece.stop - piece.start
            for part, x in zip(inputs, (q, k, v, dz), strict=True):
                x[:n].copy_(part[piece])
            q.mul_(steps.alpha)
            k.mul_(steps.alpha)
            for here, there, packed in steps.runs(piece):
                backend.apply_bits(of_all[there], of_piece[here], packed_bits[packed], scale)
            start = piece.start * steps.heads
            for head, product in enumerate(for_dp[:matrices], start):
                product.bits = packed_bits[head * steps.bytes : (head + 1) * steps.bytes]
                product.scale = scale
            backend.multiply(for_dv[:matrices] + for_dp[:matrices])
            torch._softmax_backward_data(
                dp[:n], probabilities[piece], -1, dp.dtype, grad_input=ds[:n]
            )
            backend.multiply(for_dq[:matrices] + for_dk[:matrices])
            for part, x in zip(of_parts, (dq, dk, dv), strict=True):
                part[piece].copy_(x[:n])
        return None, None, None, None, *gradients


_apply: Callable[..., Tensor] = _Attention.apply


def _masked(
    layout: Layout,
    scale: float,
    additive: Tensor | None,
    blank: Tensor | None,
    bits: Tensor,
    projected: Sequence[Tensor],
) -> Tensor:
    """The same from PyTorch's functions, with a known mask."""
    q, k, v = layout.split(projected, 3)
    steps = _Steps(q, k)
    wide = torch.float64 if q.dtype == torch.float64 else torch.float32
    scores = (q.to(wide) * steps.alpha) @ k.to(wide).mT
    if additive is not None:
        scores = scores + additive
    if blank is not None:
        scores = scores.masked_fill(blank, 0.0)  # whose softmax has derivatives, unlike NaN
    probabilities = scores.softmax(-1)
    rows = bits.numpy().reshape(-1, steps.bytes)
    kept = np.unpackbits(rows, axis=1, count=steps.elements, bitorder="little").view(np.bool_)
    keep = torch.from_numpy(kept).view(probabilities.shape)
    if blank is not None:
        keep = keep & ~blank
    dropped = torch.where(keep, probabilities * scale, 0.0)
    return layout.join(dropped @ v.to(wide)).to(q.dtype)
