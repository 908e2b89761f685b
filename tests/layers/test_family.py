"""The relatives of Dropout that drop elements: which share a mask, and what becomes of them."""

from __future__ import annotations

import copy
import io
import itertools
import math

import ml_dtypes
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as npst

import dropwise as dw
from dropwise.random import key_from_seed
from gradients import assert_gradients
from kinds import ARRAYS, DTYPES, dtype_of, kept, native, result_dtype, values
from networks import chain, dropouts, family, one_by_one
from numpy_model import AlphaDropout as AlphaModel
from samples import FLOATS, assert_same_bits, numbers

pytestmark = pytest.mark.usefixtures("backend")

SEED, KEY = 3, key_from_seed(3)


def channels_last(n):
    return (None, *[1] * (n - 2), None)


def channels_first(n):
    return (None, None, *[1] * (n - 2))


def rows(n):
    return (None, *[1] * (n - 1))


# What makes the layer, and the noise shape of a mask for an array of n dimensions.
LAYERS = {
    "SpatialDropout": (dw.SpatialDropout, {}, channels_last),
    "SpatialDropout, first": (
        dw.SpatialDropout, {"data_format": "channels_first"}, channels_first
    ),
    "DropPath": (dw.DropPath, {}, rows),
    "AlphaDropout": (dw.AlphaDropout, {}, lambda n: (None,) * n),
    "FeatureAlphaDropout": (dw.FeatureAlphaDropout, {}, channels_last),
    "FeatureAlphaDropout, first": (
        dw.FeatureAlphaDropout, {"data_format": "channels_first"}, channels_first
    ),
}  # fmt: skip
ALPHA = [name for name in LAYERS if "Alpha" in name]
ZEROS = [name for name in LAYERS if "Alpha" not in name]
SHAPES = [(6, 5), (4, 3, 5), (3, 2, 4, 5), (2, 3, 2, 2, 3), (1, 1, 7), (5, 1)]


@pytest.fixture(params=LAYERS)
def name(request):
    return request.param


def make(name, rate=0.4, **options):
    layer_class, arguments, _ = LAYERS[name]
    return layer_class(rate, **({"seed": SEED} | arguments | options))


def mask_of(name, shape, rate=0.4, stream=0, offset=0):
    """The oracle's mask, as large as the array."""
    noise_shape = LAYERS[name][2](len(shape))
    return kept(shape, rate, key=KEY, stream=stream, offset=offset, noise_shape=noise_shape)


def line(name, rate):
    """Factor and shift of what is kept, and the value of what is dropped."""
    if name in ALPHA:
        model = AlphaModel.__new__(AlphaModel)
        model.rate = rate
        return model.line(True)
    return (1 / (1 - rate) if rate < 1 else 1.0), 0.0, 0.0


def expected(name, x, mask, rate):
    """The result by its definition; each step is rounded to the dtype of `x`."""
    factor, shift, dropped = (np.asarray(c, x.dtype) for c in line(name, rate))
    with np.errstate(all="ignore"):
        # Signed zeros: nothing is added where nothing is to be.
        return np.where(mask, x * factor + shift if shift else x * factor, dropped)


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("save_mask", [True, False])
def test_the_mask_is_that_of_dropout_with_a_noise_shape(name, shape, save_mask):
    layer = make(name, save_mask=save_mask)
    twin = dw.Dropout(0.4, noise_shape=LAYERS[name][2](len(shape)), seed=SEED)
    for stream in range(3):
        x = numbers(*shape, seed=stream)
        y, z = layer.forward(x), twin.forward(x)
        mask = mask_of(name, shape, stream=stream)
        np.testing.assert_array_equal(np.broadcast_to(layer.mask, shape), mask)
        np.testing.assert_array_equal(layer.mask, twin.mask)
        np.testing.assert_allclose(y, expected(name, x, mask, 0.4), rtol=1e-14, atol=1e-15)
        if name in ZEROS:
            assert_same_bits(y, z)
            assert_same_bits(layer.backward(x), twin.backward(x))
        assert layer.state_dict() == twin.state_dict()


@given(
    st.sampled_from(sorted(LAYERS)),
    npst.array_shapes(min_dims=2, max_dims=6, min_side=0, max_side=5),
    st.sampled_from([0.0, 2.0**-30, 0.1, 1 / 3, 0.5, 0.75, 0.999, 1.0]),
    st.booleans(),
)
def test_any_shape_and_rate(name, shape, rate, save_mask):
    layer = make(name, rate, save_mask=save_mask)
    x = numbers(*shape)
    mask = mask_of(name, shape, rate)
    want = expected(name, x, mask, rate)
    np.testing.assert_allclose(layer.forward(x), want, rtol=1e-12, atol=1e-12)
    factor = line(name, rate)[0]
    np.testing.assert_allclose(layer.backward(x), np.where(mask, factor * x, 0), rtol=1e-12)


