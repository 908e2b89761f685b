"""The course's functions for dropout and fully connected layers over this package.

Put ``from dropwise.textbook.cs231n import *`` at the end of ``cs231n/layers.py``.  In the editions
of 2016 and 2017, where "p" is the probability of dropping, it is
``from dropwise.textbook.cs231n_2017 import *``.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, TypeAlias

import numpy as np

from dropwise._arguments import as_plain_array
from dropwise._backends.protocol import Array
from dropwise.random import key_from_seed
from dropwise.textbook._compute import affine, product, weight_gradients
from dropwise.textbook._shared import (
    dropout_and_factors,
    fresh_key,
    multiply_by_mask,
    relu,
    relu_gradient,
)

__all__ = [
    "affine_backward",
    "affine_forward",
    "dropout_backward",
    "dropout_forward",
    "relu_backward",
    "relu_forward",
]

DropoutCache: TypeAlias = "tuple[Mapping[str, Any], Array | None]"
AffineCache: TypeAlias = "tuple[Array, Array, Array]"


def dropout_forward(
    x: Array, dropout_param: Mapping[str, Any], *, p_is: str = "keep"
) -> tuple[Array, DropoutCache]:
    """Inverted dropout.

    Parameters
    ----------
    x : ndarray
    dropout_param : mapping
        "p", the probability that an element is **kept**, as in recent editions of the course;
        "mode", "train" or "test"; "seed", optional: whatever ``np.random.seed`` takes.
    p_is : {"keep", "drop"}
        "drop" for an edition where "p" is the probability that an element is dropped.  Its scripts
        get that by ``from dropwise.textbook.cs231n_2017 import *``.

    Returns
    -------
    out : ndarray, shape and dtype of `x`
    cache : (dropout_param, mask)
        The mask has the values that multiplied `x`: 0, or 1 over the probability of keeping.  It is
        None in test mode.

    Notes
    -----
    "seed" decides this mask and seeds NumPy's global generator, as in the course.  Without "seed"
    the key comes from that generator, so that ``np.random.seed`` repeats a run.

    Examples
    --------
    >>> import numpy as np
    >>> from dropwise.textbook.cs231n import dropout_backward, dropout_forward
    >>> out, cache = dropout_forward(np.ones(8), {"mode": "train", "p": 0.25, "seed": 123})
    >>> sorted(set(out.tolist()))
    [0.0, 4.0]
    >>> bool((dropout_backward(np.ones(8), cache) == out).all())
    True
    """
    p, mode = float(dropout_param["p"]), dropout_param["mode"]
    if p_is not in ("keep", "drop"):
        raise ValueError(f"p_is must be 'keep' or 'drop', got {p_is!r}")
    if not 0.0 <= p <= 1.0:
        raise ValueError(f"dropout_param['p'] must be in [0, 1], got {p!r}")
    if mode == "test":
        return x, (dropout_param, None)
    if mode != "train":
        raise ValueError(f"dropout_param['mode'] must be 'train' or 'test', got {mode!r}")
    rate = 1.0 - p if p_is == "keep" else p
    key = None
    if "seed" in dropout_param:
        key = _seeded(dropout_param["seed"])
    out, mask = dropout_and_factors(x, rate, key)
    return out if out.dtype is x.dtype else out.astype(x.dtype), (dropout_param, mask)


def _seeded(seed: Any) -> int | None:
    """The key of a seed, which goes to NumPy's global generator as well."""
    np.random.seed(seed)  # noqa: NPY002
    if seed is None:
        return None
    return key_from_seed(seed) if np.ndim(seed) == 0 else fresh_key()


def dropout_backward(dout: Array, cache: DropoutCache) -> Array:
    """The gradient with respect to `x`: `dout` times the mask, or `dout` itself in test mode."""
    dropout_param, mask = cache
    if mask is None or dropout_param["mode"] == "test":
        return dout
    return multiply_by_mask(dout, mask)


def affine_forward(x: Array, w: Array, b: Array) -> tuple[Array, AffineCache]:
    """``x.reshape(N, D) @ w + b``, and the cache (x, w, b)."""
    x = as_plain_array(x, "x")
    return affine(x.reshape(x.shape[0], -1), w, b), (x, w, b)


def affine_backward(dout: Array, cache: AffineCache) -> tuple[Array, Array, Array]:
    """Gradients with respect to x, w and b."""
    x, w, _ = cache
    dx = product(dout, w.T).reshape(x.shape)
    return dx, *weight_gradients(x.reshape(x.shape[0], -1), dout)


def relu_forward(x: Array) -> tuple[Array, Array]:
    """``max(x, 0)``, and the cache x."""
    return relu(x), x


def relu_backward(dout: Array, cache: Array) -> Array:
    """`dout` where x was positive, 0 elsewhere."""
    return relu_gradient(dout, cache)
