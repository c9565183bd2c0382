"""mmCIF chains against gemmi and Biopython, and rcsb_pdb's clusters, copies and quarantine."""

from __future__ import annotations

import gzip
import warnings
from pathlib import Path
from typing import Any

import gemmi
import numpy as np
import pytest

from multimed_jax.types import UserError
from tests.tfds_builders.built import build, metadata_of, read
from tests.tfds_builders.pdb_files import backbone_points, chain_lines
from tfds_builders.core.mmcif import read_chains
from tfds_builders.core.records import UnreadableRecord
from tfds_builders.rcsb_pdb.rcsb_pdb_dataset_builder import Builder

RESIDUES = "ARNDCQEGHILKMFPSTWYV"
NUM = 12


def sequence(i: int) -> str:
    return "".join(np.random.default_rng(i).choice(list(RESIDUES), 40))


def mmcif(text: str, chains: str = "A", missing: tuple[int, ...] = ()) -> str:
    """An entry written by gemmi: equal chains, some of their residues not observed."""
    lines = [line for chain in chains for line in chain_lines(text, chain, missing)]
    structure = gemmi.read_pdb_string("\n".join(lines))
    structure.setup_entities()
    for entity in structure.entities:
        entity.name = "1"  # as the archive numbers molecules
        entity.full_sequence = gemmi.expand_one_letter_sequence(text, gemmi.ResidueKind.AA)
    structure.assign_label_seq_id()
    return structure.make_mmcif_document().as_string()


def source(folder: Path, clusters: bool = True) -> Path:
    folder.mkdir(parents=True)
    for i in range(NUM):
        content = mmcif(sequence(i), "AB" if i == 3 else "A", (0, 5) if i == 4 else ())
        if i % 2:
            (folder / f"1ab{i:x}.cif.gz").write_bytes(gzip.compress(content.encode()))
        else:
            (folder / f"1ab{i:x}.cif").write_text(content)
    if clusters:
        lines = [f"1AB{i:X}_1 1AB{i + 1:X}_1 AF_AFP{i}F1_1" for i in range(0, NUM, 2)]
        (folder / "clusters-by-entity-30.txt").write_text("\n".join(lines))
    return folder


def test_one_chain_of_every_molecule_and_published_clusters(tmp_path):
    built = build(Builder, source(tmp_path / "s"), tmp_path / "d")
    homes, found = {}, {}
    for split, record in read(built):
        i = int(record["sample_id"].decode()[3:].split("_")[0], 16)
        assert record["protein"]["sequence"].decode() == sequence(i)
        expected = np.stack([backbone_points(k) for k in range(40)])
        if i == 4:
            expected[[0, 5]] = np.nan
        np.testing.assert_allclose(record["targets"]["structure"], expected, atol=1e-3)
        homes.setdefault(record["group_id"], set()).add(split)
        found[i] = record["group_id"]
    assert sorted(found) == list(range(NUM))
    assert all(len(where) == 1 for where in homes.values()) and len(homes) == NUM // 2
    assert all(found[i] == found[i + 1] for i in range(0, NUM, 2))
    assert metadata_of(built)["clusters"]["origin"] == "published"


def test_clusters_are_computed_where_the_file_is_absent(tmp_path):
    folder = source(tmp_path / "s", clusters=False)
    alike = sequence(0)[:20] + sequence(1)[:3] + sequence(0)[23:]
    (folder / "9zzz.cif").write_text(mmcif(alike))
    built = build(Builder, folder, tmp_path / "d")
    groups = {record["sample_id"]: record["group_id"] for _, record in read(built)}
    assert groups[b"9ZZZ_1"] == groups[b"1AB0_1"]
    assert metadata_of(built)["clusters"]["origin"].startswith("computed")


