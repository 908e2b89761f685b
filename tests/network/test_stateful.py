"""Random sequences of calls on networks and their copies, beside a model in plain NumPy.

Each result is compared: values to rounding, masks and streams exactly.
"""

from __future__ import annotations

import copy
import io
import pickle

import numpy as np
import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

import dropwise as dw
import numpy_model as model
from faults import failing_call
from networks import FAMILY, chain, dropouts

COLUMNS, OUTPUTS = 5, 3
ROWS = st.sampled_from([1, 2, 7, 16])
SEEDS = st.integers(0, 5)


class PlainDropout(dw.Dropout):
    """A subclass that overrides nothing."""


def with_subclass(**options):
    net = chain("5 9 R", **options)
    return [*net, PlainDropout(0.5, seed=77), *chain("9 3", seed=1, **options)]


def nested(**options):
    inner = dw.Sequential([dw.Tanh(), *chain("9 8 R D", seed=4, **options)])
    return [*chain("5 9 R D", **options), inner, *chain("8 3", seed=2)]


NETWORKS = {
    "fused": lambda: chain("5 9 R D 8 R D 3"),
    "columns": lambda: chain("5 9 R D 8 D 3", noise_shape=(1, None), rate=0.6),
    "rows": lambda: chain("5 9 D 8 R 3 D", noise_shape=(None, 1)),
    "vanilla": lambda: chain("5 D 9 R D 3", scaling="vanilla", save_mask=False),
    "nested": nested,
    "nested columns": lambda: nested(noise_shape=(1, None)),
    "subclass": with_subclass,
    "family": lambda: [
        *chain("5 9 D"),
        *(make(9, rate=0.3, seed=i) for i, make in enumerate(FAMILY.values())),
        *chain("9 9 R D 3", seed=1),
    ],
    "family, replayed": lambda: [
        *chain("5 9 D"),
        *(make(9, rate=0.5, save_mask=False) for make in reversed(FAMILY.values())),
        *chain("9 3", seed=1),
    ],
}
BACKENDS = st.sampled_from(dw.available_backends())


def values(rows, columns, seed):
    return np.random.default_rng([rows, columns, seed]).standard_normal((rows, columns))


def assert_close(got, want):
    scale = max(1.0, float(np.abs(want).max(initial=0.0)))
    np.testing.assert_allclose(got, want, rtol=1e-8, atol=1e-9 * scale)


class Interrupted(dw.MeanSquaredError):
    """The squared error; the forward of this number is interrupted."""

    def __init__(self, at):
        super().__init__()
        self.left = at

    def forward(self, y_pred, y, sample_weight=None):
        self.left -= 1
        if self.left == 0:
            raise KeyboardInterrupt
        return super().forward(y_pred, y, sample_weight)


class Twins:
    """A network and its model, with their optimizers and the last forward of each."""

    def __init__(self, net, reference, adam=None, reference_adam=None):
        self.net, self.model = net, reference
        self.adam = adam or dw.Adam(0.01, epsilon=1e-3)
        self.model_adam = reference_adam or model.Adam(self.adam)
        self.records = None  # of the model's last forward
        self.rows = 0

    def dropouts(self):
        return zip(dropouts(self.net), self.model.parts(model.Dropout), strict=True)


