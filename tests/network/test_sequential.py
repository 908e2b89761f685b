"""The container: inference, arguments, seeds, state."""

from __future__ import annotations

import copy
import json
import threading

import numpy as np
import pytest

import dropwise as dw
from dropwise.network.replay import Replay
from networks import chain, network, sample

pytestmark = pytest.mark.usefixtures("backend")


@pytest.mark.parametrize("rows", [1, 1023, 1024, 1025, 3000])
@pytest.mark.parametrize("scaling", ["inverted", "vanilla"])
def test_predict_is_the_inference_forward(rows, scaling):
    net = dw.Sequential(chain("5 70 R D 3", scaling=scaling))
    x = sample(rows, 5)
    np.testing.assert_allclose(net.predict(x), net.forward(x, training=False), rtol=1e-12)


def test_predict_takes_no_streams():
    net = dw.Sequential(chain("5 7 R D 3"))
    net.predict(sample(4, 5))
    assert net.layers[2].state_dict()["next_stream"] == 0


def test_layers_that_do_not_fit_are_an_error_at_once():
    with pytest.raises(ValueError, match=r"Dense\(2, 3\) gives 3 columns; Dense\(4, 5\) takes 4"):
        dw.Sequential([dw.Dense(2, 3), dw.ReLU(), dw.Dropout(), dw.Dense(4, 5)])
    with pytest.raises(ValueError, match=r"gives float32; .* takes float64"):
        dw.Sequential([dw.Dense(2, 3), dw.Dense(3, 4, dtype="float64")])
    with pytest.raises(TypeError, match="layers must be Layer objects, got 3"):
        dw.Sequential([3])


