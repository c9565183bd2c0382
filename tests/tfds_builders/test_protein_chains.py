"""protein_chains: both layouts together, clusters and splits, damaged files, the real subset."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tensorflow_datasets as tfds

from multimed_jax.types import UserError
from tests.tfds_builders.built import metadata_of
from tests.tfds_builders.pdb_files import THREE, backbone_points, chain_lines, seqres
from tfds_builders.core.sequence_clusters import LETTERS, identities
from tfds_builders.core.splits import SPLITS
from tfds_builders.protein_chains.protein_chains_dataset_builder import Builder


def draw(seed: int, length: int) -> str:
    return "".join(np.random.default_rng(seed).choice(list(LETTERS), length))


def family(member: int) -> str:
    """Members of one family share 100 of 140 residues."""
    fixed, free = draw(1000, 100), draw(2000 + member, 40)
    return fixed[:50] + free + fixed[50:]


def write(path: Path, lines: list[str]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("\n".join(lines) + "\n")


def make_psicov(folder: Path, entries: str = "") -> Path:
    for i in range(12):
        full = draw(i, 120 + i)
        lines = seqres([THREE[a] for a in full], "B") + chain_lines("GGG", "A")
        write(folder / entries / f"1x{i:02d}.pdb", lines + chain_lines(full, "B", (0, 20, 21)))
        write(folder / "fasta" / f"1x{i:02d}.fasta", [f">1x{i:02d}_B", full])
    # A member of the family of the other source.
    write(folder / entries / "5fam.pdb", chain_lines(family(99), "A"))
    write(folder / "fasta" / "5fam.fasta", [">5fam_A", family(99)])
    return folder


def make_families(folder: Path) -> Path:
    for i in range(10):
        write(folder / "trypsins" / f"1T{i:02d}_C.pdb", chain_lines(family(i), "C"))
    for i in range(2):
        write(folder / "cytochromes" / f"d1cy{i}__.pdb", chain_lines(draw(50 + i, 130), " "))
    return folder


def build(config: str, manual_dir: Path, data_dir: Path) -> Any:
    builder = Builder(config=config, data_dir=data_dir)
    builder.download_and_prepare(
        download_config=tfds.download.DownloadConfig(manual_dir=str(manual_dir))
    )
    return tfds.builder_from_directory(builder.data_dir)


def read(built: Any) -> dict[str, tuple[str, Any]]:
    found = {}
    for split in SPLITS:
        source = built.as_data_source(split)
        for i in range(len(source)):
            found[source[i]["sample_id"].decode()] = (split, source[i])
    return found


@pytest.mark.parametrize("entries", ["", "org_pdb"])
def test_both_sources_together(tmp_path: Path, entries: str) -> None:
    make_psicov(tmp_path / "in" / "psicov", entries)
    make_families(tmp_path / "in" / "theseus")
    found = read(build("cluster30", tmp_path / "in", tmp_path / "out"))
    assert len(found) == 25
    for i in range(12):
        _, record = found[f"1x{i:02d}_B"]
        full = draw(i, 120 + i)
        assert record["protein"]["sequence"].decode() == full and record["site"] == b"psicov150"
        expected = np.stack([backbone_points(k) for k in range(len(full))])
        expected[[0, 20, 21]] = np.nan
        np.testing.assert_allclose(record["targets"]["structure"], expected, atol=1e-3)
    assert found["1T03_C"][1]["protein"]["sequence"].decode() == family(3)
    assert found["1T03_C"][1]["site"] == b"theseus_trypsins"
    assert found["d1cy1__"][1]["site"] == b"theseus_cytochromes"
    # One family over both sources, and the quotas put it in train.
    groups = {name: record["group_id"] for name, (_, record) in found.items()}
    members = {name for name in groups if groups[name] == groups["5fam_A"]}
    assert members == {"5fam_A", *(f"1T{i:02d}_C" for i in range(10))}
    assert {found[name][0] for name in members} == {"train"}
    assert {split for split, _ in found.values()} == set(SPLITS)


def test_known_families_have_relatives_in_train(tmp_path: Path) -> None:
    make_families(tmp_path / "in")
    built = build("cluster90", tmp_path / "in", tmp_path / "out")
    found = read(built)
    where = [split for name, (split, _) in found.items() if name.startswith("1T")]
    assert where.count("train") >= 5 and where.count("test") >= 1
    assert metadata_of(built)["clusters"] == {
        "min_identity": 0.9,
        "linkage": "single",
        "number": 12,
    }


def test_one_layout_alone(tmp_path: Path) -> None:
    assert len(read(build("cluster30", make_psicov(tmp_path / "in"), tmp_path / "out"))) == 13


def test_bad_files_are_quarantined_alone(tmp_path: Path, monkeypatch: Any) -> None:
    monkeypatch.setattr(Builder, "MAX_BAD_RATE", 0.5)
    folder = make_psicov(tmp_path / "in")
    make_families(folder)
    (folder / "1x00.pdb").unlink()
    write(folder / "fasta" / "1x01.fasta", ["no header"])
    write(folder / "1x02.pdb", ["HEADER"])
    both = chain_lines("MKT", "A") + chain_lines("MKT", "B")
    write(folder / "trypsins" / "1T00_C.pdb", both)
    built = build("cluster30", folder, tmp_path / "out")
    items = {
        item["sample_id"]: item["reason"] for item in metadata_of(built)["quarantine"]["items"]
    }
    assert set(items) == {"1x00_B", "1x01", "1x02_B", "1T00_C"}
    assert "cannot be read" in items["1x00_B"] and "no residue" in items["1x02_B"]
    assert "names no chain" in items["1x01"] and "holds 2 chains" in items["1T00_C"]
    assert len(read(built)) == 21


def test_a_folder_without_chains(tmp_path: Path) -> None:
    (tmp_path / "in").mkdir()
    with pytest.raises(UserError, match="no protein chains found under .*; expected layout"):
        build("cluster30", tmp_path / "in", tmp_path / "out")


@pytest.mark.slow  # clusters 144 chains twice
@pytest.mark.parametrize(("config", "limit"), [("cluster30", 0.3), ("cluster90", 0.9)])
def test_real_chains(shared_data: Path, tmp_path: Path, config: str, limit: float) -> None:
    for source in ("rcsb_pdb_psicov150", "theseus_family_chains"):
        (tmp_path / "in").mkdir(exist_ok=True)
        (tmp_path / "in" / source).symlink_to(shared_data / source)
    found = read(build(config, tmp_path / "in", tmp_path / "out"))
    sites = [record["site"].decode() for _, record in found.values()]
    counts = {site: sites.count(site) for site in set(sites)}
    assert counts == {"psicov150": 80, "theseus_trypsins": 62, "theseus_cytochromes": 2}
    # No pair across splits reaches the limit: every pair is aligned, without the prefilter.
    rows = [(split, r["protein"]["sequence"].decode()) for split, r in found.values()]
    pairs = [
        (a, b) for k, (here, a) in enumerate(rows) for there, b in rows[k + 1 :] if here != there
    ]
    pairs.sort(key=lambda pair: len(pair[0]))
    for at in range(0, len(pairs), 512):
        part = pairs[at : at + 512]
        assert identities([a for a, _ in part], [b for _, b in part]).max() < limit
    test = [record for split, record in found.values() if split == "test"]
    assert len({record["group_id"] for record in test}) >= 10
    trypsins = [record for record in test if record["site"] == b"theseus_trypsins"]
    assert bool(trypsins) == (config == "cluster90")
    assert found["5ptp_A"][0] == "train" or config == "cluster90"
