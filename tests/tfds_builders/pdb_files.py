"""PDB files written for tests, column by column."""

from __future__ import annotations

import numpy as np

THREE = {
    "A": "ALA", "R": "ARG", "N": "ASN", "D": "ASP", "C": "CYS", "Q": "GLN", "E": "GLU",
    "G": "GLY", "H": "HIS", "I": "ILE", "L": "LEU", "K": "LYS", "M": "MET", "F": "PHE",
    "P": "PRO", "S": "SER", "T": "THR", "W": "TRP", "Y": "TYR", "V": "VAL",
}  # fmt: skip


def atom(
    name: str,
    residue: str,
    number: int,
    point: tuple[float, float, float],
    chain: str = "A",
    code: str = " ",
    alternate: str = " ",
    occupancy: float = 1.0,
    record: str = "ATOM",
) -> str:
    """One ATOM or HETATM line."""
    x, y, z = point
    return (
        f"{record:<6}{1:>5} {' ' + name:<4}{alternate}{residue:>3} {chain}{number:>4}{code}   "
        f"{x:8.3f}{y:8.3f}{z:8.3f}{occupancy:6.2f}{10.0:6.2f}"
    )


def backbone_points(i: int) -> np.ndarray:
    """N, CA and C of residue i of an extended chain: C to the next N is 1.33 angstrom."""
    start = np.array([3.8 * i, 0.5 * (-1) ** i, 0.0])
    return np.round(start + np.array([[0, 0, 0], [1.2, 0.8, 0], [2.6, 0.2, 0.1]]), 3)


def residue_lines(
    name: str, number: int, place: int, chain: str = "A", code: str = " ", record: str = "ATOM"
) -> list[str]:
    """N, CA, C and O of a residue that sits at `place` of the chain."""
    points = [*backbone_points(place), backbone_points(place)[2] + [0, 1.2, 0]]
    return [
        atom(kind, name, number, tuple(point), chain, code, record=record)
        for kind, point in zip(("N", "CA", "C", "O"), points, strict=True)
    ]


def seqres(names: list[str], chain: str = "A") -> list[str]:
    """SEQRES lines of 13 residues each."""
    return [
        f"SEQRES {at // 13 + 1:>3} {chain} {len(names):>4}  {' '.join(names[at : at + 13])}"
        for at in range(0, len(names), 13)
    ]


def chain_lines(sequence: str, chain: str = "A", missing: tuple[int, ...] = ()) -> list[str]:
    """ATOM lines of a chain; `missing` places (from 0) were not observed."""
    return [
        line
        for i, letter in enumerate(sequence)
        if i not in missing
        for line in residue_lines(THREE[letter], i + 1, i, chain)
    ] + [f"TER   {1:>5}      {THREE[sequence[-1]]} {chain}{len(sequence):>4}"]
