from __future__ import annotations

import itertools

import numpy as np
import pytest
from Bio.Seq import Seq

from multimed_jax.layers import nucleotides


def spelt(codes: np.ndarray) -> str:
    return "".join(".ACGTN"[code] for code in codes)


def test_the_other_strand_is_that_of_biopython():
    text = "".join(np.random.default_rng(0).choice(list("ACGTN"), 300))
    codes = nucleotides.base_codes(text.encode())
    assert spelt(codes) == text
    assert spelt(nucleotides.reverse_complement(codes)) == str(Seq(text).reverse_complement())


@pytest.mark.parametrize("length", [1, 2, 3, 4])
def test_a_word_and_its_mirror_share_a_rank(length):
    words = ["".join(letters) for letters in itertools.product("ACGT", repeat=length)]
    pairs = sorted({min(word, str(Seq(word).reverse_complement())) for word in words})
    ranks = nucleotides.word_ranks(length, True)
    expected = [pairs.index(min(w, str(Seq(w).reverse_complement()))) for w in words]
    assert ranks.tolist() == expected
    assert nucleotides.num_ranks(length, True) == len(pairs)
    assert nucleotides.word_ranks(length, False).tolist() == list(range(4**length))


def test_ranked_words_of_a_short_sequence():
    codes = nucleotides.base_codes(b"ACN")
    rank, known = nucleotides.ranked_words(codes, 2, both_strands=False)
    assert rank[0] == 1 and known.tolist() == [True, False]
    for length in (4, 8):
        rank, known = nucleotides.ranked_words(codes, length, both_strands=True)
        assert len(rank) == len(known) == 0
    assert nucleotides.composition(codes, 4).tolist() == [0.0] * 136 + [0.5, 3.0]


def test_every_iupac_letter_and_nothing_else_is_read():
    """Letters that Biopython can complement are those that the code table knows."""
    legal = {letter for letter in map(chr, range(128)) if letter.upper() in "ACGTURYSWKMBDHVN"}
    assert {chr(i) for i in range(256) if nucleotides._CODE[i] < 6} == legal