def test_the_classes_drop_what_their_names_say(name):
    y = make(name, 0.5).forward(np.ones((40, 3, 4, 5)))
    low, high = np.unique(y)  # what is dropped, and what is kept
    dropped = y == low
    assert low < high
    alike = {
        "SpatialDropout": (1, 2),
        "SpatialDropout, first": (2, 3),
        "DropPath": (1, 2, 3),
        "AlphaDropout": (),
        "FeatureAlphaDropout": (1, 2),
        "FeatureAlphaDropout, first": (2, 3),
    }[name]
    groups = dropped.all(axis=alike)
    np.testing.assert_array_equal(groups, dropped.any(axis=alike))
    # 5 sigma, 6e-7
    assert abs(groups.mean() - 0.5) < 5 * 0.5 / math.sqrt(groups.size)
    for axis in {1, 2, 3} - set(alike):  # and no others are alike
        assert dropped.all(axis=axis).sum() != dropped.any(axis=axis).sum()


@pytest.mark.parametrize("dtype", DTYPES)
def test_every_dtype_and_layout(name, dtype):
    dtype = dtype_of(dtype)
    matrix = values((12, 11), dtype.name)
    for (kind, arrange), rate in itertools.product(ARRAYS.items(), [0.3, 1.0, 0.0]):
        x = arrange(matrix)
        if x.ndim < (1 if name == "DropPath" else 2) and name != "AlphaDropout":
            continue
        layer = make(name, rate)
        plain = native(x).astype(result_dtype(x.dtype, "inverted", True))
        for stream in range(2):  # the second forward may take another path
            mask = mask_of(name, x.shape, rate, stream)
            y = layer.forward(x)
            assert type(y) is np.ndarray, kind
            want = expected(name, plain, mask, rate)
            assert y.dtype == want.dtype, kind
            if name in ZEROS or rate in (0.0, 1.0):
                assert_same_bits(y, np.ascontiguousarray(want).reshape(x.shape))
            else:
                precision = max(float(ml_dtypes.finfo(y.dtype).eps), 2.0**-52)
                error = abs(y.astype(complex) - want.astype(complex)).max(initial=0)
                assert error <= 16 * precision, kind  # values are below 16
            dx = layer.backward(np.ones(x.shape, np.int8))
            factor = np.asarray(line(name, rate)[0], y.dtype)
            assert_same_bits(dx, np.where(mask, factor, np.zeros((), y.dtype)))


@pytest.mark.parametrize("dtype", FLOATS)
def test_rate_0_is_the_identity_and_rate_1_gives_zeros(name, dtype):
    x = numbers(4, 3, 5, dtype=dtype)
    x[0, 0, :3] = np.nan, np.inf, -0.0
    for save_mask in (True, False):
        layer = make(name, 0.0, save_mask=save_mask)
        layer_1 = make(name, 1.0, save_mask=save_mask)
        for _ in range(2):
            assert_same_bits(layer.forward(x), x)
            assert_same_bits(layer.backward(x), x)
            assert_same_bits(layer_1.forward(x), np.zeros_like(x))
            assert_same_bits(layer_1.backward(x), np.zeros_like(x))
    assert_same_bits(make(name).forward(x, training=False), x)
    assert_same_bits(make(name).predict(x), x)


@pytest.mark.parametrize("shape", [(4, 3), (3, 2, 4), (2, 2, 1, 3)])
@pytest.mark.parametrize("save_mask", [True, False])
def test_gradients_are_those_of_finite_differences(name, shape, save_mask):
    layer = make(name, save_mask=save_mask)
    state = layer.state_dict()
    assert_gradients(layer, numbers(*shape), before=lambda: layer.load_state_dict(state))


def test_shards_with_offsets_make_up_the_whole(name):
    x = numbers(12, 3, 4)
    y = make(name).forward(x)
    of_row = math.prod(make(name)._noise_shape_of((1, 3, 4)) or (1, 3, 4))
    for start, stop in [(0, 5), (5, 6), (6, 12)]:
        shard = make(name)
        np.testing.assert_array_equal(
            shard.forward(x[start:stop], offset=start * of_row), y[start:stop]
        )
    last = 2**64 - 12 * of_row
    assert make(name).forward(x, offset=last).shape == x.shape
    with pytest.raises(ValueError, match="offset must be in"):
        make(name).forward(x, offset=last + 1)


def test_out_takes_both_results_also_in_place(name):
    x = numbers(5, 3, 4)
    reference = make(name)
    y = reference.forward(x)
    dx = reference.backward(x)
    for out in (np.empty_like(x), np.empty((4, 3, 5)).T, x.copy()):
        layer = make(name)
        out[...] = x
        assert layer.forward(out, out=out) is out
        np.testing.assert_array_equal(out, y)
        out[...] = x
        assert layer.backward(out, out=out) is out
        np.testing.assert_array_equal(out, dx)
    with pytest.raises(ValueError, match="out must be"):
        layer.forward(x, out=np.empty(3))
    assert layer.state_dict()["next_stream"] == 1


