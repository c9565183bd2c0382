"""phantoms: the configs with all studies, read back, against the forward models."""

from __future__ import annotations

import functools
import io
import itertools
from pathlib import Path
from typing import Any, cast

import numpy as np
import pytest
import tensorflow_datasets as tfds
from Bio.PDB.vectors import Vector, calc_dihedral
from PIL import Image
from scipy.spatial.transform import Rotation

from multimed_jax.types import UserError
from tests.tfds_builders.built import metadata_of
from tfds_builders.core.records import record_digest
from tfds_builders.core.splits import SPLITS, hash_split
from tfds_builders.phantoms import ct, genomics, hand, oct, pathology, protein, questions, studies
from tfds_builders.phantoms.ceilings import ceilings, metrics_of_ceilings, subset_ceilings
from tfds_builders.phantoms.patient import CLASS_NAMES, SEXES, make_patients
from tfds_builders.phantoms.phantoms_dataset_builder import Builder, PhantomsConfig
from tfds_builders.phantoms.studies import STUDIES

NUM = 300
TEN = {"oct", "xray", "ct", "mri", "pathology", "eeg", "genomics", "scrna", "protein", "text"}
SIZE = {
    "oct": lambda v: len(v["encoded"]),
    "xray": lambda v: len(v["encoded"]),
    "mri": lambda v: len(v["encoded"]),
    "ct": lambda v: v["hu"].size,
    "pathology": lambda v: len(v["tiles"]),
    "eeg": lambda v: v["signal_uv"].size,
    "genomics": lambda v: len(v["sequence"]),
    "scrna": lambda v: len(v["gene_keys"]),
    "protein": lambda v: len(v["sequence"]),
    "text": lambda v: len(v["text"]),
}
KNOWN = {
    "class": lambda v: v >= 0,
    "labels": lambda v: (np.asarray(v) >= 0).any(),
    "values": lambda v: np.isfinite(v).any(),
    "coordinates": lambda v: np.isfinite(v).any(),
}


@pytest.fixture(scope="module")
def built(tmp_path_factory: pytest.TempPathFactory) -> Any:
    builder = Builder(data_dir=tmp_path_factory.mktemp("phantoms"), config="all_tiny")
    builder.download_and_prepare()
    return tfds.builder_from_directory(Path(builder.data_dir))


@pytest.fixture(scope="module")
def splits(built: Any) -> dict[str, list[Any]]:
    source = cast("dict[str, Any]", built.as_data_source())
    return {split: list(source[split]) for split in SPLITS}


@pytest.fixture(scope="module")
def rows(splits: dict[str, list[Any]]) -> dict[str, Any]:
    return {row["sample_id"].decode(): row for part in splits.values() for row in part}


@functools.cache
def block():
    return make_patients(0, np.arange(NUM))


def pixels(encoded: bytes) -> np.ndarray:
    return np.asarray(Image.open(io.BytesIO(encoded)))


# --------------------------------------------------------------------------- the dataset


def test_no_patient_crosses_a_split(splits: dict[str, list[Any]]):
    groups = {split: {r["group_id"].decode() for r in part} for split, part in splits.items()}
    assert not any(groups[a] & groups[b] for a, b in itertools.combinations(SPLITS, 2))
    assert sum(map(len, groups.values())) == NUM
    for split, part in splits.items():
        assert len(part) == len(STUDIES) * len(groups[split])
        assert all(hash_split(group, "phantoms") == split for group in groups[split])


def test_a_record_holds_the_modalities_and_the_target_of_its_study(rows: dict[str, Any]):
    kinds = {study.task: study.kind for study in STUDIES.values()}
    seen: set[str] = set()
    for name, row in rows.items():
        study = STUDIES[name.rpartition("-")[2]]
        carried = {m for m in TEN if SIZE[m](row[m])}
        # A gene's cell is the only modality that a record of its study may lack.
        assert carried <= set(study.modalities) and set(study.modalities) - carried <= {"scrna"}
        known = {task for task, value in row["targets"].items() if KNOWN[kinds[task]](value)}
        assert known == ({study.task} if study.kind != "answer" else set())
        assert bool(row["answer"]["text"]) == (study.kind == "answer")
        seen |= carried
    assert seen == TEN and len(kinds) == 11


