"""A failure in the middle of a call, and then the next calls.

What failed has taken no stream; backward is that of the last forward that was good, or an error;
gradients of which some are old are not handed out.
"""

from __future__ import annotations

import numpy as np
import pytest

import dropwise as dw
from faults import failing_call
from networks import chain, dropouts, family, sample
from support import require

pytestmark = pytest.mark.usefixtures("backend")


class Own(dw.Layer):
    """Doubles; fails when told to."""

    fails = None  # "forward", "backward" or "predict"
    error = MemoryError

    def forward(self, x, training=True):
        if self.fails == ("forward" if training else "predict"):
            raise self.error
        return 2 * x

    def backward(self, dy):
        if self.fails == "backward":
            raise self.error
        return 2 * dy


def dense(inputs, outputs, **options):
    return dw.Dense(inputs, outputs, dtype="float64", seed=outputs, **options)


LAYERS = {
    "Dense": lambda: dense(6, 6, l2=0.1),
    "Dense, both penalties": lambda: dense(6, 6, l1=0.1, bias_l2=0.1),
    "ReLU": lambda: dw.ReLU(),
    "Sigmoid": lambda: dw.Sigmoid(),
    "Tanh": lambda: dw.Tanh(),
    "Dropout": lambda: dw.Dropout(0.4, seed=1),
    "Dropout, replayed": lambda: dw.Dropout(0.4, seed=1, save_mask=False),
    "Dropout, columns": lambda: dw.Dropout(0.4, seed=1, noise_shape=(1, None)),
    "Dropout, vanilla": lambda: dw.Dropout(0.4, seed=1, scaling="vanilla"),
    **family(6),
    "own": Own,
    "family": lambda: dw.Sequential(
        [*chain("6 6 R"), *(make() for make in family(6).values()), *chain("6 6", seed=2)]
    ),
    "fused": lambda: dw.Sequential(chain("6 9 R D 6")),
    "columns": lambda: dw.Sequential(chain("6 9 R D 6", noise_shape=(1, None))),
    "nested": lambda: dw.Sequential(
        [*chain("6 9 R D"), dw.Sequential([*chain("9 9 D", seed=5), Own()]), *chain("9 6 D")]
    ),
}


@pytest.fixture(params=LAYERS)
def name(request):
    return request.param


def streams(layer):
    return [d.state_dict()["next_stream"] for d in dropouts(layer)]


def gradients(layer):
    return [g.copy() for _, g in layer.parameters()]


def outcome(call):
    """What the call returns, or what its RuntimeError says."""
    try:
        return call(), None
    except RuntimeError as error:
        return None, str(error)


def assert_next_step_is_right(layer, reference, x):
    """Forward and backward give what they give without the failures before."""
    y = reference.forward(x)
    np.testing.assert_array_equal(layer.forward(x), y)
    np.testing.assert_array_equal(layer.backward(y), reference.backward(y))
    for got, want in zip(gradients(layer), gradients(reference), strict=True):
        np.testing.assert_array_equal(got, want)
    assert streams(layer) == streams(reference)


def count_of_failures(error, call, check):
    """Let each call of the backend fail in its turn, until `call` ends well."""
    for nth in range(60):
        for after in (False, True):
            with failing_call(nth, error, after):
                try:
                    call()
                except error:
                    pass
                else:
                    assert not after
                    return nth
            check()
    raise AssertionError("the call does not end")


@pytest.mark.parametrize("error", [MemoryError, KeyboardInterrupt])
def test_a_forward_that_fails_takes_no_stream_and_leaves_no_wrong_gradient(name, error):
    layer, reference = LAYERS[name](), LAYERS[name]()
    x1, x2 = sample(5, 6), sample(7, 6, seed=1)
    y = layer.forward(x1)
    np.testing.assert_array_equal(y, reference.forward(x1))
    dx, before = reference.backward(y), streams(layer)

    def check():
        assert streams(layer) == before
        got, problem = outcome(lambda: layer.backward(y))
        if problem is None:
            np.testing.assert_array_equal(got, dx)
        else:
            assert "backward was called before forward, or after one that failed" in problem

    def forward():
        layer.forward(x2)

    failures = count_of_failures(error, forward, check)
    assert failures or name in ("Sigmoid", "Tanh", "own")
    reference.forward(x2)
    assert_next_step_is_right(layer, reference, x1)


@pytest.mark.parametrize("error", [MemoryError, KeyboardInterrupt])
def test_a_backward_that_fails_hands_out_no_gradients_and_may_be_repeated(name, error):
    layer, reference = LAYERS[name](), LAYERS[name]()
    x = sample(5, 6)
    for _ in range(2):
        y = layer.forward(x)
        reference.forward(x)
    layer.backward(y)
    dx = reference.backward(2 * y)
    before, good = streams(layer), gradients(layer)

    def check():
        assert streams(layer) == before
        current, problem = outcome(lambda: gradients(layer))
        if problem is None:
            for a, b in zip(current, good, strict=True):
                np.testing.assert_array_equal(a, b)
        else:
            assert "gradients incomplete" in problem

    def backward():
        np.testing.assert_array_equal(layer.backward(2 * y), dx)

    count_of_failures(error, backward, check)
    np.testing.assert_array_equal(layer.backward(2 * y), dx)
    for got, want in zip(gradients(layer), gradients(reference), strict=True):
        np.testing.assert_array_equal(got, want)
    assert_next_step_is_right(layer, reference, sample(3, 6))


