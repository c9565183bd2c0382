"""nifti_volumes: tables and columns, MRI and CT, series, folders without a table."""

from __future__ import annotations

from pathlib import Path

import nibabel as nib
import numpy as np
import pytest

from multimed_jax.types import UserError
from tests.tfds_builders.built import build, metadata_of, read
from tfds_builders.nifti_volumes.nifti_volumes_dataset_builder import Builder
from tfds_builders.nifti_volumes.table import NiftiConfig

SHAPE = (4, 3, 2)
AFFINE = np.diag([-0.5, -1.5, 2.0, 1.0])  # left, posterior, superior: only the order changes


def voxels_of(i: int) -> np.ndarray:
    return np.random.default_rng(i).integers(-1000, 2000, SHAPE).astype(np.int16)


def save(path: Path, voxels: np.ndarray) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    image = nib.Nifti1Image(voxels, AFFINE)
    image.header.set_xyzt_units("mm")
    nib.save(image, path)


def make_source(folder: Path) -> Path:
    """Twelve volumes of six patients, tumour or none, plain and compressed."""
    lines = ["file,group,label,sex,age_years,site,sequence"]
    for i in range(12):
        name = f"scans/v{i}.nii{'.gz' if i % 2 else ''}"
        save(folder / name, voxels_of(i))
        lines.append(f"{name},p{i // 2},{'tumour' if i % 4 < 2 else 'none'},F,{40 + i},A,T1")
    (folder / "volumes.csv").write_text("\n".join(lines))
    return folder


@pytest.mark.parametrize("modality", ["mri", "ct"])
def test_volumes_of_a_table(tmp_path, modality):
    built = build(Builder, make_source(tmp_path / "source"), tmp_path / "data", modality)
    homes, count = {}, 0
    for split, record in read(built):
        i = int(record["sample_id"].split(b".")[0][7:])
        value = record[modality]
        stored = value["hu" if modality == "ct" else "voxels"]
        assert stored.dtype == (np.int16 if modality == "ct" else np.float32)
        np.testing.assert_array_equal(stored, voxels_of(i).transpose(2, 1, 0))
        np.testing.assert_array_equal(value["spacing_mm"], [2, 1.5, 0.5])
        assert record["targets"]["disease"] == int(i % 4 < 2)
        assert record["group_id"].decode() == f"p{i // 2}"
        assert (record["sex"], record["age_years"], record["site"]) == (b"female", 40 + i, b"A")
        if modality == "mri":
            assert value["sequence"] == b"T1"
        homes.setdefault(record["group_id"], set()).add(split)
        count += 1
    assert count == 12
    assert all(len(where) == 1 for where in homes.values())
    metadata = metadata_of(built)
    assert metadata["class_names"] == {"disease": ["none", "tumour"]}
    assert metadata["modalities"] == [modality]
    assert metadata["unit"] == "volume"


def test_columns_task_and_order_of_classes_by_config(tmp_path):
    source = make_source(tmp_path / "source")
    table = source / "volumes.csv"
    head, rest = table.read_text().split("\n", 1)
    (source / "mine.csv").write_text(
        head.replace("file,group,label", "Scan,Subject,Grade") + "\n" + rest
    )
    table.unlink()
    config = NiftiConfig(
        name="mine",
        table="mine.csv",
        file_column="Scan",
        group_column="Subject",
        label_column="Grade",
        task="tumor",
        classes=("tumour", "none", "unseen"),
        namespace="clinic",
    )
    built = build(Builder, source, tmp_path / "data", config)
    for _, record in read(built):
        i = int(record["sample_id"].split(b".")[0][7:])
        assert record["targets"]["tumor"] == int(i % 4 >= 2)
    metadata = metadata_of(built)
    assert metadata["class_names"] == {"tumor": ["tumour", "none", "unseen"]}
    assert (metadata["namespace"], metadata["tasks"]) == ("clinic", ["tumor"])


