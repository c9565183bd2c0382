"""core/pdb: placement in SEQRES, alternates, modified residues; every real file against Bio.PDB."""

from __future__ import annotations

import collections
import gzip
import warnings
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from Bio.PDB.MMCIF2Dict import MMCIF2Dict
from Bio.PDB.PDBParser import PDBParser

from tests.tfds_builders.pdb_files import (
    THREE,
    atom,
    backbone_points,
    chain_lines,
    residue_lines,
    seqres,
)
from tfds_builders.core.pdb import PARENTS, STANDARD, chain_ids, parse_chain, read_lines
from tfds_builders.core.records import UnreadableRecord


def names_of(sequence: str) -> list[str]:
    return [THREE[letter] for letter in sequence]


@pytest.mark.parametrize(
    ("full", "missing"),
    [
        ("MKTAYIAKQR", ()),
        ("MKTAYIAKQR", (0, 1)),
        ("MKTAYIAKQR", (8, 9)),
        ("MKTAYIAKQR", (4, 5, 6)),
        ("MAAAAAAAAG", (3, 4)),  # only the numbers tell which of the alanines are missing
        ("GSGSGSGSGS", (2, 3, 6)),
        ("HHHHHHMKTA", (0, 1, 2)),
    ],
)
def test_observed_residues_find_their_places(full: str, missing: tuple[int, ...]) -> None:
    chain = parse_chain(seqres(names_of(full)) + chain_lines(full, missing=missing), "A")
    assert chain.sequence == full
    expected = np.stack([backbone_points(i) for i in range(len(full))])
    expected[list(missing)] = np.nan
    np.testing.assert_allclose(chain.backbone, expected, atol=1e-4)


def test_bonds_outweigh_jumping_numbers() -> None:
    # Chymotrypsin numbering: 4 is followed by 9 and the chain goes on unbroken.
    full = "AAGAAGAA"
    numbers = [1, 2, 3, 4, 9, 10, 11, 12]
    lines = [
        line
        for i, (letter, number) in enumerate(zip(full, numbers, strict=True))
        for line in residue_lines(THREE[letter], number, i)
    ]
    chain = parse_chain(seqres(names_of(full)) + lines, "A")
    assert np.isfinite(chain.backbone).all()


def test_insertion_codes_are_residues_of_their_own() -> None:
    lines = residue_lines("ALA", 60, 0) + residue_lines("GLY", 60, 1, code="A")
    lines += residue_lines("SER", 60, 2, code="B") + residue_lines("THR", 61, 3)
    chain = parse_chain(lines, "A")
    assert chain.sequence == "AGST"
    np.testing.assert_allclose(chain.backbone[2], backbone_points(2), atol=1e-4)


@pytest.mark.parametrize(
    ("first", "second", "taken"), [(0.4, 0.6, 1), (0.5, 0.5, 0), (0.7, 0.3, 0)]
)
def test_alternate_locations(first: float, second: float, taken: int) -> None:
    points = [(1.0, 2.0, 3.0), (4.0, 5.0, 6.0)]
    lines = [atom("N", "ALA", 1, (0, 0, 0)), atom("C", "ALA", 1, (9, 9, 9))]
    lines += [atom("CA", "ALA", 1, points[0], alternate="A", occupancy=first)]
    lines += [atom("CA", "ALA", 1, points[1], alternate="B", occupancy=second)]
    chain = parse_chain(lines, "A")
    assert chain.sequence == "A"
    np.testing.assert_allclose(chain.backbone[0, 1], points[taken])


def test_two_residues_at_one_place() -> None:
    lines = []
    for kind, point in zip(("N", "CA", "C"), backbone_points(0), strict=True):
        lines.append(atom(kind, "SER", 1, tuple(point), alternate="A", occupancy=0.3))
        lines.append(atom(kind, "THR", 1, tuple(point + 1), alternate="B", occupancy=0.7))
    chain = parse_chain(lines, "A")
    assert chain.sequence == "T"
    np.testing.assert_allclose(chain.backbone[0], backbone_points(0) + 1, atol=1e-4)


