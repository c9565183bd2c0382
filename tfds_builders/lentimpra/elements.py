"""DNA elements that must share a group: both orientations, and elements with a word in common.

    element        ACCTGA...        word of 20 bases, in either orientation
    other tile       CTGA...TTG     shares it: one group (single linkage)

Two unrelated elements of 200 bases share a given place's word with a chance of 4^-20; elements that
do are overlapping tiles, or copies of one repeat.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from jaxtyping import UInt64

WORD = 20
_BASES = "ACGT"
_COMPLEMENT = str.maketrans("ACGTN", "TGCAN")


def reverse_complement(sequence: str) -> str:
    """The other strand, read in its own direction."""
    return sequence[::-1].translate(_COMPLEMENT)


def canonical(sequence: str) -> str:
    """The same string for both orientations: the first of the two by the alphabet."""
    return min(sequence, reverse_complement(sequence))


def words(sequence: str) -> UInt64[np.ndarray, "n"]:  # noqa: F821
    """Codes of all words of `WORD` bases without N, equal for both orientations."""
    codes = np.full(256, 4, np.uint64)
    codes[[ord(base) for base in _BASES]] = np.arange(4)
    bases = codes[np.frombuffer(sequence.encode("ascii"), np.uint8)]
    if len(bases) < WORD:
        return np.zeros(0, np.uint64)
    windows = np.lib.stride_tricks.sliding_window_view(bases, WORD)
    windows = windows[(windows < 4).all(axis=1)]
    weights = np.uint64(4) ** np.arange(WORD, dtype=np.uint64)
    forward = (windows * weights).sum(axis=1, dtype=np.uint64)
    backward = ((np.uint64(3) - windows)[:, ::-1] * weights).sum(axis=1, dtype=np.uint64)
    return np.minimum(forward, backward)


def group_elements(elements: Sequence[str]) -> dict[str, str]:
    """Canonical element -> the first element, by the alphabet, of its group."""
    names = sorted({canonical(element) for element in elements})
    found = [words(name) for name in names]
    owner = np.repeat(np.arange(len(names)), [len(codes) for codes in found])
    codes = np.concatenate([*found, np.zeros(0, np.uint64)])
    order = np.argsort(codes, kind="stable")
    codes, owner = codes[order], owner[order]
    equal = codes[1:] == codes[:-1]
    links = np.unique(np.stack([owner[:-1][equal], owner[1:][equal]], axis=1), axis=0)
    parent = list(range(len(names)))

    def root(number: int) -> int:
        while parent[number] != number:
            parent[number] = parent[parent[number]]
            number = parent[number]
        return number

    for first, second in links.tolist():
        low, high = sorted((root(first), root(second)))
        parent[high] = low
    return {name: names[root(number)] for number, name in enumerate(names)}
