"""One chain of a PDB file: its sequence and the backbone of every residue.

    SEQRES    A  L  I  G  K  D  E      sequence "ALIGKDE" (of the ATOM records without SEQRES)
    ATOM      A  L        K  D  E      backbone  x  x NaN NaN  x  x  x

Columns 1 to 60 are read and nothing behind them: old files carry other things there.
Source of the columns: wwPDB, "Protein Data Bank Contents Guide", version 3.30.

- The first model of several; the records of a chain up to its TER.
- Alternate locations: the atom of the highest occupancy, the first of equal ones. Where two
  residues share a place (microheterogeneity) the same rule picks the residue.
- Modified residues (HETATM before TER): the parent that MODRES names, else `PARENTS`, else X.
- A residue that lacks N, CA or C is not resolved: its nine coordinates are NaN.
"""

from __future__ import annotations

import dataclasses
import gzip
import zlib
from collections.abc import Iterable
from pathlib import Path

import numpy as np
from jaxtyping import Float32

from tfds_builders.core.records import UnreadableRecord

STANDARD = {
    "ALA": "A", "ARG": "R", "ASN": "N", "ASP": "D", "CYS": "C", "GLN": "Q", "GLU": "E",
    "GLY": "G", "HIS": "H", "ILE": "I", "LEU": "L", "LYS": "K", "MET": "M", "PHE": "F",
    "PRO": "P", "SER": "S", "THR": "T", "TRP": "W", "TYR": "Y", "VAL": "V",
}  # fmt: skip
# Source: wwPDB Chemical Component Dictionary, _chem_comp.mon_nstd_parent_comp_id.
PARENTS = {
    "MSE": "MET", "CSO": "CYS", "CSS": "CYS", "OCS": "CYS", "CME": "CYS", "CSD": "CYS",
    "CAS": "CYS", "SNN": "ASN", "SEP": "SER", "TPO": "THR", "PTR": "TYR", "TYS": "TYR",
    "KCX": "LYS", "MLY": "LYS", "M3L": "LYS", "LLP": "LYS", "PCA": "GLN", "HYP": "PRO",
    "CGU": "GLU",
}  # fmt: skip
BACKBONE = ("N", "CA", "C")
# Peptide bonds measure 1.33 angstrom; beyond this the two residues are no neighbours.
MAX_BOND_ANGSTROM = 2.0
# The largest entry that fits the format (99,999 atoms) has 8 MB.
MAX_BYTES = 64_000_000
# The chain that is read may differ from SEQRES in a few residues, not in more.
MAX_MISMATCH = 0.1
_MISMATCH, _BROKEN, _ODD_JUMP = 16.0, 4.0, 1.0


@dataclasses.dataclass(frozen=True)
class Chain:
    """A protein chain.

    Attributes:
        sequence: one letter per residue, X where unknown.
        backbone: N, CA and C of each residue in angstrom, NaN where it is not resolved.
    """

    sequence: str
    backbone: Float32[np.ndarray, "L 3 3"]


@dataclasses.dataclass
class _Residue:
    number: int
    code: str
    # residue name -> highest occupancy of one of its atoms, in the file's order
    names: dict[str, float] = dataclasses.field(default_factory=dict)
    # (residue name, atom) -> (occupancy, x, y, z)
    atoms: dict[tuple[str, str], tuple[float, ...]] = dataclasses.field(default_factory=dict)

    def name(self) -> str:
        return max(self.names, key=lambda name: self.names[name])

    def backbone(self) -> np.ndarray:
        keys = [(self.name(), atom) for atom in BACKBONE]
        if any(key not in self.atoms for key in keys):
            return np.full((3, 3), np.nan)
        return np.array([self.atoms[key][1:] for key in keys])


def read_content(path: Path, max_bytes: int) -> bytes:
    """The bytes of a file, which may be gzipped.

    Raises:
        UnreadableRecord: where it is missing, damaged or larger than `max_bytes`.
    """
    try:
        with gzip.open(path) if path.suffix == ".gz" else path.open("rb") as file:
            content = file.read(max_bytes + 1)
    except (OSError, EOFError, zlib.error) as error:
        raise UnreadableRecord(f"cannot be read ({str(error)[:60]})") from error
    if len(content) > max_bytes:
        raise UnreadableRecord(f"has more than {max_bytes} bytes")
    return content


def read_lines(path: Path) -> list[str]:
    """The lines of a PDB file of at most `MAX_BYTES`; errors as of `read_content`."""
    return read_content(path, MAX_BYTES).decode("latin-1").splitlines()


def chain_ids(lines: Iterable[str]) -> list[str]:
    """Ids of the chains that have ATOM records, in the file's order."""
    return list(dict.fromkeys(line[21:22] for line in lines if line.startswith("ATOM  ")))


def parse_chain(lines: list[str], chain_id: str) -> Chain:
    """Reads one chain.

    Raises:
        UnreadableRecord: where the chain has no residue, a number cannot be read, no residue is
            resolved or of a known kind, or the residues do not fit SEQRES.
    """
    parents = {**PARENTS, **_modified(lines, chain_id)}
    full = _seqres(lines, chain_id)
    residues = _residues(lines, chain_id, set(full) | set(parents))
    if not residues:
        raise UnreadableRecord(f"has no residue in chain {chain_id!r}")
    names = [residue.name() for residue in residues]
    backbone = np.stack([residue.backbone() for residue in residues])
    if full:
        places = _place(residues, names, backbone, full)
        spread = np.full((len(full), 3, 3), np.nan)
        spread[places] = backbone
        names, backbone = full, spread
    if not np.isfinite(backbone).all(axis=(1, 2)).any():
        raise UnreadableRecord(f"has no residue with N, CA and C in chain {chain_id!r}")
    sequence = "".join(_letter(name, parents) for name in names)
    if set(sequence) == {"X"}:
        raise UnreadableRecord(f"has no known amino acid in chain {chain_id!r}")
    return Chain(sequence, backbone.astype(np.float32))


