"""What goes into a network: every method refuses the same inputs in the same words.

What was refused has changed nothing: no stream, no weight, no history, no optimizer.
"""

from __future__ import annotations

import io

import ml_dtypes
import numpy as np
import pytest

import dropwise as dw
from networks import FAMILY, chain, sample
from support import require

pytestmark = pytest.mark.usefixtures("backend")


class Own(dw.Layer):
    """A first layer of one's own, which takes what comes."""

    seen = 0

    def forward(self, x, training=True):
        self.seen += 1
        return x * 1.0

    def backward(self, dy):
        return dy


MASKS = {"rate": 0.1, "seed": 1}  # they keep what is not finite in some row

NETWORKS = {
    "Dense": lambda: dw.Sequential(chain("6 9 R D 3")),
    "float32": lambda: dw.Sequential(chain("6 9 R D 3", dtype="float32")),
    "half": lambda: dw.Sequential(chain("6 9 R D 3", dtype="bfloat16")),
    "Dropout": lambda: dw.Sequential(chain("6 D 9 R 3")),
    "ReLU": lambda: dw.Sequential(chain("6 R 9 D 3")),
    **{
        name: lambda make=make: dw.Sequential(
            [make(6, **MASKS), *chain("6 9 R"), make(9, **MASKS), *chain("9 3")]
        )
        for name, make in FAMILY.items()
    },
    "nested": lambda: dw.Sequential([dw.Sequential([dw.Tanh(), *chain("6 9 R D")]), *chain("9 3")]),
    "own": lambda: dw.Sequential([Own(), *chain("6 9 R D 3")]),
}
KNOWN_COLUMNS = [name for name in NETWORKS if name != "own"]


@pytest.fixture(params=NETWORKS)
def net(request):
    return NETWORKS[request.param]()


ROWS = 4
Y = np.arange(ROWS) % 3


def settings():
    return {"loss": dw.SoftmaxCrossEntropy(), "optimizer": dw.Adam(), "epochs": 2}


# Each calls a method with x; the optimizer is the one to look at afterwards.
def fit(net, x, y=Y, **options):
    return net.fit(x, y, progress=False, **(settings() | options))


METHODS = {
    "forward": lambda net, x, adam: net.forward(x),
    "forward at inference": lambda net, x, adam: net.forward(x, training=False),
    "predict": lambda net, x, adam: net.predict(x),
    "predict_mc": lambda net, x, adam: net.predict_mc(x, 3),
    "fit": lambda net, x, adam: fit(net, x, optimizer=adam),
    "iter_fit": lambda net, x, adam: net.iter_fit(x, Y, **(settings() | {"optimizer": adam})),
    "evaluate": lambda net, x, adam: net.evaluate(x, Y, loss=dw.SoftmaxCrossEntropy()),
    "validation": lambda net, x, adam: fit(
        net, sample(ROWS, 6), optimizer=adam, validation_data=(x, Y)
    ),
    "validation of iter_fit": lambda net, x, adam: net.iter_fit(
        sample(ROWS, 6), Y, validation_data=(x, Y, np.ones(ROWS)), **settings()
    ),
}

