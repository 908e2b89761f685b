"""Copies, pickles and processes: what they hold, which masks they draw, what backward says."""

from __future__ import annotations

import copy
import io
import multiprocessing
import os
import pickle

import numpy as np
import pytest

import dropwise as dw
from dropwise.random import key_from_seed, spawned_key
from networks import chain, family, sample
from support import run_python

pytestmark = pytest.mark.usefixtures("backend")


class Own(dw.Layer):
    """A layer of one's own that keeps what backward needs where it belongs."""

    def __init__(self, factor=3.0):
        self.factor = factor

    def forward(self, x, training=True):
        self._pass = x > 0
        return self.factor * x * self._pass

    def backward(self, dy):
        if self._pass is None:
            raise RuntimeError("Own: backward was called before forward")
        return self.factor * dy * self._pass


class OwnDense(dw.Dense):
    """A subclass with a forward of its own."""

    def forward(self, x, training=True):
        return 2 * super().forward(x, training)

    def backward(self, dy):
        return super().backward(2 * np.asarray(dy))


def network(**options):
    inner = dw.Sequential(chain("9 9 R D", seed=4, **options))
    return dw.Sequential([*chain("6 9 R D", **options), inner, *chain("9 6")])


# Each takes rows of 6 columns and gives 6; the seeds make two of one kind alike.
LAYERS = {
    "Dense": lambda: dw.Dense(6, 6, dtype="float64", seed=1, l2=0.1),
    "Dense, own": lambda: OwnDense(6, 6, dtype="float64", seed=1),
    "ReLU": dw.ReLU,
    "Sigmoid": dw.Sigmoid,
    "Tanh": dw.Tanh,
    "Dropout": lambda: dw.Dropout(0.4, seed=1),
    "Dropout, replayed": lambda: dw.Dropout(0.4, seed=1, save_mask=False),
    "Dropout, columns": lambda: dw.Dropout(0.4, seed=1, noise_shape=(1, None)),
    **family(6),
    "own": Own,
    "network": network,
    "network, family": lambda: dw.Sequential(
        [*chain("6 6"), *(make() for make in family(6).values()), *chain("6 6", seed=2)]
    ),
    "network, own": lambda: dw.Sequential([*chain("6 6"), Own(), OwnDense(6, 6, seed=3)]),
}
COPIES = {
    "copy": copy.copy,
    "deepcopy": copy.deepcopy,
    "pickle": lambda layer: pickle.loads(pickle.dumps(layer)),
    "pickle of a copy": lambda layer: pickle.loads(pickle.dumps(copy.copy(layer))),
}


@pytest.fixture(params=LAYERS)
def layer(request):
    return LAYERS[request.param]()


@pytest.fixture(params=COPIES)
def duplicate(request):
    return COPIES[request.param]


def arrays_of(value, seen=None):
    """All arrays that an object holds, in any depth."""
    seen = {} if seen is None else seen
    if id(value) in seen or isinstance(value, (type, str, int, float, np.dtype)):
        return []
    seen[id(value)] = value
    if isinstance(value, np.ndarray):
        return [value]
    parts = list(getattr(value, "__dict__", {}).values())
    if isinstance(value, (list, tuple)):
        parts += value
    elif isinstance(value, dict):
        parts += value.values()
    for slot in getattr(type(value), "__slots__", ()):
        parts.append(getattr(value, slot, None))
    return [a for part in parts for a in arrays_of(part, seen)]


def test_backward_of_a_copy_says_that_forward_comes_first(layer, duplicate):
    y = layer.forward(sample(5, 6))
    layer.backward(y)
    with pytest.raises(RuntimeError, match="backward was called before forward"):
        duplicate(layer).backward(y)


def test_a_copy_does_not_change_the_backward_of_the_original(layer, duplicate):
    y = layer.forward(sample(5, 6))
    dx = layer.backward(y)
    gradients = [g.copy() for _, g in layer.parameters()]
    other = duplicate(layer)
    z = other.forward(sample(7, 6, seed=1))
    other.predict(sample(3, 6))
    if duplicate is not copy.copy or not isinstance(layer, dw.Sequential):
        other.backward(z)  # a shallow copy of a network has the same layers
    for (_, g), want in zip(layer.parameters(), gradients, strict=True):
        np.testing.assert_array_equal(g, want)
    if duplicate is copy.copy and own_layers(layer):
        with pytest.raises(RuntimeError, match="another network has called this layer since"):
            layer.backward(y)
    else:
        np.testing.assert_array_equal(layer.backward(y), dx)


