from __future__ import annotations

import numpy as np
import pytest

from multimed_jax.backbone_files import place_oxygen, write_mmcif, write_pdb
from multimed_jax.metrics.chain_baselines import ideal_helix
from multimed_jax.types import UserError

SEQUENCE = "MKVLAWGX" * 3
NAMES = "MET LYS VAL LEU ALA TRP GLY UNK".split() * 3
WRITERS = {".pdb": write_pdb, ".cif": write_mmcif}


def backbone() -> np.ndarray:
    """A helix with a hole at residues 11 and 12, and padding behind it."""
    atoms = np.zeros((40, 3, 3), np.float32)
    atoms[:24] = ideal_helix(24) - 300.0
    atoms[10:12] = np.nan
    return atoms


@pytest.mark.parametrize("ending", WRITERS)
def test_gemmi_reads_what_was_written(ending, tmp_path):
    gemmi = pytest.importorskip("gemmi")
    path = tmp_path / f"chain{ending}"
    mask = np.arange(40) != 4
    WRITERS[ending](path, SEQUENCE, backbone(), mask, title='a "helix"')
    structure = gemmi.read_structure(str(path))
    structure.setup_entities()
    assert len(structure) == 1 and [chain.name for chain in structure[0]] == ["A"]
    residues = list(structure[0]["A"])
    numbers = [n for n in range(1, 25) if n not in (5, 11, 12)]
    assert [residue.seqid.num for residue in residues] == numbers
    assert [residue.name for residue in residues] == [NAMES[n - 1] for n in numbers]
    for residue, number in zip(residues, numbers, strict=True):
        assert [atom.name for atom in residue] == ["N", "CA", "C", "O"]
        assert [atom.element.name for atom in residue] == ["N", "C", "C", "O"]
        for atom, expected in zip(list(residue)[:3], backbone()[number - 1], strict=True):
            np.testing.assert_allclose(atom.pos.tolist(), expected, atol=6e-4)
    assert structure.entities[0].full_sequence == NAMES
    assert [p.name for p in tmp_path.iterdir()] == [path.name]


@pytest.mark.parametrize("ending", WRITERS)
def test_biopython_reads_what_was_written(ending, tmp_path):
    pdb = pytest.importorskip("Bio.PDB")
    path = tmp_path / f"chain{ending}"
    WRITERS[ending](path, SEQUENCE, backbone())
    parser = pdb.PDBParser(PERMISSIVE=False) if ending == ".pdb" else pdb.MMCIFParser(QUIET=True)
    (model,) = parser.get_structure("x", str(path))
    (chain,) = model
    assert chain.id == "A"
    assert [residue.id[1] for residue in chain] == [n for n in range(1, 25) if n not in (11, 12)]
    for residue in chain:
        assert residue.id[0] == " " and residue.get_resname() == NAMES[residue.id[1] - 1]
        got = [residue[name].coord for name in ("N", "CA", "C")]
        np.testing.assert_allclose(got, backbone()[residue.id[1] - 1], atol=6e-4)
    # Torsions of the parser see a whole helix: phi and psi of -57.8 and -47.
    chain.atom_to_internal_coordinates()
    inner = [r.internal_coord for r in chain if r.internal_coord is not None]
    psi = [r.get_angle("psi") for r in inner if r.get_angle("psi") is not None]
    np.testing.assert_allclose(psi[1:8], -47.0, atol=0.5)


def test_oxygen_is_placed_by_ideal_geometry():
    atoms = ideal_helix(12).astype(float)
    follows = np.arange(12) < 11
    oxygen = place_oxygen(atoms, follows)
    n, ca, c = atoms.swapaxes(0, 1)
    np.testing.assert_allclose(np.linalg.norm(oxygen - c, axis=1), 1.231, atol=1e-6)
    to_ca, to_o = ca - c, oxygen - c
    cosine = np.sum(to_ca * to_o, -1) / np.linalg.norm(to_ca, axis=1) / 1.231
    np.testing.assert_allclose(np.degrees(np.arccos(cosine)), 120.8, atol=1e-3)
    # In the peptide plane and away from the next N: 123 degrees from it (Engh and Huber 1991).
    to_n = n[1:] - c[:-1]
    angle = np.degrees(np.arccos(np.sum(to_n * to_o[:-1], -1) / 1.231 / 1.329))
    np.testing.assert_allclose(angle, 122.0, atol=1.5)
    normal = np.cross(to_ca[:-1], to_n)
    assert np.abs(np.sum(normal * to_o[:-1], -1)).max() < 1e-5
    # A helix's own hydrogen bond: O of residue i meets N of residue i + 4.
    np.testing.assert_allclose(np.linalg.norm(oxygen[:-4] - n[4:], axis=1), 2.9, atol=0.3)
    # The last one, which no residue follows, is near where a next one would have put it.
    longer = place_oxygen(ideal_helix(13).astype(float), np.arange(13) < 12)
    np.testing.assert_allclose(oxygen[-1], longer[11], atol=0.3)


def test_what_cannot_be_written(tmp_path):
    path = tmp_path / "x.pdb"
    with pytest.raises(UserError, match="for 50 residues"):
        write_pdb(path, "A" * 50, backbone())
    with pytest.raises(UserError, match="no resolved residue"):
        write_mmcif(path, SEQUENCE, backbone(), np.zeros(40, bool))
    with pytest.raises(UserError, match="write mmCIF"):
        write_pdb(path, SEQUENCE, backbone() - 5000.0)
    assert not list(tmp_path.iterdir())
    write_pdb(path, SEQUENCE, backbone())
    with pytest.raises(UserError):
        write_pdb(path, SEQUENCE, backbone() - 5000.0)
    assert path.read_text().startswith("SEQRES")
