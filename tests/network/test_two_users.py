"""One layer with two users: in two networks, in two branches, called in between, in two threads.

Each backward is that of its own forward, or an error; gradients of two backwards are never mixed.
"""

from __future__ import annotations

import copy
import itertools
import sys
import threading
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest

import dropwise as dw
from dropwise import _backends
from networks import chain, dropouts, family, sample

pytestmark = pytest.mark.usefixtures("backend")


class Own(dw.Layer):
    """Remembers its input itself."""

    def forward(self, x, training=True):
        self.positive = x > 0
        return x * self.positive

    def backward(self, dy):
        return dy * self.positive


class InPlace(dw.Layer):
    """Doubles its input where that lies."""

    def forward(self, x, training=True):
        x *= 2
        return x

    def backward(self, dy):
        return 2 * dy


SHARED = {
    "Dropout": lambda: dw.Dropout(0.4, seed=1),
    "Dropout, replayed": lambda: dw.Dropout(0.4, seed=1, save_mask=False),
    "Dropout, columns": lambda: dw.Dropout(0.4, seed=1, noise_shape=(1, None)),
    **family(8),
    "Dense": lambda: dw.Dense(8, 8, dtype="float64", seed=8),
    "ReLU": dw.ReLU,
    "Tanh": dw.Tanh,
    "Sigmoid": dw.Sigmoid,
    "network": lambda: dw.Sequential(chain("8 8 R D 8", seed=9)),
    "network of networks": lambda: dw.Sequential([dw.Sequential(chain("8 8 R D", seed=9))]),
}


@pytest.fixture(params=SHARED)
def shared(request):
    return SHARED[request.param]()


def networks(shared):
    """Two that have the layer at different places."""
    a = dw.Sequential([*chain("5 8 R D"), shared, *chain("8 3", seed=2)])
    b = dw.Sequential([*chain("5 8"), shared, *chain("8 8 R D 2", seed=3)])
    return a, b


def gradients(net):
    return [g.copy() for _, g in net.parameters()]


def assert_equal(got, want):
    for a, b in zip(got, want, strict=True):
        np.testing.assert_array_equal(a, b)


def alone(networks, which, seed, before=()):
    """What forward and backward of one of the networks give, with nothing in between."""
    nets = copy.deepcopy(networks)
    for other, x in before:
        nets[other].forward(x)
    net = nets[which]
    y = net.forward(sample(6, 5, seed=seed))
    return y, net.backward(y), gradients(net)


def test_two_networks_share_a_layer(shared):
    nets = networks(shared)
    x = sample(6, 5, seed=0)
    want_a = alone(nets, 0, 0)
    want_b = alone(nets, 1, 1, before=[(0, x)])
    y_a = nets[0].forward(x)
    y_b = nets[1].forward(sample(6, 5, seed=1))
    assert_equal([y_a, y_b], [want_a[0], want_b[0]])
    np.testing.assert_array_equal(nets[0].backward(y_a), want_a[1])
    assert_equal(gradients(nets[0]), want_a[2])
    np.testing.assert_array_equal(nets[1].backward(y_b), want_b[1])
    assert_equal(gradients(nets[1]), want_b[2])
    np.testing.assert_array_equal(nets[0].backward(y_a), want_a[1])
    assert_equal(gradients(nets[0]), want_a[2])


def test_gradients_that_another_network_has_written_since_are_not_handed_out(shared):
    nets = networks(shared)
    ys = [net.forward(sample(6, 5, seed=i)) for i, net in enumerate(nets)]
    for net, y in zip(nets, ys, strict=True):
        net.backward(y)
    assert len(nets[1].parameters()) >= 2
    if shared.has_parameters():
        with pytest.raises(RuntimeError, match="another network or a call of one of its layers"):
            nets[0].parameters()
        nets[0].backward(ys[0])
        with pytest.raises(RuntimeError, match="call backward again"):
            nets[1].parameters()
    assert len(nets[0].parameters()) >= 2
    assert len(nets[0].parameter_values()) == len(nets[0].parameters())


