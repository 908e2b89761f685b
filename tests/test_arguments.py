"""Numbers as arguments: whatever is like an integer will do, and what is none is named at once."""

from __future__ import annotations

from fractions import Fraction

import numpy as np
import pytest

import dropwise as dw
from dropwise import functional as F
from networks import FAMILY

INTEGERS = [np.int64, np.uint64, np.uint8, np.int16, lambda n: np.array(n)]


@pytest.mark.parametrize("kind", INTEGERS)
def test_anything_like_an_integer_is_one(backend, kind):
    want = F.dropout_mask((2, 8), 0.3, key=200, stream=3, offset=5)
    for shape in ((kind(2), 8), [2, kind(8)], np.array([2, 8])):
        got = F.dropout_mask(shape, 0.3, key=kind(200), stream=kind(3), offset=kind(5))
        np.testing.assert_array_equal(got, want)
    np.testing.assert_array_equal(
        F.dropout_mask(kind(16), 0.3, key=200, stream=3, offset=5), want.ravel()
    )
    x = np.ones((4, 6))
    noise = F.dropout(x, 0.3, key=1, noise_shape=(1, kind(6)))
    np.testing.assert_array_equal(noise, F.dropout(x, 0.3, key=1, noise_shape=(1, None)))
    drop = dw.Dropout(0.3, noise_shape=(1, kind(6)), seed=kind(1))
    np.testing.assert_array_equal(
        drop.forward(x), dw.Dropout(0.3, noise_shape=(1, None), seed=1).forward(x)
    )
    assert drop.config()["noise_shape"] == [1, 6]
    assert type(drop.config()["noise_shape"][1]) is int
    assert repr(dw.Dense(kind(2), kind(3))) == "Dense(2, 3)"
    before = dw.get_num_threads()
    dw.set_num_threads(kind(before))
    assert dw.get_num_threads() == before
    net = dw.Sequential([dw.Dense(6, 2, seed=0)])
    assert net.predict_mc(x, kind(3))[0].shape == (4, 2)
    assert len(net.spawn(kind(2))) == 2
    epochs = net.fit(
        x,
        np.zeros((4, 2)),
        loss=dw.MeanSquaredError(),
        optimizer=dw.SGD(0.1),
        epochs=kind(2),
        batch_size=kind(3),
        patience=kind(2),
        every=kind(1),
        progress=False,
    )
    assert len(epochs) == 2


def test_keys_and_offsets_may_be_as_large_as_the_contract_says():
    for key in (np.uint64(2**64 - 1), 2**64 - 1):
        assert F.dropout_mask(9, 0.5, key=key, offset=np.uint64(2**64 - 9)).shape == (9,)


FLOATS = [
    2.0,
    np.float64(2),
    np.float32(2),
    Fraction(2),
    "2",
    b"2",
    None,
    2j,
    [2],
    True,
    np.bool_(1),
]


def call_mask(**arguments):
    return F.dropout_mask(**({"shape": 4, "rate": 0.5, "key": 1} | arguments))


def fit(**arguments):
    net = dw.Sequential([dw.Dense(3, 2)])
    settings = {"loss": dw.SoftmaxCrossEntropy(), "optimizer": dw.Adam(), "progress": False}
    return net.fit(np.ones((4, 3)), [0, 1, 0, 1], **(settings | arguments))


WHOLE = {
    "an entry of shape": lambda n: call_mask(shape=(n, 3)),
    "key": lambda n: call_mask(key=n),
    "stream": lambda n: call_mask(stream=n),
    "offset": lambda n: call_mask(offset=n),
    "offset of the layer": lambda n: dw.Dropout().forward(np.ones(3), offset=n),
    "an entry of noise_shape": lambda n: dw.Dropout(noise_shape=(1, n)),
    "an entry of noise_shape of the function": lambda n: F.dropout(
        np.ones((1, 2)), 0.5, key=1, noise_shape=(1, n)
    ),
    "in_features": lambda n: dw.Dense(n, 3),
    "out_features": lambda n: dw.Dense(3, n),
    "number of threads": dw.set_num_threads,
    "n_samples": lambda n: dw.Sequential([dw.Dense(3, 2)]).predict_mc(np.ones((1, 3)), n),
    "n": lambda n: dw.Dropout().spawn(n),
    "epochs": lambda n: fit(epochs=n),
    "batch_size": lambda n: fit(batch_size=n),
    "patience": lambda n: fit(patience=n),
    "every": lambda n: fit(every=n),
    "seed": lambda n: dw.Dense(2, 2, seed=n),
}
# None has a meaning of its own there.
NONE_MEANS = (
    "batch_size",
    "patience",
    "seed",
    "an entry of noise_shape",
    "an entry of noise_shape of the function",
)


@pytest.mark.parametrize("name", WHOLE)
def test_what_is_no_integer_is_refused_by_name(backend, name):
    said = name.partition(" of the ")[0]
    for value in FLOATS:
        if (value is None and name in NONE_MEANS) or (name == "seed" and value is True):
            continue
        with pytest.raises(TypeError, match=f"{said} must be an int.*, got") as caught:
            WHOLE[name](value)
        assert repr(value) in str(caught.value)


