"""core/sequence_clusters: scores and identities against Bio.Align, clusters against brute force."""

from __future__ import annotations

import itertools
from typing import Any

import numpy as np
import pytest
from Bio.Align import PairwiseAligner, substitution_matrices

from tfds_builders.core.sequence_clusters import (
    LETTERS,
    align,
    candidate_pairs,
    cluster,
    identities,
)


def draw(seed: int, length: int) -> str:
    return "".join(np.random.default_rng(seed).choice(list(LETTERS), length))


def mutate(sequence: str, share: float, seed: int) -> str:
    rng = np.random.default_rng(seed)
    return "".join(
        str(rng.choice(list(LETTERS))) if rng.random() < share else letter for letter in sequence
    )


def make_aligner(scale: int) -> PairwiseAligner:
    """The same rule by Bio.Align; equal residues break ties where `scale` is large."""
    matrix: Any = substitution_matrices.load("BLOSUM62")
    for a, b in itertools.product(matrix.alphabet, repeat=2):
        unknown = a not in LETTERS or b not in LETTERS
        score = -1 if unknown else matrix[a, b]
        matrix[a, b] = score * scale + (scale > 1 and a == b and not unknown)
    aligner = PairwiseAligner(mode="global", substitution_matrix=matrix)
    aligner.open_gap_score = -11 * scale
    aligner.extend_gap_score = -1 * scale
    aligner.end_gap_score = 0
    return aligner


def make_pairs() -> list[tuple[str, str]]:
    pairs = []
    for seed in range(14):
        a = draw(seed, 20 + 7 * seed)
        pairs.append((a, draw(seed + 100, 35 + 3 * seed)))
        pairs.append((a, mutate(a, 0.4, seed)))
        cut = len(a) // 3
        pairs.append((a, draw(seed + 200, 9) + mutate(a[:cut] + a[cut + 5 :], 0.2, seed)))
        pairs.append((a[cut:], a[: 2 * cut]))
    return [*pairs, ("A", "A"), ("A", "W"), ("XXMKX", "XXMKX"), ("MKTB", "MKTZU")]


def test_scores_and_identities_against_bio_align() -> None:
    pairs = make_pairs()
    scores, equal = align([a for a, _ in pairs], [b for _, b in pairs])
    plain, ranked = make_aligner(1), make_aligner(4096)
    for (a, b), score, number in zip(pairs, scores, equal, strict=True):
        a, b = a.replace("U", "X"), b.replace("U", "X")
        assert plain.score(a, b) == score
        assert ranked.score(a, b) == score * 4096 + number
        if score > 0:
            best = ranked.align(a, b)[0]
            matched = sum(
                a[i] == b[j] and a[i] in LETTERS
                for (i0, i1), (j0, j1) in zip(*best.aligned, strict=True)
                for i, j in zip(range(i0, i1), range(j0, j1), strict=True)
            )
            assert matched == number


def test_identity_is_symmetric_and_counts_the_shorter() -> None:
    pairs = make_pairs()[:20]
    a, b = [p[0] for p in pairs], [p[1] for p in pairs]
    np.testing.assert_array_equal(identities(a, b), identities(b, a))
    whole = draw(1, 80)
    np.testing.assert_array_equal(identities([whole], [whole[10:50]]), [1.0])


def test_padding_changes_nothing() -> None:
    pairs = make_pairs()
    together = identities([a for a, _ in pairs], [b for _, b in pairs])
    alone = [identities([a], [b])[0] for a, b in pairs]
    np.testing.assert_array_equal(together, alone)


@pytest.mark.parametrize("min_identity", [0.3, 0.9])
def test_clusters_against_all_pairs(min_identity: float) -> None:
    founders = [draw(i, 160 + 10 * i) for i in range(4)]
    sequences = [mutate(f, share, len(f)) for f in founders for share in (0, 0.02, 0.05, 0.3, 0.5)]
    sequences.append(sequences[3])
    found = cluster(sequences, min_identity)
    aligner = make_aligner(4096)
    links = {i: {i} for i in range(len(sequences))}
    for i, j in itertools.combinations(range(len(sequences)), 2):
        shorter = min(len(sequences[i]), len(sequences[j]))
        if int(aligner.score(sequences[i], sequences[j])) % 4096 / shorter >= min_identity:
            joined = links[i] | links[j]
            for k in joined:
                links[k] = joined
    assert found == [min(links[i]) for i in range(len(sequences))]
    assert 1 < len(set(found)) < len(sequences)


def test_single_linkage_joins_chains_of_relatives() -> None:
    a = draw(3, 100)
    b = a[:8] + mutate(a[8:16], 1.0, 1) + a[16:]
    c = b[:50] + mutate(b[50:59], 1.0, 2) + b[59:]
    assert identities([a], [c])[0] < 0.9 <= min(identities([a, b], [b, c]))
    assert cluster([a, c], 0.9) == [0, 1]
    assert cluster([a, c, b], 0.9) == [0, 0, 0]


def test_candidates_share_a_word() -> None:
    sequences = ["MKTAYIAK", "GGAYIGG", "WWWWW", "AYI"]
    assert set(candidate_pairs(sequences, 3)) == {(0, 1), (0, 3), (1, 3)}


def test_empty_sequences_are_refused() -> None:
    with pytest.raises(ValueError, match="empty"):
        align([""], ["A"])
