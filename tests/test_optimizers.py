"""Optimizers against their formulas, their arguments, and 16-bit parameters."""

from __future__ import annotations

import ast
import json
import warnings

import ml_dtypes
import numpy as np
import pytest

import dropwise as dw

BFLOAT16 = np.dtype(ml_dtypes.bfloat16)
OPTIMIZERS = {
    "sgd": lambda: dw.SGD(0.1),
    "momentum": lambda: dw.SGD(0.1, momentum=0.9, decay=0.01),
    "nesterov": lambda: dw.SGD(0.1, momentum=0.9, nesterov=True, weight_decay=0.1),
    "adam": lambda: dw.Adam(0.1),
    "adamw": lambda: dw.Adam(
        0.05, beta_1=0.8, beta_2=0.99, epsilon=1e-4, decay=5e-2, weight_decay=0.2
    ),
}


@pytest.fixture(params=OPTIMIZERS)
def make(request):
    return OPTIMIZERS[request.param]


def gradients(steps=20, shape=(3, 4)):
    return np.random.default_rng(0).standard_normal((steps, *shape))


def run(optimizer, parameter, steps):
    for g in steps:
        optimizer.step([(parameter, g)])
    return parameter


def reference(optimizer, w, steps):
    """The textbook's formulas, in float64."""
    o, w = optimizer.config(), np.array(w, np.float64)
    m, v, velocity = np.zeros_like(w), np.zeros_like(w), np.zeros_like(w)
    for t, g in enumerate(np.asarray(steps, np.float64), 1):
        rate = o["learning_rate"] / (1 + o["decay"] * (t - 1))
        w = w - rate * o["weight_decay"] * w
        if isinstance(optimizer, dw.Adam):
            m = o["beta_1"] * m + (1 - o["beta_1"]) * g
            v = o["beta_2"] * v + (1 - o["beta_2"]) * g**2
            m_hat, v_hat = m / (1 - o["beta_1"] ** t), v / (1 - o["beta_2"] ** t)
            w = w - rate * m_hat / (np.sqrt(v_hat) + o["epsilon"])
        else:
            velocity = o["momentum"] * velocity - rate * g
            w = w + (o["momentum"] * velocity - rate * g if o["nesterov"] else velocity)
    return w


# ---- formulas ----------------------------------------------------------------------------------


@pytest.mark.parametrize(("dtype", "rtol"), [(np.float64, 1e-12), (np.float32, 1e-5)])
def test_the_steps_are_those_of_the_textbooks(make, dtype, rtol):
    want = reference(make(), np.ones((3, 4)), gradients())
    w = run(make(), np.ones((3, 4), dtype), gradients().astype(dtype))
    assert w.dtype == dtype
    np.testing.assert_allclose(w, want, rtol=rtol, atol=rtol)


@pytest.mark.parametrize("size", [1, 7, 65535, 65536, 65537, 200003])
def test_parameters_of_any_size_are_moved_whole(make, size):
    steps = gradients(3, (size,))
    want = reference(make(), np.ones(steps.shape[1]), steps)
    got = run(make(), np.ones(steps.shape[1]), steps)
    np.testing.assert_allclose(got, want, rtol=1e-12, atol=1e-12)


def test_adam_keeps_the_means_of_gradient_and_square():
    adam, steps = dw.Adam(), gradients(7)
    run(adam, np.ones((3, 4)), steps)
    m = v = 0.0
    for g in steps:
        m, v = 0.9 * m + 0.1 * g, 0.999 * v + 0.001 * g**2
    state = adam.state_dict()
    np.testing.assert_allclose(state["mean.0"], m, rtol=1e-12)
    np.testing.assert_allclose(state["square.0"], v, rtol=1e-12)


@pytest.mark.parametrize("dtype", [np.float16, BFLOAT16, np.float32, np.float64])
def test_adam_stays_put_where_the_gradient_is_always_zero(dtype):
    for epsilon in (1e-7, 1e-30):
        w = run(dw.Adam(0.1, epsilon=epsilon), np.ones(3, dtype), np.zeros((5, 3)))
        np.testing.assert_array_equal(w, np.ones(3))