def test_a_call_of_the_layer_in_between(shared):
    nets = networks(shared)
    want = alone(nets, 0, 0)
    y = nets[0].forward(sample(6, 5, seed=0))
    own = shared.forward(sample(4, 8))
    own_dx = shared.backward(own)
    shared.predict(sample(3, 8))
    np.testing.assert_array_equal(nets[0].backward(y), want[1])
    assert_equal(gradients(nets[0]), want[2])
    np.testing.assert_array_equal(shared.backward(own), own_dx)
    if shared.has_parameters():
        with pytest.raises(RuntimeError, match="a call of one of its layers"):
            nets[0].parameters()


def test_two_branches_share_a_layer(shared):
    branches = [
        dw.Sequential([*chain("5 8 R", seed=i), shared, *chain("8 3", seed=i)]) for i in range(2)
    ]
    x, dy = sample(6, 5), sample(6, 3, seed=7)
    wants = []
    for i in range(2):
        nets = copy.deepcopy(branches)
        for net in nets[: i + 1]:
            net.forward(x)
        wants.append((nets[i].backward(dy), gradients(nets[i])))
    for net in branches:
        net.forward(x)
    for i in (1, 0):  # in the order of backpropagation
        np.testing.assert_array_equal(branches[i].backward(dy), wants[i][0])
        assert_equal(gradients(branches[i]), wants[i][1])


def test_predict_of_one_user_does_not_disturb_the_other(shared):
    nets = networks(shared)
    want = alone(nets, 0, 0)
    y = nets[0].forward(sample(6, 5, seed=0))
    nets[1].predict(sample(9, 5))
    nets[1].predict_mc(sample(9, 5), 3)
    np.testing.assert_array_equal(nets[0].backward(y), want[1])
    assert_equal(gradients(nets[0]), want[2])


def test_a_layer_of_ones_own_knows_its_last_forward_only():
    own = Own()
    nets = [dw.Sequential([*chain("5 8", seed=i), own]) for i in range(2)]
    x = sample(6, 5)
    ys = [net.forward(x) for net in nets]
    with pytest.raises(RuntimeError, match=r"Own\(\): another network has called this layer since"):
        nets[0].backward(ys[0])
    nets[1].backward(ys[1])
    with pytest.raises(RuntimeError, match="left gradients incomplete"):
        nets[0].parameters()
    nets[0].forward(x)
    nets[0].predict(x)  # on a copy
    nets[1].predict(x)
    nets[0].backward(ys[0])


def test_the_same_layer_twice_in_a_network_in_any_depth_is_refused(shared):
    for layers in (
        [shared, shared],
        [shared, dw.Sequential([shared])],
        [dw.Sequential([dw.Sequential([shared])]), shared],
        [dw.Sequential([shared]), dw.Sequential([shared])],
    ):
        with pytest.raises(ValueError, match="is in the network twice"):
            dw.Sequential(layers)


def test_layers_one_by_one_hand_out_what_they_computed_last():
    net = dw.Sequential(chain("5 8 R D 3"))
    dx = net.backward(net.forward(sample(6, 5)))
    x = sample(4, 5)
    for layer in net:
        x = layer.forward(x)
    for layer in reversed(net.layers):
        x = layer.backward(x)
    assert len(net.parameters()) == 2
    assert dx.shape == (6, 5)


# ---- threads -----------------------------------------------------------------------------------


def run_in_threads(*calls):
    with ThreadPoolExecutor(len(calls)) as pool:
        return [f.result(60) for f in [pool.submit(call) for call in calls]]


def with_backend(backend, call):
    def run():
        with dw.backend(backend):
            return call()

    return run


