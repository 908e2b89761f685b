"""What Sequential computes fused, against its layers called one by one."""

from __future__ import annotations

import ml_dtypes
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import dropwise as dw
from dropwise.network.blocks import FusedDense
from dropwise.network.fused import split_into_blocks
from networks import SPECS, chain, one_by_one, sample

pytestmark = pytest.mark.usefixtures("backend")


@pytest.mark.parametrize("skip_zeros", [True, False])
@pytest.mark.parametrize("rate", [0.0, 0.3, 0.8, 1.0])
@pytest.mark.parametrize("spec", SPECS)
def test_fused_is_the_layers_one_by_one(spec, rate, skip_zeros):
    x = sample(33, 5)
    layers = chain(spec, rate=rate)
    for layer in layers:
        if isinstance(layer, dw.Dense):
            layer.skip_zeros = skip_zeros
    net = dw.Sequential(chain(spec, rate=rate))
    for step in range(2):
        dy = sample(33, net.predict(x).shape[1], seed=step)
        y, dx = one_by_one(layers, x, dy)
        np.testing.assert_allclose(net.forward(x), y, rtol=1e-10, atol=1e-12)
        np.testing.assert_allclose(net.backward(dy), dx, rtol=1e-10, atol=1e-12)
        for layer, fused in zip(layers, net.layers, strict=True):
            if isinstance(layer, dw.Dropout):
                np.testing.assert_array_equal(fused.mask, layer.mask)
            for (_, want), (_, got) in zip(layer.parameters(), fused.parameters(), strict=True):
                np.testing.assert_allclose(got, want, rtol=1e-10, atol=1e-12)


@given(
    spec=st.sampled_from(SPECS),
    rows=st.integers(1, 70),
    rate=st.floats(0, 1),
    scaling=st.sampled_from(["inverted", "vanilla"]),
    save_mask=st.booleans(),
    noise=st.sampled_from([None, (1, None), (None, 1), (1, 1)]),
    training=st.booleans(),
)
@settings(max_examples=60)
def test_fused_is_the_layers_one_by_one_with_any_dropout(
    spec, rows, rate, scaling, save_mask, noise, training
):
    options = {"rate": rate, "scaling": scaling, "save_mask": save_mask, "noise_shape": noise}
    x = sample(rows, 5)
    layers, net = chain(spec, **options), dw.Sequential(chain(spec, **options))
    dy = sample(rows, net.predict(x).shape[1])
    y, dx = one_by_one(layers, x, dy, training)
    # The scale may be as large as 2**53: compare relative to the largest value.
    np.testing.assert_allclose(net.forward(x, training), y, rtol=1e-9, atol=1e-12 * abs(y).max())
    np.testing.assert_allclose(net.backward(dy), dx, rtol=1e-9, atol=1e-12 * abs(dx).max())
    for layer, fused in zip(layers, net.layers, strict=True):
        for (_, want), (_, got) in zip(layer.parameters(), fused.parameters(), strict=True):
            scale = abs(want).max()
            np.testing.assert_allclose(got, want, rtol=1e-9, atol=1e-12 * scale)


# With so many rows the native backend computes such narrow layers in blocks of rows.
@pytest.mark.parametrize("options", [{}, {"noise_shape": (1, None)}, {"scaling": "vanilla"}])
@pytest.mark.parametrize("training", [True, False])
@pytest.mark.parametrize("spec", ["5 400 R D 3", "5 400 D 6 400 R D 7 R", "5 R D 400 R 3"])
def test_fused_is_the_layers_one_by_one_with_many_rows(spec, training, options):
    x = sample(1501, 10)[::-1, ::2]
    layers, net = chain(spec, **options), dw.Sequential(chain(spec, **options))
    dy = sample(1501, net.predict(x).shape[1])
    y, dx = one_by_one(layers, x, dy, training)
    np.testing.assert_allclose(net.forward(x, training), y, rtol=1e-10, atol=1e-11)
    np.testing.assert_allclose(net.backward(dy), dx, rtol=1e-10, atol=1e-11)
    for layer, fused in zip(layers, net.layers, strict=True):
        for (_, want), (_, got) in zip(layer.parameters(), fused.parameters(), strict=True):
            np.testing.assert_allclose(got, want, rtol=1e-10, atol=1e-9)


@pytest.mark.parametrize("lead", [(6,), (2, 3), (3, 1, 2)])
@pytest.mark.parametrize("spec", ["5 7 R D 3", "5 7 R D 3 R D", "5 D 7"])
def test_leading_dimensions_are_kept(lead, spec):
    x = sample(6, 5).reshape(*lead, 5)
    layers, net = chain(spec), dw.Sequential(chain(spec))
    y = net.forward(x)
    dx = net.backward(np.ones_like(y))
    want = one_by_one(layers, x, np.ones_like(y))
    assert (y.shape[:-1], dx.shape) == (lead, x.shape)
    np.testing.assert_allclose(y, want[0], rtol=1e-10, atol=1e-12)
    np.testing.assert_allclose(dx, want[1], rtol=1e-10, atol=1e-12)
    assert net.predict(x).shape == y.shape