def test_damaged_files_and_missing_clusters(tmp_path, monkeypatch):
    folder = source(tmp_path / "s")
    text = (folder / "1ab2.cif").read_text()
    (folder / "1ab2.cif").write_text(text[: text.index("_atom_site.Cartn_y")])
    with pytest.raises(UserError, match="1 of 12 records cannot be read .*1AB2: "):
        build(Builder, folder, tmp_path / "a")
    monkeypatch.setattr(Builder, "MAX_BAD_RATE", 0.2)
    path = folder / "clusters-by-entity-30.txt"
    path.write_text(path.read_text().replace(" 1ABB_1", ""))
    metadata = metadata_of(build(Builder, folder, tmp_path / "b"))
    assert metadata["quarantine"]["count"] == 1
    assert metadata["left_out"] == {"molecule that no cluster names": 1}
    path.write_text("nothing of use")
    with pytest.raises(UserError, match="names no molecule; accepted: lines such as"):
        build(Builder, folder, tmp_path / "c")
    (tmp_path / "empty").mkdir()
    with pytest.raises(UserError, match=r"no file \*.cif or \*.cif.gz under"):
        build(Builder, tmp_path / "empty", tmp_path / "d")


@pytest.mark.parametrize(
    ("old", "new", "match"),
    [
        ("data_", "x", "is no mmCIF file"),
        ("_atom_site.Cartn_z", "_atom_site.z", "has no _atom_site.Cartn_z"),
        ("_entity_poly.type", "_entity_poly.kind", "has no _entity_poly.type"),
        (" 10.2 0.7", " 10.x 0.7", "has an atom that is no number"),
        (" 10.2 0.7", " inf 0.7", "has an atom that is not finite"),
    ],
)
def test_files_that_are_refused(tmp_path, old, new, match):
    path = tmp_path / "a.cif"
    path.write_text(mmcif(sequence(0)).replace(old, new, 1))
    with pytest.raises(UnreadableRecord, match=match):
        read_chains(path)


def test_quotes_and_texts_of_the_syntax(tmp_path):
    """Items of other categories with every kind of quoting do not disturb those that are read."""
    odd = "\n".join(
        [
            "_struct.title 'a \"title\" with it's own quote'",
            "_struct.text",
            ";line _entity_poly.type one",
            "loop_ two",
            ";",
            "loop_",
            "_citation.id",
            "_citation.name",
            "1 \"O5'\" 2 '#no comment' # a comment",
            "3",
            ";long",
            ";",
            "#",
            "",
        ]
    )
    path = tmp_path / "a.cif"
    head, rest = mmcif(sequence(0)).split("\n", 1)
    path.write_text(f"{head}\n{odd}{rest}")
    (chain,) = read_chains(path)
    assert chain.chain.sequence == sequence(0)


def gemmi_backbone(path: Path, chain_id: str) -> tuple[int, dict[int, np.ndarray]]:
    """Length of the molecule and N, CA, C by place (from 0), by gemmi."""
    structure = gemmi.read_structure(str(path))
    model = structure[0]
    found: dict[int, np.ndarray] = {}
    shares: dict[int, float] = {}  # two residues at one place: that of the highest occupancy
    length = 0
    for chain in model:
        for residue in chain:
            if residue.subchain != chain_id or residue.label_seq is None:
                continue
            entity: Any = structure.get_entity_of(chain.get_subchain(chain_id))
            length = len(entity.full_sequence)
            atoms = []
            for name in ("N", "CA", "C"):
                same = [atom for atom in residue if atom.name == name]
                if same:
                    atoms.append(max(same, key=lambda atom: atom.occ).pos.tolist())
            place, share = residue.label_seq - 1, max(atom.occ for atom in residue)
            if len(atoms) == 3 and (place not in shares or share > shares[place]):
                found[place], shares[place] = np.array(atoms), share
    return length, found


def test_real_entries_against_two_other_readers(shared_data):
    folder = shared_data / "biopython_mmcif_samples"
    from Bio.PDB.MMCIF2Dict import MMCIF2Dict

    checked = 0
    for path in sorted(folder.glob("*.cif")):
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            table = MMCIF2Dict(str(path))
        for found in read_chains(path):
            length, atoms = gemmi_backbone(path, found.chain_id)
            assert len(found.chain.sequence) == length
            resolved = np.flatnonzero(np.isfinite(found.chain.backbone).all(axis=(1, 2)))
            assert resolved.tolist() == sorted(atoms)
            for place in atoms:
                expected = atoms[place]
                np.testing.assert_allclose(found.chain.backbone[place], expected, atol=2e-3)
            stated = "".join(table["_entity_poly.pdbx_seq_one_letter_code_can"][0].split())
            if "X" not in found.chain.sequence:
                assert found.chain.sequence == stated
            checked += len(atoms)
    assert checked > 250
