"""States of networks: all names and shapes are checked first, then all is set, or nothing."""

from __future__ import annotations

import numpy as np
import pytest

import dropwise as dw


class Scale(dw.Layer):
    """A layer of one's own, which lends its array to its state and may refuse one."""

    def __init__(self, refuses=False):
        self.scale = np.ones(1)
        self.refuses = refuses

    def forward(self, x, training=True):
        return x * self.scale

    def backward(self, dy):
        return dy * self.scale

    def state_dict(self):
        return {"scale": self.scale}

    def load_state_dict(self, state):
        self.scale[...] = state["scale"]
        if self.refuses:
            raise RuntimeError("refused")


class Counting(dw.Dense):
    """A Dense with more in its state."""

    calls = 0

    def state_dict(self):
        return super().state_dict() | {"calls": self.calls}

    def load_state_dict(self, state):
        super().load_state_dict({k: v for k, v in state.items() if k != "calls"})
        self.calls = state["calls"]


def make(seed, *more):
    inner = dw.Sequential([dw.Dense(4, 4), dw.Tanh(), dw.Dropout(0.2), *more])
    return dw.Sequential([dw.Dense(3, 4), dw.ReLU(), inner, dw.Dense(4, 2)], seed=seed)


def snapshot(net):
    return {k: np.array(v) for k, v in net.state_dict().items()}


def assert_same(a, b):
    assert a.keys() == b.keys()
    for name in a:
        np.testing.assert_array_equal(a[name], b[name], strict=True)


def test_a_state_is_set_whole():
    a, b = make(1), make(2)
    a.forward(np.ones((2, 3)))
    a.epochs_done = 5
    b.load_state_dict(a.state_dict())
    assert_same(snapshot(b), snapshot(a))


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"0.weight": None}, "missing: '0.weight'$"),
        ({"0.weight": None, "2.0.bias": None, "epochs_done": None},
         "missing: '0.weight', '2.0.bias', 'epochs_done'$"),
        ({"2.2.key": None, "2.2.more": 1, "9.bias": 0, "x": 0},
         "missing: '2.2.key'; unexpected: '2.2.more', '9.bias', 'x'$"),
        ({"1.weight": 0, "2.1.x": 0}, "unexpected: '1.weight', '2.1.x'$"),
        ({"2.3.weight": 0}, "unexpected: '2.3.weight'$"),
        ({3: 0}, "unexpected: 3$"),
        ({"3.weight": np.ones((4, 3))}, r"layer 3: .*weight must have shape \(4, 2\), got"),
        ({"2.0.bias": np.ones(5)}, r"layer 2: layer 0: .*bias must have shape \(4,\), got \(5,\)"),
        ({"3.bias": np.ones(2, complex)}, "layer 3: .*must hold real numbers, got dtype"),
        ({"3.bias": ["a", "b"]}, "layer 3: .*must hold real numbers"),
        ({"2.2.mask_contract": 2}, "mask contract version 2"),
        ({"2.2.next_stream": -1}, "next_stream"),
        ({"2.2.next_stream": "1"}, "next_stream"),
        ({"2.2.key": "0x1ffffffffffffffff"}, "64-bit number in hexadecimal"),
        ({"2.epochs_done": 1.5}, "layer 2: epochs_done must be an integer"),
        ({"shuffle_key": 3}, "shuffle_key must be a string"),
    ],
)  # fmt: skip
def test_a_state_that_does_not_fit_is_named_and_changes_nothing(changes, message):
    net = make(1)
    before = snapshot(net)
    state = {k: v for k, v in (make(2).state_dict() | changes).items() if v is not None}
    with pytest.raises((ValueError, TypeError), match=message):
        net.load_state_dict(state)
    assert_same(snapshot(net), before)


@pytest.mark.parametrize("wrong", [None, 3, [("a", 1)], "state"])
def test_what_is_no_mapping_is_refused(wrong):
    for layer in (make(1), dw.Dense(2, 2), dw.ReLU(), dw.Dropout()):
        with pytest.raises(TypeError, match="state must be a mapping, got"):
            layer.load_state_dict(wrong)


@pytest.mark.parametrize("nested", [False, True])
def test_a_layer_of_ones_own_that_refuses_leaves_all_as_it_was(nested):
    scale = Scale()
    net = make(1, scale) if nested else dw.Sequential([*make(1), scale, dw.ReLU()])
    other = make(2, Scale()) if nested else dw.Sequential([*make(2), Scale(), dw.ReLU()])
    state = other.state_dict()
    state["2.3.scale" if nested else "4.scale"] = np.array([7.0])
    before = snapshot(net)
    scale.refuses = True
    with pytest.raises(RuntimeError, match="refused"):
        net.load_state_dict(state)
    assert_same(snapshot(net), before)
    scale.refuses = False
    net.load_state_dict(state)
    assert scale.scale == 7.0
    assert_same(snapshot(net), {k: np.array(v) for k, v in state.items()})


def test_a_subclass_with_more_in_its_state_loads_by_its_own_method():
    nets = [dw.Sequential([dw.Sequential([Counting(2, 3)]), dw.ReLU()], seed=i) for i in range(2)]
    nets[0][0][0].calls = 5
    nets[1].load_state_dict(nets[0].state_dict())
    assert nets[1][0][0].calls == 5
    assert_same(snapshot(nets[1]), snapshot(nets[0]))


def test_an_error_of_the_checks_of_one_layer_alone_names_it():
    with pytest.raises(ValueError, match=r"Dense\(2, 3\): state does not fit: missing: 'bias'"):
        dw.Dense(2, 3).load_state_dict({"weight": np.ones((2, 3))})