def test_a_shape_that_is_no_integer_is_refused():
    for shape in (2.0, "23", None, (2.0, 3)):
        with pytest.raises(TypeError, match="shape must be an integer, got"):
            call_mask(shape=shape)


TOO_SMALL = {
    "an entry of shape": -1,
    "key": -1,
    "stream": -1,
    "offset": -1,
    "an entry of noise_shape": 0,
    "in_features": 0,
    "out_features": -1,
    "number of threads": 0,
    "n_samples": 0,
    "n": -1,
    "epochs": -5,
    "batch_size": 0,
    "patience": 0,
    "every": 0,
}


@pytest.mark.parametrize("name", TOO_SMALL)
def test_an_integer_out_of_range_is_refused_by_name(backend, name):
    value = TOO_SMALL[name]
    for kind in (int, np.int64):
        with pytest.raises(ValueError, match=f"{name} must be .*, got") as caught:
            WHOLE[name](kind(value))
        assert str(value) in str(caught.value)


NOT_NUMBERS = ["1", None, 1j, np.array([1.0]), True, np.bool_(0), object()]


@pytest.mark.parametrize("name", ["l1", "l2", "bias_l1", "bias_l2", "init"])
def test_real_arguments_of_dense(name):
    for value in (-1, -1e-300, np.nan, np.inf, np.float32(-1)):
        with pytest.raises(ValueError, match=f"{name} must be finite and at least 0, got"):
            dw.Dense(2, 3, **{name: value})
    for value in NOT_NUMBERS:
        error, message = TypeError, f"{name} must be a number, got"
        if name == "init" and value == "1":
            error, message = ValueError, "init must be a standard deviation or one of"
        with pytest.raises(error, match=message):
            dw.Dense(2, 3, **{name: value})
    for value in (np.float32(0.5), np.float64(0.5), Fraction(1, 2), np.array(0.5)):
        assert type(getattr(dw.Dense(2, 3, **{name: value}), name)) is float


@pytest.mark.parametrize(
    ("arguments", "error", "message"),
    [
        ({"rate": 2}, ValueError, r"rate must be in \[0, 1\], got 2"),
        ({"rate": np.nan}, ValueError, "rate must be in"),
        ({"rate": "0.5"}, TypeError, "rate must be a number"),
        ({"rate": True}, TypeError, "rate must be a number"),
        ({"rate": None}, TypeError, "rate must be a number"),
        ({"scaling": "Inverted"}, ValueError, "scaling must be 'inverted' or 'vanilla'"),
        ({"scaling": None}, ValueError, "scaling must be"),
        ({"noise_shape": 5}, TypeError, "noise_shape must be a sequence of int or None, got 5"),
        ({"noise_shape": "1N"}, TypeError, "noise_shape must be a sequence"),
        ({"noise_shape": (1, 0)}, ValueError, "an entry of noise_shape must be at least 1, got 0"),
        ({"noise_shape": (-1,)}, ValueError, "an entry of noise_shape must be at least 1, got -1"),
        ({"noise_shape": (2.0, 3)}, TypeError, "an entry of noise_shape must be an integer"),
        ({"noise_shape": ((1, 2),)}, TypeError, "an entry of noise_shape must be an integer"),
        ({"seed": -1}, ValueError, "seed|non-negative|negative"),
        ({"seed": 1.5}, TypeError, "seed must be an int"),
    ],
)
def test_arguments_of_dropout_are_refused_by_the_constructor(arguments, error, message):
    with pytest.raises(error, match=message):
        dw.Dropout(**arguments)


@pytest.mark.parametrize("name", FAMILY)
def test_arguments_of_the_relatives_are_refused_by_the_constructor(name):
    for arguments, error, message in [
        ({"rate": 2}, ValueError, r"rate must be in \[0, 1\], got 2"),
        ({"rate": np.nan}, ValueError, "rate must be in"),
        ({"rate": "0.5"}, TypeError, "rate must be a number"),
        ({"seed": -1}, ValueError, "seed|non-negative|negative"),
        ({"seed": 1.5}, TypeError, "seed must be an int"),
        ({"scaling": "vanilla"}, TypeError, "unexpected keyword argument 'scaling'"),
    ]:
        with pytest.raises(error, match=message):
            FAMILY[name](3, **arguments)
    with pytest.raises(TypeError, match="n must be an integer"):
        FAMILY[name](3).spawn(2.0)


def test_a_noise_shape_of_another_rank_or_size_is_refused_in_forward(backend):
    for noise in ((1,), (1, 3), (1, 1, 1), ()):
        drop = dw.Dropout(0.5, noise_shape=noise, seed=1)
        net = dw.Sequential([dw.Dense(2, 4), drop])
        for call in (lambda d=drop: d.forward(np.ones((2, 4))), lambda n=net: n.forward([[1, 1]])):
            with pytest.raises(ValueError, match="noise_shape must have 1, None or x's size"):
                call()
        assert drop.state_dict()["next_stream"] == 0