@pytest.mark.parametrize("shape", [(0, 3, 4), (3, 0, 4), (3, 4, 0)])
def test_an_empty_array_may_come_at_any_time(name, shape):
    layer = make(name)
    for _ in range(2):
        x = np.empty(shape)
        assert layer.forward(x).shape == layer.backward(x).shape == shape
        layer.forward(np.ones((2, 3, 4)))


@pytest.mark.parametrize("name", [name for name in LAYERS if name != "AlphaDropout"])
def test_too_few_dimensions_are_refused_and_take_no_stream(name):
    layer = make(name)
    least = 1 if name == "DropPath" else 2
    message = r"of shape \(B, \.\.\.\)" if least == 1 else "of at least 2 dimensions"
    for n in range(least):
        with pytest.raises(ValueError, match=rf"rate=0.4.*needs x {message}, got shape \("):
            layer.forward(np.ones((3,) * n))
    assert layer.state_dict()["next_stream"] == 0
    assert layer.forward(np.ones((3,) * least)).shape == (3,) * least


@pytest.mark.parametrize("layer_class", [dw.SpatialDropout, dw.FeatureAlphaDropout])
def test_a_bad_data_format_is_refused_at_once(layer_class):
    for wrong in ("last", None, "Channels_last", 3):
        with pytest.raises(ValueError, match="data_format must be 'channels_last' or 'channels_"):
            layer_class(0.5, data_format=wrong)


@pytest.mark.parametrize(
    "text",
    [
        "SpatialDropout(rate=0.5)",
        "SpatialDropout(rate=0.1, data_format='channels_first', save_mask=False)",
        "DropPath(rate=0.1)",
        "AlphaDropout(rate=0.1, save_mask=False)",
        "FeatureAlphaDropout(rate=0.1, data_format='channels_first')",
    ],
)
def test_the_repr_is_the_call_that_makes_it(text):
    assert repr(eval(text, vars(dw))) == text


def test_the_rate_may_change_between_calls(name):
    x = numbers(6, 3, 4)
    layer = make(name)
    for stream, rate in enumerate((0.4, 0.4, 0.9, 1.0, 0.0, 0.4)):
        layer.rate = rate
        mask = mask_of(name, x.shape, rate, stream)
        want = expected(name, x, mask, rate)
        np.testing.assert_allclose(layer.forward(x), want, rtol=1e-14, atol=1e-15)


def test_what_is_kept_for_backward_is_a_bit_per_element_of_the_mask_or_nothing(name):
    x = numbers(9, 5, 7)
    layer, replayed = make(name), make(name, save_mask=False)
    layer.forward(x)
    replayed.forward(x)
    noise = layer._noise_shape_of(x.shape) or x.shape
    assert layer._pass.bits.nbytes == (math.prod(noise) + 7) // 8
    assert replayed._pass.bits is None


# ---- in networks


def rank_3(name):
    inner = dw.Sequential([make(name, seed=2), *chain("7 6")])
    return [*chain("5 7 R"), make(name), *chain("7 7 R D"), inner, make(name, seed=4)]


def test_a_network_gives_what_its_layers_give_one_by_one(name):
    layers = rank_3(name)
    x, dy = numbers(4, 3, 5), numbers(4, 3, 6)
    y, dx = one_by_one(copy.deepcopy(layers), x, dy)
    net = dw.Sequential(layers)
    np.testing.assert_allclose(net.forward(x), y, rtol=1e-12, atol=1e-12)
    np.testing.assert_allclose(net.backward(dy), dx, rtol=1e-12, atol=1e-12)
    assert [d.state_dict()["next_stream"] for d in dropouts(net)] == [1] * 4


def test_a_network_with_it_is_saved_and_goes_on(name):
    net, file = dw.Sequential(rank_3(name)), io.BytesIO()
    x = numbers(4, 3, 5)
    net.forward(x)
    net.save(file)
    file.seek(0)
    loaded = dw.Sequential.load(file)
    assert repr(loaded) == repr(net)
    np.testing.assert_array_equal(loaded.forward(x), net.forward(x))


def test_columns_that_do_not_fit_around_it_are_found():
    for maker in family(4).values():
        if not isinstance(maker(), dw.Dense):
            with pytest.raises(ValueError, match="gives 4 columns"):
                dw.Sequential([dw.Dense(3, 4), maker(), dw.Dense(5, 2)])


