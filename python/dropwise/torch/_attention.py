"""Attention whose softmax, dropout and products are one step that keeps a mask of bits.

PyTorch's fused attention for the CPU has no dropout, so in training PyTorch goes through whole
tensors of probabilities several times.  Here a few samples at a time go through all steps, and what
passes between the steps stays in cache.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor

from dropwise import _memory
from dropwise._backends import active
from dropwise._backends.protocol import Product
from dropwise._dtypes import F32, F64, rate_and_scale
from dropwise.torch._eager import differentiable_gradients
from dropwise.torch._tensors import Mask, saved_bits

# Probabilities that go through all steps together, for each thread: 256 KiB stay in cache, and one
# sample may be too few for the time of the calls.  With several threads twice as many, since each
# step costs them 5 us.
_PIECE = 1 << 16

# Probabilities of a head up to which PyTorch's products of many matrices take less time.
_SMALL = 1 << 13


class Layout(NamedTuple):
    """How heads lie in tensors [batch, length, features]."""

    heads: int
    batch_first: bool  # else the tensors are [length, batch, features]

    def views(self, tensors: Sequence[Tensor], parts: int) -> list[Tensor]:
        """For each tensor a view [parts in it, batch, heads, length, head size].

        That many parts of equal width lie side by side in the last dimension of the tensors.
        """
        width = sum(x.shape[-1] for x in tensors) // parts
        found = []
        for x in tensors:
            sizes = x.shape[-1] // width, self.heads, width // self.heads
            x = torch.unflatten(x, -1, sizes)
            found.append(x.permute(2, 0, 3, 1, 4) if self.batch_first else x.permute(2, 1, 3, 0, 4))
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
    The mask does not depend on the number of threads, and the result only by rounding.
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
        self.elements = self.queries * self.keys  # of a head
        threads = torch.get_num_threads()
        wanted = _PIECE * (1 if threads == 1 else 2 * threads)
        samples = wanted // (self.heads * self.elements)
        self.samples = max(1, min(self.batch, samples))  # of a piece; the last one may have fewer
        self.bytes = (self.elements + 7) >> 3  # of its packed mask

    def empty(self, *shape: int) -> Tensor:
        """Memory of that shape, in the dtype of the computation."""
        return torch.from_numpy(_memory.empty(shape, self.dtype))

    def empty_piece(self, view: Tensor) -> Tensor:
        """Memory for a piece of a view from `Layout.views`, in C order."""
        return self.empty(len(view), self.samples, *view.shape[2:])

    def pieces(self, *views: Tensor) -> Iterator[tuple[int, int, tuple[Tensor, ...]]]:
        """First sample and number of samples of each piece, and those of the views."""
        parts = [view.split(self.samples, dim=-4) for view in views]  # type: ignore[no-untyped-call]
        for i, piece in enumerate(zip(*parts, strict=True)):
            yield i * self.samples, piece[0].shape[-4], piece

    def runs(self, first: int, samples: int) -> list[tuple[slice, slice, slice]]:
        """Runs of elements in a piece whose mask starts with a whole byte.

        For each the elements counted within the piece, those counted from the first sample on, and
        the bytes of its mask.
        """
        start, end = first * self.heads, (first + samples) * self.heads
        step = 1 if self.elements % 8 else end - start
        return [
            (
                _run(head - start, step, self.elements),
                _run(head, step, self.elements),
                _run(head, step, self.bytes),
            )
            for head in range(start, end, step)
        ]


def _run(first: int, heads: int, size: int) -> slice:
    return slice(first * size, (first + heads) * size)


def _first(x: Tensor, samples: int) -> Tensor:
    """That many samples of memory for a piece."""
    return x if samples == x.shape[-4] else x.narrow(-4, 0, samples)


class _Products:
    """``out = a @ b`` for each head of a piece, past the zeros of `a` if `skip` says so.

    Small matrices are PyTorch's, all heads in one call.
    """

    def __init__(self, steps: _Steps, a: Tensor, b: Tensor, out: Tensor, skip: str = "") -> None:
        self._heads = steps.heads
        self._products: list[Product] = []
        self._matrices = tuple(x.flatten(0, 1) for x in (a, b, out))
        if steps.elements >= _SMALL:
            x, y, z = (matrices.numpy() for matrices in self._matrices)
            self._products = [Product(*given, skip=skip) for given in zip(x, y, z, strict=True)]

    def compute(self, samples: int) -> None:
        """The products of the first samples of the piece."""
        n = samples * self._heads
        if self._products:
            active().multiply(self._products[:n])
        else:
            a, b, out = (x if len(x) == n else x[:n] for x in self._matrices)
            torch.bmm(a, b, out=out)


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
        inputs = layout.views([x.detach() for x in projected], 3)
        steps = _Steps(*_parts(inputs)[:2])
        shape = (steps.batch, steps.heads, steps.queries, steps.keys)
        probabilities = steps.empty(*shape)
        bits = _memory.empty_bits(8 * steps.batch * steps.heads * steps.bytes)
        scale = rate_and_scale(mask.rate, "inverted", True, steps.dtype)[1]
        result = projected[0].new_empty((*projected[0].shape[:2], steps.heads * steps.size))

        loaded = [steps.empty_piece(view) for view in inputs]
        q, k, v = _parts(loaded)
        scores, y = steps.empty(steps.samples, *shape[1:]), torch.empty_like(q)
        to_scores = _Products(steps, q, k.mT, scores)
        to_result = _Products(steps, scores, v, y, skip="a")
        of_all, of_piece = probabilities.numpy().reshape(-1), scores.numpy().reshape(-1)
        backend = active()
        views = (probabilities, *layout.views([result], 1), *inputs)
        for start, n, (p, out, *given) in steps.pieces(*views):
            for memory, view in zip(loaded, given, strict=True):
                _first(memory, n).copy_(view)
            q.mul_(steps.alpha)
            to_scores.compute(n)
            s = _first(scores, n)
            if additive is not None:
                s.add_(additive.expand(shape)[start : start + n])
            torch.softmax(s, -1, out=p)
            if blank is not None:
                p.masked_fill_(blank.expand(shape)[start : start + n], 0.0)
            for here, there, packed in steps.runs(start, n):
                offset = mask.offset + there.start
                backend.dropout_forward(
                    of_all[there],
                    of_piece[here],
                    bits[packed],
                    mask.rate,
                    scale,
                    mask.key,
                    mask.stream,
                    offset,
                )
            to_result.compute(n)
            out[0].copy_(_first(y, n))
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
        gradients = [torch.empty_like(x, memory_format=torch.contiguous_format) for x in projected]
        inputs = [*layout.views(projected, 3), *layout.views([dy], 1)]
        outputs = layout.views(gradients, 3)
        steps = _Steps(*_parts(inputs)[:2])

        loaded = [steps.empty_piece(view) for view in inputs]
        stored = [torch.empty_like(memory) for memory in loaded[:-1]]
        (q, k, v, dz), (dq, dk, dv) = _parts(loaded), _parts(stored)
        dropped = steps.empty(steps.samples, steps.heads, steps.queries, steps.keys)
        dp = torch.empty_like(dropped)
        ds = dropped  # once to_dv has read it
        to_dv = _Products(steps, dropped.mT, dz, dv, skip="a")
        to_dp = _Products(steps, dz, v.mT, dp)
        to_dq, to_dk = _Products(steps, ds, k, dq), _Products(steps, ds.mT, q, dk)
        of_all = probabilities.contiguous().numpy().reshape(-1)
        of_dropped, of_dp = dropped.numpy().reshape(-1), dp.numpy().reshape(-1)
        packed_bits = saved_bits(bits)
        backend = active()
        count = len(inputs)
        for start, n, (p, *views) in steps.pieces(probabilities, *inputs, *outputs):
            for memory, view in zip(loaded, views[:count], strict=True):
                _first(memory, n).copy_(view)
            q.mul_(steps.alpha)
            k.mul_(steps.alpha)
            to_dp.compute(n)
            for here, there, packed in steps.runs(start, n):
                backend.apply_bits(of_all[there], of_dropped[here], packed_bits[packed], scale)
                backend.apply_bits(of_dp[here], of_dp[here], packed_bits[packed], scale)
            to_dv.compute(n)
            torch._softmax_backward_data(_first(dp, n), p, -1, dp.dtype, grad_input=_first(ds, n))
            to_dq.compute(n)
            to_dk.compute(n)
            for view, memory in zip(views[count:], stored, strict=True):
                view.copy_(_first(memory, n))
        return None, None, None, None, *gradients


def _parts(tensors: Sequence[Tensor]) -> list[Tensor]:
    """All parts of views from `Layout.views`."""
    return [part for x in tensors for part in x.unbind()]


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
    q, k, v = _parts(layout.views(projected, 3))
    steps = _Steps(q, k)
    wide = torch.float64 if q.dtype == torch.float64 else torch.float32
    scores = (q.to(wide) * steps.alpha) @ k.to(wide).mT
    if additive is not None:
        scores = scores + additive
    if blank is not None:
        scores = scores.masked_fill(blank, 0.0)  # whose softmax has derivatives, unlike NaN
    probabilities = scores.softmax(-1)
    rows = saved_bits(bits).reshape(-1, steps.bytes)
    kept = np.unpackbits(rows, axis=1, count=steps.elements, bitorder="little").view(np.bool_)
    keep = torch.from_numpy(kept).view(probabilities.shape)
    if blank is not None:
        keep = keep & ~blank
    dropped = torch.where(keep, probabilities * scale, 0.0)
    return layout.join(dropped @ v.to(wide)).to(q.dtype)
