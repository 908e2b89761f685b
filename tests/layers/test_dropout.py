"""The Dropout layer."""

from __future__ import annotations

import copy
import json
import pickle

import ml_dtypes
import numpy as np
import pytest

import dropwise as dw
from dropwise import functional as F
from dropwise.random import key_from_seed

pytestmark = pytest.mark.usefixtures("backend")


def sample(shape=(50, 30), dtype=np.float32):
    return np.random.default_rng(0).standard_normal(shape).astype(dtype)


@pytest.mark.parametrize("save_mask", [True, False])
def test_each_training_forward_takes_the_next_stream(save_mask):
    drop = dw.Dropout(0.3, seed=4, save_mask=save_mask)
    x = sample()
    for stream in range(4):
        y = drop.forward(x)
        mask = F.dropout_mask(x.shape, 0.3, key=key_from_seed(4), stream=stream)
        np.testing.assert_array_equal(drop.mask, mask)
        np.testing.assert_array_equal(y != 0, mask)


def test_inference_takes_no_stream_and_drops_nothing():
    drop = dw.Dropout(0.9, seed=4)
    x = sample()
    np.testing.assert_array_equal(drop.forward(x, training=False), x)
    assert drop.state_dict()["next_stream"] == 0


def test_the_first_and_later_calls_give_the_same_result():
    """Later calls of the same shape and dtype take a fast path."""
    x = sample()
    a, b = dw.Dropout(0.3, seed=4), dw.Dropout(0.3, seed=4)
    for like in (x, x, x[:9], x[:9], x.astype(np.float64), x, x):
        np.testing.assert_array_equal(a.forward(np.asfortranarray(like)), b.forward(like))
        np.testing.assert_array_equal(a.mask, b.mask)
        np.testing.assert_array_equal(a.backward(like), b.backward(like))


def test_a_state_may_be_loaded_between_calls():
    x = sample()
    drop, other = dw.Dropout(0.3, seed=4), dw.Dropout(0.3, seed=5)
    for _ in range(2):
        drop.forward(x)
    drop.load_state_dict(other.state_dict())
    np.testing.assert_array_equal(drop.forward(x), other.forward(x))


@pytest.mark.parametrize(
    "dtype", [np.float32, np.float64, np.float16, ml_dtypes.bfloat16, np.longdouble]
)
def test_every_dtype_gets_the_same_masks(dtype):
    drop, reference = dw.Dropout(0.3, seed=4), dw.Dropout(0.3, seed=4)
    for _ in range(3):
        y = drop.forward(sample(dtype=dtype))
        reference.forward(sample())
        assert y.dtype == dtype
        np.testing.assert_array_equal(y != 0, reference.mask)


def test_the_mask_is_a_copy():
    drop = dw.Dropout(0.5, seed=1)
    drop.forward(sample())
    drop.mask[...] = False
    assert drop.mask.any()


def test_there_is_no_mask_before_a_training_forward():
    drop = dw.Dropout(0.5)
    drop.forward(sample(), training=False)
    with pytest.raises(RuntimeError, match="no mask before a training forward"):
        _ = drop.mask


def test_the_mask_stays_that_of_the_last_training_forward():
    drop = dw.Dropout(0.5, seed=1)
    drop.forward(sample())
    mask = drop.mask
    drop.forward(sample(), training=False)
    np.testing.assert_array_equal(drop.mask, mask)


def test_the_rate_may_change_between_calls():
    drop = dw.Dropout(0.5, seed=1)
    x = np.ones((40, 50), np.float32)
    for rate in (0.5, 0.25, 1.0, 0.0):
        drop.rate = rate
        y = drop.forward(x)
        assert y.max() == np.float32(1 / (1 - rate) if rate < 1 else 0)
    with pytest.raises(ValueError, match="rate must be in"):
        drop.rate = 2


@pytest.mark.parametrize("save_mask", [True, False])
@pytest.mark.parametrize("scaling", ["inverted", "vanilla"])
@pytest.mark.parametrize("noise_shape", [None, (1, None), (None, 1)])
@pytest.mark.parametrize("training", [True, False])
def test_the_gradient_is_that_of_the_forward(save_mask, scaling, noise_shape, training):
    drop = dw.Dropout(0.3, scaling=scaling, noise_shape=noise_shape, seed=1, save_mask=save_mask)
    x = sample(dtype=np.float64)
    y = drop.forward(x, training)
    # The layer is linear: its gradient is the factor of each element.
    np.testing.assert_allclose(drop.backward(x), y, rtol=1e-15)


