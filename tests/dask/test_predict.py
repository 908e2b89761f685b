"""Predictions over rows in chunks: the bits of the call in memory."""

from __future__ import annotations

import copy
from collections import Counter

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import dropwise as dw
from support import require

dask = require("dask")
da = require("dask.array")
require("sklearn")
from dask.array.utils import assert_eq
from dask.callbacks import Callback
from dask.utils import key_split
from sklearn.datasets import make_classification, make_regression
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

import dropwise.dask as dd
from dropwise.sklearn import MLPClassifier, MLPRegressor

pytestmark = pytest.mark.filterwarnings("ignore::sklearn.exceptions.ConvergenceWarning")

# More than twice the rows that a network in memory takes at a time.
ROWS = 2500


def network(kind="plain", dtype=np.float32):
    dropouts = {
        "plain": lambda: dw.Dropout(0.5),
        "columns": lambda: dw.Dropout(0.3, noise_shape=(1, None)),
        "rows": lambda: dw.DropPath(0.3),
        "alpha": lambda: dw.AlphaDropout(0.2),
    }
    layers = [dw.Dense(24, 96, dtype=dtype), dw.ReLU(), dropouts[kind]()]
    layers += [dw.Dense(96, 40, dtype=dtype), dw.Tanh(), dw.Dropout(0.1)]
    inner = dw.Sequential([dw.Dense(40, 32, dtype=dtype), dw.ReLU(), dropouts[kind]()])
    return dw.Sequential([*layers, inner, dw.Dense(32, 3, dtype=dtype)], seed=4)


def rows(dtype=np.float32, n=ROWS):
    # Half of the values are zeros, more in the first rows: what products skip depends on the rows.
    rng = np.random.default_rng(2)
    x = rng.standard_normal((n, 24))
    x[rng.random(x.shape) > np.linspace(0.05, 0.95, n)[:, None]] = 0
    return x.astype(dtype)


def assert_same(lazy, expected):
    assert_eq(lazy, expected)
    got = lazy.compute(scheduler="threads")
    assert got.dtype == expected.dtype == lazy.dtype
    if expected.dtype.kind == "f":  # bit for bit
        got, expected = (a.view(f"u{a.itemsize}") for a in (got, expected))
    np.testing.assert_array_equal(got, expected)


CHUNKS = [
    (ROWS, 24),
    (1024, 24),
    (700, 5),
    (97, 24),
    ((1, 1023, 0, 1, 1475), (24,)),
    ((1025, 1475), (3, 21)),
]


@pytest.mark.parametrize("chunks", CHUNKS, ids=str)
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_predict_gives_the_bits_of_the_call_in_memory(dtype, chunks):
    net, x = network(dtype=dtype), rows(dtype)
    assert_same(dd.predict(net, da.from_array(x, chunks)), net.predict(x))


@pytest.mark.parametrize("chunks", CHUNKS, ids=str)
@pytest.mark.parametrize("kind", ["plain", "columns", "rows", "alpha"])
def test_monte_carlo_gives_the_bits_and_takes_the_streams_of_the_call_in_memory(kind, chunks):
    net, x = network(kind), rows()
    net.forward(x[:2])  # not the first stream
    other = copy.deepcopy(net)
    lazy = dd.predict_mc(net, da.from_array(x, chunks), 7)
    expected = other.predict_mc(x, 7)
    for a, b in zip(lazy, expected, strict=True):
        assert_same(a, b)
    state, wanted = net.state_dict(), other.state_dict()
    assert {k: v for k, v in state.items() if k.endswith("next_stream")} == {
        k: v for k, v in wanted.items() if k.endswith("next_stream")
    }
    # The next call has other masks, those that come next in memory.
    again = dd.predict_mc(net, da.from_array(x, chunks), 7)
    assert again[0].name != lazy[0].name
    assert_same(again[1], other.predict_mc(x, 7)[1])


@settings(max_examples=25)
@given(
    st.lists(st.integers(0, ROWS), max_size=5), st.lists(st.integers(0, 24), max_size=3),
    st.sampled_from([1, 3, 100, 1025]),
)  # fmt: skip
def test_no_chunking_shows(ends, columns, n_samples):
    chunks = [
        tuple(int(n) for n in np.diff([0, *sorted(cut), size]))
        for cut, size in ((ends, ROWS), (columns, 24))
    ]
    few = 1100 if n_samples < 1000 else 3  # rows that matter
    x = da.from_array(rows(), chunks)[-few:]
    net = network()
    other = copy.deepcopy(net)
    got = dask.compute(dd.predict(net, x), *dd.predict_mc(net, x, n_samples))
    expected = (other.predict(rows()[-few:]), *other.predict_mc(rows()[-few:], n_samples))
    for a, b in zip(got, expected, strict=True):
        np.testing.assert_array_equal(a, b)