def test_a_mask_of_columns_reaches_over_all_leading_dimensions():
    x = sample(6, 5).reshape(2, 3, 5)
    options = {"noise_shape": (1, 1, None)}
    layers, net = chain("5 70 R D 3", **options), dw.Sequential(chain("5 70 R D 3", **options))
    y, _ = one_by_one(layers, x, np.zeros((2, 3, 3)))
    np.testing.assert_allclose(net.forward(x), y, rtol=1e-10, atol=1e-12)
    with pytest.raises(ValueError, match="noise_shape must have"):
        net.forward(x[0])


@pytest.mark.parametrize("dtype", ["float16", "bfloat16"])
def test_half_networks_run_layer_by_layer(dtype):
    x = sample(9, 5, np.dtype(getattr(ml_dtypes, dtype, dtype)))
    layers, net = chain("5 7 R D 3", dtype=dtype), dw.Sequential(chain("5 7 R D 3", dtype=dtype))
    dy = np.ones((9, 3), x.dtype)
    y, dx = one_by_one(layers, x, dy)
    np.testing.assert_array_equal(net.forward(x), y)
    np.testing.assert_array_equal(net.backward(dy), dx)


def test_groups_are_found_in_any_depth():
    blocks = split_into_blocks(chain("5 7 R D 6 D 5 R 4 D R 3"))
    kinds = [
        (b.relu is not None, b.dropout is not None) if isinstance(b, FusedDense) else "single"
        for b in blocks
    ]
    assert kinds == [
        (True, True),
        (False, True),
        (True, False),
        (False, True),
        "single",
        (False, False),
    ]


def test_a_layer_of_ones_own_takes_part():
    class Twice(dw.Layer):
        def forward(self, x, training=True):
            return 2 * x

        def backward(self, dy):
            return 2 * dy

    class MyDense(dw.Dense):  # fusing would skip this override
        def forward(self, x, training=True):
            return super().forward(x, training) + 1

    def layers():
        own = MyDense(7, 3, dtype="float64", seed=5)
        return [*chain("5 7 R"), Twice(), *chain("7 D"), own, Twice()]

    x = sample(9, 5)
    net = dw.Sequential(layers())
    y, dx = one_by_one(layers(), x, np.ones((9, 3)))
    np.testing.assert_allclose(net.forward(x), y, rtol=1e-12)
    np.testing.assert_allclose(net.backward(np.ones((9, 3))), dx, rtol=1e-12)


@pytest.mark.parametrize("spec", ["5 7 R D 3", "5 D 7 R", "5 R D"])
def test_without_input_grad_the_parameters_get_the_same_gradients(spec):
    x = sample(33, 5)
    a, b = dw.Sequential(chain(spec)), dw.Sequential(chain(spec))
    dy = np.ones_like(a.forward(x))
    b.forward(x)
    a.backward(dy)
    assert b.backward(dy, input_grad=False) is None
    for (_, want), (_, got) in zip(a.parameters(), b.parameters(), strict=True):
        np.testing.assert_array_equal(got, want)


def test_batches_of_changing_size_do_not_disturb_each_other():
    layers, net = chain("5 70 R D 65 R D 3"), dw.Sequential(chain("5 70 R D 65 R D 3"))
    for rows in (64, 3, 100, 1, 64):
        x, dy = sample(rows, 5, seed=rows), sample(rows, 3, seed=rows)
        y, dx = one_by_one(layers, x, dy)
        np.testing.assert_allclose(net.forward(x), y, rtol=1e-10, atol=1e-12)
        np.testing.assert_allclose(net.backward(dy), dx, rtol=1e-10, atol=1e-12)


def test_an_empty_batch_works():
    net = dw.Sequential(chain("5 7 R D 3"))
    assert net.forward(np.empty((0, 5))).shape == (0, 3)
    assert net.backward(np.empty((0, 3))).shape == (0, 5)
    assert net.predict(np.empty((0, 5))).shape == (0, 3)


class Identity(dw.Layer):
    """Returns its input itself, not a copy."""

    def forward(self, x, training=True):
        return x

    def backward(self, dy):
        return dy


@pytest.mark.parametrize("spec", ["5 7 R D", "5 7", "5 7 R D 3"])
def test_what_is_returned_is_not_written_to_again_whatever_the_layers_hand_on(spec):
    net = dw.Sequential([Identity(), *chain(spec), Identity()])
    results = []
    for seed in range(2):
        y = net.forward(sample(9, 5, seed=seed))
        dx = net.backward(sample(*y.shape, seed=seed))
        p = net.predict(sample(9, 5, seed=seed))
        results.append([(a, a.copy()) for a in (y, dx, p)])
    for array, copied in results[0]:
        np.testing.assert_array_equal(array, copied)


def test_the_result_may_be_changed_before_backward():
    x, dy = sample(9, 5), sample(9, 7)
    a, b = dw.Sequential(chain("5 7 R D")), dw.Sequential(chain("5 7 R D"))
    a.forward(x)
    y = b.forward(x)
    y[...] = dy
    np.testing.assert_array_equal(b.backward(y), a.backward(dy))
