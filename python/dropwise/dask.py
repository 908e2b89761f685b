"""Dropout and predictions for arrays of Dask, chunk by chunk, with the values of the whole array.

A mask depends on the indices of the elements in the whole array, so it is the same for any chunks,
any scheduler and any workers.  Importing `dropwise` does not import this module.
"""

from __future__ import annotations

import contextlib
import copy
import functools
import itertools
import math
from collections.abc import Callable, Sequence
from typing import Any, TypeAlias

try:
    import dask
    import dask.array as da
    from dask.array.core import normalize_chunks
    from dask.array.utils import meta_from_array
    from dask.base import tokenize
except ImportError as error:
    raise ImportError(
        f"dropwise.dask needs Dask: pip install 'dropwise[dask]' ({error})"
    ) from error

import numpy as np

from dropwise import _backends, functional
from dropwise._arguments import as_noise_shape, as_shape, fit_noise_shape
from dropwise._backends.protocol import Array
from dropwise.layers.run import RunContext
from dropwise.network import monte_carlo
from dropwise.network.fused import ROWS_AT_ONCE
from dropwise.network.sequential import Sequential

__all__ = ["dropout", "dropout_backward", "dropout_mask", "predict", "predict_mc"]

DaskArray: TypeAlias = "Any"  # dask.array.Array, of which type checkers know nothing
_BlockInfo: TypeAlias = "dict[int | None, dict[str, Any]]"


def dropout(
    x: DaskArray,
    rate: float,
    *,
    key: int,
    stream: int = 0,
    scaling: str = "inverted",
    noise_shape: Sequence[int | None] | None = None,
    training: bool = True,
) -> DaskArray:
    """`dropwise.functional.dropout` of a Dask array: lazy, one task for each chunk.

    Parameters
    ----------
    x : dask array, any shape
        Of NumPy arrays of the dtypes that the function in memory takes.
    rate, key, stream, scaling, noise_shape, training : as in memory
        `noise_shape` refers to the whole array.

    Returns
    -------
    dask array, shape and chunks of `x`
        Bit for bit what the call in memory gives for all of `x`.

    Raises
    ------
    TypeError
        If `x` is no Dask array.
    ValueError
        If `x` has chunks of unknown size.
    TypeError, ValueError
        What the function in memory raises for such arguments, at once.

    Notes
    -----
    A chunk that spans the trailing axes has one run of indices; one that does not has a run for
    each of its rows.  Runs of a few elements take longer: masks are made 128 elements at a time.

    A task takes one thread, so that the workers' threads decide how many cores are used.

    Examples
    --------
    >>> import dask.array as da
    >>> from dropwise.dask import dropout
    >>> dropout(da.ones(6, chunks=4), 0.5, key=2).compute()
    array([0., 2., 2., 0., 0., 2.])
    """
    options = {"key": key, "stream": stream, "scaling": scaling, "training": training}
    return _apply("dropout", x, rate, noise_shape, options)


def dropout_backward(
    dy: DaskArray,
    rate: float,
    *,
    key: int,
    stream: int = 0,
    scaling: str = "inverted",
    noise_shape: Sequence[int | None] | None = None,
    training: bool = True,
) -> DaskArray:
    """The gradient of `dropout` with respect to its input.

    Parameters
    ----------
    dy : dask array, shape of the result of `dropout`
        Gradient with respect to that; its chunks may be others.
    rate, key, stream, scaling, noise_shape, training : as for `dropout`
        The mask is made again from them.

    Returns
    -------
    dask array, shape and chunks of `dy`

    Examples
    --------
    >>> import dask.array as da
    >>> from dropwise.dask import dropout_backward
    >>> dropout_backward(da.ones(6, chunks=3), 0.5, key=2).compute()
    array([0., 2., 2., 0., 0., 2.])
    """
    options = {"key": key, "stream": stream, "scaling": scaling, "training": training}
    return _apply("dropout_backward", dy, rate, noise_shape, options)


def _apply(
    name: str,
    x: DaskArray,
    rate: float,
    noise_shape: Sequence[int | None] | None,
    options: dict[str, Any],
) -> DaskArray:
    """Forward or backward, which differ in their names alone."""
    _check_array(x, name)
    fit_noise_shape(as_noise_shape(noise_shape), x.shape)
    # Checks the other arguments, too.
    meta = functional.dropout(meta_from_array(x), rate, **options)
    options |= {"rate": rate, "noise_shape": noise_shape}
    return _map_blocks(name, _dropout, x, meta=meta, **options)