def _letter(name: str, parents: dict[str, str]) -> str:
    standard = parents[name] if name in parents and name not in STANDARD else name
    return STANDARD[standard] if standard in STANDARD else "X"


def _modified(lines: list[str], chain_id: str) -> dict[str, str]:
    """Name -> parent of the chain's modified residues, as MODRES states them."""
    rows = [line for line in lines if line.startswith("MODRES") and line[16:17] == chain_id]
    found = {line[12:15].strip(): line[24:27].strip() for line in rows}
    return {name: parent for name, parent in found.items() if parent in STANDARD}


def _seqres(lines: list[str], chain_id: str) -> list[str]:
    rows = [line for line in lines if line.startswith("SEQRES") and line[11:12] == chain_id]
    return [name for row in rows for name in row[19:70].split()]


def _residues(lines: list[str], chain_id: str, accepted: set[str]) -> list[_Residue]:
    """The chain's residues in the order of the file; HETATM only where its name is accepted."""
    found: dict[tuple[int, str], _Residue] = {}
    for line in lines:
        record = line[:6]
        if record == "ENDMDL" or (record.startswith("TER") and found and _ends(line, chain_id)):
            break
        if record not in ("ATOM  ", "HETATM") or line[21:22] != chain_id:
            continue
        name, atom = line[17:20].strip(), line[12:16].strip()
        if record == "HETATM" and name not in accepted:
            continue
        try:
            number = int(line[22:26])
            point = tuple(float(line[at : at + 8]) for at in (30, 38, 46))
            occupancy = float(line[54:60]) if line[54:60].strip() else 1.0
        except ValueError as error:
            raise UnreadableRecord(f"has an atom that is no number: {error}") from error
        if not np.isfinite((*point, occupancy)).all():
            raise UnreadableRecord("has an atom that is not finite")
        code = line[26:27]
        residue = found.setdefault((number, code), _Residue(number, code))
        residue.names[name] = max(residue.names.get(name, 0.0), occupancy)
        key = (name, atom)
        if key not in residue.atoms or occupancy > residue.atoms[key][0]:
            residue.atoms[key] = (occupancy, *point)
    return list(found.values())


def _ends(line: str, chain_id: str) -> bool:
    """Whether a TER closes this chain; old files give none of its fields."""
    return line[21:22] in ("", chain_id) or not line[6:27].strip()


def _place(
    residues: list[_Residue], names: list[str], backbone: np.ndarray, full: list[str]
) -> list[int]:
    """The place in SEQRES of every residue that was observed, ascending.

    The cheapest placement: a residue of another name costs most; bonded residues (C to N below
    `MAX_BOND_ANGSTROM`) want to be neighbours and others not; a gap wants the length that the
    author's numbers give.
    """
    size = len(full)
    if len(names) > size:
        raise UnreadableRecord(f"has {len(names)} residues and only {size} in SEQRES")
    differ = np.array([[_MISMATCH * (a != b) for b in full] for a in names])
    came = np.zeros((len(names), size), np.int64)
    cost = differ[0]
    for i in range(1, len(names)):
        joined = _joined(residues, backbone, i)
        adjacent = _shift(cost, 1) + (0.0 if joined else _BROKEN)
        # Any jump: the cheapest place at least two before this one.
        best = _cheapest_before(cost, 2)
        jump = _ODD_JUMP + (_BROKEN if joined else 0.0)
        step = residues[i].number - residues[i - 1].number
        options = [adjacent, _take(cost, best) + jump]
        sources = [np.arange(size) - 1, best]
        if step > 1:
            options.append(_shift(cost, step) + (_BROKEN if joined else 0.0))
            sources.append(np.arange(size) - step)
        pick = np.argmin(options, axis=0)
        came[i] = np.choose(pick, sources)
        cost = np.choose(pick, options) + differ[i]
    places = [int(np.argmin(cost))]
    for i in range(len(names) - 1, 0, -1):
        places.append(int(came[i, places[-1]]))
    places.reverse()
    wrong = sum(full[place] != name for place, name in zip(places, names, strict=True))
    if places[0] < 0 or wrong > MAX_MISMATCH * len(names):
        raise UnreadableRecord(f"has {wrong} of {len(names)} residues that do not fit SEQRES")
    return places


def _joined(residues: list[_Residue], backbone: np.ndarray, i: int) -> bool:
    gap = np.linalg.norm(backbone[i - 1, 2] - backbone[i, 0])
    if np.isfinite(gap):
        return bool(gap < MAX_BOND_ANGSTROM)
    return residues[i].number - residues[i - 1].number in (0, 1)


def _shift(cost: np.ndarray, by: int) -> np.ndarray:
    moved = np.full(len(cost), np.inf)
    if by < len(cost):
        moved[by:] = cost[: len(cost) - by]
    return moved


def _cheapest_before(cost: np.ndarray, by: int) -> np.ndarray:
    """The last of the cheapest places at least `by` before each place; -1 for none."""
    best = np.full(len(cost), -1)
    lowest = np.minimum.accumulate(cost)
    is_lowest = np.where(cost == lowest, np.arange(len(cost)), 0)
    best[by:] = np.maximum.accumulate(is_lowest)[: max(len(cost) - by, 0)]
    return best


def _take(cost: np.ndarray, places: np.ndarray) -> np.ndarray:
    return np.where(places < 0, np.inf, cost[places])