@pytest.mark.parametrize("save_mask", [True, False])
def test_after_two_forwards_backward_uses_the_last_mask(save_mask):
    drop = dw.Dropout(0.5, seed=1, save_mask=save_mask)
    x = np.ones((64, 9), np.float32)
    drop.forward(x)
    y = drop.forward(x)
    np.testing.assert_array_equal(drop.backward(x), y)
    np.testing.assert_array_equal(drop.backward(x), y)


def test_after_an_inference_forward_backward_passes_the_gradient_through():
    drop = dw.Dropout(0.5, seed=1)
    x = sample()
    drop.forward(x)
    drop.forward(x, training=False)
    np.testing.assert_array_equal(drop.backward(x), x)


def test_predict_does_not_come_between_forward_and_backward():
    drop = dw.Dropout(0.5, scaling="vanilla", seed=1)
    x = sample()
    y = drop.forward(x)
    np.testing.assert_array_equal(drop.predict(x), x * np.float32(0.5))
    np.testing.assert_array_equal(drop.backward(x), y)


def test_neither_direction_changes_its_input():
    drop = dw.Dropout(0.5, seed=1)
    x, before = sample(), sample()
    for _ in range(2):
        drop.forward(x)
        drop.backward(x)
    np.testing.assert_array_equal(x, before)


def test_results_are_never_the_same_memory():
    drop = dw.Dropout(0.5, seed=1)
    x = sample()
    results = [drop.forward(x), drop.forward(x), drop.backward(x), drop.backward(x), x]
    for i, a in enumerate(results):
        assert not any(np.shares_memory(a, b) for b in results[:i])


def test_backward_before_forward_is_an_error():
    with pytest.raises(RuntimeError, match="backward was called before forward"):
        dw.Dropout(0.5).backward(sample())


def test_a_gradient_of_another_shape_or_dtype_is_an_error_that_names_both():
    drop = dw.Dropout(0.5)
    drop.forward(sample((3, 4)))
    with pytest.raises(ValueError, match=r"of shape \(3, 4\), got dy of shape \(4, 3\)"):
        drop.backward(sample((4, 3)))
    with pytest.raises(TypeError, match="returned float32, got dy of dtype complex128"):
        drop.backward(sample((3, 4), np.complex128))


def test_a_gradient_in_the_other_byte_order_will_do():
    drop = dw.Dropout(0.5, seed=1)
    y = drop.forward(sample())
    np.testing.assert_array_equal(drop.backward(sample().astype(">f4")), y)


def test_integers_with_vanilla_scaling_take_a_gradient_of_floats():
    drop = dw.Dropout(0.5, scaling="vanilla", seed=1)
    y = drop.forward(np.arange(100))
    assert y.dtype == np.dtype(int)
    dx = drop.backward(np.full(100, 0.1))
    np.testing.assert_array_equal(dx, np.where(drop.mask, 0.1, 0))
    # inference after it converts to floats
    assert drop.forward(np.arange(100), training=False).dtype == np.float64


def test_out_takes_both_results():
    drop, reference = dw.Dropout(0.5, seed=1), dw.Dropout(0.5, seed=1)
    x, out = sample(), np.empty((50, 30), np.float32)
    assert drop.forward(x, out=out) is out
    np.testing.assert_array_equal(out, reference.forward(x))
    assert drop.backward(x, out=out) is out
    np.testing.assert_array_equal(out, reference.backward(x))


def test_both_directions_work_in_place():
    drop, reference = dw.Dropout(0.5, seed=1), dw.Dropout(0.5, seed=1)
    x = sample()
    y = reference.forward(x.copy())
    assert drop.forward(x, out=x) is x
    np.testing.assert_array_equal(x, y)
    assert drop.backward(x, out=x) is x
    np.testing.assert_array_equal(x, reference.backward(y))


def test_an_unfit_out_takes_no_stream():
    drop = dw.Dropout(0.5, seed=1)
    with pytest.raises(ValueError, match="out must be"):
        drop.forward(sample(), out=np.empty(3))
    assert drop.state_dict()["next_stream"] == 0


