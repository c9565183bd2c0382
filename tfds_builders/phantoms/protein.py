"""Protein: helices and strands joined by turns; each residue's letter sets its torsion angles.

    chain = segment, or segment + turn + segment          segment = helix or strand

Letters of helix, strand and turns are disjoint, so the sequence determines the fold. The backbone
has ideal bonds and angles and trans peptide bonds (C-alpha to C-alpha 3.8 angstrom); it is placed
atom by atom from the torsions. Some residues are not resolved.
"""

from __future__ import annotations

import numpy as np
from jaxtyping import Float, Float32, Int

from tfds_builders.phantoms.patient import Patients

# Bond lengths in angstrom and angles in degrees.
# Source: Engh and Huber, Acta Crystallographica A47, 392-400 (1991).
N_CA, CA_C, C_N = 1.458, 1.525, 1.329
ANGLE_N_CA_C, ANGLE_CA_C_N, ANGLE_C_N_CA = 111.2, 116.2, 121.7
OMEGA = 180.0
HELIX, STRAND = "AELKMQ", "VIYFTW"
# A turn has one letter of each; torsions (phi, psi) in degrees by letter.
# Source: standard values as of Creighton, "Proteins" (1993), for helix, antiparallel strand and
# the middle residues of turns of type I (S, D) and II (P), left-handed helix (G); N and H are ours.
TURNS = ("SP", "DG", "NH")
TORSIONS = {
    **dict.fromkeys(HELIX, (-57.0, -47.0)),
    **dict.fromkeys(STRAND, (-119.0, 113.0)),
    "S": (-60.0, -30.0),
    "D": (-90.0, 0.0),
    "N": (-85.0, 80.0),
    "P": (-60.0, 120.0),
    "G": (60.0, 30.0),
    "H": (-70.0, 130.0),
}
SINGLE = (16, 30)  # fewest and most residues of a chain of one segment
SEGMENT = (13, 18)  # of each of two segments
MAX_RESIDUES = 2 * SEGMENT[1] + 3
UNRESOLVED = 0.02  # share of residues without coordinates


def segments(patients: Patients) -> Int[np.ndarray, "B 6"]:
    """(kind 1, length 1, bits of the turn, kind 2, length 2, two segments?) of every chain."""
    draws = patients.draws
    two = (draws.choice("protein/parts", 10) > 0).astype(np.int64)
    low, high = np.where(two[:, None], SEGMENT, SINGLE).T
    uniform = draws.uniform("protein/length", 2)
    first = low + (uniform[:, 0] * (high - low + 1)).astype(np.int64)
    second = SEGMENT[0] + (uniform[:, 1] * (SEGMENT[1] - SEGMENT[0] + 1)).astype(np.int64)
    kinds = [draws.choice(f"protein/kind/{part}", 2) for part in range(2)]
    turn = draws.choice("protein/turn", 2 ** len(TURNS))
    return np.stack([kinds[0], first, turn, kinds[1], second, two], axis=1)


def sequences(patients: Patients) -> list[str]:
    """The chains of a block of patients, one letter per residue."""
    words = (patients.draws.uniform("protein/letter", MAX_RESIDUES) * len(HELIX)).astype(np.int64)
    out = []
    for word, row in zip(words.tolist(), segments(patients).tolist(), strict=True):
        kind_1, length_1, turn, kind_2, length_2, two = row
        letters = [(HELIX, STRAND)[kind_1][w] for w in word[:length_1]]
        if two:
            letters += [pair[turn >> place & 1] for place, pair in enumerate(TURNS)]
            letters += [(HELIX, STRAND)[kind_2][w] for w in word[length_1 : length_1 + length_2]]
        out.append("".join(letters))
    return out


def render(patients: Patients) -> list[Float32[np.ndarray, "L 3 3"]]:
    """N, CA and C of every residue in angstrom, centred and turned at random; NaN unresolved."""
    chains = sequences(patients)
    atoms = backbones(chains)
    turns = rotations(patients.draws.normal("protein/pose", 4))
    gaps = patients.draws.uniform("protein/gap", MAX_RESIDUES) < UNRESOLVED
    out = []
    for row, chain in enumerate(chains):
        xyz = atoms[row, : len(chain)]
        xyz = (xyz - xyz.reshape(-1, 3).mean(axis=0)) @ turns[row].T
        out.append(np.where(gaps[row, : len(chain), None, None], np.nan, xyz).astype(np.float32))
    return out


def backbones(chains: list[str]) -> Float[np.ndarray, "B L 3 3"]:
    """N, CA, C in angstrom from the torsions of each chain, padded to the longest; same frame."""
    longest = max(len(chain) for chain in chains)
    phi_psi = np.zeros((len(chains), longest, 2))
    for row, chain in enumerate(chains):
        phi_psi[row, : len(chain)] = [TORSIONS[letter] for letter in chain]
    phi, psi = np.radians(phi_psi[..., 0]), np.radians(phi_psi[..., 1])
    omega = np.full(len(chains), np.radians(OMEGA))
    angle = np.radians(ANGLE_N_CA_C)
    first = [np.zeros(3), np.array([N_CA, 0, 0])]
    first.append(first[1] + CA_C * np.array([-np.cos(angle), np.sin(angle), 0]))
    atoms = [np.tile(atom, (len(chains), 1)) for atom in first]
    for i in range(1, longest):
        atoms.append(_place(atoms, C_N, ANGLE_CA_C_N, psi[:, i - 1]))
        atoms.append(_place(atoms, N_CA, ANGLE_C_N_CA, omega))
        atoms.append(_place(atoms, CA_C, ANGLE_N_CA_C, phi[:, i]))
    return np.stack(atoms, axis=1).reshape(len(chains), longest, 3, 3)


def _place(
    atoms: list[np.ndarray], length: float, degrees: float, torsion: Float[np.ndarray, "B"]
) -> Float[np.ndarray, "B 3"]:
    """The next atom: `length` from the last, at an angle and torsion to the three before it."""
    a, b, c = atoms[-3:]
    along = _unit(c - b)
    normal = _unit(np.cross(b - a, along))
    across = np.cross(normal, along)
    angle = np.radians(degrees)
    radial = np.sin(angle) * (np.cos(torsion)[:, None] * across + np.sin(torsion)[:, None] * normal)
    return c + length * (radial - np.cos(angle) * along)


def _unit(vectors: Float[np.ndarray, "B 3"]) -> Float[np.ndarray, "B 3"]:
    return vectors / np.linalg.norm(vectors, axis=1, keepdims=True)


def rotations(quaternions: Float[np.ndarray, "B 4"]) -> Float[np.ndarray, "B 3 3"]:
    """Rotation matrices of quaternions of any length."""
    w, x, y, z = (quaternions / np.linalg.norm(quaternions, axis=1, keepdims=True)).T
    rows = (
        (1 - 2 * (y * y + z * z), 2 * (x * y - w * z), 2 * (x * z + w * y)),
        (2 * (x * y + w * z), 1 - 2 * (x * x + z * z), 2 * (y * z - w * x)),
        (2 * (x * z - w * y), 2 * (y * z + w * x), 1 - 2 * (x * x + y * y)),
    )
    return np.moveaxis(np.array(rows), -1, 0)