def own_layers(layer):
    return isinstance(layer, dw.Sequential) and any(
        isinstance(part, (Own, OwnDense)) for part in layer
    )


@pytest.mark.parametrize("after", ["nothing", "predict", "forward", "backward"])
def test_a_copy_goes_on_as_the_original_does(layer, duplicate, after):
    if duplicate is copy.copy and isinstance(layer, dw.Sequential):
        return  # the same layers, the same streams
    x = sample(5, 6)
    if after == "predict":
        layer.predict(x)
    elif after != "nothing":
        y = layer.forward(x)
        if after == "backward":
            layer.backward(y)
    other = duplicate(layer)
    y = layer.forward(x)
    np.testing.assert_array_equal(other.forward(x), y)
    np.testing.assert_array_equal(other.backward(y), layer.backward(y))
    for (a, f), (b, g) in zip(layer.parameters(), other.parameters(), strict=True):
        np.testing.assert_array_equal(a, b)
        np.testing.assert_array_equal(f, g)


@pytest.mark.parametrize("kind", ["deepcopy", "pickle"])
def test_copies_of_what_was_never_used_and_has_no_seed_are_the_same(kind):
    x = sample(90, 6)  # so many that two masks of the rows are never the same
    for make in (
        lambda: dw.Sequential([dw.Dense(6, 9), dw.ReLU(), dw.Dropout(0.5), dw.Dense(9, 6)]),
        lambda: dw.Sequential([dw.Sequential([dw.Dense(6, 6)]), dw.Dropout(0.5)]),
        lambda: dw.Dense(6, 4),
        lambda: dw.Dropout(0.5),
        *family(6, seed=None).values(),
    ):
        net = make()
        other = COPIES[kind](net)
        np.testing.assert_array_equal(other.predict(x), net.predict(x))
        for _ in range(2):
            np.testing.assert_array_equal(other.forward(x), net.forward(x))
        assert (make().forward(x) != net.forward(x)).any()


def test_a_shallow_copy_shares_the_weights_drawn_or_not():
    for looked_at in (False, True):
        dense = dw.Dense(3, 2, dtype="float64")
        if looked_at:
            dense.predict(np.ones((1, 3)))
        other = copy.copy(dense)
        dense.weight[...] = 5
        assert (other.weight == 5).all()
        assert not np.shares_memory(other.gradients, dense.gradients)


def test_a_shallow_copy_of_a_network_has_a_history_of_its_own():
    net = dw.Sequential(chain("6 6"))
    other = copy.copy(net)
    x = sample(8, 6)
    other.fit(x, x, loss=dw.MeanSquaredError(), optimizer=dw.SGD(0.0), progress=False)
    assert (len(other.history), len(net.history)) == (1, 0)


def test_a_pickle_holds_parameters_and_state_and_no_batch(layer):
    size = len(pickle.dumps(layer))
    rows = 20_000
    y = layer.forward(sample(rows, 6))
    layer.backward(y)
    layer.predict(sample(rows, 6))
    if isinstance(layer, dw.Sequential):
        layer.predict_mc(sample(rows, 6), 2)
    parameters = sum(p.nbytes for p in layer.parameter_values())
    assert len(pickle.dumps(layer)) <= size + parameters + 2000
    for other in (copy.deepcopy(layer), pickle.loads(pickle.dumps(layer))):
        assert sum(a.nbytes for a in arrays_of(other)) <= 2 * parameters + 2000


def test_losses_and_optimizers_hold_no_batch_either():
    net = dw.Sequential(chain("6 6 R D 3"))
    x, y = sample(5000, 6), np.zeros(5000, int)
    adam, loss = dw.Adam(), dw.SoftmaxCrossEntropy()
    net.fit(x, y, loss=loss, optimizer=adam, batch_size=None, progress=False)
    parameters = sum(p.nbytes for p in net.parameter_values())
    assert len(pickle.dumps(loss)) < 500
    assert len(pickle.dumps(adam)) < 2 * parameters + 2000
    assert len(pickle.dumps(net)) < 3 * parameters + 5000


# ---- processes and spawned layers --------------------------------------------------------------


