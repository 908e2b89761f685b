"""What training needs of a loss, and what the losses here share."""

from __future__ import annotations

import inspect
from typing import Any, Generic, Protocol, TypeVar

import numpy as np
from numpy.typing import ArrayLike

from dropwise._arguments import as_real_array
from dropwise._backends.protocol import Array
from dropwise._dtypes import F64

Record = TypeVar("Record")


class Loss(Protocol):
    """What training needs of a loss; one of your own has these two methods.

    ``backward`` gives the gradient of the last ``forward`` with respect to `y_pred`, in any real
    dtype.  Training also uses, where there are: an attribute ``accuracy``, an argument
    ``sample_weight`` of ``forward``, and a method ``check`` like that of the losses here.

    Examples
    --------
    >>> import numpy as np
    >>> import dropwise as dw
    >>> class AbsoluteError:
    ...     def forward(self, y_pred, y):
    ...         self.difference = y_pred - y
    ...         return float(np.abs(self.difference).mean())
    ...
    ...     def backward(self):
    ...         return np.sign(self.difference) / self.difference.size
    >>> net = dw.Sequential([dw.Dense(1, 1, seed=0)])
    >>> x = np.linspace(0, 1, 8, dtype=np.float32)[:, None]
    >>> adam = dw.Adam(0.1)
    >>> history = net.fit(x, 2 * x, loss=AbsoluteError(), optimizer=adam, progress=False)
    >>> history[0].accuracy is None
    True
    """

    def forward(self, y_pred: Array, y: Array, /) -> float: ...

    def backward(self) -> Array: ...


def accuracy_of(loss: Loss) -> float | None:
    """The accuracy of the last forward; None for a loss that has none."""
    accuracy: float | None = getattr(loss, "accuracy", None)
    return accuracy


def takes_sample_weight(loss: Loss) -> bool:
    """Whether ``loss.forward`` takes an argument ``sample_weight``."""
    try:
        parameters = inspect.signature(loss.forward).parameters.values()
    except (TypeError, ValueError):  # a function that does not tell
        return False
    return any(
        p.kind is p.VAR_KEYWORD or (p.name == "sample_weight" and p.kind is not p.POSITIONAL_ONLY)
        for p in parameters
    )


class BuiltInLoss(Generic[Record]):
    """What the losses here share: the record that a forward leaves."""

    def __init__(self) -> None:
        self._last: Record | None = None

    def _need(self, what: str) -> Record:
        if self._last is None:
            name = type(self).__name__
            raise RuntimeError(f"{name}: {what} before forward, or after one that failed")
        return self._last

    def check(
        self, y: ArrayLike, shape: tuple[int, ...], sample_weight: ArrayLike | None = None
    ) -> None:
        """Raise what ``forward`` would for these targets and weights.

        Parameters
        ----------
        y : array_like
        shape : tuple of int
            Of the `y_pred` to come.
        sample_weight : array_like, shape (B,), optional
        """
        target, _ = self._arguments(y, shape, sample_weight)
        self._check_target(target, shape)

    def _check_target(self, target: Array, shape: tuple[int, ...]) -> None:
        """Raise what computing would, of targets that are checked."""

    def _arguments(
        self, y: Any, shape: tuple[int, ...], sample_weight: Any
    ) -> tuple[Array, Array | None]:
        """The targets and the rows' shares of the mean, checked."""
        raise NotImplementedError

    def _compute(self, y_pred: Array, y: Array, shares: Array | None) -> tuple[Array, Record]:
        """The losses [B, ...] of checked scores, and what is left for backward."""
        raise NotImplementedError

    def forward_part(self, y_pred: ArrayLike, y: ArrayLike, shares: Array) -> Array:
        """Like ``forward`` for some rows of a batch, whose `shares` of its mean are given.

        ``backward`` then gives these rows of the batch's gradient, whatever rows are beside them.

        Returns
        -------
        ndarray of float64, shape (B,)
            The loss of each row.
        """
        self._last = None
        scores = as_scores(y_pred)
        y, _ = self._arguments(y, scores.shape, None)
        losses, record = self._compute(scores, y, shares)
        if losses.ndim > 1:
            with np.errstate(all="ignore"):
                losses = losses.reshape(len(losses), -1).mean(axis=1, dtype=F64)
        self._last = record
        return losses

    def right_rows(self) -> Array | None:
        """How right each row of the last forward is, in [0, 1]; None for a loss of values."""
        return None

    def __getstate__(self) -> dict[str, Any]:
        return self.__dict__ | {"_last": None}

    def __repr__(self) -> str:
        return f"{type(self).__name__}()"


def as_scores(y_pred: Any) -> Array:
    """`y_pred` as an array of floats."""
    scores = as_real_array(y_pred, "y_pred")
    return scores.astype(F64) if scores.dtype.kind in "biu" else scores


def as_targets(y: Any, shape: tuple[int, ...]) -> Array:
    """`y` as an array of this shape; with one output, (B,) and (B, 1) are the same."""
    target = as_real_array(y, "y")
    one = shape[:1] if shape[1:] == (1,) else (*shape, 1) if len(shape) == 1 else shape
    if target.shape not in (shape, one):
        raise ValueError(f"y must have the shape of y_pred {shape}, got {target.shape}")
    return target.reshape(shape)


def mean_of_rows(losses: Array, shares: Array | None) -> float:
    """The mean over the rows of the mean over what a row has, `losses` being [B, ...]."""
    if shares is None:
        return float(np.add.reduce(losses, axis=None, dtype=F64) / losses.size)
    return float(np.dot(losses.reshape(len(losses), -1).mean(axis=1, dtype=F64), shares))


def row_factors(shares: Array | None, shape: tuple[int, ...], dtype: np.dtype[Any]) -> Array:
    """What a gradient of each row's loss is multiplied by, in a shape that fits `shape`."""
    if shares is None:
        return np.asarray(1.0 / shape[0], dtype)
    return shares.astype(dtype).reshape(-1, *(1,) * (len(shape) - 1))


def share_of(right: Array, shares: Array) -> float:
    """How much of the shares the rows have that are right: 1.0 exactly if all are."""
    return min(1.0, float((shares * right).sum() / shares.sum()))
