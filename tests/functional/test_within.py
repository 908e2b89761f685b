"""Parts of a global array: the masks are those of the whole, on every backend."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import dropwise as dw
from dropwise import functional as F
from dropwise._backends.protocol import Box
from mask_contract import mask_array
from support import require


@st.composite
def boxes(draw):
    """A global shape, and where a part of it begins and ends."""
    whole = draw(st.lists(st.integers(1, 9), min_size=1, max_size=4))
    start = [draw(st.integers(0, n - 1)) for n in whole]
    end = [draw(st.integers(s, n)) for s, n in zip(start, whole, strict=True)]
    return tuple(whole), tuple(start), tuple(end)


def part_of(array, start, end):
    return array[tuple(slice(s, e) for s, e in zip(start, end, strict=True))]


def length(start, end):
    return tuple(e - s for s, e in zip(start, end, strict=True))


@settings(deadline=None, max_examples=300)
@given(boxes(), st.sampled_from([0.1, 0.5, 1 / 3]), st.integers(0, 3), st.booleans())
@pytest.mark.parametrize("name", ["native", "numba"])
def test_a_part_has_the_mask_of_the_whole(name, box, rate, stream, shares):
    require({"native": "dropwise._native", "numba": "numba"}[name])
    whole, start, end = box
    with dw.backend(name):
        noise = tuple(1 if shares and d % 2 == 0 else None for d in range(len(whole)))
        shape = tuple(n if m is None else 1 for m, n in zip(noise, whole, strict=True))
        bits = mask_array(5, stream, 0, int(np.prod(shape)), rate).reshape(shape)
        kept = part_of(np.broadcast_to(bits, whole), start, end)
        within = (start, whole)
        x = np.random.default_rng(0).standard_normal(kept.shape)
        y = F.dropout(
            x, rate, key=5, stream=stream, within=within, noise_shape=noise if shares else None
        )
        scale = 1 / (1 - rate)
        np.testing.assert_array_equal(y, np.where(kept, x * scale, 0.0))
        dy = F.dropout_backward(
            x, rate, key=5, stream=stream, within=within, noise_shape=noise if shares else None
        )
        np.testing.assert_array_equal(dy, y)
        if not shares:
            mask = F.dropout_mask(kept.shape, rate, key=5, stream=stream, within=within)
            np.testing.assert_array_equal(mask, kept)


@pytest.mark.parametrize("last", [1, 2, 63, 64, 65, 127, 400])
def test_runs_of_every_length_over_many_chunks(backend, threads, last):
    whole, start, shape = (90, 11, 401), (1, 2, 0), (88, 9, last)
    mask = F.dropout_mask(whole, 0.3, key=9)
    got = F.dropout_mask(shape, 0.3, key=9, within=(start, whole))
    np.testing.assert_array_equal(got, mask[1:89, 2:11, :last])


def test_indices_go_up_to_64_bits(backend):
    whole, start = (2**33, 2**31), (2**33 - 2, 2**31 - 3)
    got = F.dropout_mask((2, 3), 0.5, key=1, within=(start, whole))
    for row in range(2):
        first = (start[0] + row) * whole[1] + start[1]
        np.testing.assert_array_equal(got[row], F.dropout_mask(3, 0.5, key=1, offset=first))


def test_as_few_runs_as_the_trailing_axes_allow():
    from dropwise._arrays import box_of

    assert box_of((3, 0, 0), (2, 5, 7), (9, 5, 7)) == ((2, 5, 7), 3 * 35)
    assert box_of((3, 1, 0), (1, 2, 7), (9, 5, 7)) == ((1, 2, 7), 3 * 35 + 7)
    assert box_of((3, 1, 0), (2, 2, 7), (9, 5, 7)) == ((2, 2, 7), Box(112, (2, 14), (35, 1)))
    assert box_of((0, 1, 2), (9, 2, 3), (9, 5, 7)) == ((9, 2, 3), Box(9, (9, 2, 3), (35, 7, 1)))
    assert box_of((0, 0, 2), (9, 5, 3), (9, 5, 7)) == ((9, 5, 3), Box(2, (45, 3), (7, 1)))


@pytest.mark.parametrize("dtype", [np.float16, np.float32, np.float64, np.int32, np.complex64])
def test_a_layer_drops_a_part_of_a_batch(backend, dtype):
    x = np.arange(1, 7 * 5 * 4 + 1).reshape(7, 5, 4).astype(dtype)
    for make in (
        lambda: dw.Dropout(0.4, seed=3),
        lambda: dw.Dropout(0.4, seed=3, noise_shape=(None, 1, None)),
        lambda: dw.Dropout(0.4, seed=3, save_mask=False),
        lambda: dw.SpatialDropout(0.4, seed=3, data_format="channels_last"),
    ):
        whole, part = make(), make()
        y = whole.forward(x)
        got = part.forward(x[2:6, 1:4, 1:], within=((2, 1, 1), x.shape))
        np.testing.assert_array_equal(got, y[2:6, 1:4, 1:])
        dy = np.ones_like(y)
        np.testing.assert_array_equal(
            part.backward(dy[2:6, 1:4, 1:]), whole.backward(dy)[2:6, 1:4, 1:]
        )
        kept = np.broadcast_to(part.mask, got.shape)
        np.testing.assert_array_equal(kept, np.broadcast_to(whole.mask, x.shape)[2:6, 1:4, 1:])


@pytest.mark.parametrize(
    ("within", "error"),
    [
        (((0, 0), (2, 2)), ValueError),  # the part does not fit
        (((0,), (9,)), ValueError),
        (((0, 0), (9, 9), 1), ValueError),
        (((-1, 0), (9, 9)), ValueError),
        (((0, 0.5), (9, 9)), TypeError),
        (((0, 7), (9, 9)), ValueError),
        (((0, 0), (2**40, 2**40)), ValueError),
        (5, TypeError),
    ],
)
def test_what_is_no_part_is_refused(within, error):
    x = np.ones((3, 3))
    layer = dw.Dropout(0.5, seed=0)
    for call in (
        lambda: F.dropout(x, 0.5, key=0, within=within),
        lambda: F.dropout_mask(x.shape, 0.5, key=0, within=within),
        lambda: layer.forward(x, within=within),
    ):
        with pytest.raises(error, match="within"):
            call()
    assert layer.state_dict()["next_stream"] == 0


def test_offset_and_within_exclude_each_other():
    x, within = np.ones((3, 3)), ((0, 0), (9, 9))
    for call in (
        lambda: F.dropout(x, 0.5, key=0, offset=1, within=within),
        lambda: dw.Dropout(0.5).forward(x, offset=1, within=within),
    ):
        with pytest.raises(ValueError, match="not both"):
            call()


@pytest.mark.parametrize(
    ("shape", "start", "whole"),
    [
        ((0, 3), (4, 0), (9, 9)),
        ((0, 2, 0, 1), (0, 0, 0, 0), (1, 2, 1, 2)),
        ((2, 0), (0, 1), (3, 1)),
    ],
)
def test_an_empty_part_is_empty(backend, shape, start, whole):
    within = (start, whole)
    x = np.ones(shape)
    assert F.dropout(x, 0.5, key=0, within=within).shape == shape
    assert F.dropout_mask(shape, 0.5, key=0, within=within).shape == shape
    layer = dw.Dropout(0.5, seed=0)
    assert layer.forward(x, within=within).shape == shape
    assert layer.backward(x).shape == shape
    assert layer.mask.shape == shape


@pytest.mark.parametrize("noise_shape", [None, (None, 1), (1, None)])
def test_a_network_passes_on_where_its_rows_are(backend, noise_shape):
    def network():
        drop = dw.Dropout(0.5, noise_shape=noise_shape)
        inner = dw.Sequential([dw.Dropout(0.2), dw.Dense(6, 3)])
        return dw.Sequential([dw.Dense(4, 8), dw.ReLU(), drop, dw.Dense(8, 6), inner], seed=1)

    x = np.random.default_rng(0).standard_normal((10, 4)).astype(np.float32)
    y = network().forward(x)
    parts = [network().forward(x[a:b], first_row=a) for a, b in ((0, 3), (3, 4), (4, 10))]
    np.testing.assert_allclose(np.concatenate(parts), y, rtol=1e-5, atol=1e-6)
    with pytest.raises(ValueError, match="first_row"):
        network().forward(x, first_row=-1)