def test_modified_residues() -> None:
    full = ["MSE", "ABC", "XYZ", "GLY"]
    lines = ["MODRES 1ABC ABC A    2  TRP  SOMETHING", *seqres(full)]
    for i, name in enumerate(full):
        lines += residue_lines(name, i + 1, i, record="ATOM" if name == "GLY" else "HETATM")
    lines += ["TER", *residue_lines("HOH", 101, 9, record="HETATM")]
    chain = parse_chain(lines, "A")
    assert chain.sequence == "MWXG"
    assert np.isfinite(chain.backbone).all()


def test_first_model_and_one_chain() -> None:
    model = chain_lines("MKT", "A") + chain_lines("GGGG", "B")
    moved = [line[:30] + f"{99.0:8.3f}" + line[38:] for line in model]
    lines = ["MODEL        1", *model, "ENDMDL", "MODEL        2", *moved, "ENDMDL"]
    assert parse_chain(lines, "B").sequence == "GGGG"
    chain = parse_chain(lines, "A")
    np.testing.assert_allclose(chain.backbone[0], backbone_points(0), atol=1e-4)


def test_a_residue_without_a_backbone_atom_is_not_resolved() -> None:
    lines = [line for line in chain_lines("MKT") if line[12:16] != " C  " or line[17:20] != "LYS"]
    chain = parse_chain(lines, "A")
    np.testing.assert_array_equal(np.isnan(chain.backbone).all(axis=(1, 2)), [False, True, False])


@pytest.mark.parametrize(
    ("lines", "reason"),
    [
        (chain_lines("MKT", "B"), "no residue in chain 'A'"),
        ([line.replace("0.000", "a.000", 1) for line in chain_lines("MKT")], "no number"),
        ([line[:30] + "     nan" + line[38:] for line in chain_lines("MKT")], "not finite"),
        ([atom("CA", "ALA", 1, (0, 0, 0))], "no residue with N, CA and C"),
        (residue_lines("DA", 1, 0), "no known amino acid"),
        (seqres(["GLY"] * 4) + chain_lines("MKT"), "do not fit SEQRES"),
        (seqres(["GLY"]) + chain_lines("GGG"), "only 1 in SEQRES"),
    ],
)
def test_unreadable_chains(lines: list[str], reason: str) -> None:
    with pytest.raises(UnreadableRecord, match=reason):
        parse_chain(lines, "A")


def test_gzipped_and_damaged_files(tmp_path: Path) -> None:
    text = "\n".join(chain_lines("MKT")).encode()
    (tmp_path / "a.pdb.gz").write_bytes(gzip.compress(text))
    (tmp_path / "b.pdb.gz").write_bytes(gzip.compress(text)[:40])
    assert parse_chain(read_lines(tmp_path / "a.pdb.gz"), "A").sequence == "MKT"
    for name in ("b.pdb.gz", "missing.pdb"):
        with pytest.raises(UnreadableRecord, match="cannot be read"):
            read_lines(tmp_path / name)


# 5ptp's serine with a phosphonate; the file's MODRES names the parent.
KNOWN = {**PARENTS, "MIS": "SER"}