def test_metadata_tells_kinds_ceilings_and_statistics(built: Any, rows: dict[str, Any]):
    metadata = metadata_of(built)
    assert metadata["target_kinds"] == {s.task: s.kind for s in STUDIES.values()}
    assert metadata["ceilings"] == pytest.approx(ceilings())
    assert metadata["ceiling_metrics"] == metrics_of_ceilings()
    assert metadata["subset_ceilings"] == {
        task: pytest.approx(subsets) for task, subsets in subset_ceilings().items()
    }
    assert set(metadata["modalities"]) == TEN and metadata["namespace"] == "phantoms"
    months = [
        float(row["targets"]["bone_age"][0]) for name, row in rows.items() if name.endswith("-hand")
    ]
    stats = [metadata["target_stats"][split]["bone_age"] for split in SPLITS]
    assert sum(s["count"][0] for s in stats) == NUM
    assert sum(s["sum"][0] for s in stats) == pytest.approx(sum(months))


def test_same_seed_same_content(built: Any, tmp_path: Path):
    again = Builder(data_dir=tmp_path, config="all_tiny")
    again.download_and_prepare()
    assert metadata_of(again)["content_hash"] == metadata_of(built)["content_hash"]


def test_records_depend_neither_on_the_block_nor_on_other_studies(monkeypatch: pytest.MonkeyPatch):
    indices, names = np.array([0, 3, 4, 9, 70]), tuple(STUDIES)
    whole = {r.sample_id: record_digest(r.load()) for r in studies.stream(0, indices, names)}
    assert len(set(whole.values())) == len(names) * len(indices)
    monkeypatch.setattr(studies, "BLOCK", 2)
    again = {r.sample_id: record_digest(r.load()) for r in studies.stream(0, indices, names)}
    assert again == whole
    (hand_alone,) = [r.load() for r in studies.stream(0, np.array([9]), ("hand",))]
    (hand_of_all,) = [
        r.load() for r in studies.stream(0, indices, names) if r.sample_id == "p00000009-hand"
    ]
    assert hand_alone["xray"] | {"spacing_mm": 0} == hand_of_all["xray"] | {"spacing_mm": 0}
    assert set(hand_alone["targets"]) == {"bone_age"}


def test_a_config_names_its_studies(tmp_path: Path):
    config = PhantomsConfig(name="two", num_patients=100, studies=("fold", "question"))
    builder = Builder(data_dir=tmp_path, config=config)
    assert set(builder.class_names()) == {"structure", "vqa"}
    assert set(builder.record_features()) >= {"protein", "xray", "text", "answer"}
    assert "eeg" not in builder.record_features()
    assert builder.CARD.modalities == ("protein", "xray", "text")
    with pytest.raises(UserError, match="no study 'foot'"):
        PhantomsConfig(name="x", studies=("hand", "foot"))


# ---------------------------------------------------------- records = forward models


@pytest.mark.parametrize("index", range(0, NUM, 61))
def test_records_are_those_of_the_forward_models(rows: dict[str, Any], index: int):
    one, group = make_patients(0, np.array([index])), f"p{index:08d}"
    eye = rows[f"{group}-eye"]
    shown = oct.render_photos(one)[0] if oct.is_photo(one)[0] else oct.render_scans(one)[0]
    np.testing.assert_array_equal(pixels(eye["oct"]["encoded"]), shown)
    chest = rows[f"{group}-ct"]
    hu = ct.render_volumes(one)[0] if ct.is_volume(one)[0] else ct.render_slices(one)[0]
    np.testing.assert_array_equal(chest["ct"]["hu"], hu)
    np.testing.assert_array_equal(chest["targets"]["radiographic"], ct.targets(one)[0])
    view = rows[f"{group}-hand"]
    np.testing.assert_array_equal(pixels(view["xray"]["encoded"]), hand.render(one)[0])
    assert view["targets"]["bone_age"][0] == np.float32(hand.months(one)[0])
    assert np.isnan(view["age_years"])  # an adult's age beside a child's hand would mislead
    tissue = rows[f"{group}-tissue"]["pathology"]
    count = pathology.num_tiles(one)[0]
    np.testing.assert_array_equal(
        np.stack([pixels(tile) for tile in tissue["tiles"]]), pathology.render(one)[0, :count]
    )
    assert tissue["heights"].tolist() == [pathology.SIDE] * count
    gene = rows[f"{group}-gene"]
    assert gene["genomics"]["sequence"].decode() == genomics.render(one)[0]
    np.testing.assert_array_equal(gene["targets"]["expression"], genomics.targets(one)[0])
    assert len(gene["scrna"]["values"]) == genomics.has_cell(one)[0] * np.count_nonzero(
        genomics.render_cells(one)
    )
    fold = rows[f"{group}-fold"]
    assert fold["protein"]["sequence"].decode() == protein.sequences(one)[0]
    np.testing.assert_array_equal(fold["targets"]["structure"], protein.render(one)[0])
    asked = rows[f"{group}-question"]
    question = questions.QUESTIONS[questions.kinds(one)[0]]
    assert asked["answer"]["text"].decode() == question.answers[questions.answers(one)[0]]
    candidates = [answer.decode() for answer in asked["answer"]["candidates"]]
    assert candidates == (["yes", "no"] if question.closed else [])


