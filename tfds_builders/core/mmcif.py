"""The protein chains of a PDBx/mmCIF file: full sequence, and the backbone of every residue.

    _entity_poly_seq   A  L  I  G  K  D  E     the molecule, residue by residue
    _atom_site         A  L        K  D  E     what was observed, by label_seq_id; the rest is NaN

No alignment is needed: every atom names its place in the sequence. The first model of several;
of alternate locations the atom of the highest occupancy, the first of equal ones. A residue that
lacks N, CA or C is not resolved: its nine coordinates are NaN.
Source: PDBx/mmCIF dictionary 5, categories entity_poly, entity_poly_seq, atom_site; Hall, Allen and
Brown, Acta Cryst. A47:655, 1991 (the syntax).
"""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Iterator
from pathlib import Path

import numpy as np

from tfds_builders.core.pdb import BACKBONE, PARENTS, STANDARD, Chain, read_content
from tfds_builders.core.records import UnreadableRecord

# Twice the largest entries (virus capsids); beyond it the file is damaged.
MAX_BYTES = 1_000_000_000
_TOKEN = re.compile(r"""'(?:[^']|'(?=\S))*'(?=\s|$)|"(?:[^"]|"(?=\S))*"(?=\s|$)|\#.*|\S+""")
_PROTEIN = ("polypeptide(L)", "polypeptide(D)")
_ATOM = "_atom_site."
_ATOM_ITEMS = (
    "label_atom_id",
    "label_comp_id",
    "label_asym_id",
    "label_entity_id",
    "label_seq_id",
    "Cartn_x",
    "Cartn_y",
    "Cartn_z",
    "occupancy",
    "pdbx_PDB_model_num",
    "auth_asym_id",
)
_CATEGORIES = ("_entity_poly.", "_entity_poly_seq.", _ATOM)


@dataclasses.dataclass(frozen=True)
class PolymerChain:
    """One chain of an entry.

    Attributes:
        chain_id: label_asym_id, unique in the file.
        author_id: auth_asym_id, the letter that publications use; copies can share it.
        entity: the molecule; equal chains of an entry are one entity.
        chain: its sequence and backbone.
    """

    chain_id: str
    author_id: str
    entity: str
    chain: Chain


def read_chains(path: Path) -> list[PolymerChain]:
    """The protein chains of a file, which may be gzipped, in its order.

    Raises:
        UnreadableRecord: it is missing, damaged, too large or no mmCIF file, lacks a column, or an
            atom has no numbers.
    """
    text = read_content(path, MAX_BYTES).decode("utf-8", "replace")
    if not text.lstrip().startswith(("data_", "#")):
        raise UnreadableRecord("is no mmCIF file: it does not start with data_")
    tables = _tables(text)
    return list(_chains(tables))


def _tables(text: str) -> dict[str, tuple[list[str], list[list[str]]]]:
    """Category -> names of its items, and its rows; only `_CATEGORIES`."""
    found: dict[str, tuple[list[str], list[list[str]]]] = {}
    tokens = _Tokens(text)
    for token, quoted in tokens:
        if quoted:
            continue
        if token == "loop_":
            names, rows = tokens.loop()
            category = names[0].partition(".")[0] + "." if names else ""
            if category in _CATEGORIES:
                found[category] = ([name.partition(".")[2] for name in names], rows)
        elif token.startswith("_"):
            value = next(tokens, ("", True))[0]
            category, _, item = token.partition(".")
            if f"{category}." in _CATEGORIES:
                names, rows = found.setdefault(f"{category}.", ([], [[]]))
                names.append(item)
                rows[0].append(value)
    return found


class _Tokens:
    """The tokens of a file, one after the other: (text, whether it was quoted)."""

    def __init__(self, text: str) -> None:
        self._lines = text.splitlines()
        self._at = 0
        self._waiting: list[tuple[str, bool]] = []

    def __iter__(self) -> Iterator[tuple[str, bool]]:
        return self

    def __next__(self) -> tuple[str, bool]:
        while not self._waiting:
            if self._at >= len(self._lines):
                raise StopIteration
            self._waiting = self._read_line()[::-1]
        return self._waiting.pop()

    def _read_line(self) -> list[tuple[str, bool]]:
        line = self._lines[self._at]
        self._at += 1
        if line.startswith(";"):
            parts = [line[1:]]
            while self._at < len(self._lines) and not self._lines[self._at].startswith(";"):
                parts.append(self._lines[self._at])
                self._at += 1
            if self._at >= len(self._lines):
                raise UnreadableRecord("is truncated inside a text")
            rest = self._lines[self._at][1:]
            self._at += 1
            return [("\n".join(parts), True), *_split(rest)]
        return _split(line)

    def loop(self) -> tuple[list[str], list[list[str]]]:
        """The items of a loop and its rows, up to what follows it."""
        names: list[str] = []
        cells: list[str] = []
        for token, quoted in self:
            if not quoted and token.startswith("_") and not cells:
                names.append(token)
            elif not quoted and (token in ("loop_", "stop_") or token.startswith(("_", "data_"))):
                self._waiting.append((token, quoted))
                break
            else:
                cells.append(token)
                # A row of atoms lies on a line of its own: whole lines are taken at once.
                if not self._waiting and len(cells) % len(names or [""]) == 0:
                    self._take_lines(len(names), cells)
        width = len(names)
        if not width or len(cells) % width:
            raise UnreadableRecord("is truncated: a table has a row that is not complete")
        return names, [cells[i : i + width] for i in range(0, len(cells), width)]

    def _take_lines(self, width: int, cells: list[str]) -> None:
        while self._at < len(self._lines):
            line = self._lines[self._at]
            if not line or line[0] in ";_#" or line.startswith(("loop_", "data_", "stop_")):
                return
            if '"' in line or "'" in line or "#" in line:
                return
            parts = line.split()
            if len(parts) != width:
                return
            cells.extend(parts)
            self._at += 1