def dropout_mask(
    shape: int | Sequence[int],
    rate: float,
    *,
    key: int,
    stream: int = 0,
    chunks: Any = "auto",
) -> DaskArray:
    """`dropwise.functional.dropout_mask` as a Dask array.

    Parameters
    ----------
    shape : int or sequence of int
    rate, key, stream : as in memory
    chunks : int, tuple or str
        As in `dask.array.ones`.

    Returns
    -------
    dask array of bool, shape `shape`
        True where the element is kept.

    Examples
    --------
    >>> from dropwise.dask import dropout_mask
    >>> dropout_mask((2, 3), 0.5, key=2, chunks=(2, 2)).compute()
    array([[False,  True,  True],
           [False, False,  True]])
    """
    shape = as_shape(shape)
    options: dict[str, Any] = {"rate": rate, "key": key, "stream": stream}
    meta = functional.dropout_mask((0,) * len(shape), **options)
    chunks = normalize_chunks(chunks, shape, dtype=meta.dtype)
    return _map_blocks("dropout_mask", _dropout_mask, chunks=chunks, meta=meta, **options)


def predict(model: Any, x: DaskArray) -> DaskArray:
    """What ``model.predict`` gives for each row of a Dask array.

    Parameters
    ----------
    model : Sequential, or estimator of `dropwise.sklearn`
        As it is now: later training changes nothing in the result.
    x : dask array, shape (B, ..., features)

    Returns
    -------
    dask array, shape of ``model.predict(x)``
        Bit for bit what the call in memory gives for a C-contiguous `x`, where the same backend
        computes on the same kind of CPU.

    Raises
    ------
    TypeError, ValueError
        As `dropout`; and what ``model.predict`` raises for such rows, at once.

    Notes
    -----
    How a product is rounded depends on the rows that are computed together.  A model in memory
    takes 1024 at a time, so chunks of the result end at multiples of that: chunks of `x` that do
    not are cut and joined, and those along other axes are joined.

    Examples
    --------
    >>> import dask.array as da
    >>> import dropwise as dw
    >>> from dropwise.dask import predict
    >>> net = dw.Sequential([dw.Dense(4, 8), dw.ReLU(), dw.Dropout(0.5), dw.Dense(8, 2)], seed=0)
    >>> predict(net, da.ones((5000, 4), chunks=(2000, 2))).chunks
    ((2048, 2048, 904), (2,))
    """
    _check_array(x, "predict")
    _check_model(model, "predict")
    result = model.predict(_one_row(x))
    return _map_rows("predict", _predict, x, copy.deepcopy(model), result)


def predict_mc(
    model: Any,
    x: DaskArray,
    n_samples: int = 100,
    *,
    transform: Callable[[Array], Array] | None = None,
) -> tuple[DaskArray, DaskArray]:
    """Mean and standard deviation of a model's results over random masks (Monte Carlo dropout).

    Parameters
    ----------
    model : Sequential, or estimator of `dropwise.sklearn`
        As it is now.  A network takes one stream of each dropout for this call, as in memory.
    x : dask array, shape (B, ..., features)
    n_samples : int
    transform : callable, optional
        Of a network: see `dropwise.Sequential.predict_mc`.

    Returns
    -------
    mean, std : dask array
        What ``model.predict_mc`` gives in memory, in the sense of `predict`.  Compute them
        together: ``dask.compute(mean, std)``.

    Raises
    ------
    TypeError, ValueError
        As `predict`.

    Examples
    --------
    >>> import dask
    >>> import dask.array as da
    >>> import dropwise as dw
    >>> from dropwise.dask import predict_mc
    >>> net = dw.Sequential([dw.Dense(4, 8), dw.ReLU(), dw.Dropout(0.5), dw.Dense(8, 2)], seed=0)
    >>> mean, std = dask.compute(*predict_mc(net, da.ones((5000, 4), chunks=1000), 50))
    >>> mean.shape, std.shape
    ((5000, 2), (5000, 2))
    """
    _check_array(x, "predict_mc")
    _check_model(model, "predict_mc")
    options: dict[str, Any] = {} if transform is None else {"transform": transform}
    before = copy.deepcopy(model)
    result = np.stack(model.predict_mc(_one_row(x), n_samples, **options), axis=1)
    options["n_samples"] = n_samples
    both = _map_rows("predict_mc", _predict_mc, x, before, result, **options)
    return both[:, 0], both[:, 1]


# ---- what a task computes


def _serial(task: Callable[..., Array]) -> Callable[..., Array]:
    """A task that takes one thread: there are others beside it."""

    @functools.wraps(task)
    def run(*arguments: Any, backend: str | None, **options: Any) -> Array:
        with contextlib.ExitStack() as stack:
            if backend is not None:
                stack.enter_context(_backends.backend(backend))
            stack.enter_context(_backends.serial())
            return task(*arguments, **options)

    return run