def test_devices_and_sizes_are_mixed(rows: dict[str, Any]):
    shapes = {row["ct"]["hu"].shape for name, row in rows.items() if name.endswith("-ct")}
    assert shapes == {(1, 32, 32), (8, 24, 24)}
    eyes = {
        pixels(row["oct"]["encoded"]).shape for name, row in rows.items() if name.endswith("-eye")
    }
    assert eyes == {(32, 32), (32, 32, 3)}
    tiles = {
        len(row["pathology"]["tiles"]) for name, row in rows.items() if name.endswith("-tissue")
    }
    assert tiles == {1, *range(4, 13)}
    hu = np.concatenate([row["ct"]["hu"].ravel() for row in rows.values()])
    assert hu.min() == -1024  # air with noise, cut where scanners cut
    assert {row["sex"].decode() for row in rows.values()} == set(SEXES)


def test_with_a_cell_only_its_own_column_is_known(rows: dict[str, Any]):
    for name, row in rows.items():
        if not name.endswith("-gene"):
            continue
        known = np.flatnonzero(np.isfinite(row["targets"]["expression"]))
        if len(row["scrna"]["gene_keys"]):
            assert [CLASS_NAMES["cell_type"][k] for k in known] == [row["cell_type"].decode()]
        else:
            assert len(known) == 6 and not row["cell_type"]


# ------------------------------------------------------------------------------ geometry


# A trans torsion lies where Bio.PDB divides by a length of 0 and then takes the angle 180.
@pytest.mark.filterwarnings("ignore:invalid value encountered:RuntimeWarning")
def test_backbones_have_ideal_geometry_and_the_torsions_of_their_letters():
    chains = protein.sequences(block())[:40]
    atoms = protein.backbones(chains)
    for chain, padded in zip(chains, atoms, strict=True):
        xyz = padded[: len(chain)].reshape(-1, 3)
        bonds = np.linalg.norm(np.diff(xyz, axis=0), axis=1)
        np.testing.assert_allclose(bonds[0::3], 1.458, atol=1e-9)
        np.testing.assert_allclose(bonds[1::3], 1.525, atol=1e-9)
        np.testing.assert_allclose(bonds[2::3], 1.329, atol=1e-9)
        alphas = np.linalg.norm(np.diff(xyz[1::3], axis=0), axis=1)
        np.testing.assert_allclose(alphas, 3.8, atol=0.01)
        points = [Vector(*point) for point in xyz]
        torsions = np.degrees([calc_dihedral(*points[i : i + 4]) for i in range(len(points) - 3)])
        # N-CA-C-N is psi, CA-C-N-CA is omega, C-N-CA-C is phi of the next residue.
        np.testing.assert_allclose(np.abs(torsions[1::3]), 180, atol=1e-6)
        np.testing.assert_allclose(
            torsions[0::3], [protein.TORSIONS[a][1] for a in chain[:-1]], atol=1e-6
        )
        np.testing.assert_allclose(
            torsions[2::3], [protein.TORSIONS[a][0] for a in chain[1:]], atol=1e-6
        )
        pairs = np.linalg.norm(xyz[1::3][:, None] - xyz[1::3][None], axis=-1)
        assert pairs[np.triu_indices(len(chain), 3)].min() > 4.5  # no clash
    assert 16 <= min(map(len, chains)) and max(map(len, chains)) <= 39


def test_the_sequence_determines_the_fold_up_to_a_rigid_motion():
    chains, rendered = protein.sequences(block()), protein.render(block())
    ideal = protein.backbones(chains)
    unresolved = []
    for row, xyz in enumerate(rendered):
        known = np.isfinite(xyz).all(axis=(1, 2))
        a = xyz[known].reshape(-1, 3).astype(np.float64)
        b = ideal[row, : len(xyz)][known].reshape(-1, 3)
        # scipy's rotation never mirrors.
        rest = Rotation.align_vectors(a - a.mean(axis=0), b - b.mean(axis=0))[1]
        assert rest / np.sqrt(len(a)) < 1e-3
        unresolved.append(1 - known.mean())
    assert 0.01 < np.mean(unresolved) < 0.03
    poses = np.stack([xyz[0, 1] for xyz in rendered if np.isfinite(xyz[0]).all()])
    assert np.linalg.norm(poses.mean(axis=0)) < 0.25 * np.linalg.norm(poses, axis=1).mean()
