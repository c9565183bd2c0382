"""Nucleotide letters as codes, and their words, on the host (NumPy only).

Codes: 1 A, 2 C, 3 G, 4 T, 5 not known (N), 0 nothing (behind the end, or an empty slot), so that
the complement of base b is 5 - b. A word of k bases is a number in base 4, A = 0, first base
highest. A word and its reverse complement, the same word read on the other strand, share a rank.
"""

from __future__ import annotations

import functools

import numpy as np
from jaxtyping import Bool, Float, Int

from multimed_jax.layers.decode_errors import DecodeError

BASES = "ACGT"
NUM_BASES = len(BASES)
UNKNOWN_BASE = 5
# Source: IUPAC-IUB 1984 (Cornish-Bowden 1985, "Nomenclature for incompletely specified bases").
AMBIGUOUS = "NRYSWKMBDHV"
_ILLEGAL = 255


def _code_table() -> Int[np.ndarray, "256"]:
    table = np.full(256, _ILLEGAL, np.uint8)
    codes = {letter: code for code, letter in enumerate(BASES, start=1)}
    codes |= {"U": codes["T"]} | dict.fromkeys(AMBIGUOUS, UNKNOWN_BASE)
    for letter, code in codes.items():
        table[[ord(letter), ord(letter.lower())]] = code
    return table


_CODE = _code_table()
_COMPLEMENT = np.array([0, 4, 3, 2, 1, UNKNOWN_BASE], np.int32)


def base_codes(letters: bytes) -> Int[np.ndarray, "n"]:
    """Codes 1 to 5 of letters of either case; U is T, IUPAC letters of several bases are N.

    Raises:
        DecodeError: for anything else, a gap included.
    """
    codes = _CODE[np.frombuffer(letters, np.uint8)]
    illegal = np.flatnonzero(codes == _ILLEGAL)
    if len(illegal):
        at = int(illegal[0])
        raise DecodeError(
            f"a sequence has {chr(letters[at])!r} at base {at}; accepted: {BASES}, U and the IUPAC "
            f"letters {AMBIGUOUS}"
        )
    return codes.astype(np.int32)


def reverse_complement(codes: Int[np.ndarray, "n"]) -> Int[np.ndarray, "n"]:
    """The other strand, read from its own 5' end."""
    return _COMPLEMENT[codes[::-1]]


@functools.lru_cache(maxsize=16)
def word_ranks(length: int, both_strands: bool) -> Int[np.ndarray, "W"]:
    """The rank of each of the 4^length words; ranks count from 0 without a gap.

    With both strands a word and its reverse complement have one rank, in the order of the smaller
    of their numbers; else the rank is the number.
    """
    word = np.arange(NUM_BASES**length)
    if not both_strands:
        return word.astype(np.int32)
    mirrored, rest = np.zeros_like(word), word
    for _ in range(length):
        mirrored = mirrored * NUM_BASES + (NUM_BASES - 1 - rest % NUM_BASES)
        rest = rest // NUM_BASES
    return np.unique(np.minimum(word, mirrored), return_inverse=True)[1].astype(np.int32)


def num_ranks(length: int, both_strands: bool) -> int:
    """How many ranks there are."""
    return int(word_ranks(length, both_strands).max()) + 1


def ranked_words(
    codes: Int[np.ndarray, "n"], length: int, both_strands: bool
) -> tuple[Int[np.ndarray, "w"], Bool[np.ndarray, "w"]]:
    """Rank of the word at every base, and whether all its bases are known; none if n < length."""
    if len(codes) < length:
        return np.zeros(0, np.int32), np.zeros(0, bool)
    windows = np.lib.stride_tricks.sliding_window_view(codes, length)
    known = (windows >= 1) & (windows <= NUM_BASES)
    place = NUM_BASES ** np.arange(length - 1, -1, -1)
    number = np.where(known, windows - 1, 0) @ place
    return word_ranks(length, both_strands)[number], np.asarray(known.all(axis=1))


def composition(codes: Int[np.ndarray, "n"], length: int) -> Float[np.ndarray, "W+2"]:
    """Counts of the words of both strands, share of G and C among known bases, number of bases."""
    rank, known = ranked_words(codes, length, both_strands=True)
    counts = np.bincount(rank[known], minlength=num_ranks(length, True))
    bases = codes[(codes >= 1) & (codes <= NUM_BASES)]
    share = np.isin(bases, (2, 3)).mean() if len(bases) else 0.0
    return np.r_[counts, share, len(codes)].astype(np.float32)
