"""The binary tree in which what the blocks of a batch give is added up, whoever has computed it.

Neighbours are added in pairs, these sums again in pairs, and so on; one that is left over goes on
to the next round.  A node is (level, index): the sum of the blocks from ``index << level`` on,
``1 << level`` of them or those that are left.  The tree follows from the number of blocks alone.
"""

from __future__ import annotations

from typing import TypeAlias

import numpy as np

from dropwise._backends.protocol import Array

Node: TypeAlias = "tuple[int, int]"

_CHUNK = 1 << 15  # elements that are added at a time: they stay in cache


def share_of_rank(count: int, rank: int, size: int) -> range:
    """Those of `count` things that this one of `size` ranks takes; some ranks may have none."""
    return range(count * rank // size, count * (rank + 1) // size)


def blocks_under(node: Node, count: int) -> range:
    """The blocks that a node of the tree over `count` blocks is the sum of."""
    level, index = node
    return range(index << level, min((index + 1) << level, count))


def nodes_of(blocks: range, count: int) -> list[Node]:
    """The fewest nodes of the tree over `count` blocks that make up these neighbours."""
    nodes = []
    first = blocks.start
    while first < blocks.stop:
        level = 0
        while True:
            above = (level + 1, first >> (level + 1))
            under = blocks_under(above, count)
            if under.start != first or under.stop > blocks.stop or 1 << level >= count:
                break
            level += 1
        node = (level, first >> level)
        nodes.append(node)
        first = blocks_under(node, count).stop
    return nodes


def add_up(sums: dict[Node, Array], count: int) -> None:
    """Add nodes whose neighbour is there, too, until none is left, in place."""
    level = 0
    while 1 << level < count:
        for node in sorted(n for n in sums if n[0] == level):
            if node not in sums:
                continue
            index = node[1]
            left, right = (level, index & ~1), (level, index | 1)
            if not blocks_under(right, count):  # nothing to add: it goes on
                sums[level + 1, index >> 1] = sums.pop(node)
            elif left in sums and right in sums:
                total = sums.pop(left)
                _add(total, sums.pop(right))
                sums[level + 1, index >> 1] = total
        level += 1


def _add(total: Array, other: Array) -> None:
    with np.errstate(all="ignore"):
        for start in range(0, total.size, _CHUNK):
            part = total[start : start + _CHUNK]
            np.add(part, other[start : start + _CHUNK], out=part)