@pytest.mark.parametrize("make", [dw.Sequential, lambda layers: dw.Sequential([*layers, Own()])])
def test_four_threads_that_predict_on_a_fresh_network_see_one_draw(backend, make, monkeypatch):
    for attempt in range(5):
        net = make([dw.Dense(50, 70), dw.ReLU(), dw.Dropout(), dw.Dense(70, 60), dw.Tanh()])
        start = threading.Barrier(4)

        def predict(net=net, start=start):
            start.wait()
            return net.predict(np.ones((3, 50)))

        results = run_in_threads(*[with_backend(backend, predict)] * 4)
        want = net.predict(np.ones((3, 50)))
        assert want.any(), attempt
        assert_equal(results, [want] * 4)


def test_threads_with_two_networks_that_share_a_layer(backend, shared):
    nets = networks(shared)
    wants = {}
    for which in range(2):
        for stream in range(20 if dropouts(shared) else 1):
            pair = copy.deepcopy(nets)
            set_streams(pair[which], stream)
            y = pair[which].forward(sample(6, 5, seed=which))
            wants[which, y.tobytes()] = pair[which].backward(y), gradients(pair[which])
    errors = []

    def train(which):
        net = nets[which]
        for _ in range(20):
            y = net.forward(sample(6, 5, seed=which))
            try:
                dx = net.backward(y)
                mine = gradients(net)
            except RuntimeError as error:
                errors.append(str(error))
                continue
            if (which, y.tobytes()) in wants:
                want = wants[which, y.tobytes()]
                np.testing.assert_array_equal(dx, want[0])
            assert len(mine) >= 2

    run_in_threads(*[with_backend(backend, lambda i=i: train(i)) for i in range(2)])
    words = ("another thread computes", "another network or a call", "gradients incomplete")
    assert all(any(word in text for word in words) for text in errors)
    if not shared.has_parameters():
        assert errors == []


def set_streams(net, stream):
    for drop in dropouts(net):
        drop.load_state_dict(drop.state_dict() | {"next_stream": stream})


DROPPING = {"Dropout": lambda: dw.Dropout(0.4, seed=1), **family(8)}


@pytest.mark.parametrize("before", [0, 1], ids=["first call", "later call"])
@pytest.mark.parametrize("name", DROPPING)
def test_a_forward_in_the_middle_of_another_takes_the_next_stream(name, before, monkeypatch):
    layer, alone = DROPPING[name](), DROPPING[name]()
    x = sample(6, 8)
    want = [alone.forward(x) for _ in range(before + 3)]
    got = [layer.forward(x) for _ in range(before)]
    computing = _backends.active()
    with monkeypatch.context() as patch:
        for function in ("dropout_forward", "mask_bits"):

            def meanwhile(*arguments, function=function):
                patch.undo()
                got.append(layer.forward(x))
                getattr(computing, function)(*arguments)

            patch.setattr(computing, function, meanwhile)
        outer = layer.forward(x)
    (inner,) = got[before:]
    assert_equal([*got[:before], outer, inner, layer.forward(x)], want)


def small_net():
    layers = [dw.Dense(8, 9), dw.ReLU(), dw.Dropout(0.4), dw.Dense(9, 3)]
    return dw.Sequential(layers, seed=1)


@pytest.mark.parametrize("before", [0, 2], ids=["first run", "a replay"])
@pytest.mark.parametrize("method", ["forward", "predict_mc"])
def test_a_run_in_the_middle_of_another_takes_the_next_streams(method, before, monkeypatch):
    net, alone = small_net(), small_net()
    x = sample(6, 8)

    def result(network):
        if method == "forward":
            return [network.forward(x)]
        return [*network.predict_mc(x, 5)]

    for network in (net, alone):
        for _ in range(before):
            network.backward(np.ones_like(network.forward(x)), input_grad=False)
    want = result(alone) + result(alone) + result(alone)
    computing, inner = _backends.active(), []
    with monkeypatch.context() as patch:
        for function in ("dropout_forward", "mask_bits"):
            whole = getattr(computing, function)

            def meanwhile(*args, whole=whole):
                patch.undo()
                inner.extend(result(net))
                whole(*args)

            patch.setattr(computing, function, meanwhile)
        outer = result(net)
    assert_equal([*outer, *inner, *result(net)], want)