@pytest.mark.parametrize("save_mask", [True, False])
def test_shards_with_offsets_make_up_the_whole(save_mask):
    x = sample(1000)
    whole = dw.Dropout(0.3, seed=1)
    y = whole.forward(x)
    for start, stop in [(0, 300), (300, 301), (301, 1000)]:
        shard = dw.Dropout(0.3, seed=1, save_mask=save_mask)
        np.testing.assert_array_equal(shard.forward(x[start:stop], offset=start), y[start:stop])
        np.testing.assert_array_equal(shard.mask, whole.mask[start:stop])
        np.testing.assert_array_equal(shard.backward(x[start:stop]), whole.backward(x)[start:stop])


def test_an_offset_out_of_range_is_an_error():
    with pytest.raises(ValueError, match="offset must be in"):
        dw.Dropout(0.5).forward(sample(), offset=-1)


@pytest.mark.parametrize("shape", [(0,), (3, 0)])
def test_an_empty_array_may_come_at_any_time(shape):
    drop = dw.Dropout(0.5)
    for _ in range(2):
        x = np.empty(shape, np.float32)
        assert drop.forward(x).shape == drop.backward(x).shape == drop.mask.shape == shape
        drop.forward(sample())


def test_the_same_seed_gives_the_same_masks_and_none_gives_others():
    def masks(seed):
        drop = dw.Dropout(0.5, seed=seed)
        return [drop.forward(sample()).tobytes() for _ in range(2)]

    assert masks(1) == masks(1)
    assert masks(np.random.SeedSequence(1)) == masks(1)
    assert masks(np.random.default_rng(1)) == masks(np.random.default_rng(1))
    assert masks(None) != masks(None)


def test_a_state_through_json_continues_with_the_next_mask():
    drop = dw.Dropout(0.3, seed=9)
    drop.forward(sample())
    state = json.loads(json.dumps(drop.state_dict()))
    assert {type(v) for v in state.values()} <= {int, str}
    restored = dw.Dropout(0.3)
    restored.load_state_dict(state)
    np.testing.assert_array_equal(restored.forward(sample()), drop.forward(sample()))


@pytest.mark.parametrize("duplicate", [copy.deepcopy, lambda d: pickle.loads(pickle.dumps(d))])
@pytest.mark.parametrize("save_mask", [True, False])
def test_a_copy_goes_on_by_itself(duplicate, save_mask):
    drop = dw.Dropout(0.5, seed=1, save_mask=save_mask)
    x = sample()
    y = drop.forward(x)
    other = duplicate(drop)
    second = other.forward(x)
    np.testing.assert_array_equal(drop.backward(x), y)
    np.testing.assert_array_equal(drop.forward(x), second)


@pytest.mark.parametrize(
    ("drop", "text"),
    [
        (dw.Dropout(), "Dropout(rate=0.5)"),
        (
            dw.Dropout(0.1, scaling="vanilla", noise_shape=(1, None), save_mask=False),
            "Dropout(rate=0.1, scaling='vanilla', noise_shape=[1, None], save_mask=False)",
        ),
    ],
)
def test_the_repr_is_the_call_that_makes_it(drop, text):
    assert repr(drop) == text
    assert repr(eval(text, {"Dropout": dw.Dropout})) == text


@pytest.mark.parametrize("n", [1, 8, 9, 1000])
def test_what_is_kept_for_backward_is_a_bit_per_element_or_nothing(n):
    x = np.ones(n, np.float32)
    small, large = dw.Dropout(0.5, save_mask=False), dw.Dropout(0.5)
    small.forward(x)
    large.forward(x)
    assert sum(a.nbytes for a in arrays_of(small)) == 0
    assert sum(a.nbytes for a in arrays_of(large)) == (n + 7) // 8


def arrays_of(layer):
    """The different arrays that a layer holds."""
    found = {}
    for value in vars(layer).values():
        for item in value if isinstance(value, tuple) else (value,):
            if isinstance(item, np.ndarray):
                found[id(item)] = item
    return found.values()


@pytest.mark.parametrize("rate", [-1, 2, float("nan")])
def test_a_bad_rate_is_an_error_at_once(rate):
    with pytest.raises(ValueError, match="rate must be in"):
        dw.Dropout(rate)


def test_a_bad_scaling_is_an_error_at_once():
    with pytest.raises(ValueError, match="scaling must be"):
        dw.Dropout(scaling="other")
