"""Ctrl-C: a long elementwise call is cut, a product ends first, and all can be used afterwards.

Each test sends the signal once the call has begun to write, so none of them looks at a clock.
"""

from __future__ import annotations

import os

import pytest

from support import require, run_python

pytestmark = pytest.mark.skipif(not hasattr(os, "fork"), reason="signals are another thing here")

PRELUDE = """
import os, signal, threading, time
import numpy as np
import dropwise as dw
from dropwise import functional as F
from dropwise._backends import active

signal.signal(signal.SIGINT, signal.default_int_handler)  # which jobs in the background ignore

def interrupted(call, has_begun):
    "Whether Ctrl-C, as soon as the call has begun, ends it or comes after it."
    def press():
        while not has_begun():
            time.sleep(0.001)
        os.kill(os.getpid(), signal.SIGINT)
    finger = threading.Thread(target=press, daemon=True)
    try:
        finger.start()
        call()
        ended = True
        finger.join(30)
        time.sleep(30)
    except KeyboardInterrupt:
        return not locals().get("ended")
    raise SystemExit("no signal came")

PIECE = 1 << 26
"""

MASK = """
def mask(n, bits):
    active().mask_bits(bits, n, 0.3, 5, 0, 0)
    return bits
mask(100, np.zeros(13, np.uint8))  # compiled
before = mask(PIECE, np.zeros(PIECE // 8, np.uint8))
assert before[0]
bits = np.zeros(32 * PIECE // 8, np.uint8)
assert interrupted(lambda: mask(32 * PIECE, bits), lambda: bits[0])
np.testing.assert_array_equal(bits[: PIECE // 8], before)  # what was begun is done
assert not bits[-PIECE // 8 :].any()                       # and the rest is not
assert 300 < np.count_nonzero(F.dropout(np.ones(1000), 0.5, key=3)) < 700
"""


def settings(backend):
    """The slowest kernels on one thread, so that the signal comes in time."""
    require({"native": "dropwise._native", "numba": "numba"}[backend])
    if backend == "numba":
        return {"DROPWISE_BACKEND": "numba"}
    return {"DROPWISE_BACKEND": "native", "DROPWISE_ISA": "scalar", "DROPWISE_NUM_THREADS": "1"}


@pytest.fixture(params=["native", "numba"])
def environment(request):
    return settings(request.param)


def test_a_long_mask_is_cut(environment):
    run_python(PRELUDE + MASK, **environment)


IN_PLACE = """
b = active()
n = 8 * PIECE
x = np.ones(n, np.float16)
bits = np.full(n // 8, 255, np.uint8)
run = {run}
run(x[:100], bits[:13])
x[:100], bits[:13] = 1, 255
begun = {begun}
assert interrupted(lambda: run(x, bits), begun)
assert {rest}
assert 300 < np.count_nonzero(F.dropout(np.ones(1000), 0.5, key=3)) < 700
"""


@pytest.mark.slow  # 1 GiB of memory
@pytest.mark.parametrize(
    ("run", "begun", "rest"),
    [
        pytest.param(
            "lambda x, bits: b.dropout_forward(x, x, bits, 0.5, 2.0, 1, 0, 0)",
            "lambda: x[0] != 1",
            "(x[-PIECE:] == 1).all() and (bits[-PIECE // 8:] == 255).all()",
            id="dropout_forward",
        ),
        pytest.param(
            "lambda x, bits: b.apply_bits(x, x, bits, 2.0)",
            "lambda: x[0] == 2",
            "(x[-PIECE:] == 1).all() and (x[:PIECE] == 2).all()",
            id="apply_bits",
        ),
        pytest.param(
            "lambda x, bits: b.relu(np.negative(x, out=x), x, bits)",
            "lambda: x[0] == 0",
            "(x[-PIECE:] == -1).all() and (x[:PIECE] == 0).all()",
            id="relu",
        ),
    ],
)
def test_a_long_elementwise_call_is_cut(environment, run, begun, rest):
    run_python(PRELUDE + IN_PLACE.format(run=run, begun=begun, rest=rest), **environment)


def test_a_product_ends_first(environment):
    code = """
rng = np.random.default_rng(0)
a = rng.integers(-8, 9, (1500, 1500)).astype(np.float32)
expected = a @ a
out = np.full_like(a, np.nan)
F.matmul(a[:2], a)
interrupted(lambda: F.matmul(a, a, out=out), lambda: not np.isnan(out).all())
np.testing.assert_array_equal(out, expected)
np.testing.assert_array_equal(F.matmul(a, a), expected)
"""
    run_python(PRELUDE + code, **environment)


def test_a_fit_ends_and_goes_on(environment):
    code = """
def network():
    return dw.Sequential(
        [dw.Dense(20, 300), dw.ReLU(), dw.Dropout(0.5), dw.Dense(300, 3)], seed=1)
x, y = np.random.default_rng(0).standard_normal((1000, 20), np.float32), np.arange(1000) % 3
net, adam = network(), dw.Adam()
options = dict(loss=dw.SoftmaxCrossEntropy(), batch_size=50, progress=False)
assert interrupted(
    lambda: net.fit(x, y, optimizer=adam, epochs=10**6, **options), lambda: len(net.history) > 1)
done = len(net.history)
assert net.epochs_done == done and 20 * done <= adam.iterations < 20 * (done + 1)
assert np.isfinite(net.predict(x)).all()
whole = network()  # up to there it is the run that nobody interrupts
assert whole.fit(x, y, optimizer=dw.Adam(), epochs=done, **options) == net.history
try:
    net.fit(x, y, optimizer=adam, epochs=1, **options)
    assert len(net.history) == done + 1
except RuntimeError as error:  # between two parameters of a step, which Numba moves one by one
    assert "left in the middle" in str(error)
    assert os.environ["DROPWISE_BACKEND"] == "numba"
    net.fit(x, y, optimizer=dw.Adam(), epochs=1, **options)
"""
    run_python(PRELUDE + code, **environment)