class Networks(RuleBasedStateMachine):
    @initialize(name=st.sampled_from(sorted(NETWORKS)), backend=BACKENDS)
    def start(self, name, backend):
        net = dw.Sequential(NETWORKS[name](), seed=3)
        self.twins = [Twins(net, model.model_of(net))]
        self.block = dw.backend(backend)
        self.can_be_saved = name != "subclass"

    def pick(self, i):
        return self.twins[i % len(self.twins)]

    # ---- computing

    def check_forward(self, twins, x, training):
        y, twins.records = twins.model.forward(x, training)
        twins.rows = len(x)
        return y

    @rule(i=SEEDS, rows=ROWS, seed=SEEDS, training=st.booleans())
    def forward(self, i, rows, seed, training):
        twins, x = self.pick(i), values(rows, COLUMNS, seed)
        with self.block:
            y = twins.net.forward(x, training)
        assert_close(y, self.check_forward(twins, x, training))
        if training:
            for ours, theirs in twins.dropouts():
                np.testing.assert_array_equal(ours.mask, theirs.mask)

    @rule(i=SEEDS, seed=SEEDS, input_grad=st.booleans())
    def backward(self, i, seed, input_grad):
        twins = self.pick(i)
        dy = values(max(1, twins.rows), OUTPUTS, seed + 100)
        with self.block:
            if twins.records is None:
                with pytest.raises(RuntimeError, match="backward was called before forward"):
                    twins.net.backward(dy)
                return
            dx = twins.net.backward(dy, input_grad=input_grad)
        want = twins.model.gradient(twins.records, dy)
        if input_grad:
            assert_close(dx, want)
        self.check_gradients(twins)

    def check_gradients(self, twins):
        dense = list(twins.model.parts(model.Dense))
        for (_, got), theirs in zip(twins.net.parameters(), dense, strict=True):
            assert_close(got, theirs.gradients)

    @rule(i=SEEDS, rows=ROWS, seed=SEEDS)
    def predict(self, i, rows, seed):
        twins, x = self.pick(i), values(rows, COLUMNS, seed)
        with self.block:
            assert_close(twins.net.predict(x), twins.model.run(x, False)[0])

    @rule(i=SEEDS, rows=ROWS, seed=SEEDS, n=st.integers(1, 9))
    def predict_mc(self, i, rows, seed, n):
        twins, x = self.pick(i), values(rows, COLUMNS, seed)
        with self.block:
            results = twins.net.predict_mc(x, n)
        for got, want in zip(results, twins.model.predict_mc(x, n), strict=True):
            np.testing.assert_allclose(got, want, rtol=1e-7, atol=1e-6 * (1 + abs(want).max()))

    @rule(i=SEEDS, seed=SEEDS, epochs=st.integers(0, 2), stop=st.sampled_from([0, 0, 1, 2, 3]))
    def fit(self, i, seed, epochs, stop):
        """`stop` is the step whose loss is interrupted; 0: none."""
        twins, size = self.pick(i), 7
        x, y = values(16, COLUMNS, seed), values(16, OUTPUTS, seed)
        before = list(twins.net.history)
        arguments = {"optimizer": twins.adam, "epochs": epochs, "batch_size": size}
        with self.block:
            try:
                twins.net.fit(
                    x, y, loss=Interrupted(stop), shuffle=False, progress=False, **arguments
                )
            except KeyboardInterrupt:
                assert stop
        losses, steps = [], 0
        for _ in range(epochs):
            sums = 0.0
            for start in range(0, 16, size):
                rows, targets = x[start : start + size], y[start : start + size]
                out = self.check_forward(twins, rows, True)
                steps += 1
                if steps == stop:
                    break
                sums += len(rows) * (((out - targets) ** 2).mean() + twins.model.penalty())
                twins.model.gradient(twins.records, 2 * (out - targets) / out.size)
                twins.model_adam.step(twins.model)
            if steps == stop:
                break
            losses.append(sums / 16)
        new = twins.net.history[len(before) :]
        assert twins.net.history[: len(before)] == before
        assert_close([e.loss for e in new], losses)
        assert twins.adam.iterations == twins.model_adam.steps
        if losses and steps != stop:
            self.check_gradients(twins)

    @rule(i=SEEDS, rows=ROWS, seed=SEEDS)
    def a_layer_by_itself(self, i, rows, seed):
        """Between a forward and a backward of its network."""
        twins = self.pick(i)
        for ours, theirs in list(twins.dropouts())[:1]:
            x = values(rows, 4, seed)
            want, record = theirs.run(x, True)
            theirs.stream += 1
            with self.block:
                assert_close(ours.forward(x), want)
                np.testing.assert_array_equal(ours.mask, theirs.mask)
                assert_close(ours.backward(x), theirs.gradient(record, x))

    # ---- failures

    @rule(
        i=SEEDS,
        rows=ROWS,
        seed=SEEDS,
        nth=st.integers(0, 6),
        after=st.booleans(),
        call=st.sampled_from(["forward", "predict", "predict_mc"]),
    )
    def a_run_that_fails(self, i, rows, seed, nth, after, call):
        twins, x = self.pick(i), values(rows, COLUMNS, seed)
        arguments = (x, 3) if call == "predict_mc" else (x,)
        with self.block, failing_call(nth, MemoryError, after) as failing:
            try:
                getattr(twins.net, call)(*arguments)
            except MemoryError:
                assert failing.failed
        if failing.failed:
            if call == "forward":
                twins.records = None
        elif call == "forward":
            self.check_forward(twins, x, True)
        elif call == "predict_mc":
            twins.model.take_streams()

    @precondition(lambda self: any(t.records is not None for t in self.twins))
    @rule(i=SEEDS, seed=SEEDS, nth=st.integers(0, 3), after=st.booleans())
    def a_backward_that_fails(self, i, seed, nth, after):
        twins = self.pick(i)
        if twins.records is None:
            return
        dy = values(twins.rows, OUTPUTS, seed)
        with self.block, failing_call(nth, KeyboardInterrupt, after) as failing:
            try:
                twins.net.backward(dy)
            except KeyboardInterrupt:
                assert failing.failed
        if failing.failed:
            with pytest.raises(RuntimeError, match="incomplete"):
                twins.net.parameters()
        else:
            twins.model.gradient(twins.records, dy)
            self.check_gradients(twins)

    @rule(i=SEEDS, call=st.sampled_from(["forward", "predict", "predict_mc"]))
    def an_input_that_is_refused(self, i, call):
        with self.block, pytest.raises(ValueError, match="got x with 4 columns"):
            getattr(self.pick(i).net, call)(values(3, 4, 0))

    # ---- copies, files, states, settings

    def add(self, twins):
        self.twins = [*self.twins[-2:], twins]

    @rule(i=SEEDS, kind=st.sampled_from([copy.deepcopy, lambda v: pickle.loads(pickle.dumps(v))]))
    def copy_all(self, i, kind):
        twins = self.pick(i)
        net, adam = kind(twins.net), kind(twins.adam)
        reference = copy.deepcopy(twins.model_adam)
        self.add(Twins(net, copy.deepcopy(twins.model), adam, reference))

    @rule(i=SEEDS)
    def copy_shallow(self, i):
        twins = self.pick(i)
        self.add(Twins(copy.copy(twins.net), model.Sequential(twins.model.layers)))

    @precondition(lambda self: self.can_be_saved)
    @rule(i=SEEDS)
    def save_and_load(self, i):
        twins, file = self.pick(i), io.BytesIO()
        with self.block:
            twins.net.save(file, twins.adam)
            file.seek(0)
            net, adam = dw.load_checkpoint(file)
        assert net.history == twins.net.history
        reference = copy.deepcopy(twins.model_adam)
        self.add(Twins(net, copy.deepcopy(twins.model), adam, reference))

    @rule(i=SEEDS, j=SEEDS)
    def load_the_state_of_another(self, i, j):
        to, source = self.pick(i), self.pick(j)
        to.net.load_state_dict(source.net.state_dict())
        for kind in (model.Dense, model.Dropout):
            for a, b in zip(to.model.parts(kind), source.model.parts(kind), strict=True):
                if kind is model.Dense:
                    a.weight[...], a.bias[...] = b.weight, b.bias
                else:
                    a.key, a.stream = b.key, b.stream

    @rule(i=SEEDS, which=SEEDS, rate=st.sampled_from([0.0, 0.3, 0.5, 0.9, 1.0]))
    def change_a_rate(self, i, which, rate):
        pairs = list(self.pick(i).dropouts())
        ours, theirs = pairs[which % len(pairs)]
        ours.rate = theirs.rate = rate

    @rule(i=SEEDS, skip=st.booleans())
    def change_skip_zeros(self, i, skip):
        for layer in self.pick(i).net:
            if isinstance(layer, dw.Dense):
                layer.skip_zeros = skip

    @rule(backend=BACKENDS)
    def change_the_backend(self, backend):
        self.block = dw.backend(backend)

    @invariant()
    def streams_and_parameters_are_those_of_the_model(self):
        for twins in getattr(self, "twins", ()):
            for ours, theirs in twins.dropouts():
                state = ours.state_dict()
                assert (int(state["key"], 16), state["next_stream"]) == (theirs.key, theirs.stream)
            dense = twins.model.parts(model.Dense)
            for p, theirs in zip(twins.net.parameter_values(), dense, strict=True):
                assert_close(p, np.concatenate([theirs.weight.ravel(), theirs.bias]))


TestNetworks = Networks.TestCase
TestNetworks.settings = settings(max_examples=60, stateful_step_count=30)
