"""Key, stream and offset: which mask they select."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from dropwise import functional as F
from samples import KEY, assert_same_bits, sample

pytestmark = pytest.mark.usefixtures("backend")

STREAM = 5


@pytest.mark.parametrize(
    "arguments",
    [
        {"key": -1},
        {"key": 2**64},
        {"key": 1, "stream": -1},
        {"key": 1, "stream": 2**56},
        {"key": 1, "offset": -1},
        {"key": 1, "offset": 2**64 - 2},
    ],
)
def test_key_stream_and_offset_out_of_range_are_errors(arguments):
    name = list(arguments)[-1]
    with pytest.raises(ValueError, match=f"{name} must be in .*got {arguments[name]}"):
        F.dropout(np.ones(3), 0.5, **arguments)
    with pytest.raises(ValueError, match=f"{name} must be in .*got {arguments[name]}"):
        F.dropout_mask(3, 0.5, **arguments)


def test_a_key_must_be_an_integer():
    with pytest.raises(TypeError):
        F.dropout(np.ones(3), 0.5, key=1.5)


def test_the_last_indices_there_are_can_be_used():
    whole = F.dropout_mask(300, 0.3, key=KEY, offset=2**64 - 300)
    np.testing.assert_array_equal(F.dropout_mask(10, 0.3, key=KEY, offset=2**64 - 10), whole[-10:])


def test_numpy_integers_are_integers():
    a = F.dropout_mask(99, 0.3, key=np.uint64(KEY), stream=np.int32(5), offset=np.uint64(7))
    np.testing.assert_array_equal(a, F.dropout_mask(99, 0.3, key=KEY, stream=5, offset=7))


@given(
    n=st.integers(0, 400),
    rate=st.floats(0, 1),
    offset=st.sampled_from([0, 1, 127, 128, 2**32 - 3, 2**39 - 100, 2**63]),
    start=st.integers(0, 400),
)
def test_a_shard_gets_its_slice_of_the_global_dropout(n, rate, offset, start):
    x = sample(800)
    whole = F.dropout(x, rate, key=KEY, stream=STREAM, offset=offset)
    part = F.dropout(x[start : start + n], rate, key=KEY, stream=STREAM, offset=offset + start)
    assert_same_bits(part, whole[start : start + n])


@given(low=st.floats(0, 1), high=st.floats(0, 1))
def test_a_larger_rate_drops_a_superset(low, high):
    low, high = sorted((low, high))
    few = F.dropout_mask(2000, low, key=KEY)
    assert not (F.dropout_mask(2000, high, key=KEY) & ~few).any()


def test_another_key_or_stream_gives_another_mask():
    masks = [
        F.dropout_mask(1000, 0.5, key=key, stream=stream).tobytes()
        for key in (1, 2)
        for stream in (0, 1, 2**32)
    ]
    assert len(set(masks)) == len(masks)


def test_the_mask_does_not_depend_on_the_shape():
    flat = F.dropout_mask(120, 0.4, key=KEY)
    np.testing.assert_array_equal(F.dropout_mask((4, 5, 6), 0.4, key=KEY).ravel(), flat)


def test_a_negative_dimension_is_an_error():
    with pytest.raises(ValueError, match="an entry of shape must be at least 0, got -1"):
        F.dropout_mask((3, -1), 0.5, key=1)