GOOD = sample(ROWS, 6)
REAL = "x must hold real numbers, got dtype"
# name: input, error, what the message says
BAD = {
    "one sample": (
        GOOD[0],
        ValueError,
        r"needs x of shape .*, got \(6,\); for one sample write x\[",
    ),
    "many features": (np.ones(2000), ValueError, r"got \(2000,\); for one sample write x\[None\]"),
    "list of numbers": ([1.0] * 6, ValueError, r"got \(6,\); for one sample"),
    "0-d": (np.float64(3), ValueError, r"needs x of shape \(B, ..., features\), got \(\)"),
    "number": (3, ValueError, r"got \(\)"),
    "none": (None, TypeError, f"{REAL} object"),
    "strings": (np.full((ROWS, 6), "1.5"), TypeError, f"{REAL} <U3"),
    "bytes": (np.full((ROWS, 6), b"1.5"), TypeError, f"{REAL} \\|S3"),
    "text": ("1.5", TypeError, f"{REAL} <U3"),
    "complex": (GOOD + 0j, TypeError, f"{REAL} complex128"),
    "complex list": ([[1j] * 6] * ROWS, TypeError, f"{REAL} complex128"),
    "datetime": (np.zeros((ROWS, 6), "M8[s]"), TypeError, f"{REAL} datetime64"),
    "timedelta": (np.zeros((ROWS, 6), "m8[s]"), TypeError, f"{REAL} timedelta64"),
    "object": (GOOD.astype(object), TypeError, f"{REAL} object"),
    "record": (np.zeros((ROWS, 6), [("a", float)]), TypeError, f"{REAL} "),
    "float8": (np.ones((ROWS, 6), ml_dtypes.float8_e5m2), TypeError, f"{REAL} float8_e5m2"),
    "masked": (np.ma.masked_array(GOOD), TypeError, r"plain array, got a masked one; use .filled"),
    "ragged": ([[1.0] * 6, [1.0] * 5], ValueError, "x must be an array of one shape"),
    "ragged deep": ([[[1.0], [2.0]], [[1.0]]], ValueError, "x must be an array of one shape"),
}
COLUMNS = {
    "few columns": (GOOD[:, :5], ValueError, r"got x with 5 columns; it was built for 6"),
    "many columns": (sample(ROWS, 7), ValueError, r"got x with 7 columns; it was built for 6"),
    "no columns": (GOOD[:, :0], ValueError, r"got x with 0 columns; it was built for 6"),
    "3-D": (sample(ROWS, 10).reshape(ROWS, 2, 5), ValueError, r"x with 5 columns; it was built"),
}


def everything(net, adam=None):
    """All that a call may change, as something to compare."""
    state = {k: v.tobytes() if hasattr(v, "tobytes") else v for k, v in net.state_dict().items()}
    state |= {"history": list(net.history), "epochs": net.epochs_done, "unfinished": net.unfinished}
    state["own"] = [layer.seen for layer in net if isinstance(layer, Own)]
    if adam is not None:
        state["adam"] = {k: np.asarray(v).tobytes() for k, v in adam.state_dict().items()}
    return state


def refusals(net, x, error, message):
    """The message of each method, once it is known that nothing has changed."""
    dy = np.ones((ROWS, 3))
    net.forward(GOOD)
    dx = net.backward(dy)
    adam = dw.Adam()
    adam.step(net.parameters())
    said = {}
    for name, call in METHODS.items():
        before = everything(net, adam)
        with pytest.raises(error, match=message) as caught:
            call(net, x, adam)
        assert everything(net, adam) == before, name
        said[name] = type(caught.value), str(caught.value)
    assert np.isfinite(net.backward(dy)).all()  # still that of the last good forward
    assert net.backward(dy).shape == dx.shape
    return said


@pytest.mark.parametrize("name", BAD)
def test_every_method_refuses_it_in_the_same_words(net, name):
    assert len(set(refusals(net, *BAD[name]).values())) == 1


@pytest.mark.parametrize("kind", ["csr_matrix", "coo_array"])
def test_every_method_refuses_sparse_matrices_in_the_same_words(net, kind):
    x = getattr(require("scipy.sparse"), kind)(GOOD)
    message = f"must be dense, got {kind}; use .toarray"
    assert len(set(refusals(net, x, TypeError, message).values())) == 1


@pytest.mark.parametrize("kind", KNOWN_COLUMNS)
@pytest.mark.parametrize("name", COLUMNS)
def test_every_method_refuses_other_columns_in_the_same_words(kind, name):
    assert len(set(refusals(NETWORKS[kind](), *COLUMNS[name]).values())) == 1