def test_weight_decay_is_apart_from_the_gradient():
    for optimizer in (dw.SGD(0.1, weight_decay=0.5), dw.Adam(0.1, weight_decay=0.5)):
        w = run(optimizer, np.full(3, 2.0), np.zeros((1, 3)))
        np.testing.assert_allclose(w, 2.0 * (1 - 0.1 * 0.5), rtol=1e-15)
    # A decay below the digits of 1 in float32 is not lost where the parameter shows it.
    tiny = np.full(1, 1e-3, np.float32)
    run(dw.SGD(0.01, weight_decay=0.01), tiny, np.zeros((1000, 1)))
    assert tiny[0] == pytest.approx(1e-3 * (1 - 1e-4) ** 1000, rel=1e-4)


def test_the_learning_rate_falls_with_the_iterations_and_may_be_assigned():
    sgd = dw.SGD(0.5, decay=0.1)
    w, rates = np.zeros(1), []
    for _ in range(3):
        rates.append(sgd.current_learning_rate)
        sgd.step([(w, np.ones(1))])
    assert rates == [0.5, 0.5 / 1.1, 0.5 / 1.2]
    sgd.learning_rate = np.float32(0.25)
    assert type(sgd.learning_rate) is float
    assert sgd.current_learning_rate == 0.25 / 1.3
    with pytest.raises(ValueError, match="learning_rate must be finite and at least 0, got -1"):
        sgd.learning_rate = -1
    assert sgd.learning_rate == 0.25


def test_momentum_may_be_assigned_between_steps():
    sgd, w = dw.SGD(1.0), np.zeros(1)
    run(sgd, w, np.ones((1, 1)))
    sgd.momentum = 0.5
    run(sgd, w, np.ones((2, 1)))
    assert w[0] == -1 - 1 - 1.5
    sgd.momentum = 0.0
    run(sgd, w, np.ones((1, 1)))
    assert w[0] == -4.5
    assert "velocity.0" not in sgd.state_dict()


def test_each_parameter_is_on_its_own(make):
    both, one, two = make(), make(), make()
    a, b = np.zeros((3, 4)), np.ones(7, np.float32)
    for g, h in zip(gradients(), gradients(shape=(7,)).astype("f4"), strict=True):
        both.step([(a, g), (b, h)])
    np.testing.assert_array_equal(a, run(one, np.zeros((3, 4)), gradients()))
    np.testing.assert_array_equal(b, run(two, np.ones(7, "f4"), gradients(shape=(7,)).astype("f4")))


# ---- layouts and dtypes ------------------------------------------------------------------------


def layouts(shape, dtype):
    yield "C", np.ones(shape, dtype)
    yield "F", np.ones(shape, dtype, order="F")
    yield "strided", np.ones((*shape[:-1], 2 * shape[-1]), dtype)[..., ::2]
    yield "reversed", np.ones(shape, dtype)[::-1]
    yield "memmap", np.ones(shape, dtype).view(np.memmap)
    if dtype != BFLOAT16:
        yield "swapped", np.ones(shape, np.dtype(dtype).newbyteorder(">"))


@pytest.mark.parametrize("dtype", [np.float16, BFLOAT16, np.float32, np.float64])
def test_parameters_of_every_layout_are_changed_in_place(make, dtype):
    steps = gradients().astype(dtype)
    want = run(make(), np.ones((3, 4), dtype), steps)
    for name, w in layouts((3, 4), dtype):
        before = steps.copy()
        run(make(), w, steps)
        np.testing.assert_array_equal(w, want, err_msg=name)
        np.testing.assert_array_equal(steps, before)
        other = np.ones((3, 4), dtype)
        run(make(), other, np.asfortranarray(steps.transpose(0, 2, 1)).transpose(0, 2, 1))
        np.testing.assert_array_equal(other, want)


@pytest.mark.parametrize("shape", [(), (0,), (2, 0, 3), (1,), (1, 5)])
def test_parameters_of_every_shape_move(make, shape):
    w, g = np.ones(shape), np.ones(shape)
    run(make(), w, [g, g])
    assert w.shape == shape
    assert (w < 1).all()


