"""Data to train with and to evaluate on: checked before anything changes, and cut to batches."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any, NamedTuple, Protocol

import numpy as np
from numpy.typing import ArrayLike, DTypeLike, NDArray

from dropwise import _arguments
from dropwise._backends import active
from dropwise._backends.protocol import Array
from dropwise._dtypes import has_kernel
from dropwise.losses import Loss, takes_sample_weight
from dropwise.network.workspace import Workspace


class TakesRows(Protocol):
    """What is asked of a network about the data that it takes."""

    @property
    def input_dtype(self) -> DTypeLike | None: ...

    @property
    def out_features(self) -> int | None: ...

    def check_input(self, x: ArrayLike) -> Array: ...


class Data(NamedTuple):
    """Rows, their targets, and what weight each has in a mean (None: all the same).

    `x` may be a matrix of scipy.sparse that knows its rows (CSR): batches of it are dense.
    """

    x: Any  # ndarray in C order, or sparse
    y: Array
    weight: NDArray[np.float64] | None

    def take(self, rows: Any, workspace: Workspace) -> Data:
        """These rows, a slice or an array of indices; a later call may overwrite their x."""
        x, y, weight = self.x, self.y, self.weight
        if not isinstance(x, np.ndarray):
            x_taken = x[rows].toarray()
        elif isinstance(rows, slice):
            x_taken = x[rows]
        else:
            x_taken = workspace.array("x", (len(rows), *x.shape[1:]), x.dtype)
            if has_kernel(x.dtype) and x.flags.c_contiguous and x.flags.aligned:
                active().take_rows(x, rows.astype(np.int64, copy=False), x_taken)
            else:
                x.take(rows, 0, x_taken, "clip")
        return Data(x_taken, y[rows], None if weight is None else weight[rows])

    def batches(
        self, size: int, order: NDArray[np.int64] | None, workspace: Workspace
    ) -> Iterator[Data]:
        """The rows in `order` (None: as they are), `size` at a time.

        The next batch may overwrite the x of this one.
        """
        for start in range(0, self.x.shape[0], size):
            rows: Any = slice(start, start + size)
            yield self.take(rows if order is None else order[rows], workspace)


def check_has(part: object, name: str, *methods: str) -> None:
    """Raise unless `part` is an object, not a class, that has these methods."""
    if isinstance(part, type) or not all(callable(getattr(part, m, None)) for m in methods):
        raise TypeError(f"{name} must be an object with {' and '.join(methods)}, got {part!r}")


def checked_data(
    network: TakesRows,
    x: ArrayLike,
    y: ArrayLike,
    loss: Loss,
    sample_weight: ArrayLike | None = None,
    class_weight: Mapping[int, float] | str | None = None,
    *,
    may_be_empty: bool = False,
) -> Data:
    """The data, in the network's dtype, once all of it is known to fit the network and the loss."""
    check_has(loss, "loss", "forward", "backward")
    rows = network.check_input(x)
    if network.input_dtype is not None:  # once, and not in every step
        rows = rows.astype(network.input_dtype, copy=False)
    rows = np.ascontiguousarray(rows)  # else `take` would copy all of it for each batch
    targets = _arguments.as_plain_array(y, "y")
    n = len(rows)
    if targets.ndim == 0 or len(targets) != n or (n == 0 and not may_be_empty):
        m = len(targets) if targets.ndim else "none"
        raise ValueError(f"x and y must have the same number of rows, got {n} and {m}")
    weight = None
    if n == 0:
        weighted = sample_weight is not None or class_weight is not None
        return Data(rows, targets, np.empty(0) if weighted else None)
    if sample_weight is not None:
        weight = _arguments.as_weights(sample_weight, n)
    if class_weight is not None:
        of_class = _weights_by_class(targets, class_weight)
        weight = of_class if weight is None else weight * of_class
        weight = _arguments.as_weights(weight, n)
    if weight is not None and not takes_sample_weight(loss):
        raise TypeError(f"{loss} does not take weights: its forward has no sample_weight")
    check: Any = getattr(loss, "check", None)
    if check is not None and network.out_features is not None:
        check(targets, (*rows.shape[:-1], network.out_features), weight)
    return Data(rows, targets, weight)


def checked_validation_data(
    network: TakesRows,
    validation_data: Sequence[ArrayLike],
    loss: Loss,
    *,
    may_be_empty: bool = False,
) -> Data:
    """The same for ``(x, y)`` or ``(x, y, sample_weight)``."""
    wanted = "validation_data must be (x, y) or (x, y, sample_weight)"
    if not isinstance(validation_data, Sequence) or isinstance(validation_data, (str, bytes)):
        raise TypeError(f"{wanted}, got {type(validation_data).__name__}")
    if len(validation_data) not in (2, 3):
        raise ValueError(f"{wanted}, got {len(validation_data)} elements")
    x, y, *weights = validation_data
    weight = weights[0] if weights else None
    return checked_data(network, x, y, loss, weight, may_be_empty=may_be_empty)


def _weights_by_class(y: Array, class_weight: Mapping[int, float] | str) -> NDArray[np.float64]:
    """The weight of each row, from that of its class."""
    wanted = "class_weight needs y to be classes, as integers or one-hot"
    label = y
    if y.ndim == 2 and y.shape[1] == 1:
        label = y[:, 0]
    elif y.ndim == 2:
        label = y.argmax(axis=-1)
        others = (y != 0).sum(axis=-1) - 1
        if others.any() or not (y.max(axis=-1) == 1).all():
            raise ValueError(f"{wanted}; got rows that are not one 1 and zeros")
    if label.ndim != 1 or label.dtype.kind not in "biu":
        raise TypeError(f"{wanted}; got {y.dtype} {y.shape}")
    classes, index, counts = np.unique(label, return_inverse=True, return_counts=True)
    if isinstance(class_weight, str):
        if class_weight != "balanced":
            raise ValueError(f"class_weight must be a mapping or 'balanced', got {class_weight!r}")
        of_class = len(label) / (len(classes) * counts)
    elif not isinstance(class_weight, Mapping):
        name = type(class_weight).__name__
        raise TypeError(f"class_weight must be a mapping or 'balanced', got {name}")
    else:
        known = {
            _arguments.as_integer(k, "a class in class_weight"): _arguments.check_number(
                v, f"class_weight[{k}]"
            )
            for k, v in class_weight.items()
        }
        of_class = np.array([known.get(int(k), 1.0) for k in classes])
    weights: NDArray[np.float64] = of_class[index.reshape(-1)]
    return weights
