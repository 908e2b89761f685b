"""What `fit` takes and refuses: settings, validation data, weights, losses of one's own, ends."""

from __future__ import annotations

import numpy as np
import pytest

import dropwise as dw
from networks import chain, sample

pytestmark = pytest.mark.usefixtures("backend")

ROWS = 30
X = sample(ROWS, 5)
CLASSES = np.random.default_rng(1).integers(0, 3, ROWS)
ONE_HOT = np.eye(3)[CLASSES]
WEIGHTS = np.random.default_rng(2).integers(0, 4, ROWS)


def network(rate=0.0, **options):
    return dw.Sequential(chain("5 8 R D 3", rate=rate, **options), seed=1)


def settings(**options):
    made = {"loss": dw.SoftmaxCrossEntropy(), "optimizer": dw.SGD(0.1), "batch_size": 10}
    return made | {"progress": False} | options


def fit(net, x=X, y=CLASSES, **options):
    return net.fit(x, y, **settings(**options))


def snapshot(net, optimizer):
    state = net.state_dict() | optimizer.state_dict()
    state = {k: v.tobytes() if isinstance(v, np.ndarray) else v for k, v in state.items()}
    return state, list(net.history)


class Unweighted:
    def forward(self, y_pred, y):
        self.difference = y_pred - y
        return float((self.difference**2).mean())

    def backward(self):
        return 2 * self.difference / self.difference.size


BAD = {
    "epochs": [(-5, ValueError, "epochs must be at least 0, got -5"), (2.5, TypeError, "epochs")],
    "batch_size": [(0, ValueError, "batch_size must be"), (2.5, TypeError, "batch_size must be")],
    "patience": [(0, ValueError, "patience must be"), (1.5, TypeError, "patience must be")],
    "every": [(0, ValueError, "every must be"), (True, TypeError, "every must be an integer")],
    "loss": [
        ("mse", TypeError, "loss must be an object with forward and backward, got 'mse'"),
        (None, TypeError, "loss must be an object"),
        (dw.MeanSquaredError, TypeError, "loss must be an object .* got <class"),
    ],
    "optimizer": [
        ("adam", TypeError, "optimizer must be an object with step, got 'adam'"),
        (None, TypeError, "optimizer must be an object"),
        (dw.Adam, TypeError, "optimizer must be an object .* got <class"),
    ],
    "sample_weight": [
        (np.ones(ROWS - 1), ValueError, r"sample_weight must have shape \(30,\), got \(29,\)"),
        (np.ones((ROWS, 1)), ValueError, r"got \(30, 1\)"),
        (-np.ones(ROWS), ValueError, "sample_weight must not be negative, got -1.0 in row 0"),
        (np.zeros(ROWS), ValueError, "sample_weight must have a positive and finite sum"),
        (np.full(ROWS, np.nan), ValueError, "sample_weight must be finite"),
        (["a"] * ROWS, TypeError, "sample_weight must hold real numbers"),
    ],
    "class_weight": [
        ("even", ValueError, "class_weight must be a mapping or 'balanced', got 'even'"),
        ([1, 2, 3], TypeError, "class_weight must be a mapping or 'balanced', got list"),
        ({0: -1}, ValueError, r"class_weight\[0\] must be finite and at least 0, got -1"),
        ({0: "a"}, TypeError, r"class_weight\[0\] must be a number"),
        ({0.5: 1}, TypeError, "a class in class_weight must be an integer, got 0.5"),
        ({0: 0, 1: 0, 2: 0}, ValueError, "positive and finite sum"),
    ],
    "validation_data": [
        ((X,), ValueError, "got 1 elements"),
        ((X, CLASSES, WEIGHTS, 0), ValueError, "got 4 elements"),
        (5, TypeError, "validation_data must be .* got int"),
        ((X, CLASSES[1:]), ValueError, "same number of rows, got 30 and 29"),
        ((X[:, 1:], CLASSES), ValueError, "got x with 4 columns; it was built for 5"),
        ((X, CLASSES + 3), ValueError, r"classes in \[0, 3\), got 3 to 5"),
        ((X, CLASSES, WEIGHTS[1:]), ValueError, r"sample_weight must have shape \(30,\)"),
        ((X, CLASSES, -np.ones(ROWS)), ValueError, "sample_weight must not be negative"),
        ((X, None), ValueError, "same number of rows, got 30 and none"),
    ],
    "y": [
        (CLASSES[1:], ValueError, "same number of rows, got 30 and 29"),
        (CLASSES + 0.5, TypeError, "y must hold classes as integers"),
        (CLASSES - 1, ValueError, r"classes in \[0, 3\), got -1 to 1"),
        (ONE_HOT * 2, ValueError, "sum 2"),
        (["a"] * ROWS, TypeError, "y must hold real numbers"),
        (None, ValueError, "same number of rows, got 30 and none"),
    ],
}


