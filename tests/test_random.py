"""Keys, streams and their state."""

from __future__ import annotations

import copy
import json
import pickle

import numpy as np
import pytest

from dropwise._arguments import as_mask_streams
from dropwise.random import MaskStreams, key_from_seed, seed_sequence, spawn


@pytest.mark.parametrize("seed", [0, 1, 2**100])
def test_the_key_of_an_integer_is_numpys_first_64_bits(seed):
    words = np.random.SeedSequence(seed).generate_state(1, np.uint64)
    assert key_from_seed(seed) == int(words[0])


def test_a_seed_sequence_is_itself():
    sequence = np.random.SeedSequence(3, spawn_key=(1, 2))
    assert seed_sequence(sequence) is sequence
    assert key_from_seed(sequence) == int(sequence.generate_state(1, np.uint64)[0])


def test_a_generator_gives_64_bits_and_moves_on():
    a, b = np.random.default_rng(5), np.random.default_rng(5)
    keys = [key_from_seed(a) for _ in range(3)]
    assert len(set(keys)) == 3
    assert keys == [key_from_seed(int(b.integers(2**64, dtype=np.uint64))) for _ in range(3)]


def test_no_seed_is_a_new_key_each_time():
    assert len({key_from_seed() for _ in range(5)}) == 5


@pytest.mark.parametrize("seed", ["1", 1.5, [1]])
def test_what_is_no_seed_is_an_error_that_names_it(seed):
    with pytest.raises(TypeError, match="seed must be an int, a SeedSequence, a Generator or None"):
        seed_sequence(seed)


def test_a_child_has_the_spawn_key_of_its_number():
    parent = np.random.SeedSequence(7, spawn_key=(4,))
    child = spawn(parent, 2)
    assert child.entropy == 7
    assert child.spawn_key == (4, 2)
    # as NumPy spawns them, but without counting
    assert child.spawn_key == parent.spawn(3)[2].spawn_key
    assert key_from_seed(spawn(parent, 2)) == key_from_seed(child)


def test_streams_are_taken_in_turn_and_one_given_back_comes_again():
    streams = MaskStreams(9, 5)
    assert [streams.take(), streams.take(), streams.next_stream] == [5, 6, 7]
    streams.give_back(6)
    assert streams.next_stream == 6
    assert streams.copy().take() == streams.take() == 6
    assert streams.take() == 7


def test_a_stream_given_back_after_later_ones_were_taken_is_not_lost():
    streams = MaskStreams(9)
    first, second = streams.take(), streams.take()
    streams.give_back(first)
    assert streams.next_stream == second + 1  # what goes on from this state repeats none
    assert [streams.take(), streams.take()] == [first, second + 1]


def test_a_stream_that_is_looked_at_is_not_taken():
    streams = MaskStreams(9, 5)
    assert [streams.peek(), streams.peek(), streams.take(), streams.peek()] == [5, 5, 5, 6]


def test_after_the_last_stream_there_is_none():
    streams = MaskStreams(0, 2**56 - 1)
    assert streams.take() == 2**56 - 1
    for _ in range(2):
        for call in (streams.take, streams.peek):
            with pytest.raises(RuntimeError, match=r"all 2\*\*56 streams"):
                call()
    assert streams.state_dict()["next_stream"] == 2**56


@pytest.mark.parametrize(("key", "stream"), [(-1, 0), (2**64, 0), (0, -1), (0, 2**56 + 1)])
def test_a_key_or_stream_out_of_range_is_an_error(key, stream):
    with pytest.raises(ValueError, match="must be in"):
        MaskStreams(key, stream)


@pytest.mark.parametrize("key", [0, 1, 2**64 - 1])
def test_the_state_survives_json(key):
    state = json.loads(json.dumps(MaskStreams(key, 2**55).state_dict()))
    assert {type(v) for v in state.values()} <= {int, str}
    back = as_mask_streams(state, "state")
    assert (back.key, back.next_stream) == (key, 2**55)


def test_the_state_of_another_mask_contract_is_refused():
    state = MaskStreams(1).state_dict() | {"mask_contract": 2}
    with pytest.raises(
        ValueError, match="contract version 2; this release makes the masks of version 1"
    ):
        as_mask_streams(state, "state")


@pytest.mark.parametrize(
    ("change", "error", "message"),
    [
        ({"key": 5}, TypeError, "key must be a string"),
        ({"key": "0x1" + "0" * 16}, ValueError, "key must be a 64-bit number"),
        ({"key": "seven"}, ValueError, "key must be a 64-bit number"),
        ({"next_stream": 1.0}, TypeError, "next_stream must be an integer"),
        ({"next_stream": -1}, ValueError, "next_stream must be in"),
        ({"more": 1}, ValueError, "unexpected: 'more'"),
    ],
)
def test_a_state_that_is_none_is_refused(change, error, message):
    with pytest.raises(error, match=message):
        as_mask_streams(MaskStreams(1).state_dict() | change, "state")
    with pytest.raises(ValueError, match="missing: 'key', 'mask_contract', 'next_stream'"):
        as_mask_streams({}, "state")


@pytest.mark.parametrize(
    "duplicate",
    [MaskStreams.copy, copy.copy, copy.deepcopy, lambda s: pickle.loads(pickle.dumps(s))],
)
def test_a_copy_counts_for_itself(duplicate):
    streams = MaskStreams(1, 2)
    duplicate(streams).take()
    assert streams.next_stream == 2