@pytest.mark.parametrize("error", [MemoryError, KeyboardInterrupt])
def test_inference_that_fails_changes_nothing(name, error):
    layer, reference = LAYERS[name](), LAYERS[name]()
    x = sample(5, 6)
    y = layer.forward(x)
    reference.forward(x)
    dx = reference.backward(y)

    def check():
        np.testing.assert_array_equal(layer.backward(y), dx)

    calls = [lambda: layer.predict(x)]
    if isinstance(layer, dw.Sequential):
        calls.append(lambda: layer.predict_mc(x, 3))
    for call in calls:
        before = streams(layer)

        def check_all(before=before):
            assert streams(layer) == before
            check()

        count_of_failures(error, call, check_all)


def test_memory_that_the_core_cannot_have_is_a_memory_error_everywhere(backend):
    if backend != "native":
        return
    native = require("dropwise._native")
    for spec in ("60 90 R D 70", "60 90 D 70", "60 90 R 70"):
        net, reference = (dw.Sequential(chain(spec, rate=0.8)) for _ in range(2))
        x = sample(300, 60)
        calls = ["forward", "backward", "predict"]
        for call in calls:
            failures = 0
            while True:
                dy = np.ones((300, 70))
                before = streams(net)
                native.fail_allocations(failures)
                try:
                    getattr(net, call)(dy if call == "backward" else x)
                except MemoryError:
                    assert native.fail_allocations(-1) < 0
                    assert streams(net) == before
                    if call == "forward":
                        with pytest.raises(RuntimeError, match="after one that failed"):
                            net.backward(dy)
                    elif call == "backward":
                        with pytest.raises(RuntimeError, match="incomplete"):
                            net.parameters()
                    failures += 1
                else:
                    native.fail_allocations(-1)
                    break
            assert failures > 0
        reference.forward(x)
        reference.backward(np.ones((300, 70)))
        for got, want in zip(gradients(net), gradients(reference), strict=True):
            np.testing.assert_array_equal(got, want)
        assert_next_step_is_right(net, reference, x)


# ---- layers that raise -------------------------------------------------------------------------


def with_own(place):
    layers = [*chain("6 9 R D"), *chain("9 9 D", seed=3), *chain("9 6", seed=4)]
    layers.insert(place, Own())
    return dw.Sequential(layers)


@pytest.mark.parametrize("error", [ValueError, KeyboardInterrupt, MemoryError])
@pytest.mark.parametrize("place", [0, 3, 5, 6])
def test_a_layer_that_raises_in_forward(place, error):
    net, reference = with_own(place), with_own(place)
    x1, x2 = sample(5, 6), sample(5, 6, seed=1)
    y = net.forward(x1)
    reference.forward(x1)
    net[place].fails, net[place].error = "forward", error
    with pytest.raises(error):
        net.forward(x2)
    with pytest.raises(RuntimeError, match="after one that failed"):
        net.backward(y)
    with pytest.raises(error):
        net.predict_mc(x2, 4)
    net[place].fails = None
    assert_next_step_is_right(net, reference, x2)


@pytest.mark.parametrize("error", [ValueError, KeyboardInterrupt, MemoryError])
@pytest.mark.parametrize("place", [0, 3, 5, 6])
def test_a_layer_that_raises_in_backward(place, error):
    net, reference = with_own(place), with_own(place)
    x = sample(5, 6)
    y = net.forward(x)
    dx = reference.backward(reference.forward(x))
    adam = dw.Adam()
    net[place].fails, net[place].error = "backward", error
    with pytest.raises(error):
        net.backward(y)
    with pytest.raises(RuntimeError, match="left gradients incomplete"):
        adam.step(net.parameters())
    assert adam.iterations == 0
    net[place].fails = None
    np.testing.assert_array_equal(net.backward(y), dx)
    assert_next_step_is_right(net, reference, x)


@pytest.mark.parametrize("what", ["forward", "backward"])
@pytest.mark.parametrize("error", [ValueError, KeyboardInterrupt])
def test_a_failure_in_a_fit_leaves_a_network_that_goes_on(what, error):
    net, x = with_own(3), sample(20, 6)
    settings = {"loss": dw.MeanSquaredError(), "batch_size": 7, "progress": False}
    adam = dw.Adam(0.01)
    net.fit(x, x, optimizer=adam, epochs=2, **settings)
    history, weights = list(net.history), [p.copy() for p, _ in net.parameters()]
    net[3].fails, net[3].error = what, error
    with pytest.raises(error):
        net.fit(x, x, optimizer=adam, epochs=3, **settings)
    assert net.history == history
    assert (net.epochs_done, adam.iterations) == (2, 6)
    for p, before in zip(net.parameter_values(), weights, strict=True):
        np.testing.assert_array_equal(p, before)
    net[3].fails = None
    epochs = net.fit(x, x, optimizer=adam, epochs=1, **settings)
    assert [e.epoch for e in epochs] == [3]
    assert adam.iterations == 9


def test_an_optimizer_gets_no_gradients_of_a_dense_layer_that_failed():
    layer, adam = dense(6, 4), dw.Adam()
    y = layer.forward(sample(5, 6))
    layer.backward(y)
    with failing_call(1, MemoryError), pytest.raises(MemoryError):
        layer.backward(y)
    for read in (layer.parameters, lambda: layer.grad_weight, lambda: layer.grad_bias):
        with pytest.raises(RuntimeError, match="has left its gradients incomplete"):
            adam.step(read())
    layer.backward(y)
    adam.step(layer.parameters())
