"""Backbones as PDB and mmCIF files: N, CA, C of every residue, and O by ideal geometry.

Both formats are written as their dictionaries say (wwPDB format 3.3; PDBx/mmCIF `atom_site`), one
model, one chain, residues numbered from 1 by their place in the sequence, so that an unresolved
residue leaves a gap in the numbers. Coordinates in angstrom.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import numpy as np
from jaxtyping import Bool, Float

from multimed_jax.types import UserError

_THREE = dict(
    zip(
        "ACDEFGHIKLMNPQRSTVWYX",
        (
            "ALA CYS ASP GLU PHE GLY HIS ILE LYS LEU MET ASN PRO GLN ARG SER THR VAL TRP TYR UNK"
        ).split(),
        strict=True,
    )
)
ATOMS = ("N", "CA", "C", "O")
# Carbonyl bond (angstrom) and the angle CA-C-O (degrees): Engh and Huber 1991. With a next residue
# O lies in the peptide plane, trans to its CA; at an end the torsion N-CA-C-O is that of a helix.
_CARBONYL_ANGSTROM = 1.231
_CARBONYL_DEGREES = 120.8
_END_TORSION_DEGREES = 133.0
_BONDED_ANGSTROM = 2.5  # C and the next N farther apart are no peptide bond
_PDB_LIMIT = 9999  # residue numbers and, with four atoms each, serial numbers have room for these


def write_pdb(
    path: Path,
    sequence: str,
    backbone: Float[np.ndarray, "L 3 3"],
    mask: Bool[np.ndarray, "L"] | None = None,
    *,
    title: str = "",
) -> None:
    """Writes N, CA, C, O of each residue as ATOM records, and the whole sequence as SEQRES.

    Args:
        path: appears only when it is whole.
        sequence: one letter for each residue; what is not one of the 20 is written as UNK.
        backbone: N, CA, C in angstrom; rows behind the sequence are padding.
        mask: residues to write; None is all that are finite.
        title: one line for the TITLE record.

    Raises:
        UserError: for shapes that do not fit, no residue to write, or coordinates and lengths that
            the format has no room for.
    """
    residues = list(_residues(sequence, backbone, mask))
    largest = max(float(np.abs(atoms).max()) for _, _, atoms in residues)
    if largest >= 999.0 or len(sequence) > _PDB_LIMIT:
        raise UserError(
            f"a backbone of {len(sequence)} residues reaches {largest:.0f} angstrom; accepted in "
            f"a PDB file: at most {_PDB_LIMIT} residues within 999 angstrom; write mmCIF"
        )
    lines = [f"TITLE     {_plain(title)[:70]}"] if title else []
    names = [_three(letter) for letter in sequence]
    for row, start in enumerate(range(0, len(names), 13), start=1):
        shown = " ".join(names[start : start + 13])
        lines.append(f"SEQRES {row:>3} A {len(names):>4}  {shown}")
    serial = 0
    for number, name, atoms in residues:
        for atom, (x, y, z) in zip(ATOMS, atoms, strict=True):
            serial += 1
            lines.append(
                f"ATOM  {serial:>5}  {atom:<3} {name} A{number:>4}    "
                f"{x:>8.3f}{y:>8.3f}{z:>8.3f}{1.0:>6.2f}{0.0:>6.2f}          {atom[0]:>2}  "
            )
    number, name, _ = residues[-1]
    lines += [f"TER   {serial + 1:>5}      {name} A{number:>4}", "END"]
    _write_whole(path, "".join(f"{line:<80}\n" for line in lines))


def write_mmcif(
    path: Path,
    sequence: str,
    backbone: Float[np.ndarray, "L 3 3"],
    mask: Bool[np.ndarray, "L"] | None = None,
    *,
    title: str = "",
) -> None:
    """Writes the same as `write_pdb` in the `atom_site` and `entity_poly_seq` categories.

    Raises:
        UserError: for shapes that do not fit, or no residue to write.
    """
    residues = list(_residues(sequence, backbone, mask))
    name = "".join(c if c.isalnum() else "_" for c in Path(path).name.split(".")[0]) or "backbone"
    lines = [f"data_{name}", "#", f"_entry.id {name}", f"_struct.entry_id {name}"]
    lines += [f'_struct.title "{_plain(title)}"' if title else "_struct.title ?", "#"]
    lines += ["_entity.id 1", "_entity.type polymer", "#"]
    lines += ["_struct_asym.id A", "_struct_asym.entity_id 1", "#"]
    lines += ["_entity_poly.entity_id 1", "_entity_poly.type polypeptide(L)", "#", "loop_"]
    lines += [f"_entity_poly_seq.{key}" for key in ("entity_id", "num", "mon_id")]
    lines += [f"1 {number} {_three(letter)}" for number, letter in enumerate(sequence, start=1)]
    keys = (
        "group_PDB id type_symbol label_atom_id label_alt_id label_comp_id label_asym_id "
        "label_entity_id label_seq_id pdbx_PDB_ins_code Cartn_x Cartn_y Cartn_z occupancy "
        "B_iso_or_equiv auth_seq_id auth_comp_id auth_asym_id auth_atom_id pdbx_PDB_model_num"
    ).split()
    lines += ["#", "loop_", *(f"_atom_site.{key}" for key in keys)]
    serial = 0
    for number, three, atoms in residues:
        for atom, (x, y, z) in zip(ATOMS, atoms, strict=True):
            serial += 1
            lines.append(
                f"ATOM {serial} {atom[0]} {atom} . {three} A 1 {number} ? {x:.3f} {y:.3f} {z:.3f} "
                f"1.00 0.00 {number} {three} A {atom} 1"
            )
    _write_whole(path, "\n".join([*lines, "#", ""]))


def place_oxygen(
    backbone: Float[np.ndarray, "L 3 3"], follows: Bool[np.ndarray, "L"]
) -> Float[np.ndarray, "L 3"]:
    """Carbonyl O of each residue, in angstrom.

    Args:
        backbone: N, CA, C; finite.
        follows: whether row i + 1 is the next residue of row i (False at the end). Where the two
            are not joined by a peptide bond either, O is placed as at an end.
    """
    n, ca, c = backbone[:, 0], backbone[:, 1], backbone[:, 2]
    after = np.roll(n, -1, axis=0)
    joined = follows & (np.linalg.norm(after - c, axis=-1) < _BONDED_ANGSTROM)
    # The third point of the plane that O lies in, and the torsion towards it.
    third = np.where(joined[:, None], after, n)
    torsion = np.where(joined, np.pi, np.deg2rad(_END_TORSION_DEGREES))
    along = _unit(c - ca)
    across = third - ca - np.sum((third - ca) * along, axis=-1, keepdims=True) * along
    across = _unit(across)
    up = np.cross(along, across)
    bend = np.deg2rad(180.0 - _CARBONYL_DEGREES)
    sideways = np.cos(torsion)[:, None] * across + np.sin(torsion)[:, None] * up
    return c + _CARBONYL_ANGSTROM * (np.cos(bend) * along + np.sin(bend) * sideways)


# ------------------------------------------------------------------------------- internals


def _residues(sequence, backbone, mask) -> Iterator[tuple[int, str, Float[np.ndarray, "4 3"]]]:
    """Number, three-letter name and atoms of the residues to write."""
    backbone = np.asarray(backbone, np.float64)
    if backbone.ndim != 3 or backbone.shape[1:] != (3, 3) or len(backbone) < len(sequence):
        raise UserError(
            f"a backbone has shape {backbone.shape} for {len(sequence)} residues; accepted: "
            "[residues or more, 3, 3]"
        )
    backbone = backbone[: len(sequence)]
    shown = np.isfinite(backbone).all(axis=(1, 2))
    if mask is not None:
        shown &= np.asarray(mask, bool)[: len(sequence)]
    index = np.flatnonzero(shown)
    if not len(index):
        raise UserError("a backbone has no resolved residue; accepted: at least 1")
    follows = np.append(np.diff(index) == 1, False)
    atoms = backbone[index]
    atoms = np.concatenate([atoms, place_oxygen(atoms, follows)[:, None]], axis=1)
    for place, row in zip(index, atoms, strict=True):
        yield int(place) + 1, _three(sequence[place]), row


def _three(letter: str) -> str:
    return _THREE[letter.upper()] if letter.upper() in _THREE else "UNK"


def _plain(title: str) -> str:
    """One line of printable ASCII without quotes."""
    return "".join(c if 32 <= ord(c) < 127 and c not in "\"'" else " " for c in title)


def _unit(vector: Float[np.ndarray, "L 3"]) -> Float[np.ndarray, "L 3"]:
    return vector / np.maximum(np.linalg.norm(vector, axis=-1, keepdims=True), 1e-9)


def _write_whole(path: Path, text: str) -> None:
    """Writes beside `path` and renames: a reader sees the old file or the new one, never half."""
    path = Path(path)
    temporary = path.with_name(f".{path.name}.tmp")
    try:
        with temporary.open("w", encoding="ascii", newline="\n") as file:
            file.write(text)
            file.flush()
            os.fsync(file.fileno())
        os.replace(temporary, path)
    finally:
        temporary.unlink(missing_ok=True)
