"""The order of training samples: a pure function of (seed, index), in memory that never grows.

Draws come in blocks of `BLOCK`. Every block holds each source's share of it, the remainder carried
to later blocks (error diffusion in integers, so the counts after any number of blocks are exact to
one draw), in an order permuted by the seed. The k-th draw of a source is its record
`permute(k mod n)`, under a permutation keyed by the epoch k // n of that source.
"""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from fractions import Fraction

import numpy as np
from jaxtyping import Int, UInt64

from multimed_jax.data.sizes import Sizes
from multimed_jax.types import UserError

BLOCK = 4096
_MASK64 = (1 << 64) - 1
_ROUNDS = 4


def mix64(x: UInt64[np.ndarray, "..."]) -> UInt64[np.ndarray, "..."]:
    """A bijective hash of 64-bit words.

    Source: SplitMix64's increment and finaliser (Steele, Lea, Flood 2014, figure 15).
    """
    x = x + np.uint64(0x9E3779B97F4A7C15)
    x = (x ^ (x >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    x = (x ^ (x >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return x ^ (x >> np.uint64(31))


def hash_words(*words: int | np.ndarray) -> UInt64[np.ndarray, "..."]:
    """One 64-bit hash per broadcast element of the words."""
    out = np.zeros(1, np.uint64)
    for word in words:
        if isinstance(word, int):
            word = np.array([word & _MASK64], np.uint64)
        out = mix64(out ^ word.astype(np.uint64))
    return out


def permute(
    index: Int[np.ndarray, "k"],
    size: int,
    key: UInt64[np.ndarray, "k"],
) -> Int[np.ndarray, "k"]:
    """Where a keyed permutation of range(size) takes each index; element i uses key[i].

    A Feistel network over the next power of two; values beyond `size` walk their cycle until
    they are inside (fewer than two steps on average).
    """
    bits = max(1, (size - 1).bit_length())
    low = np.uint64(bits // 2)
    low_mask = np.uint64((1 << (bits // 2)) - 1)
    high_mask = np.uint64((1 << (bits - bits // 2)) - 1)
    value = index.astype(np.uint64)
    todo = np.arange(len(value))
    while len(todo):
        high, right, round_key = value[todo] >> low, value[todo] & low_mask, key[todo]
        for _ in range(_ROUNDS):
            round_key = mix64(round_key)
            high = high ^ (mix64(round_key ^ right) & high_mask)
            round_key = mix64(round_key)
            right = right ^ (mix64(round_key ^ high) & low_mask)
        value[todo] = (high << low) | right
        todo = todo[value[todo] >= size]
    return value.astype(np.int64)


class Mixture:
    """Draws from several sources by weight.

    Args:
        sizes: of each source; only their drawable records are drawn.
        weights: share of the draws, relative to each other.
        seed: of the run.

    Raises:
        UserError: for a weight that is not positive, under 1/4096 of the mixture, or of a source
            without drawable records.
    """

    def __init__(self, sizes: Sequence[Sizes], weights: Sequence[float], seed: int):
        total = sum(map(Fraction, weights))
        for number, (size, weight) in enumerate(zip(sizes, weights, strict=True)):
            if not weight > 0 or Fraction(weight) * BLOCK < total:
                raise UserError(
                    f"weight {weight} of source {number} in config.data.sources is under "
                    f"1/{BLOCK} of the mixture's {float(total)}; raise it or leave the source out"
                )
            if not size.num_drawable:
                raise UserError(f"source {number} in config.data.sources has no record to draw")
        self._sizes = tuple(sizes)
        # A Fraction holds a float exactly, so that no rounding adds up over the draws.
        self._cumulative = list(itertools.accumulate(map(Fraction, weights)))
        self._seed = seed
        self._cached: dict[int, tuple[np.ndarray, np.ndarray]] = {}

    def counts(self, blocks: int) -> list[int]:
        """How often each source is drawn in the first `blocks` blocks."""
        drawn = blocks * BLOCK
        ends = [drawn * c // self._cumulative[-1] for c in self._cumulative]
        return [end - begin for begin, end in zip([0, *ends[:-1]], ends, strict=True)]

    def draws(
        self, start: int, stop: int
    ) -> tuple[Int[np.ndarray, "k"], Int[np.ndarray, "k"], Int[np.ndarray, "k"]]:
        """(source, row, draw index) of the draws start <= index < stop."""
        first, last = start // BLOCK, (stop - 1) // BLOCK
        blocks = [self._block(number) for number in range(first, last + 1)]
        cut = slice(start - first * BLOCK, stop - first * BLOCK)
        source = np.concatenate([block[0] for block in blocks])[cut]
        row = np.concatenate([block[1] for block in blocks])[cut]
        return source, row, np.arange(start, stop, dtype=np.int64)

    def _block(self, number: int) -> tuple[np.ndarray, np.ndarray]:
        if number not in self._cached:
            if len(self._cached) >= 8:
                self._cached.pop(next(iter(self._cached)))
            self._cached[number] = self._make_block(number)
        return self._cached[number]

    def _make_block(self, number: int) -> tuple[np.ndarray, np.ndarray]:
        before, after = self.counts(number), self.counts(number + 1)
        counts = [b - a for a, b in zip(before, after, strict=True)]
        slots = np.arange(BLOCK)
        key = np.broadcast_to(hash_words(self._seed, 1, number), (BLOCK,))
        source = np.repeat(np.arange(len(counts)), counts)[permute(slots, BLOCK, key)]
        row = np.empty(BLOCK, np.int64)
        for index, size in enumerate(self._sizes):
            drawn = np.flatnonzero(source == index)
            k = before[index] + np.arange(len(drawn))
            epoch = k // size.num_drawable
            keys = np.broadcast_to(hash_words(self._seed, 2, index, epoch), epoch.shape)
            row[drawn] = size.drawable_row(permute(k % size.num_drawable, size.num_drawable, keys))
        return source, row
