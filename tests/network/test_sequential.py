"""The container: inference, arguments, seeds, state."""

from __future__ import annotations

import copy
import json

import numpy as np
import pytest

import dropwise as dw
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


def test_a_step_follows_what_has_changed_since_the_last_one(backend):
    first, drop, last = dw.Dense(64, 40), dw.Dropout(0.5), dw.Dense(40, 8)
    net = dw.Sequential([first, dw.ReLU(), drop, last], seed=1)
    rng = np.random.default_rng(0)
    x = np.zeros((90, 64), np.float32)
    x[:, :2] = rng.standard_normal((90, 2))
    first.weight[7:] = np.inf  # times the zeros of x: NaN, unless the terms are skipped

    def change(layer, name, value):
        return lambda: setattr(layer, name, value)

    # Steps between which nothing changes, too: those use the products of the step before.
    for act, rows, training in (
        (lambda: None, 90, True),
        (lambda: None, 90, True),
        (change(drop, "rate", 0.2), 90, True),
        (lambda: None, 90, False),
        (lambda: None, 90, True),
        (lambda: None, 30, True),
        (change(first, "skip_zeros", False), 30, True),
        (change(first, "skip_zeros", True), 30, True),
        (change(first, "weight", rng.standard_normal((64, 40))), 30, True),
        (lambda: None, 90, True),
    ):
        act()
        new = copy.deepcopy(net)  # which keeps no products
        results = []
        for each in (net, new):
            y = each.forward(x[:rows], training)
            dx = each.backward(np.ones_like(y))
            results.append((y, dx, *(g.copy() for _, g in each.parameters())))
        for got, want in zip(*results, strict=True):
            np.testing.assert_array_equal(got, want)