@pytest.mark.parametrize("name", family(4))
def test_a_container_gives_each_layer_a_key_of_its_own(name):
    def keys(seed):
        net = dw.Sequential([family(4, seed=None)[name]() for _ in range(2)], seed=seed)
        return [layer.state_dict()["key"] for layer in net]

    assert keys(1) == keys(1)
    assert len({*keys(1), *keys(2)}) == 4
    seeded = dw.Sequential([family(4, seed=7)[name]()], seed=1)
    assert seeded[0].state_dict()["key"] == family(4, seed=7)[name]().state_dict()["key"]


@pytest.mark.parametrize("name", family(4))
def test_spawned_copies_have_independent_masks(name):
    layer = family(4)[name]()
    children = layer.spawn(3)
    assert len({d.state_dict()["key"] for d in [layer, *children]}) == 4
    again = [child.state_dict()["key"] for child in layer.spawn(3)]
    assert again == [child.state_dict()["key"] for child in children]


# ---- moments


def selu(x):
    scale, alpha = 1.0507009873554805, 1.6732632423543772
    return scale * np.where(x > 0, x, alpha * np.expm1(np.minimum(x, 0)))


@pytest.mark.parametrize("activation", [lambda x: x, selu], ids=["normal", "selu"])
@pytest.mark.parametrize("rate", [0.05, 0.1, 0.3, 0.5, 0.8])
def test_alpha_dropout_keeps_mean_0_and_variance_1(activation, rate):
    n = 400_000
    x = activation(np.random.default_rng(5).standard_normal(n))
    y = dw.AlphaDropout(rate, seed=1).forward(x)
    # With mean 0 and variance 1, sqrt(n) times the mean has standard deviation 1, and sqrt(n) times
    # the variance less 1 that of y**2; 5 sigma each, 6e-7.
    assert abs(y.mean()) * math.sqrt(n) < 5
    assert abs((y**2).mean() - 1) * math.sqrt(n) < 5 * (y**2).std()
    assert (x != y).all()


@pytest.mark.parametrize("data_format", ["channels_last", "channels_first"])
def test_feature_alpha_dropout_keeps_mean_0_and_variance_1(data_format):
    shape = (200, 2, 3, 300) if data_format == "channels_last" else (200, 300, 2, 3)
    x = np.random.default_rng(5).standard_normal(shape)
    y = dw.FeatureAlphaDropout(0.3, data_format=data_format, seed=1).forward(x)
    # The elements of a channel go together: means over them are independent.
    axes = (1, 2) if data_format == "channels_last" else (2, 3)
    for moment, value in ((1, 0.0), (2, 1.0)):
        means = (y**moment).mean(axis=axes).ravel()
        error = abs(means.mean() - value)
        assert error * math.sqrt(means.size) < 5 * means.std()  # 5 sigma, 6e-7


def test_plain_dropout_does_not_keep_the_variance():
    """So that the test of moments is one that can fail."""
    y = dw.Dropout(0.3, seed=1).forward(np.random.default_rng(5).standard_normal(400_000))
    assert y.var() > 1.3


def test_a_deep_selu_network_keeps_mean_0_and_variance_1_with_alpha_dropout_only():
    def moments(layer_class):
        rng = np.random.default_rng(0)
        x = rng.standard_normal((500, 300))
        for i in range(20):
            x = selu(x @ (rng.standard_normal((300, 300)) / math.sqrt(300)))
            x = layer_class(0.1, seed=i).forward(x)
        return x.mean(), x.var()

    mean, variance = moments(dw.AlphaDropout)
    assert abs(mean) < 0.1
    assert 0.8 < variance < 1.2
    mean, variance = moments(dw.Dropout)
    assert abs(mean) > 0.1 or not 0.8 < variance < 1.2


# ---- stochastic depth


def test_a_residual_branch_goes_by_the_identity_where_it_is_dropped():
    branch = dw.Sequential([*chain("6 9 R 6"), dw.DropPath(0.5, seed=1)])
    x = numbers(20, 6)
    y = x + branch.forward(x)
    kept_rows = branch[-1].mask[:, 0]
    assert 0 < kept_rows.sum() < 20
    np.testing.assert_array_equal((y == x).all(axis=1), ~kept_rows)
    np.testing.assert_allclose(
        y[kept_rows], (x + 2 * dw.Sequential(branch.layers[:-1]).predict(x))[kept_rows], rtol=1e-12
    )
    dy = numbers(20, 6, seed=1)
    dx = dy + branch.backward(dy)
    np.testing.assert_array_equal(dx[~kept_rows], dy[~kept_rows])
    # and the gradients of the weights are those of the rows that were kept
    gradients = [g.copy() for _, g in branch.parameters()]
    alone = dw.Sequential(branch.layers[:-1])
    alone.forward(x[kept_rows])
    alone.backward(2 * dy[kept_rows])
    for got, (_, want) in zip(gradients, alone.parameters(), strict=True):
        np.testing.assert_allclose(got, want, rtol=1e-10, atol=1e-12)