@pytest.mark.parametrize("name", BAD)
def test_fit_and_iter_fit_refuse_it_at_the_call_and_change_nothing(name):
    for value, error, message in BAD[name]:
        net, adam = network(0.4), dw.Adam(0.01)
        fit(net, optimizer=adam)
        before = snapshot(net, adam)
        options = settings(optimizer=adam)
        y = CLASSES
        if name == "y":
            y = value
        else:
            options[name] = value
        with pytest.raises(error, match=message):
            net.fit(X, y, **options)
        del options["progress"]
        with pytest.raises(error, match=message):
            net.iter_fit(X, y, **options)  # nothing is asked of the iterator
        assert snapshot(net, adam) == before


def test_zero_epochs_are_allowed_and_do_nothing():
    net, adam = network(), dw.Adam()
    before = snapshot(net, adam)
    assert fit(net, optimizer=adam, epochs=0) == []
    assert snapshot(net, adam) == before


# ---- weights -----------------------------------------------------------------------------------


def weights_of(net):
    return [p.copy() for p in net.parameter_values()]


def assert_same_weights(a, b):
    for p, q in zip(a.parameter_values(), b.parameter_values(), strict=True):
        np.testing.assert_allclose(p, q, rtol=1e-9, atol=1e-12)


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize(
    ("loss", "y"),
    [
        (dw.SoftmaxCrossEntropy, CLASSES),
        (dw.SoftmaxCrossEntropy, ONE_HOT),
        (dw.MeanSquaredError, X[:, :3]),
        (dw.BinaryCrossEntropy, ONE_HOT),
    ],
    ids=["classes", "one-hot", "values", "binary"],
)
def test_a_row_of_weight_n_is_n_rows(loss, y, dtype):
    weighted, repeated = network(dtype=dtype), network(dtype=dtype)
    rows = np.repeat(np.arange(ROWS), WEIGHTS)
    options = {"batch_size": None, "epochs": 3}
    a = fit(weighted, y=y, loss=loss(), sample_weight=WEIGHTS, **options)
    b = fit(repeated, X[rows], y[rows], loss=loss(), **options)
    for p, q in zip(weighted.parameter_values(), repeated.parameter_values(), strict=True):
        np.testing.assert_allclose(p, q, rtol=1e-4 if dtype == "float32" else 1e-9, atol=1e-6)
    for e, f in zip(a, b, strict=True):
        assert e.data_loss == pytest.approx(f.data_loss, rel=1e-5)
        if e.accuracy is not None:
            assert e.accuracy == pytest.approx(f.accuracy)
    with_weights = weighted.evaluate(X, y, loss=loss(), sample_weight=WEIGHTS)
    by_rows = weighted.evaluate(X[rows], y[rows], loss=loss())
    assert with_weights[0] == pytest.approx(by_rows[0], rel=1e-5)
    assert with_weights[1] is by_rows[1] or with_weights[1] == pytest.approx(by_rows[1])


