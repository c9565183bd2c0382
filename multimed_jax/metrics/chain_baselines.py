"""Trivial predictors of a backbone: an ideal helix, and a copy of the most similar chain."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from jaxtyping import Float, Int
from scipy import sparse

# Ideal right-handed alpha helix (phi, psi, omega: Arnott and Dover 1967) and backbone geometry
# (Engh and Huber 1991): for each atom N, CA, C the length of the bond that leads to it (angstrom),
# the angle at the atom before it, and the torsion about the bond before (degrees).
_HELIX = (
    (1.329, 117.2, -47.0),  # C-N, CA-C-N, psi
    (1.458, 121.7, 180.0),  # N-CA, C-N-CA, omega
    (1.525, 111.0, -57.8),  # CA-C, N-CA-C, phi
)
_ALIGNED_CANDIDATES = 5  # training chains that are aligned to a chain, after ranking by k-mers
_MATCH, _MISMATCH, _GAP = 2, -1, -2
_LETTERS = 26


def ideal_helix(length: int) -> Float[np.ndarray, "length 3 3"]:
    """N, CA, C of one right-handed alpha helix in angstrom, its first CA at the origin.

    Each atom follows from the three before it by bond, angle and torsion (Parsons et al. 2005,
    natural extension reference frame).
    """
    atoms = [np.array([0.0, 1.0, 0.0]), np.array([1.0, 0.0, 0.0]), np.zeros(3)]
    for index in range(3 * length):
        bond, angle, torsion = _HELIX[index % 3]
        angle, torsion = np.deg2rad(180.0 - angle), np.deg2rad(torsion)
        x = _unit(atoms[-1] - atoms[-2])
        z = _unit(np.cross(atoms[-2] - atoms[-3], x))
        y = np.cross(z, x)
        local = np.array(
            [np.cos(angle), np.sin(angle) * np.cos(torsion), np.sin(angle) * np.sin(torsion)]
        )
        atoms.append(atoms[-1] + bond * (np.stack([x, y, z], axis=1) @ local))
    backbone = np.array(atoms[3:]).reshape(length, 3, 3)
    return (backbone - backbone[:1, 1:2]).astype(np.float32)


def _unit(vector: Float[np.ndarray, "3"]) -> Float[np.ndarray, "3"]:
    return vector / np.linalg.norm(vector)


def align(first: bytes, second: bytes) -> Int[np.ndarray, "pairs 2"]:
    """Aligned positions of two sequences: global alignment, free gaps at the ends.

    Match 2, mismatch -1, a gap -2 for each letter (Needleman and Wunsch 1970). Of equal alignments
    the one with pairs before gaps.
    """
    a, b = (np.frombuffer(s, np.uint8) for s in (first, second))
    score = np.where(a[:, None] == b[None], _MATCH, _MISMATCH)
    best = np.zeros((len(a) + 1, len(b) + 1), np.int64)
    column = _GAP * np.arange(len(b) + 1)
    for i in range(1, len(a) + 1):
        row = np.maximum(best[i - 1, 1:] + _GAP, best[i - 1, :-1] + score[i - 1])
        # A gap along the row is a running maximum once each column's gaps are taken out.
        row = np.concatenate([[0], row]) - column
        best[i] = np.maximum.accumulate(row) + column
    ends = np.concatenate([best[-1], best[:, -1]])
    end = int(np.argmax(ends))
    i, j = (len(a), end) if end <= len(b) else (end - len(b) - 1, len(b))
    pairs = []
    while i and j:
        if best[i, j] == best[i - 1, j - 1] + score[i - 1, j - 1]:
            i, j = i - 1, j - 1
            pairs.append((i, j))
        elif best[i, j] == best[i - 1, j] + _GAP:
            i -= 1
        else:
            j -= 1
    return np.array(pairs[::-1], np.int64).reshape(-1, 2)


def nearest_copies(
    sequences: Sequence[bytes],
    train_sequences: Sequence[bytes],
    train_backbones: Sequence[Float[np.ndarray, "n 3 3"]],
) -> list[Float[np.ndarray, "L 3 3"]]:
    """For each sequence, the backbone of the most similar training chain, residue by residue.

    Training chains are ranked by the cosine of their counts of 3-letter words (and, to break ties,
    of 2-letter words), the first 5 are aligned, and the one with the most identical letters, by the
    length of the shorter chain, is copied. Residues that no resolved residue is aligned with lie on
    straight lines between those that are; those beyond the ends lie at the ends.

    Args:
        sequences: of the chains to predict, one letter a residue.
        train_sequences: of the training chains.
        train_backbones: N, CA, C of them in angstrom, NaN where unresolved.

    Raises:
        ValueError: without a training chain.
    """
    if not train_sequences:
        raise ValueError("no training chain to copy from")
    known, asked = (_words(chains) for chains in (train_sequences, sequences))
    likeness = (asked @ known.T).toarray()
    copies = []
    for sequence, row in zip(sequences, likeness, strict=True):
        found = []
        for index in np.argsort(-row, kind="stable")[:_ALIGNED_CANDIDATES]:
            other = train_sequences[index]
            pairs = align(sequence, other)
            same = sum(sequence[i] == other[j] for i, j in pairs)
            found.append((same / max(1, min(len(sequence), len(other))), index, pairs))
        _, index, pairs = max(found, key=lambda candidate: candidate[0])
        copies.append(_copied(len(sequence), train_backbones[index], pairs))
    return copies


def _copied(length: int, backbone: np.ndarray, pairs: np.ndarray) -> np.ndarray:
    pairs = pairs[np.isfinite(backbone[pairs[:, 1]]).all(axis=(1, 2))]
    if not len(pairs):
        return ideal_helix(length)
    flat = backbone[pairs[:, 1]].reshape(len(pairs), 9)
    columns = [np.interp(np.arange(length), pairs[:, 0], values) for values in flat.T]
    return np.stack(columns, axis=1).reshape(length, 3, 3).astype(np.float32)


def _words(sequences: Sequence[bytes]) -> sparse.csr_matrix:
    """Unit vectors of word counts: 3-letter words, and with little weight 2-letter words."""
    rows, columns, values = [], [], []
    for row, sequence in enumerate(sequences):
        letters = (np.frombuffer(sequence.upper(), np.uint8).astype(np.int64) - 65) % _LETTERS
        pair = letters[:-1] * _LETTERS + letters[1:]
        triple = pair[:-1] * _LETTERS + letters[2:] + _LETTERS**2
        for words, weight in ((pair, 0.1), (triple, 1.0)):
            column, count = np.unique(words, return_counts=True)
            rows.append(np.full(len(column), row))
            columns.append(column)
            values.append(weight * count)
    shape = (len(sequences), _LETTERS**2 + _LETTERS**3)
    data = np.concatenate(values or [np.zeros(0)]).astype(np.float64)
    where = (
        np.concatenate(rows or [np.zeros(0, int)]),
        np.concatenate(columns or [np.zeros(0, int)]),
    )
    table = sparse.csr_matrix((data, where), shape=shape)
    length = np.sqrt(np.asarray(table.multiply(table).sum(axis=1)).ravel())
    return sparse.diags(1.0 / np.maximum(length, 1e-12)) @ table
