"""Random bits of masks, raw and endless, for the batteries of tests that read standard input.

    python3 bench/statistics/pipe.py | dieharder -g 200 -a -k 2 -Y 1
    python3 bench/statistics/pipe.py --rate 0.3 | RNG_test stdin32
    python3 bench/statistics/pipe.py --across streams | head -c 1G > words

At rate 1/2 an element needs one bit, so the mask is the raw output of Philox.  At other rates kept
and dropped elements are not as likely, and von Neumann's method makes fair bits of them: of every
two neighbours that differ the first.  These bits are independent and fair if the elements are
independent and of one probability, whatever that is.

What the reader took is said when it has closed its end.
"""

from __future__ import annotations

import argparse
import itertools
import os
import sys
import time
from collections.abc import Iterator

import numba
import numpy as np

from dropwise._arrays import make_bits
from dropwise._backends.protocol import Bits

CHUNK = 1 << 24  # elements
BLOCK = 128  # elements of one output of Philox


def masks(rate: float, key: int, across: str) -> Iterator[Bits]:
    """Packed masks: of one stream, or the first block of each stream or key in turn."""
    if across == "elements":
        for first in range(0, 1 << 64, CHUNK):
            yield make_bits(CHUNK, rate, key, 0, first)
    for number in itertools.count():
        named = (number, 0) if across == "keys" else (key, number)
        yield make_bits(BLOCK, rate, *named, 0)


@numba.njit(cache=True)
def _differing(packed: Bits, fair: Bits) -> int:
    """Put the first bit of each two that differ into `fair`, a byte each; how many there are."""
    n = 0
    for byte in packed:
        for shift in range(0, 8, 2):
            pair = byte >> shift & 3
            fair[n] = pair & 1
            n += pair == 1 or pair == 2
    return n


def fair_bits(packed: Bits) -> Bits:
    """The packed fair bits of a packed mask; the last ones, less than a word, are left out."""
    fair = np.empty(4 * packed.size + 1, np.uint8)
    n = _differing(packed, fair)
    return np.packbits(fair[: n // 32 * 32], bitorder="little")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--rate", type=float, default=0.5)
    parser.add_argument("--key", type=int, default=20240229)
    parser.add_argument("--across", choices=("elements", "streams", "keys"), default="elements")
    args = parser.parse_args()
    started, taken = time.monotonic(), 0
    try:
        for mask in masks(args.rate, args.key, args.across):
            bits = mask if args.rate == 0.5 else fair_bits(mask)
            sys.stdout.buffer.write(bits)
            taken += bits.size
    except BrokenPipeError:
        seconds = time.monotonic() - started
        print(f"{taken:.3g} bytes in {seconds:.0f} s: {vars(args)}", file=sys.stderr)
        os._exit(0)  # what is left in the buffer has no reader


if __name__ == "__main__":
    main()
