"""Every input may share memory with what a call writes to: the result is that of copies."""

from __future__ import annotations

import numpy as np
import pytest

import dropwise as dw
from dropwise import functional as F
from kinds import dtype_of, values
from networks import chain, sample
from samples import assert_same_bits

pytestmark = pytest.mark.usefixtures("backend")

N = 36
# What an input is, and what `out` is, in one piece of memory of 3 * N elements.
OVERLAPS = {
    "the same": lambda m: (m[:N], m[:N]),
    "one further": lambda m: (m[:N], m[1 : N + 1]),
    "one before": lambda m: (m[1 : N + 1], m[:N]),
    "half": lambda m: (m[:N], m[N // 2 : N // 2 + N]),
    "reversed": lambda m: (m[:N], m[:N][::-1]),
    "every second": lambda m: (m[:N], m[: 2 * N : 2]),
    "within": lambda m: (m[: 2 * N : 2], m[N // 2 : N // 2 + N]),
    "square": lambda m: (m[:N].reshape(6, 6), m[:N].reshape(6, 6)),
    "transposed": lambda m: (m[:N].reshape(6, 6), m[:N].reshape(6, 6).T),
    "repeated": lambda m: (np.broadcast_to(m[3], N), m[:N]),
    "turned matrix": lambda m: (m[:N].reshape(6, 6)[::-1], m[2 : N + 2].reshape(6, 6).T),
}


def dropout_layer(save_mask):
    def call(x, out):
        return dw.Dropout(0.4, seed=1, save_mask=save_mask).forward(x, out=out)

    return call


def dropout_layer_again(x, out):
    drop = dw.Dropout(0.4, seed=1)
    drop.forward(np.ones_like(x))  # after it, a forward like it takes fewer steps
    return drop.forward(x, out=out)


def dropout_gradient(save_mask):
    def call(dy, out):
        drop = dw.Dropout(0.4, seed=1, save_mask=save_mask, scaling="vanilla")
        drop.forward(np.ones_like(dy))
        return drop.backward(dy, out=out)

    return call


def relative(layer_class, save_mask=True):
    def call(x, out):
        return layer_class(0.4, seed=1, save_mask=save_mask).forward(x, out=out)

    return call


def alpha_gradient(dy, out):
    drop = dw.AlphaDropout(0.4, seed=1)
    drop.forward(np.ones_like(dy))
    return drop.backward(dy, out=out)


def relu_gradient(dy, out):
    relu = dw.ReLU()
    relu.forward(values(dy.shape, dy.dtype.name, 3))
    return relu.backward(dy, out=out)


FLOATS = ("Dropout", "DropPath", "AlphaDropout")
MASK = np.random.default_rng(2).random(N) < 0.5
CALLS = {
    "dropout": lambda x, out: F.dropout(x, 0.4, key=5, out=out, scaling="vanilla"),
    "dropout, rows": lambda x, out: F.dropout(
        x, 0.4, key=5, out=out, scaling="vanilla", noise_shape=(1,) * x.ndim
    ),
    "dropout_backward": lambda x, out: F.dropout_backward(
        x, 0.4, key=5, out=out, scaling="vanilla"
    ),
    "dropout_backward, mask": lambda x, out: F.dropout_backward(
        x, 0.4, mask=MASK.reshape(x.shape), out=out, scaling="vanilla"
    ),
    "relu": lambda x, out: F.relu(x, out=out),
    "Dropout": dropout_layer(True),
    "Dropout, again": dropout_layer_again,
    "Dropout, replayed": dropout_layer(False),
    "Dropout.backward": dropout_gradient(True),
    "Dropout.backward, replayed": dropout_gradient(False),
    "DropPath": relative(dw.DropPath),
    "AlphaDropout": relative(dw.AlphaDropout),
    "AlphaDropout, replayed": relative(dw.AlphaDropout, save_mask=False),
    "AlphaDropout.backward": alpha_gradient,
    "ReLU": lambda x, out: dw.ReLU().forward(x, out=out),
    "ReLU.backward": relu_gradient,
}


@pytest.mark.parametrize(
    "dtype", ["float32", "float64", "float16", "bfloat16", "longdouble", "int16"]
)
@pytest.mark.parametrize("name", CALLS)
def test_elementwise_functions_write_over_their_input(name, dtype):
    call = CALLS[name]
    if dtype == "int16" and name.startswith(FLOATS) and not name.startswith("Dropout.backward"):
        return  # integers become floats there, which no `out` of integers takes
    for overlap, make in OVERLAPS.items():
        memory = values(3 * N, dtype)
        x, out = make(memory)
        want = call(x.copy(), None)
        outside = np.ones(memory.size, bool)
        make(outside)[1][...] = False
        before = memory.copy()
        assert call(x, out) is out, overlap
        assert_same_bits(np.array(out), want)
        np.testing.assert_array_equal(memory[outside], before[outside])


@pytest.mark.parametrize("dtype", ["float32", "float64", "float16", "bfloat16", "longdouble"])
@pytest.mark.parametrize("start", [0, 5, 40])
def test_a_mask_may_lie_in_the_memory_of_out(dtype, start):
    dy = values(N, dtype)
    memory = np.zeros(2 * N, dtype_of(dtype))
    mask = memory.view(np.uint8)[start : start + N].view(bool)
    mask[...] = MASK
    want = F.dropout_backward(dy, 0.5, mask=MASK)
    F.dropout_backward(dy, 0.5, mask=mask, out=memory[:N])
    assert_same_bits(memory[:N], want)


# Parts of memory of 400 elements, for a product of [5, 6] by [6, 4].
def part(m, start, shape):
    return m[start : start + int(np.prod(shape))].reshape(shape)


@pytest.mark.parametrize(
    "dtype", ["float32", "float64", "float16", "bfloat16", "int64", "complex64"]
)
@pytest.mark.parametrize("operand", ["a", "b", "bias"])
@pytest.mark.parametrize("options", [{}, {"relu": True}, {"skip_zeros": False}], ids=str)
def test_every_operand_of_a_product_may_share_the_memory_of_out(operand, dtype, options):
    if "relu" in options and dtype == "complex64":
        return
    shape = {"a": (5, 6), "b": (6, 4), "bias": (4,)}[operand]
    outs = {
        "C": lambda m: part(m, 10, (5, 4)),
        "F": lambda m: part(m, 10, (4, 5)).T,
        "reversed": lambda m: part(m, 10, (5, 4))[::-1, ::-1],
        "strided": lambda m: part(m, 0, (10, 12))[::2, 1::3],
    }
    for name, out_of in outs.items():
        for start in (0, 9, 10, 14, 29, 35):
            for order in "CF":
                memory = values(400, dtype)
                given = {
                    "a": values((5, 6), dtype, 1),
                    "b": values((6, 4), dtype, 2),
                    "bias": values(4, dtype, 3),
                }
                inside = part(memory, start, shape if order == "C" else shape[::-1])
                inside = inside if order == "C" else inside.T
                want = F.matmul(**(given | {operand: inside.copy()}), **options)
                out = out_of(memory)
                assert F.matmul(**(given | {operand: inside}), out=out, **options) is out
                np.testing.assert_array_equal(out, want, err_msg=f"{name} {start} {order}")


def test_all_operands_of_a_product_may_be_the_memory_of_out():
    for dtype in (np.float32, np.float64, np.float16, int):
        square = values((6, 6), np.dtype(dtype).name)
        want = F.matmul(square.copy(), square.copy().T, bias=square[2].copy())
        F.matmul(square, square.T, bias=square[2], out=square)
        np.testing.assert_array_equal(square, want)


# ---- buffers of a layer's own: gradients and parameters ----------------------------------------


def buffers(layers, size, what):
    """A part of that size of each layer's gradients or parameters."""
    for layer in layers:
        if isinstance(layer, dw.Dense):
            flat = layer.gradients if what == "gradients" else layer.parameters()[0][0]
            if flat.size >= size:
                yield flat[:size]
                yield flat[flat.size - size :]


SPECS = ["5 6", "5 40 R D 6", "5 40 D 40 R 6", "5 D 40 R D 6 R", "5 40 40 6"]


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("what", ["gradients", "parameters"])
@pytest.mark.parametrize("where", ["x", "dy", "both"])
@pytest.mark.parametrize("spec", SPECS)
def test_x_and_dy_may_lie_in_the_buffers_of_any_layer_of_a_network(spec, where, what, dtype):
    rows, shapes = 3, {"x": (3, 5), "dy": (3, 6)}
    for i in range(len(list(buffers(chain(spec), rows * 6, what)))):
        net, reference = (dw.Sequential(chain(spec, dtype=dtype)) for _ in range(2))
        place = list(buffers(net, rows * 6, what))[i]
        place[...] = 0.1 * values(place.shape, dtype, 4)
        list(buffers(reference, rows * 6, what))[i][...] = place
        given = {k: 0.1 * values(shape, dtype, 5) for k, shape in shapes.items()}
        for k in shapes if where == "both" else [where]:
            given[k] = place[: rows * shapes[k][1]].reshape(shapes[k])
        plain = {k: v.copy() for k, v in given.items()}
        np.testing.assert_array_equal(net.forward(given["x"]), reference.forward(plain["x"]))
        np.testing.assert_array_equal(net.backward(given["dy"]), reference.backward(plain["dy"]))
        for (_, got), (_, want) in zip(net.parameters(), reference.parameters(), strict=True):
            np.testing.assert_array_equal(got, want)


@pytest.mark.parametrize("dtype", ["float16", "float32", "float64"])
@pytest.mark.parametrize("skip_zeros", [True, False])
def test_x_and_dy_may_lie_in_the_gradients_of_a_dense_layer(dtype, skip_zeros):
    plain, dense = (
        dw.Dense(6, 6, dtype=dtype, seed=0, l2=0.1, skip_zeros=skip_zeros) for _ in range(2)
    )
    for x, dy in [((0, 0), (0, 0)), ((0, 6), (6, 0)), ((0, 0), (24, 0)), ((24, 0), (0, 0))]:
        dense.gradients[...] = values(42, dtype)
        x, dy = (dense.gradients[i[0] + i[1] :][:18].reshape(3, 6) for i in (x, dy))
        y, dx = plain.forward(x.copy()), plain.backward(dy.copy())
        np.testing.assert_array_equal(dense.forward(x), y)
        np.testing.assert_array_equal(dense.backward(dy), dx)
        np.testing.assert_array_equal(dense.gradients, plain.gradients)


def test_parameters_may_be_set_to_views_of_each_other():
    dense = dw.Dense(4, 4, dtype="float64", seed=0)
    before = dense.weight.copy()
    dense.weight = dense.weight.T
    np.testing.assert_array_equal(dense.weight, before.T)
    dense.bias = dense.weight[2]
    np.testing.assert_array_equal(dense.bias, before.T[2])
    dense.load_state_dict({"weight": dense.weight[::-1], "bias": dense.weight[0]})
    np.testing.assert_array_equal(dense.weight, before.T[::-1])
    np.testing.assert_array_equal(dense.bias, before.T[0])


def test_layers_may_swap_their_parameters():
    net = dw.Sequential([dw.Dense(3, 3), dw.ReLU(), dw.Dense(3, 3)], seed=0)
    first, second = (net[i].weight.copy() for i in (0, 2))
    state = net.state_dict() | {"0.weight": net[2].weight, "2.weight": net[0].weight}
    net.load_state_dict(state)
    np.testing.assert_array_equal(net[0].weight, second)
    np.testing.assert_array_equal(net[2].weight, first)


def test_the_result_of_a_network_may_be_its_gradient():
    a, b = dw.Sequential(chain("5 7 R D 6")), dw.Sequential(chain("5 7 R D 6"))
    x = sample(4, 5)
    dx = a.backward(a.forward(x))
    y = b.forward(x)
    np.testing.assert_array_equal(b.backward(y.copy()), dx)
