"""Attention whose softmax, dropout and product are one step that keeps a mask of bits."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor

from dropwise import _memory
from dropwise._backends import active
from dropwise._backends.protocol import Product
from dropwise.torch.feed_forward import Noise


def split_heads(projected: Sequence[Tensor], heads: int, batch_first: bool, n: int = 3) -> list[Tensor]:
    """Queries, keys and values as views [batch, heads, length, head size].

    `projected` holds them side by side in the last dimension of one tensor or of several.
    """
    width = sum(x.shape[-1] for x in projected) // n
    parts: list[Tensor] = []
    for x in projected:
        x = x.view(*x.shape[:2], x.shape[2] // width, heads, width // heads)
        parts += x.permute(2, 0, 3, 1, 4) if batch_first else x.permute(2, 1, 3, 0, 4)
    return parts


class Attention(torch.autograd.Function):
    """``dropout(softmax(q @ k.T / sqrt(head size) + mask)) @ v`` for each sample and head."""

    @staticmethod
    def forward(
        ctx: Any,
        heads: int,
        batch_first: bool,
        noise: Noise,
        mask: Tensor | None,
        *projected: Tensor,
    ) -> Tensor:
        projected = tuple(x.detach() for x in projected)
        parts = split_heads(projected, heads, batch_first)
        (batch, _, length, size), keys = parts[0].shape, parts[1].shape[2]
        rate, scale, key, stream, offset = noise
        dtype = np.dtype(np.float32)
        probabilities = torch.from_numpy(_memory.empty((batch, heads, length, keys), dtype))
        result = parts[0].new_empty((*projected[0].shape[:2], heads * size))
        (out,) = split_heads([result], heads, batch_first, 1)
        n = length * keys
        bits = np.empty((batch, heads, (n + 7) >> 3), np.uint8)
        q, k, v = (torch.empty(x.shape[1:], dtype=torch.float32) for x in parts)
        s, o = torch.empty((heads, length, keys)), torch.empty(q.shape)
        qn, kn, vn, sn, on = (x.numpy() for x in (q, k, v, s, o))
        scores = [Product(qn[h], kn[h].T, sn[h]) for h in range(heads)]
        outputs = [Product(sn[h], vn[h], on[h], skip="a") for h in range(heads)]
        backend = active()
        pn = probabilities.numpy()
        alpha = size**-0.5
        for i in range(batch):
            for whole, part in zip(parts, (q, k, v), strict=True):
                part.copy_(whole[i])
            q.mul_(alpha)
            backend.multiply(scores)
            torch.softmax(s, -1, out=probabilities[i])
            for h in range(heads):
                backend.dropout_forward(
                    pn[i, h], sn[h], bits[i, h], rate, scale, key, stream, (i * heads + h) * n
                )
            backend.multiply(outputs)
            out[i].copy_(o)
        ctx.save_for_backward(probabilities, torch.from_numpy(bits), *projected)
        ctx.settings = heads, batch_first, scale
        return result

    @staticmethod
    def backward(ctx: Any, dy: Tensor) -> tuple[Tensor | None, ...]:
        heads, batch_first, scale = ctx.settings
        probabilities, bits, *projected = ctx.saved_tensors
        parts = split_heads(projected, heads, batch_first)
        (batch, _, length, size), keys = parts[0].shape, parts[1].shape[2]
        gradients = [torch.from_numpy(_memory.empty(x.shape, np.dtype(np.float32))) for x in projected]
        (dout,) = split_heads([dy], heads, batch_first, 1)
        q, k, v, g = (torch.empty(x.shape[1:]) for x in (*parts, dout))
        dq, dk, dv = (torch.empty(x.shape) for x in (q, k, v))
        pd, dp, ds = (torch.empty(heads, length, keys) for _ in range(3))
        qn, kn, vn, gn, dqn, dkn, dvn, pdn, dpn, dsn = (
            x.numpy() for x in (q, k, v, g, dq, dk, dv, pd, dp, ds)
        )
        bn = bits.numpy()
        pn = probabilities.numpy()
        backend = active()
        alpha = size**-0.5
        first = [Product(pdn[h].T, gn[h], dvn[h], skip="a") for h in range(heads)]
        second = [
            Product(gn[h], vn[h].T, dpn[h], scale=scale) for h in range(heads)
        ]
        third = [Product(dsn[h], kn[h], dqn[h]) for h in range(heads)]
        third += [Product(dsn[h].T, qn[h], dkn[h]) for h in range(heads)]
        dparts = split_heads(gradients, heads, batch_first)
        for i in range(batch):
            for whole, part in zip((*parts, dout), (q, k, v, g), strict=True):
                part.copy_(whole[i])
            q.mul_(alpha)
            k.mul_(alpha)
            for h in range(heads):
                backend.apply_bits(pn[i, h], pdn[h], bn[i, h], scale)
                second[h].bits = bn[i, h]
            backend.multiply(first)
            backend.multiply(second)
            torch._softmax_backward_data(dp, probabilities[i], -1, torch.float32, grad_input=ds)
            backend.multiply(third)
            for whole, part in zip(dparts, (dq, dk, dv), strict=True):
                whole[i].copy_(part)
        return None, None, None, None, *gradients