def test_the_figures_of_an_epoch_are_means_over_the_weights():
    net = network()
    losses, accuracies, sums = [], [], []
    w = WEIGHTS + 0.5
    for start in range(0, ROWS, 7):
        part = slice(start, start + 7)
        loss, accuracy = net.evaluate(
            X[part], CLASSES[part], loss=dw.SoftmaxCrossEntropy(), sample_weight=w[part]
        )
        losses.append(loss)
        accuracies.append(accuracy)
        sums.append(w[part].sum())
    options = {"optimizer": dw.SGD(0.0), "batch_size": 7, "shuffle": False, "sample_weight": w}
    validation = (X, CLASSES, w)
    (epoch,) = fit(net, validation_data=validation, **options)
    assert epoch.data_loss == pytest.approx(np.average(losses, weights=sums), rel=1e-12)
    assert epoch.accuracy == pytest.approx(np.average(accuracies, weights=sums), rel=1e-12)
    assert epoch.val_loss == pytest.approx(epoch.data_loss, rel=1e-12)
    assert epoch.val_accuracy == pytest.approx(epoch.accuracy, rel=1e-12)


def test_a_batch_of_weights_0_makes_no_step_and_takes_no_stream():
    net, adam = network(0.4), dw.Adam(0.01)
    w = np.ones(ROWS)
    w[10:20] = 0
    (epoch,) = fit(net, optimizer=adam, sample_weight=w, shuffle=False)
    assert adam.iterations == 2
    assert net[2].state_dict()["next_stream"] == 2
    other, other_adam = network(0.4), dw.Adam(0.01)
    keep = w > 0
    (same,) = fit(other, X[keep], CLASSES[keep], optimizer=other_adam, shuffle=False)
    assert_same_weights(net, other)
    assert epoch == same


@pytest.mark.parametrize("y", [CLASSES, ONE_HOT, ONE_HOT.astype(int)], ids=["int", "float", "1"])
def test_class_weights_are_weights_by_class(y):
    for given, by_class in [
        ({0: 2, 1: 0.5, 2: 1}, [2, 0.5, 1]),
        ({np.int64(0): 3}, [3, 1, 1]),
        ({7: 3}, [1, 1, 1]),
        ({}, [1, 1, 1]),
        ("balanced", ROWS / (3 * np.bincount(CLASSES))),
    ]:
        for weights in (None, WEIGHTS):
            a, b = network(), network()
            w = np.asarray(by_class, float)[CLASSES] * (1 if weights is None else weights)
            fit(a, y=y, class_weight=given, sample_weight=weights)
            fit(b, y=y, sample_weight=w)
            assert_same_weights(a, b)


def test_balanced_classes_have_the_same_sum_of_weights():
    y = np.array([0] * 20 + [1] * 7 + [2] * 3)
    net = network()
    (epoch,) = fit(net, y=y, class_weight="balanced", optimizer=dw.SGD(0.0), batch_size=None)
    means = [net.evaluate(X[y == c], y[y == c], loss=dw.SoftmaxCrossEntropy())[0] for c in range(3)]
    assert epoch.data_loss == pytest.approx(np.mean(means), rel=1e-12)


def test_class_weights_need_classes():
    for y in (X[:, 0], X[:, :1], X[:, :3, None]):
        with pytest.raises(TypeError, match="class_weight needs y to be classes"):
            fit(network(), y=y, loss=dw.MeanSquaredError(), class_weight="balanced")
    none, two, half = np.zeros((ROWS, 3)), ONE_HOT.copy(), ONE_HOT / 2 + ONE_HOT[:, ::-1] / 2
    two[5] = 1
    for y in (X[:, :3], none, two, half, 2 * ONE_HOT, -ONE_HOT):
        with pytest.raises(ValueError, match="rows that are not one 1 and zeros"):
            fit(network(), y=y, loss=dw.MeanSquaredError(), class_weight={1: 5})


@pytest.mark.parametrize("class_weight", ["balanced", {0: 3}, {1: 3}])
def test_a_column_of_classes_is_weighted_as_a_vector_of_them(class_weight):
    y, nets = (X[:, 0] > 0.8).astype(int), []
    for target in (y, y[:, None], y):
        nets.append(dw.Sequential([dw.Dense(X.shape[1], 1, seed=1)]))
        given = class_weight if len(nets) < 3 else None
        nets[-1].fit(
            X,
            target,
            loss=dw.BinaryCrossEntropy(),
            optimizer=dw.SGD(0.1),
            epochs=2,
            class_weight=given,
            progress=False,
        )
    assert_same_weights(nets[0], nets[1])
    assert not np.array_equal(nets[0][0].weight, nets[2][0].weight)


