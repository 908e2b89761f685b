"""Dropout of Dask arrays: the bits of the call in memory, whatever the chunks."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import dropwise as dw
from dropwise import functional as F
from support import require, run_python

dask = require("dask")
da = require("dask.array")
require("distributed")
from dask.array.utils import assert_eq
from dask.utils import key_split

import dropwise.dask as dd

DTYPES = ("float32", "float64", "float16", "bfloat16")


def dtype_of(name: str) -> np.dtype:
    return np.dtype(getattr(require("ml_dtypes"), name) if name == "bfloat16" else name)


def sample(shape, dtype="float32"):
    """Numbers of which no two are equal, with some that show how they are dropped."""
    x = np.arange(1, 1 + np.prod(shape, dtype=int), dtype=np.float64)
    x[::7] = np.nan
    x[3::7] = -np.inf
    return x.reshape(shape).astype(dtype_of(dtype))


def assert_same(lazy, expected):
    """The same bits, dtype and shape, and metadata that are right."""
    if lazy.dtype.name != "bfloat16":  # which assert_eq cannot compare
        assert_eq(lazy, expected, equal_nan=True)
    got = lazy.compute(scheduler="sync")
    assert type(got) is np.ndarray
    assert (got.dtype, got.shape) == (expected.dtype, expected.shape) == (lazy.dtype, lazy.shape)
    assert got.tobytes() == expected.tobytes()


def cuts(draw, n):
    """Sizes of chunks that make up a dimension of n, some of them 0."""
    ends = sorted(draw(st.lists(st.integers(0, n), max_size=4)))
    return tuple(int(c) for c in np.diff([0, *ends, n]))


@st.composite
def chunkings(draw, most=9):
    """A shape, and two ways to cut it."""
    shape = tuple(draw(st.lists(st.integers(0, most), max_size=4)))
    return shape, *(tuple(cuts(draw, n) for n in shape) for _ in range(2))


RATES = st.sampled_from([0.0, 0.1, 1 / 3, 0.5, 1.0])


@settings(max_examples=60)
@given(chunkings(), RATES, st.sampled_from(DTYPES), st.lists(st.booleans(), min_size=4))
def test_every_chunking_gives_the_bits_of_the_call_in_memory(cut, rate, dtype, shares):
    shape, chunks, others = cut
    x = sample(shape, dtype)
    noise = tuple(1 if share else None for share, _ in zip(shares, shape, strict=False))
    options = {"key": 3, "stream": 5, "noise_shape": noise}
    y = dd.dropout(da.from_array(x, chunks), rate, **options)
    assert y.chunks == (chunks or y.chunks)
    assert_same(y, F.dropout(x, rate, **options))
    # The gradient comes in chunks of its own.
    dy = sample(shape, dtype)[..., ::-1] if shape else sample(shape, dtype)
    dx = dd.dropout_backward(da.from_array(dy, others), rate, **options)
    assert_same(dx, F.dropout_backward(dy, rate, **options))


@settings(max_examples=40)
@given(chunkings(), RATES)
def test_every_chunking_gives_the_same_mask(cut, rate):
    shape, *both = cut
    expected = F.dropout_mask(shape, rate, key=3, stream=5)
    for chunks in both:
        assert_same(dd.dropout_mask(shape, rate, key=3, stream=5, chunks=chunks), expected)


def test_long_rows_and_both_backends(backend):
    x = sample((11, 37, 400))
    lazy = da.from_array(x, chunks=((4, 7), (36, 1), (130, 2, 268)))
    assert_same(dd.dropout(lazy, 0.3, key=1), F.dropout(x, 0.3, key=1))


def test_a_gradient_that_was_rechunked():
    x = sample((40, 50), "float64")
    forward = dd.dropout(da.from_array(x, chunks=(7, 50)), 0.4, key=8)
    backward = dd.dropout_backward((forward * 2).rechunk((40, 9)), 0.4, key=8)
    expected = F.dropout_backward(F.dropout(x, 0.4, key=8) * 2, 0.4, key=8)
    assert_same(backward, expected)


@pytest.mark.parametrize("scaling", ["inverted", "vanilla"])
@pytest.mark.parametrize("training", [True, False])
@pytest.mark.parametrize("dtype", ["float32", "int8", "uint64", "bool", "complex64", ">f4"])
def test_dtypes_scalings_and_inference_are_as_in_memory(dtype, training, scaling):
    x = np.arange(60).reshape(5, 12).astype(dtype)
    options = {"key": 1, "training": training, "scaling": scaling}
    lazy = da.from_array(x, chunks=(2, 5))
    assert_same(dd.dropout(lazy, 0.5, **options), F.dropout(x, 0.5, **options))


@pytest.mark.parametrize(
    "view",
    [
        lambda x: x.T,
        lambda x: x[::-1, ::2],
        lambda x: x[:, None] + x[None],
        lambda x: x[3, 4],
        lambda x: x[:0],
    ],
    ids=["transposed", "strided", "broadcast", "one element", "empty"],
)
def test_views_and_what_is_computed_lazily(view):
    x = sample((20, 18))
    lazy = view(da.from_array(x, chunks=(6, 7)))
    assert_same(dd.dropout(lazy, 0.5, key=1), F.dropout(view(x), 0.5, key=1))


def test_indices_go_up_to_64_bits():
    shape = (1 << 33, 1 << 30)
    chunks = tuple((n - few, few) for n, few in zip(shape, (2, 3), strict=True))
    mask = dd.dropout_mask(shape, 0.5, key=1, chunks=chunks)
    got = mask.blocks[1, 1].compute(scheduler="sync")
    within = tuple(first for first, _ in chunks), shape
    expected = F.dropout_mask((2, 3), 0.5, key=1, within=within)
    np.testing.assert_array_equal(got, expected)


def graph_of(lazy):
    (optimized,) = dask.optimize(lazy)
    return dict(optimized.__dask_graph__())


def test_one_fused_task_for_each_chunk():
    x = da.ones((30, 30, 30), chunks=10)
    y = dd.dropout(x + 1, 0.5, key=1) * 3
    assert len(graph_of(y)) == 27
    dx = dd.dropout_backward(y, 0.5, key=1)
    assert len(graph_of(dx)) == 27
    assert len(graph_of(dd.dropout_mask((30, 30), 0.5, key=1, chunks=10))) == 9


def test_tasks_have_names_of_their_own():
    x = da.ones(6, chunks=2)
    made = {
        "dropwise.dropout": dd.dropout(x, 0.5, key=1),
        "dropwise.dropout_backward": dd.dropout_backward(x, 0.5, key=1),
        "dropwise.dropout_mask": dd.dropout_mask(6, 0.5, key=1, chunks=2),
    }
    for name, lazy in made.items():
        assert {key_split(key) for key in graph_of(lazy)} == {name}


def test_equal_calls_are_one_array_and_others_are_not():
    x = da.ones(6, chunks=2)
    names = [
        dd.dropout(x, rate, key=key, stream=stream).name
        for rate, key, stream in [(0.5, 1, 0), (0.5, 1, 0), (0.4, 1, 0), (0.5, 2, 0), (0.5, 1, 1)]
    ]
    assert names[0] == names[1]
    assert len(set(names)) == 4


def never(*_, **__):
    raise AssertionError("computed")


def untouchable(shape=(6, 4), chunks=2):
    """An array that fails when any of it is computed."""
    return da.ones(shape, chunks=chunks).map_blocks(never, dtype=float, meta=np.empty((0, 0)))


def test_nothing_is_computed_before_compute():
    x = untouchable()
    y = dd.dropout_backward(dd.dropout(x, 0.5, key=1).rechunk(3), 0.5, key=1)
    with pytest.raises(AssertionError, match="computed"):
        y.compute(scheduler="sync")


@pytest.mark.parametrize("call", [dd.dropout, dd.dropout_backward])
def test_chunks_of_unknown_size_are_refused(call):
    x = da.arange(20, chunks=5)
    with pytest.raises(ValueError, match=r"size of every chunk.*compute_chunk_sizes"):
        call(x[x > 3], 0.5, key=1)


@pytest.mark.parametrize("call", [dd.dropout, dd.dropout_backward])
def test_arrays_that_are_not_dasks_are_refused(call):
    named = f"dropwise.functional.{call.__name__}"
    xarray = require("xarray")
    for x in (np.ones(3), [1.0], xarray.DataArray(da.ones(3, chunks=2))):
        with pytest.raises(TypeError, match=rf"got {type(x).__name__}; .*\.data.*{named}"):
            call(x, 0.5, key=1)


@pytest.mark.parametrize(
    ("change", "error", "message"),
    [
        ({"rate": 1.5}, ValueError, r"rate must be in \[0, 1\], got 1.5"),
        ({"rate": "0.5"}, TypeError, "rate must be a number"),
        ({"key": -1}, ValueError, "key must be in"),
        ({"stream": 1 << 56}, ValueError, "stream must be in"),
        ({"scaling": "none"}, ValueError, "scaling must be"),
        ({"noise_shape": (6, 2)}, ValueError, "noise_shape must have 1, None or x's size"),
        ({"noise_shape": 6}, TypeError, "noise_shape must be a sequence"),
    ],
)
@pytest.mark.parametrize("call", [dd.dropout, dd.dropout_backward])
def test_wrong_arguments_are_refused_at_the_call(call, change, error, message):
    with pytest.raises(error, match=message):
        call(untouchable(), **{"rate": 0.5, "key": 1, **change})


def test_chunks_that_are_no_plain_arrays_are_refused_at_the_call():
    x = da.ma.masked_array(da.ones(4, chunks=2), mask=[0, 1, 0, 0])
    with pytest.raises(TypeError, match="masked"):
        dd.dropout(x, 0.5, key=1)
    with pytest.raises(TypeError, match="array of numbers"):
        dd.dropout(da.from_array(np.array(["a", "b"]), chunks=1), 0.5, key=1)


def test_functions_and_layers_in_memory_refuse_a_dask_array_and_say_where_to_go():
    x = untouchable()
    net = dw.Sequential([dw.Dense(4, 2)])
    drop = dw.Dropout(0.5)
    drop.forward(np.ones((6, 4)))
    loss = dw.MeanSquaredError()
    calls = {
        "x": [
            lambda: F.dropout(x, 0.5, key=1),
            lambda: F.relu(x),
            lambda: dw.Dropout(0.5).forward(x),
            lambda: dw.Dropout(0.5).predict(x),
            lambda: dw.SpatialDropout(0.5).forward(x),
            lambda: dw.AlphaDropout(0.5).forward(x),
            lambda: dw.Dense(4, 2).forward(x),
            lambda: dw.ReLU().forward(x),
            lambda: dw.Sigmoid().forward(x),
            lambda: net.forward(x),
            lambda: net.predict(x),
            lambda: net.predict_mc(x),
            lambda: net.fit(x, np.ones((6, 2)), loss=loss, optimizer=dw.SGD(0.1), epochs=1),
        ],
        "dy": [lambda: drop.backward(x)],
        "mask": [lambda: F.dropout_backward(np.ones((6, 4)), 0.5, mask=x)],
        "a": [lambda: F.matmul(x, np.ones((4, 2)))],
        "y": [
            lambda: loss.forward(np.ones((6, 4)), x),
            lambda: net.fit(np.ones((6, 4)), x, loss=loss, optimizer=dw.SGD(0.1), epochs=1),
        ],
    }
    for name, listed in calls.items():
        for call in listed:
            with pytest.raises(TypeError, match=rf"^{name} must be in memory.*dropwise\.dask"):
                call()


def test_textbook_classes_refuse_a_dask_array_as_layers_do():
    from dropwise.textbook import cs231n, dlfs, nnfs

    x, w, b = untouchable(), np.ones((4, 2)), np.zeros(2)
    dropout = nnfs.Layer_Dropout(0.5)
    for call in (
        dlfs.Dropout().forward,
        lambda x: dlfs.Dropout().forward(x, train_flg=False),
        dlfs.Relu().forward,
        dlfs.Sigmoid().forward,
        dlfs.Affine(w, b).forward,
        lambda x: dlfs.SoftmaxWithLoss().forward(x, np.arange(6) % 4),
        lambda x: dlfs.SoftmaxWithLoss().forward(np.ones((6, 4)), x),
        nnfs.Layer_Dense(4, 2).forward,
        dropout.forward,
        lambda x: dropout.forward(x, training=False),
        nnfs.Activation_ReLU().forward,
        nnfs.Activation_Softmax().forward,
        lambda x: cs231n.affine_forward(x, w, b),
        cs231n.relu_forward,
    ):
        with pytest.raises(TypeError, match=r"must be in memory.*dropwise\.dask"):
            call(x)


def test_an_xarray_of_dask_is_refused_and_one_in_memory_is_not():
    xarray = require("xarray")
    with pytest.raises(TypeError, match=r"got a collection of Dask \(DataArray\)"):
        F.dropout(xarray.DataArray(untouchable()), 0.5, key=1)
    x = np.ones((3, 4))
    got = F.dropout(xarray.DataArray(x), 0.5, key=1)
    np.testing.assert_array_equal(got, F.dropout(x, 0.5, key=1))


def test_an_xarray_goes_by_its_data():
    xarray = require("xarray")
    x = sample((6, 8))
    array = xarray.DataArray(x, dims=("time", "site")).chunk(time=4, site=3)
    y = array.copy(data=dd.dropout(array.data, 0.5, key=1))
    assert y.dims == array.dims
    np.testing.assert_array_equal(y.values, F.dropout(x, 0.5, key=1))


def test_dask_is_not_imported_without_need():
    code = "import sys, dropwise; print([m for m in sys.modules if m.startswith('dask')])"
    assert run_python(code) == "[]\n"


def test_without_dask_the_error_says_what_to_install():
    code = """
import sys
sys.modules["dask"] = None
try:
    import dropwise.dask
except ImportError as error:
    print(error)
"""
    assert "needs Dask: pip install 'dropwise[dask]'" in run_python(code)