def test_spawned_layers_have_independent_keys_that_follow_from_key_stream_and_number():
    drop = dw.Dropout(0.5, seed=1)
    x = np.ones((40, 50), np.float32)
    drop.forward(x)
    before = drop.state_dict()
    children = drop.spawn(4)
    assert drop.state_dict() == before
    for i, child in enumerate(children):
        key = spawned_key(key_from_seed(1), 1, i)
        assert child.state_dict() == {
            "mask_contract": 1,
            "key": f"{key:#018x}",
            "next_stream": 0,
        }
        with pytest.raises(RuntimeError, match="before forward"):
            child.backward(x)
    again = [child.forward(x) for child in drop.spawn(4)]
    results = [child.forward(x) for child in children]
    np.testing.assert_array_equal(results, again)
    results.append(drop.forward(x))
    for i, a in enumerate(results):
        for b in results[:i]:
            same = ((a != 0) == (b != 0)).mean()
            assert abs(same - 0.5) < 5 * 0.5 / np.sqrt(a.size)  # 5 sigma, 6e-7
    drop.forward(x)
    assert drop.spawn(1)[0].state_dict()["key"] != children[0].state_dict()["key"]


def test_spawned_networks_have_the_weights_and_independent_masks():
    net = network()
    x = sample(40, 6)
    children = net.spawn(3)
    outputs = [child.forward(x) for child in children]
    for child in children:
        np.testing.assert_array_equal(child.predict(x), net.predict(x))
    assert len({y.tobytes() for y in [net.forward(x), *outputs]}) == 4
    np.testing.assert_array_equal([child.forward(x) for child in network().spawn(3)], outputs)
    keys = {d.state_dict()["key"] for c in [net, *children] for d in (c[2], c[3][2])}
    assert len(keys) == 8
    assert len({child.shuffle_key for child in [net, *children]}) == 4
    children[0][0].weight[...] = 0
    assert net[0].weight.any()
    assert net.spawn(0) == []


@pytest.mark.parametrize("n", [-1, 2.0, "3", True, None])
def test_a_number_of_copies_that_is_none_is_refused(n):
    for layer in (dw.Dropout(), network()):
        with pytest.raises((TypeError, ValueError), match="n must be"):
            layer.spawn(n)


def _masks(layer):
    return layer.forward(sample(5, 6)).tobytes(), layer.forward(sample(5, 6)).tobytes()


@pytest.mark.skipif(not hasattr(os, "fork"), reason="there is no fork here")
@pytest.mark.filterwarnings("ignore::DeprecationWarning")
def test_forked_workers_draw_the_masks_of_the_original_and_spawned_ones_do_not():
    context = multiprocessing.get_context("fork")
    net = network()
    net.forward(sample(5, 6))
    children = net.spawn(2)
    with context.Pool(2) as pool:
        same = pool.map(_masks, [net, net])
        others = pool.map(_masks, children)
    assert same == [_masks(copy.deepcopy(net))] * 2 == [_masks(net)] * 2
    assert others == [_masks(child) for child in children]
    assert len({*same, *others}) == 3


def test_an_interpreter_of_its_own_draws_the_masks_of_the_pickle(backend, tmp_path):
    net = dw.Sequential([dw.Dense(6, 9), dw.ReLU(), dw.Dropout(0.4), dw.Dense(9, 6)])
    children = net.spawn(2)
    path = tmp_path / "layers.pickle"
    path.write_bytes(pickle.dumps([net, *children]))
    code = (
        "import pickle, numpy as np, dropwise as dw\n"
        f"layers = pickle.load(open({str(path)!r}, 'rb'))\n"
        "x = np.random.default_rng(0).standard_normal((5, 6))\n"
        "for layer in layers:\n"
        "    print(layer.forward(x).tobytes().hex())\n"
    )
    said = run_python(code, DROPWISE_BACKEND=backend).split()
    assert said == [layer.forward(sample(5, 6)).tobytes().hex() for layer in [net, *children]]


def test_a_state_goes_through_memory_and_back(layer):
    if isinstance(layer, dw.Sequential) and not own_layers(layer):
        layer.forward(sample(5, 6))
        file = io.BytesIO()
        layer.save(file)
        file.seek(0)
        other = dw.Sequential.load(file)
        np.testing.assert_array_equal(other.forward(sample(5, 6)), layer.forward(sample(5, 6)))