def _place(part: dict[str, Any]) -> tuple[tuple[int, ...], functional.Within]:
    """The shape of a chunk, and where it is in the whole array."""
    location = part["array-location"]
    start = tuple(first for first, _ in location)
    return tuple(end - first for first, end in location), (start, tuple(part["shape"]))


@_serial
def _dropout(x: Array, rate: float, block_info: _BlockInfo, **options: Any) -> Array:
    _, within = _place(block_info[0])
    return functional.dropout(x, rate, within=within, **options)


@_serial
def _dropout_mask(rate: float, block_info: _BlockInfo, **options: Any) -> Array:
    shape, within = _place(block_info[None])
    return functional.dropout_mask(shape, rate, within=within, **options)


def _in_c_order(x: Array) -> Array:
    """The same values: the order of a sum may depend on the layout.

    Masked and sparse chunks are as they are, for the model to take or to refuse.
    """
    return np.ascontiguousarray(x) if type(x) is np.ndarray else x


@_serial
def _predict(x: Array, model: Any) -> Array:
    result: Array = model.predict(_in_c_order(x))
    return result


@_serial
def _predict_mc(
    x: Array, model: Any, n_samples: int, block_info: _BlockInfo, **options: Any
) -> Array:
    """Mean and standard deviation of each row, [B, 2, ...]."""
    x = _in_c_order(x)
    first_row = block_info[0]["array-location"][0][0]
    if isinstance(model, Sequential):
        # All tasks use the same streams of one network, so none may use them up.
        context = RunContext(True, keep_records=False, samples=n_samples, takes_streams=False)
        transform = options.get("transform")
        both = monte_carlo.sample(model._fused, x, context, transform, first_row)
    else:
        both = model.predict_mc(x, n_samples, first_row=first_row, **options)
    return np.stack(both, axis=1)


# ---- from calls to tasks


def _check_array(x: Any, name: str) -> None:
    """Raise unless `x` is a Dask array that knows its chunks."""
    if not isinstance(x, da.Array):
        in_memory = f"dropwise.functional.{name}" if name in functional.__all__ else f".{name}"
        raise TypeError(
            f"dropwise.dask.{name} needs a dask array, got {type(x).__name__}; the data of an "
            f"xarray is .data, and {in_memory} is for arrays in memory"
        )
    if any(math.isnan(n) for n in x.shape):
        raise ValueError(
            f"dropwise.dask.{name} needs the size of every chunk, got the shape {x.shape}; "
            "call x.compute_chunk_sizes() first"
        )


def _check_model(model: Any, method: str) -> None:
    if not callable(getattr(model, method, None)):
        raise TypeError(f"model must have a method {method}, got {model!r}")


def _map_blocks(name: str, task: Callable[..., Array], *arrays: DaskArray, **options: Any) -> Any:
    """The array of what `task` gives for each chunk, under a name of ours."""
    # Workers know nothing of the `with` block that the call is in.
    options["backend"] = _backends.active().name if _backends.is_in_block() else None
    # A dashboard shows names up to the first hyphen.
    unique = f"dropwise.{name}-{tokenize(*arrays, options)}"
    return da.map_blocks(task, *arrays, name=unique, dtype=options["meta"].dtype, **options)


def _one_row(x: DaskArray) -> Array:
    """A row like those of `x`: what a model makes of it, it makes of all of them."""
    return np.zeros((1, *x.shape[1:]) if x.ndim else (), x.dtype)


def _map_rows(
    name: str,
    task: Callable[..., Array],
    x: DaskArray,
    model: Any,
    result: Array,
    **options: Any,
) -> DaskArray:
    """The array of what `task` gives for the rows of each chunk; `result` is that of one row."""
    aligned = _aligned(x.chunks[0])
    rows = x.rechunk((aligned, *((n,) for n in x.shape[1:])))
    return _map_blocks(
        name,
        task,
        rows,
        # One node of the graph, so that a worker gets it once.
        model=dask.delayed(model, name=f"dropwise.model-{tokenize(model)}", traverse=False),
        drop_axis=[*range(result.ndim, x.ndim)],
        new_axis=[*range(x.ndim, result.ndim)],
        chunks=(aligned, *((n,) for n in result.shape[1:])),
        meta=np.empty((0,) * result.ndim, result.dtype),
        **options,
    )


def _aligned(chunks: tuple[int, ...]) -> tuple[int, ...]:
    """Chunks of rows that end where a model in memory begins with other rows."""
    rows, ends = sum(chunks), {0}
    for end in itertools.accumulate(chunks):
        ends.add(min(-(-end // ROWS_AT_ONCE) * ROWS_AT_ONCE, rows))
    return tuple(end - start for start, end in itertools.pairwise(sorted(ends))) or (0,)