@pytest.mark.parametrize("of", [np.float16, BFLOAT16, np.float32, np.float64, np.longdouble, int])
@pytest.mark.parametrize("dtype", [np.float16, BFLOAT16, np.float32, np.float64])
def test_a_gradient_of_another_real_dtype_is_cast(make, dtype, of):
    steps = np.round(gradients(5) * 4).astype(of)  # exact in all of them
    want = run(make(), np.ones((3, 4), dtype), steps.astype(dtype))
    np.testing.assert_array_equal(run(make(), np.ones((3, 4), dtype), steps), want)


@pytest.mark.parametrize("cls", [dw.SGD, dw.Adam])
def test_a_gradient_may_lie_where_another_parameter_does(cls, backend):
    x, y = np.array([1.0, 2.0]), np.array([3.0, 4.0])
    a, b = x.copy(), y.copy()
    one, other = cls(0.5), cls(0.5)
    for _ in range(2):
        one.step([(x, y), (y, x)])  # of x * y
        other.step([(a, b.copy()), (b, a.copy())])
        np.testing.assert_array_equal(x, a)
        np.testing.assert_array_equal(y, b)


def test_parameters_that_share_memory_are_refused():
    w, g = np.ones((4, 4)), np.ones((4, 4))
    optimizer = dw.SGD(1.0)
    for other in (w, w.T, w[1:2], w[:, 3]):
        with pytest.raises(ValueError, match="parameters 0 and 2 share memory"):
            optimizer.step([(w, g), (np.ones(3), np.ones(3)), (other, np.ones(other.shape))])
    assert (w == 1).all()
    assert optimizer.iterations == 0
    optimizer.step([(w[:, ::2], g[:, ::2]), (w[:, 1::2], g[:, 1::2])])
    assert (w == 0).all()


def test_a_gradient_that_is_the_parameter_is_the_one_before_the_step(make):
    w, v = np.ones(5), np.ones(5)
    make().step([(w, w)])
    make().step([(v, np.ones(5))])
    np.testing.assert_array_equal(w, v)


@pytest.mark.parametrize("bad", [np.inf, np.nan, 1e300])
def test_what_is_not_finite_neither_warns_nor_stops_a_step(make, bad):
    w = np.ones((2, 3), np.float32)
    optimizer = make()
    with np.errstate(all="raise"), warnings.catch_warnings():
        warnings.simplefilter("error")
        optimizer.step([(w, np.full((2, 3), bad))])
    assert optimizer.iterations == 1


# ---- 16 bits -----------------------------------------------------------------------------------


def test_small_gradients_and_small_steps_move_16_bit_parameters():
    p, g = np.full(1, 0.5, np.float16), np.full(1, 1e-5, np.float16)
    run(dw.Adam(1e-3), p, [g] * 300)
    assert p[0] == pytest.approx(0.2, abs=4e-3)  # epsilon is 0.01 of the gradient
    p = np.full(1, 0.5, BFLOAT16)
    run(dw.Adam(1e-4), p, np.ones((300, 1)))
    assert float(p[0]) == pytest.approx(0.47, abs=2e-3)
    run(dw.SGD(1e-4), p, np.ones((1000, 1)))
    assert float(p[0]) == pytest.approx(0.37, abs=2e-3)


@pytest.mark.parametrize("dtype", [np.float16, BFLOAT16])
def test_a_16_bit_parameter_is_a_rounded_float32_one(make, dtype):
    steps = gradients(50).astype(dtype)
    want = run(make(), np.ones((3, 4), np.float32), steps.astype(np.float32))
    optimizer = make()
    p = run(optimizer, np.ones((3, 4), dtype), steps)
    np.testing.assert_array_equal(p, want.astype(dtype))
    state = optimizer.state_dict()
    np.testing.assert_array_equal(state["master.0"], want)
    arrays = [a for a in state.values() if isinstance(a, np.ndarray)]
    assert {a.dtype for a in arrays} == {np.dtype(np.float32)}