class FirstHalf(dw.Dropout):
    """A subclass whose result has another shape."""

    def forward(self, x, training=True):
        return x[:, : x.shape[1] // 2]


def test_a_subclass_may_change_the_columns():
    net = dw.Sequential([dw.Dense(3, 8), FirstHalf(), dw.Dense(4, 5)])
    assert net.forward(sample(2, 3)).shape == (2, 5)


def test_a_layer_that_is_there_twice_is_an_error_at_once():
    drop = dw.Dropout(0.5)
    with pytest.raises(ValueError, match=r"Dropout\(rate=0.5\) is in the network twice"):
        dw.Sequential([dw.Dense(2, 3), drop, dw.Dense(3, 3), drop])


def test_the_wrong_number_of_columns_is_an_error_that_names_both():
    net = dw.Sequential([dw.Dense(512, 256), dw.ReLU()])
    for call in (net.forward, net.predict):
        with pytest.raises(
            ValueError, match=r"Dense\(512, 256\) got x with 784 columns; it was built for 512"
        ):
            call(np.ones((3, 784)))


def test_the_seed_fixes_weights_and_masks():
    x = sample(20, 2, np.float32)
    a, b, c = network(1), network(1), network(2)
    for _ in range(2):
        y = a.forward(x)
        np.testing.assert_array_equal(b.forward(x), y)
        assert (c.forward(x) != y).any()


def test_child_i_has_the_seed_with_spawn_key_i():
    net = network(1)
    sequence = np.random.SeedSequence(1, spawn_key=(2,))
    key = int(sequence.generate_state(1, np.uint64)[0])
    assert net.layers[2].state_dict()["key"] == f"{key:#018x}"
    inner = dw.Sequential(
        [dw.Sequential([dw.Dropout()]), dw.Dropout()], seed=np.random.SeedSequence(1)
    )
    nested = np.random.SeedSequence(1, spawn_key=(0, 0)).generate_state(1, np.uint64)[0]
    assert inner.layers[0].layers[0].state_dict()["key"] == f"{int(nested):#018x}"


def test_the_seed_fixes_the_weights_of_nested_networks():
    def nested():
        return dw.Sequential([dw.Sequential([dw.Dense(2, 3)]), dw.ReLU(), dw.Dense(3, 1)], seed=1)

    for (a, _), (b, _) in zip(nested().parameters(), nested().parameters(), strict=True):
        np.testing.assert_array_equal(a, b)


def test_a_layer_keeps_a_seed_or_weights_of_its_own():
    drop, looked_at = dw.Dropout(seed=5), dw.Dense(2, 3)
    key, weight = drop.state_dict()["key"], looked_at.weight.copy()
    net = dw.Sequential([dw.Dense(2, 2, seed=9), looked_at, drop], seed=1)
    assert drop.state_dict()["key"] == key
    np.testing.assert_array_equal(net.layers[0].weight, dw.Dense(2, 2, seed=9).weight)
    np.testing.assert_array_equal(net.layers[1].weight, weight)


def test_the_state_without_arrays_is_json():
    state = network(1).state_dict()
    plain = {k: v for k, v in state.items() if not isinstance(v, np.ndarray)}
    assert json.loads(json.dumps(plain)) == plain
    assert {k for k in state if k not in plain} == {"0.weight", "0.bias", "3.weight", "3.bias"}


def test_the_summary_counts_parameters():
    lines = network(1).summary().splitlines()
    assert lines[0].split() == ["0", "Dense(2,", "32)", "96"]
    assert lines[-1].split() == ["total", "195"]


def test_the_repr_shows_the_layers():
    net = dw.Sequential([dw.Dense(2, 3), dw.ReLU(), dw.Dropout(0.1)])
    assert repr(net) == "Sequential([Dense(2, 3), ReLU(), Dropout(rate=0.1)])"


@pytest.mark.parametrize("input_grad", [True, False])
def test_a_step_follows_what_has_changed_since_the_last_one(backend, input_grad):
    first, drop, last = dw.Dense(64, 40), dw.Dropout(0.5), dw.Dense(40, 8)
    net = dw.Sequential([first, dw.ReLU(), drop, last], seed=1)
    rng = np.random.default_rng(0)
    x = np.zeros((90, 64), np.float32)
    x[:, :2] = rng.standard_normal((90, 2))
    columns_first = np.asfortranarray(x)
    first.weight[7:] = np.inf  # times the zeros of x: NaN, unless the terms are skipped

    def change(layer, name, value):
        return lambda: setattr(layer, name, value)

    def nothing():
        pass

    # Steps between which nothing changes, too: those use the products of the step before.
    for act, rows, training in (
        (nothing, x, True),
        (nothing, x, True),
        (nothing, x, True),
        (change(drop, "rate", 0.2), x, True),
        (change(drop, "rate", 0.0), x, True),
        (change(drop, "rate", 1.0), x, True),
        (change(drop, "rate", 0.5), x, True),
        (lambda: drop.load_state_dict(dw.Dropout(seed=9).state_dict()), x, True),
        (nothing, x, False),
        (nothing, x, True),
        (lambda: net.predict(x[:7]), x, True),
        (lambda: net.forward(x), x, True),
        (nothing, columns_first, True),
        (nothing, x.astype(np.float64), True),
        (nothing, x.tolist(), True),
        (nothing, x.reshape(9, 10, 64), True),
        (nothing, x.reshape(9, 10, 64), True),
        (nothing, x, True),
        (nothing, x, True),
        (change(last, "l2", 0.25), x, True),
        (nothing, x, True),
        (nothing, x[:30], True),
        (nothing, x[:30], True),
        (change(first, "skip_zeros", False), x[:30], True),
        (change(first, "skip_zeros", True), x[:30], True),
        (nothing, x[:30], True),
        (change(first, "weight", rng.standard_normal((64, 40))), x[:30], True),
        (lambda: net.load_state_dict(dw.Sequential(net.layers).state_dict()), x[:30], True),
        (nothing, x[:30], True),
        (nothing, x, True),
    ):
        act()
        new = copy.deepcopy(net)  # which keeps no products
        results = []
        for each in (net, new):
            y = each.forward(rows, training)
            dy = np.ones_like(y)
            given = dy[:, ::-1] if rows is columns_first else dy
            dx = each.backward(given, input_grad=input_grad)
            layer = each.layers[2]
            mask = layer.mask if training else None
            results.append((y, dx, mask, *(g.copy() for _, g in each.parameters())))
            results[-1] += (layer.state_dict()["next_stream"], each.regularization_loss())
        for got, want in zip(*results, strict=True):
            np.testing.assert_array_equal(got, want)


def small_net():
    layers = [dw.Dense(6, 5), dw.ReLU(), dw.Dropout(0.5), dw.Dense(5, 4), dw.ReLU(), dw.Dense(4, 3)]
    return dw.Sequential(layers, seed=0), np.random.default_rng(0).random((8, 6), np.float32)


def test_equal_steps_are_replayed():
    net, x = small_net()
    dy = np.ones((8, 3), np.float32)
    net.forward(x)
    net.backward(dy, input_grad=False)
    this, replay = net._pass, net._pass.memory.replay
    assert replay is not None
    for _ in range(3):
        net.forward(x)
        net.backward(dy, input_grad=False)
        assert net._pass is this
        assert this.memory.replay is replay


def test_a_forward_in_another_thread_leaves_a_backward_its_records(monkeypatch):
    net, x = small_net()
    dy = np.ones((8, 3), np.float32)
    for _ in range(2):
        net.forward(x)
        net.backward(dy, input_grad=False)
    net.forward(x)
    alone = copy.deepcopy(net)
    alone.layers[2].load_state_dict(
        net.layers[2].state_dict() | {"next_stream": net.layers[2].state_dict()["next_stream"] - 1}
    )
    alone.forward(x)
    alone.backward(dy, input_grad=False)
    whole = Replay.backward

    def interrupted(self, dy):
        other = threading.Thread(target=net.forward, args=(2 * x,))
        other.start()
        other.join()
        return whole(self, dy)

    monkeypatch.setattr(Replay, "backward", interrupted)
    net.backward(dy, input_grad=False)
    for (_, got), (_, want) in zip(net.parameters(), alone.parameters(), strict=True):
        np.testing.assert_array_equal(got, want)


def test_a_forward_that_is_refused_leaves_the_last_one():
    net, x = small_net()
    dy = np.ones((8, 3), np.float32)
    for _ in range(2):
        net.forward(x)
        net.backward(dy, input_grad=False)
    wanted = [g.copy() for _, g in net.parameters()]
    with pytest.raises(ValueError, match="x"):
        net.forward(x[:, 1:])
    with pytest.raises(TypeError):
        net.forward(x * 1j)
    net.backward(dy, input_grad=False)
    for (_, got), want in zip(net.parameters(), wanted, strict=True):
        np.testing.assert_array_equal(got, want)


@pytest.mark.parametrize("error", [MemoryError, KeyboardInterrupt])
@pytest.mark.parametrize("after", [False, True])
def test_a_replay_that_fails_leaves_no_half_of_a_step(error, after):
    net, x = small_net()
    dy = np.ones((8, 3), np.float32)
    for _ in range(2):
        net.forward(x)
        net.backward(dy, input_grad=False)
    whole = copy.deepcopy(net)

    def fail_in(replay, name):
        real = getattr(replay, name)

        def multiply(values):
            setattr(replay, name, real)
            if after:
                real(values)
            raise error

        setattr(replay, name, multiply)

    fail_in(net._pass.memory.replay, "_multiply_forward")
    with pytest.raises(error):
        net.forward(x)
    with pytest.raises(RuntimeError, match="forward"):
        net.backward(dy, input_grad=False)
    got, want = net.forward(x), whole.forward(x)  # the stream was not used up
    np.testing.assert_array_equal(got, want)
    net.backward(dy, input_grad=False)
    fail_in(net._pass.memory.replay, "_multiply_backward")
    with pytest.raises(error):
        net.backward(dy, input_grad=False)
    with pytest.raises(RuntimeError, match="incomplete"):
        net.parameters()
    net.backward(dy, input_grad=False)
    whole.backward(dy, input_grad=False)
    for (_, got), (_, want) in zip(net.parameters(), whole.parameters(), strict=True):
        np.testing.assert_array_equal(got, want)