def test_rows_of_more_dimensions():
    net = network()
    x = rows().reshape(-1, 4, 24)
    lazy = da.from_array(x, chunks=(100, 3, 24))
    assert_same(dd.predict(net, lazy), net.predict(x))
    other = copy.deepcopy(net)
    mean, std = dd.predict_mc(net, lazy, 3)
    assert mean.shape == (len(x), 4, 3)
    for a, b in zip((mean, std), other.predict_mc(x, 3), strict=True):
        assert_same(a, b)


def test_the_layout_of_chunks_does_not_show():
    # A sum of products over the columns, which are summed up in another order if they lie apart.
    net, x = dw.Sequential([dw.Dense(24, 1, dtype=np.float64)], seed=4), rows(np.float64)
    expected = net.predict(x)
    assert not np.array_equal(net.predict(np.asfortranarray(x)), expected)
    # Chunks that need not be cut and joined, which would give them another layout.
    by_columns = da.from_array(x.T.copy(), chunks=(24, 1024)).T
    assert_same(dd.predict(net, by_columns), expected)


def test_no_rows():
    net = network()
    none = da.zeros((0, 24), chunks=3)
    assert dd.predict(net, none).compute().shape == (0, 3)
    mean, std = dask.compute(*dd.predict_mc(net, none, 2))
    assert mean.shape == std.shape == (0, 3)


def softmax(scores):
    e = np.exp(scores - scores.max(axis=-1, keepdims=True))
    return e / e.sum(axis=-1, keepdims=True)


def test_a_transform_comes_before_the_mean():
    net, x = network(), rows()
    other = copy.deepcopy(net)
    mean, _ = dd.predict_mc(net, da.from_array(x, chunks=(800, 24)), 5, transform=softmax)
    assert_same(mean, other.predict_mc(x, 5, transform=softmax)[0])


def classifier(classes=3):
    x, y = make_classification(300, 24, n_informative=8, n_classes=classes, random_state=0)
    names = np.array(["ant", "bee", "cicada"])[y]
    return MLPClassifier((60,), dropout=0.4, max_iter=5, random_state=0).fit(x, names)


def regressor(outputs=1):
    x, y = make_regression(300, 24, n_targets=outputs, random_state=0)
    return MLPRegressor(hidden_layer_sizes=(60,), dropout=0.4, max_iter=5, random_state=0).fit(x, y)


MODELS = {
    "classifier": classifier,
    "two classes": lambda: classifier(2),
    "regressor": regressor,
    "two values": lambda: regressor(2),
}


@pytest.mark.parametrize("dtype", [np.float32, np.float64, np.int64])
@pytest.mark.parametrize("name", MODELS)
def test_estimators_give_the_bits_of_the_call_in_memory(name, dtype):
    model, x = MODELS[name](), (3 * rows()).astype(dtype)
    for chunks in ((700, 24), (1024, 7), ((1, 2499), (24,))):
        lazy = da.from_array(x, chunks)
        assert_same(dd.predict(model, lazy), model.predict(x))
        both = dd.predict_mc(model, lazy, 11)
        for a, b in zip(both, model.predict_mc(x, 11), strict=True):
            assert_same(a, b)


@pytest.mark.parametrize("name", ["classifier", "regressor"])
def test_estimators_in_memory_refuse_dask_and_say_where_to_go(name):
    model, x = MODELS[name](), rows(n=30)
    y, lazy = model.predict(x), da.from_array(x, chunks=7)
    asked = [model.predict, model.predict_mc, lambda x: model.fit(x, y)]
    asked += [lambda x: model.partial_fit(x, y), lambda x: model.score(x, y)]
    if name == "classifier":
        asked.append(model.predict_proba)
    for call in asked:
        with pytest.raises(TypeError, match=r"^X must be in memory.*dropwise\.dask"):
            call(lazy)
    with pytest.raises(TypeError, match=r"^y must be in memory"):
        model.fit(x, da.from_array(y, chunks=7))
    with pytest.raises(TypeError, match=r"^sample_weight must be in memory"):
        model.fit(x, y, da.ones(30, chunks=7))
    np.testing.assert_array_equal(model.predict(x), y)  # nothing has changed