@pytest.mark.parametrize("dtype", [np.float16, BFLOAT16])
def test_a_parameter_changed_from_outside_goes_on_from_there(dtype):
    sgd, p = dw.SGD(1e-4), np.ones(2, dtype)
    run(sgd, p, np.ones((3, 2)))
    p[0] = 3
    run(sgd, p, np.ones((1, 2)))
    np.testing.assert_allclose(sgd.state_dict()["master.0"], [3 - 1e-4, 1 - 4e-4], rtol=1e-6)


# ---- arguments ---------------------------------------------------------------------------------

BAD_NUMBERS = [
    (-0.1, ValueError, "got -0.1"),
    (float("nan"), ValueError, "got nan"),
    (float("inf"), ValueError, "got inf"),
    (10**400, ValueError, "got 1000"),
    ("0.1", TypeError, "a number, got '0.1'"),
    (None, TypeError, "a number, got None"),
    (True, TypeError, "a number, got True"),
    (1j, TypeError, "a number, got 1j"),
    ([0.1], TypeError, r"a number, got \[0.1\]"),
]
NUMBERS = [
    *((dw.Adam, n) for n in ("learning_rate", "beta_1", "beta_2", "epsilon")),
    *((make, n) for make in (dw.Adam, dw.SGD) for n in ("decay", "weight_decay")),
    *((dw.SGD, n) for n in ("learning_rate", "momentum")),
]


@pytest.mark.parametrize(("cls", "name"), NUMBERS)
@pytest.mark.parametrize(("value", "error", "message"), BAD_NUMBERS)
def test_bad_settings_are_refused_at_once_and_when_assigned(cls, name, value, error, message):
    with pytest.raises(error, match=f"^{name} must be .*{message}"):
        cls(**{name: value})
    optimizer = cls()
    with pytest.raises(error, match=f"^{name} must be .*{message}"):
        setattr(optimizer, name, value)
    assert optimizer.config() == cls().config()


@pytest.mark.parametrize(
    ("arguments", "error", "message"),
    [
        ({"momentum": 5}, ValueError, r"momentum must be in \[0, 1\), got 5"),
        ({"momentum": 1.0}, ValueError, r"momentum must be in \[0, 1\), got 1.0"),
        ({"nesterov": True}, ValueError, "momentum must be positive with nesterov=True"),
        ({"nesterov": 1, "momentum": 0.5}, TypeError, "nesterov must be True or False, got 1"),
        ({"beta_1": 1.0}, ValueError, r"beta_1 must be in \[0, 1\), got 1.0"),
        ({"beta_2": 1}, ValueError, r"beta_2 must be in \[0, 1\), got 1"),
        ({"epsilon": 0}, ValueError, "epsilon must be finite and at least 1e-30, got 0"),
        ({"epsilon": -1}, ValueError, "epsilon must be finite and at least 1e-30, got -1"),
    ],
)
def test_settings_out_of_range_are_refused(arguments, error, message):
    cls = dw.Adam if {"beta_1", "beta_2", "epsilon"} & arguments.keys() else dw.SGD
    with pytest.raises(error, match=message):
        cls(**arguments)


def test_settings_are_plain_values(make):
    optimizer = type(make())(np.float32(1e-4), weight_decay=np.float16(0.5), decay=np.int64(1))
    assert json.loads(json.dumps(optimizer.config())) == optimizer.config()
    assert optimizer.weight_decay == 0.5
    again = type(optimizer)(**optimizer.config())
    assert again.config() == optimizer.config()
    config = dw.SGD(momentum=0.5, nesterov=np.bool_(True)).config()
    assert config["nesterov"] is True


def test_the_repr_makes_the_same_optimizer(make):
    optimizer = make()
    again = eval(repr(optimizer), vars(dw))
    assert again.config() == optimizer.config()
    assert repr(again) == repr(optimizer)
    ast.parse(repr(optimizer))
    assert repr(dw.Adam()) == "Adam(0.001)"
    assert repr(dw.SGD(1, momentum=0.5)) == "SGD(1.0, momentum=0.5)"