def test_all_networks_use_the_same_words():
    for x, error, message in BAD.values():
        words = {
            w for make in NETWORKS.values() for w in refusals(make(), x, error, message).values()
        }
        assert len(words) == 1


GOOD_INPUTS = {
    "list": GOOD.tolist(),
    "tuple": tuple(map(tuple, GOOD)),
    "integers": np.arange(ROWS * 6).reshape(ROWS, 6),
    "uint8": np.arange(ROWS * 6, dtype=np.uint8).reshape(ROWS, 6),
    "bool": GOOD > 0,
    "float16": GOOD.astype(np.float16),
    "bfloat16": GOOD.astype(ml_dtypes.bfloat16),
    "longdouble": GOOD.astype(np.longdouble),
    "swapped": GOOD.astype(">f8"),
    "Fortran": np.asfortranarray(GOOD),
    "reversed": GOOD[::-1, ::-1],
    "broadcast": np.broadcast_to(GOOD[:1], (ROWS, 6)),
    "subclass": GOOD.view(type("Mine", (np.ndarray,), {})),
    "matrix of rows": GOOD[:, None, :],
}


@pytest.mark.parametrize("name", GOOD_INPUTS)
def test_what_one_method_takes_all_take(net, name):
    x = GOOD_INPUTS[name]
    y = np.zeros((*np.shape(x)[:-1], 3))
    options = {"loss": dw.MeanSquaredError(), "optimizer": dw.SGD(0.0), "progress": False}
    net.forward(x)
    net.backward(y)
    expected = net.predict(np.asarray(x, np.float64))
    np.testing.assert_allclose(
        net.predict(x).astype(float), expected.astype(float), rtol=0.02, atol=0.02
    )
    mean, std = net.predict_mc(x, 2)
    assert mean.shape == std.shape == net.forward(x, training=False).shape
    loss, _ = net.evaluate(x, y, loss=dw.MeanSquaredError())
    (epoch,) = net.fit(x, y, validation_data=(x, y), **options)
    assert epoch.val_loss == loss
    assert next(net.iter_fit(x, y, loss=options["loss"], optimizer=dw.SGD(0.0))).epoch == 2


def test_a_batch_without_rows_goes_through_all_but_training(net):
    x = GOOD[:0]
    assert net.forward(x).shape == net.predict(x).shape == (0, 3)
    assert net.backward(np.ones((0, 3))).shape == (0, 6)
    mean, std = net.predict_mc(x, 4)
    assert mean.shape == std.shape == (0, 3)
    for call in (
        lambda: fit(net, x, Y[:0]),
        lambda: net.evaluate(x, Y[:0], loss=dw.SoftmaxCrossEntropy()),
        lambda: fit(net, GOOD, validation_data=(x, Y[:0])),
    ):
        with pytest.raises(ValueError, match="same number of rows, got 0 and 0"):
            call()


def test_what_is_not_finite_goes_through_inference_and_stops_training(net):
    x = GOOD.copy()
    x[1] = np.inf
    assert net.predict(x).shape == (ROWS, 3)
    x[1] = np.nan
    assert np.isnan(net.predict(x)[1]).any()
    net.predict_mc(x, 2)
    adam = dw.Adam(0.5)
    before = [p.copy() for p in net.parameter_values()]
    with (
        np.errstate(all="ignore"),
        pytest.raises(
            FloatingPointError,
            match=r"epoch 1, batch 1: the loss is (nan|inf) \(learning rate 0.5\); this update was "
            "not made, and the parameters are finite",
        ),
    ):
        fit(net, x, optimizer=adam, batch_size=None)
    assert (adam.iterations, net.history, net.epochs_done) == (0, [], 0)
    for p, want in zip(net.parameter_values(), before, strict=True):
        np.testing.assert_array_equal(p, want)


def test_a_network_file_is_no_input():
    with pytest.raises(TypeError, match=REAL):
        dw.Sequential(chain("6 3")).forward(io.BytesIO())