def test_without_a_table_volumes_carry_no_target(tmp_path):
    source = make_source(tmp_path / "source")
    series = np.stack([voxels_of(50), voxels_of(51)], -1)
    save(source / "scans.v1/v50.nii.gz", series)
    save(source / "scans.v1/v52.nii.gz", voxels_of(52))
    built = build(Builder, source, tmp_path / "data", "mri_unlabelled")
    records = {record["sample_id"].decode(): record for _, record in read(built)}
    assert len(records) == 14
    assert {record["targets"]["disease"] for record in records.values()} == {-1}
    first = records["scans.v1/v50.nii.gz"]
    np.testing.assert_array_equal(first["mri"]["voxels"], voxels_of(50).transpose(2, 1, 0))
    assert first["group_id"] == b"scans.v1/v50"
    assert metadata_of(built)["tasks"] == []


def test_a_series_is_refused_unless_the_config_takes_its_first_volume(tmp_path):
    source = make_source(tmp_path / "source")
    save(source / "scans/v3.nii.gz", np.stack([voxels_of(3), voxels_of(4)], -1))
    with pytest.raises(UserError, match=r"v3.nii.gz: is a series of 2 volumes; accepted: 1"):
        build(Builder, source, tmp_path / "a", "mri")
    built = build(Builder, source, tmp_path / "b", NiftiConfig(name="first", series="first"))
    assert sum(1 for _ in read(built)) == 12


def test_hounsfield_units_are_rounded_and_fit(tmp_path):
    source = make_source(tmp_path / "source")
    voxels = np.full(SHAPE, 39.6, np.float32)
    voxels[0, 0, 0], voxels[1, 0, 0] = 1e6, -1e6
    save(source / "scans/v0.nii", voxels)
    built = build(Builder, source, tmp_path / "data", "ct")
    hu = {record["sample_id"]: record["ct"]["hu"] for _, record in read(built)}[b"scans/v0.nii"]
    assert hu[0, 0].tolist() == [32767, -32768, 40, 40]


@pytest.mark.parametrize(
    ("old", "new", "match"),
    [
        ("label", "class", "no column 'label'; it has: file, group, class"),
        ("scans/v0.nii", "../v0.nii", "names a path outside: '../v0.nii'"),
        (",p0,", ",,", "has a row without 'group'"),
        (",tumour,", ",,", "has a row without 'label'"),
        (",F,", ",x,", "has the sex 'x'; accepted"),
        (",40,", ",-1,", "has age_years '-1'; accepted"),
    ],
)
def test_mistakes_in_the_table(tmp_path, old, new, match):
    source = make_source(tmp_path / "source")
    table = source / "volumes.csv"
    table.write_text(table.read_text().replace(old, new, 1))
    with pytest.raises(UserError, match=match):
        build(Builder, source, tmp_path / "data", "mri")


def test_a_label_that_is_none_of_the_classes(tmp_path):
    source = make_source(tmp_path / "source")
    config = NiftiConfig(name="x", classes=("tumor", "none"))
    with pytest.raises(UserError, match="label 'tumour' .did you mean 'tumor'.*accepted: tumor, n"):
        build(Builder, source, tmp_path / "data", config)


@pytest.mark.parametrize(
    ("field", "value", "match"),
    [
        ("modality", "mr", "modality 'mr' .did you mean 'mri'.*; accepted: mri, ct"),
        ("task", "tumour", "task 'tumour' .did you mean 'tumor'"),
        ("series", "last", "series 'last'.*; accepted: first, refuse"),
        ("namespace", "", "lacks a namespace"),
        ("classes", ("a", "a"), "accepted: each once"),
    ],
)
def test_mistakes_in_a_config(field, value, match):
    with pytest.raises(UserError, match=match):
        NiftiConfig(**{"name": "x", field: value})


def test_real_files(shared_data, tmp_path):
    raw = shared_data / "nifti_format_samples"
    built = build(Builder, raw, tmp_path / "data", "mri_unlabelled")
    shapes = {}
    for _, record in read(built):
        name = record["sample_id"].decode()
        image = nib.as_closest_canonical(nib.load(raw / name))
        voxels = image.get_fdata().reshape((*image.shape[:3], -1))[..., 0]
        expected = voxels[::-1, ::-1].transpose(2, 1, 0).astype(np.float32)
        np.testing.assert_array_equal(record["mri"]["voxels"], expected)
        shapes[Path(name).name] = record["mri"]["voxels"].shape
    assert shapes == {
        "anatomical.nii": (25, 41, 33),
        "functional.nii": (3, 21, 17),
        "example4d.nii.gz": (24, 96, 128),
        "example_nifti2.nii.gz": (12, 20, 32),
    }