def test_weights_for_a_loss_that_takes_none_are_refused_at_the_call():
    net = network(0.4)
    y, loss = X[:, :3], Unweighted()
    before = snapshot(net, dw.SGD(0.1))
    message = "does not take weights: its forward has no sample_weight"
    for call in (
        lambda: fit(net, y=y, loss=loss, sample_weight=WEIGHTS),
        lambda: fit(net, y=y, loss=loss, validation_data=(X, y, WEIGHTS)),
        lambda: net.iter_fit(X, y, loss=loss, optimizer=dw.SGD(0.1), sample_weight=WEIGHTS),
        lambda: net.evaluate(X, y, loss=loss, sample_weight=WEIGHTS),
        lambda: fit(net, y=CLASSES, loss=loss, class_weight="balanced"),
    ):
        with pytest.raises(TypeError, match=message):
            call()
    assert snapshot(net, dw.SGD(0.1)) == before


# ---- losses of one's own -----------------------------------------------------------------------


@pytest.mark.parametrize("dtype", ["float16", "bfloat16", "float32", "float64"])
@pytest.mark.parametrize("gradient", ["float64", "float32", "longdouble", "list"])
def test_a_loss_of_ten_lines_trains_a_network_of_any_dtype(dtype, gradient):
    class Own(Unweighted):
        def backward(self):
            made = super().backward().astype(float)
            return made.tolist() if gradient == "list" else made.astype(gradient)

    net, reference = network(dtype=dtype), network(dtype=dtype)
    history = fit(net, y=X[:, :3], loss=Own(), epochs=4)
    want = fit(reference, y=X[:, :3], loss=dw.MeanSquaredError(), epochs=4)
    rounding = {"float64": 1e-6, "float32": 1e-5}.get(dtype, 0.05)
    for mine, theirs in zip(history, want, strict=True):
        assert mine.accuracy is None
        assert mine.loss == pytest.approx(theirs.loss, rel=rounding)
    assert history[-1].loss < history[0].loss
    assert net[0].dtype == net.parameters()[0][0].dtype


def test_a_loss_of_ones_own_may_have_an_accuracy_and_weights():
    class Own:
        accuracy = 0.25

        def forward(self, y_pred, y, **weights):
            self.weights, self.shape = weights["sample_weight"], y_pred.shape
            return np.float32(1.5)

        def backward(self):
            return np.zeros(self.shape)

    loss = Own()
    (epoch,) = fit(network(), loss=loss, sample_weight=WEIGHTS, batch_size=None)
    assert (epoch.accuracy, epoch.data_loss) == (0.25, 1.5)
    np.testing.assert_array_equal(loss.weights, WEIGHTS)


@pytest.mark.parametrize(
    ("gradient", "error", "message"),
    [
        (np.zeros((10, 3), complex), TypeError, "got dy of dtype complex128"),
        (np.zeros((10, 2)), ValueError, r"of shape \(10, 3\), got dy of shape \(10, 2\)"),
        (None, TypeError, "got dy of dtype object"),
    ],
)
def test_a_gradient_that_does_not_fit_stops_before_the_update(gradient, error, message):
    class Own(Unweighted):
        def backward(self):
            return gradient

    net, adam = network(), dw.Adam()
    before = weights_of(net)
    with pytest.raises(error, match=message):
        fit(net, y=X[:, :3], loss=Own(), optimizer=adam)
    assert adam.iterations == 0
    for p, q in zip(net.parameter_values(), before, strict=True):
        np.testing.assert_array_equal(p, q)


# ---- how a fit ends ----------------------------------------------------------------------------