def _split(line: str) -> list[tuple[str, bool]]:
    tokens = []
    for token in _TOKEN.findall(line):
        if token.startswith("#"):
            break
        quoted = len(token) > 1 and token[0] in "'\"" and token[-1] == token[0]
        tokens.append((token[1:-1] if quoted else token, quoted))
    return tokens


def _columns(
    tables: dict[str, tuple[list[str], list[list[str]]]], category: str, items: tuple[str, ...]
) -> Iterator[tuple[str, ...]]:
    if category not in tables:
        raise UnreadableRecord(f"has no category {category[:-1]}")
    names, rows = tables[category]
    missing = [item for item in items if item not in names]
    if missing:
        raise UnreadableRecord(f"has no {category}{missing[0]}")
    places = [names.index(item) for item in items]
    for row in rows:
        yield tuple(row[place] for place in places)


def _chains(tables: dict[str, tuple[list[str], list[list[str]]]]) -> Iterator[PolymerChain]:
    proteins = {
        row[0]
        for row in _columns(tables, "_entity_poly.", ("entity_id", "type"))
        if row[1] in _PROTEIN
    }
    molecules: dict[str, dict[int, str]] = {entity: {} for entity in proteins}
    for entity, number, name in _columns(
        tables, "_entity_poly_seq.", ("entity_id", "num", "mon_id")
    ):
        if entity in proteins:
            molecules[entity].setdefault(_whole(number), name)  # of several the first
    for chain_id, (entity, author, residues) in _atoms(tables, proteins).items():
        places = molecules[entity]
        if sorted(places) != list(range(1, len(places) + 1)):
            raise UnreadableRecord("numbers the residues of a molecule with gaps")
        backbone = np.full((len(places), 3, 3), np.nan)
        for number, found in residues.items():
            if number not in places:
                raise UnreadableRecord("has an atom outside of its molecule's sequence")
            backbone[number - 1] = _backbone(found)
        sequence = "".join(_letter(places[i + 1]) for i in range(len(places)))
        yield PolymerChain(chain_id, author, entity, Chain(sequence, backbone.astype(np.float32)))


# residue name -> atom -> (occupancy, x, y, z)
_Residue = dict[str, dict[str, tuple[float, float, float, float]]]


def _atoms(
    tables: dict[str, tuple[list[str], list[list[str]]]], proteins: set[str]
) -> dict[str, tuple[str, str, dict[int, _Residue]]]:
    chains: dict[str, tuple[str, str, dict[int, _Residue]]] = {}
    first_model = None
    for row in _columns(tables, _ATOM, _ATOM_ITEMS):
        atom, name, chain, entity, number, x, y, z, share, model, author = row
        first_model = model if first_model is None else first_model
        if entity not in proteins or model != first_model or number == ".":
            continue
        residues = chains.setdefault(chain, (entity, author, {}))[2]
        atoms = residues.setdefault(_whole(number), {}).setdefault(name, {})
        try:
            found = (1.0 if share in ".?" else float(share), float(x), float(y), float(z))
        except ValueError:
            raise UnreadableRecord("has an atom that is no number") from None
        if not np.isfinite(found).all():
            raise UnreadableRecord("has an atom that is not finite")
        if atom not in atoms or found[0] > atoms[atom][0]:
            atoms[atom] = found
    return chains


def _backbone(residue: _Residue) -> np.ndarray:
    # Two residues at one place: that of the highest occupancy, the first of equal ones.
    best = max(residue.values(), key=lambda atoms: max(atom[0] for atom in atoms.values()))
    if any(name not in best for name in BACKBONE):
        return np.full((3, 3), np.nan)
    return np.array([best[name][1:] for name in BACKBONE])


def _letter(name: str) -> str:
    standard = PARENTS[name] if name in PARENTS else name
    return STANDARD[standard] if standard in STANDARD else "X"


def _whole(text: str) -> int:
    try:
        return int(text)
    except ValueError:
        raise UnreadableRecord("has a residue whose number is none") from None
