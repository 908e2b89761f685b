"""The tree in which sums over blocks are added up: its shape is that of rounds of pairs."""

from __future__ import annotations

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from dropwise.network.tree import add_up, blocks_under, nodes_of, share_of_rank


def by_rounds(values):
    """The sum in rounds of pairs, as a nested tuple; one that is left over goes on."""
    values = list(values)
    while len(values) > 1:
        pairs = [(a, b) for a, b in zip(values[::2], values[1::2], strict=False)]
        values = pairs + values[len(pairs) * 2 :]
    return values[0]


class Trace:
    """Says in which order things were added."""

    def __init__(self, text):
        self.text = text

    def __add__(self, other):
        return Trace((self.text, other.text))


def traces(count):
    leaves = np.empty(count, object)
    leaves[:] = [Trace(i) for i in range(count)]
    return leaves


@given(count=st.integers(1, 40))
def test_blocks_are_added_in_rounds_of_pairs(count):
    sums = {(0, i): traces(count)[i : i + 1] for i in range(count)}
    add_up(sums, count)
    (root,) = sums.values()
    assert root[0].text == by_rounds(range(count))


@given(count=st.integers(1, 60), size=st.integers(1, 12), data=st.data())
def test_whoever_holds_the_blocks_they_are_added_alike(count, size, data):
    arrived = {}
    for rank in data.draw(st.permutations(range(size))):
        mine = share_of_rank(count, rank, size)
        sums = {(0, i): traces(count)[i : i + 1] for i in mine}
        add_up(sums, count)
        assert sorted(sums) == sorted(nodes_of(mine, count))
        arrived |= sums
    add_up(arrived, count)
    (root,) = arrived.values()
    assert root[0].text == by_rounds(range(count))


@given(count=st.integers(1, 200), data=st.data())
def test_nodes_cover_their_blocks_once(count, data):
    first = data.draw(st.integers(0, count))
    blocks = range(first, data.draw(st.integers(first, count)))
    covered = [i for node in nodes_of(blocks, count) for i in blocks_under(node, count)]
    assert covered == list(blocks)


@given(count=st.integers(0, 200), size=st.integers(1, 30))
def test_ranks_share_out_blocks_to_within_one(count, size):
    shares = [share_of_rank(count, rank, size) for rank in range(size)]
    assert [i for share in shares for i in share] == list(range(count))
    assert max(map(len, shares)) - min(map(len, shares)) <= 1


def test_a_whole_batch_of_one_rank_is_one_node():
    assert [nodes_of(range(n), n) for n in (1, 2, 7, 12)] == [
        [(0, 0)],
        [(1, 0)],
        [(3, 0)],
        [(4, 0)],
    ]