def reference(path: Path, chain_id: str) -> list[tuple[str, np.ndarray | None]]:
    """Name and backbone (None where incomplete) of the polymer's residues, by Bio.PDB."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        structure: Any = PDBParser(QUIET=True).get_structure("x", str(path))
    found = []
    for residue in next(iter(structure))[chain_id]:
        het = residue.id[0].strip()
        if het and het.removeprefix("H_") not in KNOWN:
            continue
        if residue.resname not in STANDARD and residue.resname not in KNOWN:
            continue
        atoms = [residue[name].coord for name in ("N", "CA", "C") if name in residue]
        found.append((residue.resname, np.stack(atoms) if len(atoms) == 3 else None))
    return found


def compare(path: Path, chain_id: str) -> int:
    lines = read_lines(path)
    chain = parse_chain(lines, chain_id)
    resolved = [row for row in reference(path, chain_id) if row[1] is not None]
    ours = np.asarray(np.isfinite(chain.backbone).all(axis=(1, 2)))
    assert ours.sum() == len(resolved)
    expected = np.stack([row[1] for row in resolved if row[1] is not None])
    np.testing.assert_array_equal(chain.backbone[ours], expected)
    letters = [STANDARD[KNOWN[n] if n in KNOWN else n] for n, _ in resolved]
    assert [a for a, ok in zip(chain.sequence, ours.tolist(), strict=True) if ok] == letters
    return len(resolved)


def test_theseus_files_against_bio_pdb(shared_data: Path) -> None:
    paths = sorted((shared_data / "theseus_family_chains").glob("*/*.pdb"))
    assert len(paths) == 64
    for path in paths:
        assert compare(path, chain_ids(read_lines(path))[0]) > 100


def targets(shared_data: Path) -> list[tuple[Path, str, str]]:
    folder = shared_data / "rcsb_pdb_psicov150"
    found = []
    for path in sorted((folder / "fasta").glob("*.fasta")):
        header, *rest = path.read_text().split("\n")
        found.append((folder / f"{path.stem}.pdb", header.strip()[-1], "".join(rest).strip()))
    return found


@pytest.mark.slow  # Bio.PDB reads 80 whole entries
def test_psicov_files_against_bio_pdb(shared_data: Path) -> None:
    for path, chain_id, _ in targets(shared_data):
        compare(path, chain_id)


def test_unobserved_residues_against_remark_465(shared_data: Path) -> None:
    """What is not resolved agrees with the depositors' own list of missing residues."""
    num_missing = 0
    for path, chain_id, fasta in targets(shared_data):
        lines = read_lines(path)
        chain = parse_chain(lines, chain_id)
        rows = [line[10:].split() for line in lines if line.startswith("REMARK 465")]
        rows = [row for row in rows if len(row) == 3 and row[1] == chain_id and len(row[0]) == 3]
        absent = [STANDARD[PARENTS[r[0]] if r[0] in PARENTS else r[0]] for r in rows]
        ours = np.asarray(np.isfinite(chain.backbone).all(axis=(1, 2)))
        partial = sum(row[1] is None for row in reference(path, chain_id)) if not absent else 0
        unresolved = [a for a, ok in zip(chain.sequence, ours.tolist(), strict=True) if not ok]
        surplus = collections.Counter(unresolved) - collections.Counter(absent)
        lack = collections.Counter(absent) - collections.Counter(unresolved)
        assert not lack, path.name
        assert surplus.total() <= max(partial, 2), path.name
        num_missing += len(absent)
        assert abs(len(fasta) - ours.sum()) <= 6  # the list leaves a few residues out
    assert num_missing > 300


def test_an_entry_against_its_mmcif(shared_data: Path) -> None:
    """1A8O begins with selenomethionine; the mmCIF file of the entry states the sequence itself."""
    folder = shared_data / "biopython_mmcif_samples"
    assert compare(folder / "1A8O.pdb", "A") == 70
    table = MMCIF2Dict(str(folder / "1A8O.cif"))
    (stated,) = table["_entity_poly.pdbx_seq_one_letter_code_can"]
    chain = parse_chain(read_lines(folder / "1A8O.pdb"), "A")
    assert chain.sequence == "".join(stated.split())
    alphas = [
        [float(table[f"_atom_site.Cartn_{axis}"][i]) for axis in "xyz"]
        for i, name in enumerate(table["_atom_site.label_atom_id"])
        if name == "CA" and table["_atom_site.label_seq_id"][i] != "."
    ]
    np.testing.assert_array_equal(chain.backbone[:, 1], np.array(alphas, np.float32))