def test_a_pipeline_predicts():
    x = rows(np.float64)
    y = x[:, 0] - x[:, 1]
    model = make_pipeline(StandardScaler(), regressor()).fit(x, y)
    assert_same(dd.predict(model, da.from_array(x, chunks=(600, 24))), model.predict(x))


def test_estimators_take_the_place_of_rows_in_memory_too():
    model, x = classifier(), rows(n=40)
    whole = model.predict_mc(x, 5)
    part = model.predict_mc(x[30:], 5, first_row=30)
    for a, b in zip(part, whole, strict=True):
        np.testing.assert_allclose(a, b[30:], rtol=1e-5, atol=1e-7)
    assert not np.allclose(model.predict_mc(x[30:], 5)[0], whole[0][30:], rtol=1e-3)
    with pytest.raises(ValueError, match="first_row"):
        model.predict_mc(x, 5, first_row=-1)


def test_the_model_is_taken_as_it_is_at_the_call():
    net, x = network(), rows()
    lazy = dd.predict(net, da.from_array(x, chunks=(600, 24)))
    expected = net.predict(x)
    net[0].weight = 2 * net[0].weight
    assert_same(lazy, expected)
    changed = dd.predict(net, da.from_array(x, chunks=(600, 24)))
    assert changed.name != lazy.name


def executed(*lazy):
    """How many tasks of each name a computation of these has."""
    names = []
    with Callback(pretask=lambda key, *_: names.append(key_split(key))):
        dask.compute(*lazy, scheduler="sync")
    return Counter(names)


def test_tasks_have_names_of_their_own_and_come_once_for_each_chunk():
    x = da.ones((4 * 1024, 24), chunks=(1024, 24)) + 1
    assert executed(dd.predict(network(), x))["dropwise.predict"] == 4
    assert executed(*dd.predict_mc(network(), x, 2))["dropwise.predict_mc"] == 4


def test_a_model_is_one_node_of_the_graph_beside_one_fused_task_for_each_chunk():
    lazy = dd.predict(network(), da.ones((4 * 1024, 24), chunks=(1024, 24)) + 1)
    (optimized,) = dask.optimize(lazy)
    names = Counter(key_split(key) for key in dict(optimized.__dask_graph__()))
    assert names == {"dropwise.model": 1, "dropwise.predict": 4}


@pytest.mark.parametrize("call", [dd.predict, dd.predict_mc])
def test_what_the_model_does_not_take_is_refused_at_the_call(call):
    net = network()
    before = net.state_dict()["2.next_stream"]
    with pytest.raises(ValueError, match="got x with 25 columns; it was built for 24"):
        call(net, da.ones((5, 25), chunks=2))
    with pytest.raises(ValueError, match=r"needs x of shape \(B, ..., features\)"):
        call(net, da.ones(24, chunks=2))
    with pytest.raises(TypeError, match="must hold real numbers"):
        call(net, da.ones((5, 24), chunks=2, dtype=complex))
    with pytest.raises(TypeError, match=r"needs a dask array, got ndarray"):
        call(net, np.ones((5, 24)))
    x = da.ones((5, 24), chunks=2)
    with pytest.raises(ValueError, match="size of every chunk"):
        call(net, x[x[:, 0] > 0])
    with pytest.raises(TypeError, match="model must have a method predict"):
        call(dw.SoftmaxCrossEntropy(), x)
    with pytest.raises(ValueError, match="expecting 24 features"):
        call(classifier(), da.ones((5, 25), chunks=2))
    assert net.state_dict()["2.next_stream"] == before


def test_a_number_of_samples_that_cannot_be_is_refused_at_the_call():
    x = da.ones((5, 24), chunks=2)
    for model in (network(), classifier()):
        with pytest.raises(ValueError, match="samples"):
            dd.predict_mc(model, x, 0)
    with pytest.raises(TypeError, match="transform"):
        dd.predict_mc(classifier(), x, 2, transform=softmax)


def test_masked_chunks_are_refused_as_masked_arrays_are():
    net = dw.Sequential([dw.Dense(2, 1), dw.Dropout(0.5)], seed=0)
    z = da.from_array(np.ma.masked_greater([[1.0, 2.0], [1.0, 1e9]], 5), chunks=1, asarray=False)
    for result in (dd.predict(net, z), dd.predict_mc(net, z, 3)[0]):
        with pytest.raises(TypeError, match="must be a plain array, got a masked one"):
            result.compute(scheduler="sync")