@pytest.fixture
def switching_threads():
    before = sys.getswitchinterval()
    sys.setswitchinterval(1e-6)
    yield
    sys.setswitchinterval(before)


@pytest.mark.usefixtures("switching_threads")
def test_threads_that_share_a_dropout_take_each_stream_once(backend):
    layer, alone = (dw.Dropout(0.5, seed=1) for _ in range(2))
    x = np.ones(100_000, np.float32)  # so many that other threads run meanwhile
    start = threading.Barrier(4)

    def run():
        start.wait()
        return [hash(layer.forward(x).tobytes()) for _ in range(50)]

    results = run_in_threads(*[with_backend(backend, run)] * 4)
    want = sorted(hash(alone.forward(x).tobytes()) for _ in range(200))
    assert sorted(itertools.chain(*results)) == want
    assert layer.state_dict() == alone.state_dict()


def test_a_thread_that_finds_another_one_writing_the_gradients_is_refused(backend, monkeypatch):
    """Two backwards meet in the middle of one Dense layer's gradients, for certain."""
    dense = dw.Dense(8, 8, dtype="float64", seed=8)
    nets = networks(dense)
    want = copy.deepcopy(nets[0])
    want.forward(sample(6, 5, seed=0))
    ys = [net.forward(sample(6, 5, seed=i)) for i, net in enumerate(nets)]
    reached, go_on = threading.Event(), threading.Event()
    penalties = dw.Dense.complete_gradients

    def slow(layer):
        if layer is dense:
            reached.set()
            assert go_on.wait(60)
        penalties(layer)

    monkeypatch.setattr(dw.Dense, "complete_gradients", slow)
    with ThreadPoolExecutor(1) as pool:
        first = pool.submit(with_backend(backend, lambda: nets[0].backward(ys[0])))
        assert reached.wait(60)
        with pytest.raises(RuntimeError, match="another thread computes its gradients"):
            nets[1].backward(ys[1])
        dense.forward(sample(2, 8))
        with pytest.raises(RuntimeError, match="another thread computes its gradients"):
            dense.backward(sample(2, 8))
        go_on.set()
        dx = first.result(60)
    np.testing.assert_array_equal(dx, want.backward(ys[0]))
    nets[0].parameters()
    with pytest.raises(RuntimeError, match="incomplete"):
        nets[1].parameters()
    nets[1].backward(ys[1])
    nets[1].parameters()


def test_several_threads_run_one_network(backend):
    net = dw.Sequential(chain("5 40 R D 40 R D 3"))
    x = [sample(n, 5, seed=n) for n in (1, 30, 200, 1500)]
    want = [net.predict(part) for part in x]

    def predict(part):
        return [net.predict(part) for _ in range(5)]

    results = run_in_threads(*[with_backend(backend, lambda p=p: predict(p)) for p in x])
    for got, one in zip(results, want, strict=True):
        for result in got:
            np.testing.assert_array_equal(result, one)
    assert _backends.active().name == backend


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("place", ["alone", "last", "before a layer that writes to its input"])
def test_a_result_is_the_callers_to_write_to(shared, place, dtype):
    layer = shared
    if place != "alone":
        after = [] if place == "last" else [InPlace()]
        layer = dw.Sequential([shared, *after])
    x, dy = sample(6, 8).astype(dtype), sample(6, 8, seed=1).astype(dtype)
    other = copy.deepcopy(layer)
    expected = other.forward(x).copy()
    expected_dx = other.backward(dy).copy()
    y = layer.forward(x)
    np.testing.assert_array_equal(y, expected)
    y[...] = 7
    dx = layer.backward(dy)
    np.testing.assert_array_equal(dx, expected_dx)
    dx[...] = 7
    assert_equal(gradients(layer), gradients(other))