class Stopping(Unweighted):
    """Raises, or gives a value, at the nth forward."""

    def __init__(self, at, what):
        self.at, self.what, self.count = at, what, 0

    def forward(self, y_pred, y):
        self.count += 1
        value = super().forward(y_pred, y)
        if self.count == self.at:
            if isinstance(self.what, type):
                raise self.what
            return self.what
        return value


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
def test_a_loss_that_is_not_finite_stops_before_the_update(value):
    net, stopped, adam, other = network(0.4), network(0.4), dw.Adam(0.5), dw.Adam(0.5)
    message = (
        rf"epoch 2, batch 3: the loss is {value} \(learning rate 0.5\); this update was not made, "
        "and the parameters are finite"
    )
    with pytest.raises(FloatingPointError, match=message):
        fit(stopped, y=X[:, :3], loss=Stopping(6, value), optimizer=adam, epochs=9)
    assert adam.iterations == 5
    assert [e.epoch for e in stopped.history] == [1]
    run = Stopping(6, KeyboardInterrupt)
    with pytest.raises(KeyboardInterrupt):
        fit(net, y=X[:, :3], loss=run, optimizer=other, epochs=9)
    for p, q in zip(net.parameter_values(), stopped.parameter_values(), strict=True):
        np.testing.assert_array_equal(p, q)
        assert np.isfinite(p).all()


def test_the_message_says_so_if_the_parameters_are_not_finite():
    net = network()
    net[0].weight[...] = np.nan
    with pytest.raises(FloatingPointError, match="and the parameters are not finite"):
        fit(net)


@pytest.mark.parametrize("error", [KeyboardInterrupt, RuntimeError])
@pytest.mark.parametrize(("at", "epochs", "steps"), [(1, 0, 0), (3, 0, 2), (4, 1, 3), (8, 2, 7)])
def test_an_interrupted_fit_keeps_its_history_and_goes_on(error, at, epochs, steps):
    net, adam = network(0.4), dw.Adam(0.01)
    with pytest.raises(error):
        fit(net, y=X[:, :3], loss=Stopping(at, error), optimizer=adam, epochs=5)
    assert [e.epoch for e in net.history] == list(range(1, epochs + 1))
    assert (net.epochs_done, adam.iterations) == (epochs, steps)
    assert all(type(e) is dw.Epoch for e in net.history)
    more = fit(net, y=X[:, :3], loss=Unweighted(), optimizer=adam, epochs=2)
    assert net.history[epochs:] == more
    assert [e.epoch for e in net.history] == list(range(1, epochs + 3))


def test_an_interrupt_in_the_validation_keeps_the_epoch_that_was_trained():
    net = network()
    loss = Stopping(4, KeyboardInterrupt)  # the fourth forward is that of the validation
    with pytest.raises(KeyboardInterrupt):
        fit(net, y=X[:, :3], loss=loss, validation_data=(X, X[:, :3]), epochs=3)
    (epoch,) = net.history
    assert (epoch.epoch, epoch.val_loss, net.epochs_done) == (1, None, 1)


def scheduled(values):
    """A loss whose validation values are these, one an epoch."""

    left = list(values)

    class Scheduled(Unweighted):
        def forward(self, y_pred, y):
            value = super().forward(y_pred, y)
            return left.pop(0) if len(y) == 1 else value

    return Scheduled()


@pytest.mark.parametrize("restore", [True, False])
def test_patience_stops_and_restore_best_returns_to_the_best_epoch(restore):
    net, reference = network(0.4), network(0.4)
    validation = (X[:1], X[:1, :3])
    options = {"y": X[:, :3], "validation_data": validation}
    history = fit(
        net,
        loss=scheduled([5, 3, 4, 3, 3.5, 1]),
        patience=3,
        restore_best=restore,
        epochs=6,
        **options,
    )
    assert [e.val_loss for e in history] == [5, 3, 4, 3, 3.5]
    fit(reference, loss=scheduled([0] * 9), epochs=2 if restore else 5, **options)
    for p, q in zip(net.parameter_values(), reference.parameter_values(), strict=True):
        np.testing.assert_array_equal(p, q)
    assert net.epochs_done == 5


def test_evaluate_does_not_come_between_forward_and_backward_of_the_loss():
    for loss in (dw.SoftmaxCrossEntropy(), dw.MeanSquaredError(), Unweighted()):
        y = CLASSES if isinstance(loss, dw.SoftmaxCrossEntropy) else X[:, :3]
        net = network()
        scores = net.forward(X)
        loss.forward(scores, y)
        gradient = loss.backward().copy()
        dx = net.backward(gradient).copy()
        net.evaluate(X[:4] + 1, y[:4], loss=loss)
        np.testing.assert_array_equal(loss.backward(), gradient)
        np.testing.assert_array_equal(net.backward(gradient), dx)
