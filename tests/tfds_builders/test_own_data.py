"""own_data: every modality from generated files, targets of every kind, splits, and mistakes."""

from __future__ import annotations

import io
import json
from pathlib import Path
from typing import Any

import h5py
import nibabel as nib
import numpy as np
import pytest
import scipy.sparse

from multimed_jax.modalities.scrna import gene_key
from multimed_jax.types import UserError
from tests.tfds_builders.built import build, metadata_of, read
from tests.tfds_builders.dicoms import make_ct, save
from tests.tfds_builders.images import jpeg, smooth_image, write
from tests.tfds_builders.pdb_files import backbone_points, chain_lines
from tests.tfds_builders.test_eegmmidb import read_edf_uv, write_edf
from tfds_builders.__main__ import pick_config
from tfds_builders.core.build_options import BuildOptions, build_options
from tfds_builders.own_data.cells import H5adFile, expressed
from tfds_builders.own_data.config import OwnDataConfig
from tfds_builders.own_data.own_data_dataset_builder import Builder
from tfds_builders.pbmc68k.h5ad_cells import read_cells

NUM = 12  # samples, two of each of six people
BASES = "ACGT"
RESIDUES = "ARNDCQEGHILKMFPSTWYV"


def word(i: int, letters: str, length: int) -> str:
    return "".join(np.random.default_rng(i).choice(list(letters), length))


def png(i: int) -> bytes:
    out = io.BytesIO()
    smooth_image(i).save(out, "PNG")
    return out.getvalue()


def table(folder: Path, columns: dict[str, Any], name: str = "samples.csv") -> None:
    """A csv of NUM rows: ids, persons, and the given columns (functions of the row's number)."""
    folder.mkdir(parents=True, exist_ok=True)
    columns = {"sample_id": lambda i: f"s{i}", "group_id": lambda i: f"p{i // 2}", **columns}
    lines = [",".join(columns)]
    lines += [",".join(str(make(i)) for make in columns.values()) for i in range(NUM)]
    (folder / name).write_text("\n".join(lines))


def built_records(folder: Path, **fields: Any) -> tuple[dict[int, Any], Any]:
    """Records by row number, and the dataset; checks that no person lies in two splits."""
    built = build(Builder, folder, folder.parent / "data", OwnDataConfig(name="mine", **fields))
    records, homes = {}, {}
    for split, record in read(built):
        number = int(record["sample_id"].decode()[1:])
        assert record["group_id"].decode() == f"p{number // 2}"
        homes.setdefault(record["group_id"], set()).add(split)
        records[number] = record
    assert all(len(where) == 1 for where in homes.values()) and len(homes) == 6
    assert set.union(*homes.values()) == {"train", "validation", "test"}
    return records, built


@pytest.mark.parametrize("modality", ["oct", "xray", "mri"])
def test_pictures_and_every_kind_of_target(tmp_path, modality):
    source = tmp_path / "source"
    make = [jpeg(smooth_image(i)) if i % 2 else png(i) for i in range(NUM)]
    for i in range(NUM):
        write(source / f"in/{i}.{'jpg' if i % 2 else 'png'}", make[i])
    table(
        source,
        {
            "film": lambda i: f"in/{i}.{'jpg' if i % 2 else 'png'}",
            "Grade": lambda i: "" if i == 3 else ("mild", "none")[i % 4 < 2],
            "edema": lambda i: ("1", "0", "", "-1")[i % 4],
            "effusion": lambda i: ("yes", "no")[i % 2],
            "months": lambda i: "" if i == 5 else 10.5 * i,
            "gender": lambda i: "FM"[i % 2],
            "years": lambda i: "" if i == 7 else 40 + i,
            "clinic": lambda i: "AB"[i % 2],
        },
    )
    records, built = built_records(
        source,
        namespace="clinic",
        inputs={modality: {"file": "film", "spacing_mm": [0.5, 0.25]}},
        targets={
            "disease": {"kind": "class", "column": "Grade", "names": ["none", "mild"]},
            "radiographic": {"kind": "labels", "columns": ["edema", "effusion"]},
            "bone_age": {"kind": "values", "columns": ["months"]},
        },
        sex="gender",
        age_years="years",
        site="clinic",
        card={"licence": "in house", "unit": "image"},
        datasheet={"consent": "Approved by the ethics board of the clinic."},
    )
    assert sorted(records) == list(range(NUM))
    for i, record in records.items():
        assert record[modality]["encoded"] == make[i]
        assert (record[modality]["height"], record[modality]["width"]) == (40, 48)
        assert record[modality]["spacing_mm"].tolist() == [0.5, 0.25]
        targets = record["targets"]
        assert targets["disease"] == (-1 if i == 3 else int(i % 4 >= 2))
        assert targets["radiographic"].tolist() == [(1, 0, -1, -1)[i % 4], (1, 0)[i % 2]]
        np.testing.assert_array_equal(targets["bone_age"], [np.nan if i == 5 else 10.5 * i])
        assert (
            record["sex"] == (b"female", b"male")[i % 2] and record["site"] == (b"A", b"B")[i % 2]
        )
        np.testing.assert_array_equal(record["age_years"], np.nan if i == 7 else 40 + i)
        assert record["unit"] == b"image"
    metadata = metadata_of(built)
    assert metadata["class_names"]["disease"] == ["none", "mild"]
    assert metadata["class_names"]["radiographic"] == ["edema", "effusion"]
    assert metadata["target_kinds"]["bone_age"] == "values"
    assert (metadata["namespace"], metadata["licence"]) == ("clinic", "in house")
    assert (metadata["modalities"], metadata["split_mode"]) == ([modality], "group")
    assert metadata["tasks"] == ["disease", "radiographic", "bone_age"]


def test_tiles_are_one_a_row_several_rows_or_a_folder(tmp_path):
    source = tmp_path / "source"
    lines = ["sample_id,group_id,tile,stage"]
    for i in range(NUM):
        for k in range(1 + i % 3):
            write(source / f"t{i}/{k}.jpg", jpeg(smooth_image(100 * i + k)))
        names = [f"t{i}"] if i % 2 else [f"t{i}/{k}.jpg" for k in range(1 + i % 3)]
        lines += [f"s{i},p{i // 2},{name},{'II' if i % 4 < 2 else 'I'}" for name in names]
    (source / "samples.csv").write_text("\n".join(lines))
    records, _ = built_records(
        source,
        inputs={"pathology": {"file": "tile", "microns_per_pixel": 0.5}},
        targets={"breast": {"kind": "class", "column": "stage"}},
    )
    for i, record in records.items():
        tiles = list(record["pathology"]["tiles"])
        assert tiles == [jpeg(smooth_image(100 * i + k)) for k in range(1 + i % 3)]
        assert record["pathology"]["heights"].tolist() == [40] * len(tiles)
        assert record["pathology"]["microns_per_pixel"] == 0.5
        assert record["targets"]["breast"] == int(i % 4 < 2)
    with pytest.raises(UserError, match="one id in the rows .* differ in more than their tile"):
        path = source / "samples.csv"
        path.write_text(path.read_text().replace("s2,p1,t2/1.jpg", "s2,p5,t2/1.jpg"))
        config = OwnDataConfig(name="x", inputs={"pathology": {"file": "tile"}})
        build(Builder, source, tmp_path / "other", config)


def nifti(path: Path, voxels: np.ndarray) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    nib.save(nib.Nifti1Image(voxels, np.diag([-0.5, -1.5, 2.0, 1.0])), path)


def series(folder: Path, stack: np.ndarray, **changes: Any) -> None:
    """A DICOM series of axial slices whose file names run against their positions."""
    for k, pixels in enumerate(stack):
        tags = {
            "ImagePositionPatient": [-10, -20, 2.5 * k],
            "ImageOrientationPatient": [1, 0, 0, 0, 1, 0],
            "SeriesInstanceUID": "1.2.3",
            **changes,
        }
        save(make_ct(pixels, **tags), folder / f"{len(stack) - k}.dcm")


def test_ct_from_nifti_a_dicom_slice_and_a_dicom_series(tmp_path):
    source = tmp_path / "source"
    expected = {}
    for i in range(NUM):
        stored = np.random.default_rng(i).integers(0, 2000, (3, 4, 5)).astype(np.int16)
        if i % 3 == 0:
            nifti(source / f"v{i}.nii.gz", stored)
            expected[i] = (stored.transpose(2, 1, 0), [2, 1.5, 0.5])
        elif i % 3 == 1:
            save(make_ct(stored[0]), source / f"v{i}.dcm")
            expected[i] = (stored[:1] - 1024, [0, 0.5, 0.75])
        else:
            series(source / f"v{i}", stored)
            expected[i] = (stored - 1024, [2.5, 0.5, 0.75])
    table(source, {"scan": lambda i: f"v{i}" + (".nii.gz", ".dcm", "")[i % 3]})
    records, _ = built_records(source, inputs={"ct": {"file": "scan"}})
    for i, record in records.items():
        np.testing.assert_array_equal(record["ct"]["hu"], expected[i][0])
        assert record["ct"]["spacing_mm"].tolist() == expected[i][1]
        assert record["targets"] == {}


def test_burned_in_text_is_refused_unless_the_build_accepts_it(tmp_path):
    source = tmp_path / "source"
    for i in range(NUM):
        stored = np.random.default_rng(i).integers(0, 2000, (3, 4, 5)).astype(np.int16)
        series(source / f"v{i}", stored, BurnedInAnnotation="YES")
    table(source, {"scan": lambda i: f"v{i}"})
    config = OwnDataConfig(name="x", inputs={"ct": {"file": "scan"}})
    with pytest.raises(UserError, match="s0: has burned-in annotation"):
        build(Builder, source, tmp_path / "a", config)
    with build_options(BuildOptions(accept_burned_in=True)):
        built = build(Builder, source, tmp_path / "b", config)
    assert sum(1 for _ in read(built)) == NUM


def test_private_ids_leave_as_hashes(tmp_path):
    source = tmp_path / "source"
    table(source, {"note": lambda i: f"text {i}"})
    config = OwnDataConfig(name="x", inputs={"text": {"value": "note"}}, private_ids=["group_id"])
    with build_options(BuildOptions(hash_key_file=tmp_path / "key")):
        built = build(Builder, source, tmp_path / "a", config)
    groups = {record["group_id"].decode() for _, record in read(built)}
    assert len(groups) == 6 and not groups & {f"p{i}" for i in range(6)}


def test_mri_volumes_from_nifti_and_dicom(tmp_path):
    source = tmp_path / "source"
    for i in range(NUM):
        stored = np.random.default_rng(i).integers(0, 900, (3, 4, 5)).astype(np.int16)
        if i % 2:
            nifti(source / f"v{i}.nii", stored)
        else:
            series(source / f"v{i}", stored, Modality="MR", RescaleIntercept="0")
    table(source, {"scan": lambda i: f"v{i}.nii" if i % 2 else f"v{i}"})
    records, _ = built_records(
        source, inputs={"mri": {"file": "scan", "form": "volume", "sequence": "T2"}}
    )
    for i, record in records.items():
        stored = np.random.default_rng(i).integers(0, 900, (3, 4, 5)).astype(np.int16)
        expected = stored.transpose(2, 1, 0) if i % 2 else stored
        np.testing.assert_array_equal(record["mri"]["voxels"], expected)
        assert record["mri"]["sequence"] == b"T2"


def test_eeg_trials_of_edf_recordings(tmp_path):
    source = tmp_path / "source"
    names = ["Fz..", "C3..", "Cz..", "C4.."]
    for person in range(6):
        digital = np.random.default_rng(person).integers(-900, 900, (10 * 160, 4))
        write_edf(source / f"p{person}.edf", digital, [], names)
    table(
        source,
        {
            "file": lambda i: f"p{i // 2}.edf",
            "onset": lambda i: 1 + 4 * (i % 2),
            "hand": lambda i: ("left", "right")[i % 2],
        },
    )
    records, built = built_records(
        source,
        inputs={
            "eeg": {
                "file": "file",
                "channel_names": ["C4", "C3"],
                "onset_s": "onset",
                "duration_s": 2.5,
            }
        },
        targets={"motor": {"kind": "class", "column": "hand"}},
    )
    for i, record in records.items():
        start = 160 * (1 + 4 * (i % 2))
        recording = read_edf_uv(source / f"p{i // 2}.edf")
        expected = recording[start : start + 400][:, [3, 1]]  # in the order of the config
        np.testing.assert_allclose(record["eeg"]["signal_uv"], expected, rtol=1e-6, atol=1e-4)
        assert record["eeg"]["rate_hz"] == 160
        assert list(record["eeg"]["channel_names"]) == [b"C4", b"C3"]
        assert (
            record["eeg"]["electrode_xyz"][0, 0] > 0.6 > -0.6 > record["eeg"]["electrode_xyz"][1, 0]
        )
        assert record["targets"]["motor"] == i % 2
    assert metadata_of(built)["class_names"] == {"motor": ["left", "right"]}


def test_eeg_arrays_in_their_unit_and_never_pickles(tmp_path):
    source = tmp_path / "source"
    table(source, {"file": lambda i: f"{i}.npy"})
    signals = [np.random.default_rng(i).normal(0, 1e-5, (50, 2)) for i in range(NUM)]
    for i, signal in enumerate(signals):
        np.save(source / f"{i}.npy", signal)
    given = {"file": "file", "channel_names": ["C3", "C4"], "rate_hz": 25, "unit": "V"}
    records, _ = built_records(source, inputs={"eeg": given})
    for i, record in records.items():
        np.testing.assert_allclose(record["eeg"]["signal_uv"], signals[i] * 1e6, rtol=1e-6)
        assert record["eeg"]["rate_hz"] == 25
    np.save(source / "0.npy", np.array([{}], object), allow_pickle=True)
    with pytest.raises(UserError, match="s0: is no array of numbers"):
        build(Builder, source, tmp_path / "b", OwnDataConfig(name="b", inputs={"eeg": given}))
    del given["unit"]
    with pytest.raises(UserError, match="lacks rate_hz or unit"):
        build(Builder, source, tmp_path / "c", OwnDataConfig(name="c", inputs={"eeg": given}))


@pytest.mark.parametrize("place", ["value", "file", "fasta"])
def test_dna_inline_in_files_and_in_one_fasta(tmp_path, place):
    source = tmp_path / "source"
    words = [word(i, BASES, 30 + i).lower() for i in range(NUM)]
    records = [f">s{i} of a lab\n{w[:20]}\n{w[20:]}\n" for i, w in enumerate(words)]
    for i, text in enumerate(records):
        write(source / f"{i}.fa", text.encode())
    (source / "all.fa").write_text("".join(records))
    cells = {"value": lambda i: words[i], "file": lambda i: f"{i}.fa", "fasta": lambda i: ""}
    table(
        source,
        {"dna": cells[place], "at": lambda i: i if i % 2 else "", "k562": lambda i: 0.5 * i},
    )
    found, _ = built_records(
        source,
        inputs={"genomics": {place: "all.fa" if place == "fasta" else "dna", "site": "at"}},
        targets={"expression": {"kind": "values", "columns": ["k562"]}},
    )
    for i, record in found.items():
        assert record["genomics"]["sequence"].decode() == words[i].upper()
        assert record["genomics"]["site"] == (i if i % 2 else -1)
        assert record["targets"]["expression"].tolist() == [0.5 * i]


def test_proteins_and_their_structures(tmp_path):
    source = tmp_path / "source"
    words = [word(i, RESIDUES, 20 + i) for i in range(NUM)]
    for i, text in enumerate(words):
        lines = chain_lines(text, "B") if i % 2 else []
        (source / f"{i}.pdb").parent.mkdir(exist_ok=True)
        (source / f"{i}.pdb").write_text("\n".join(lines))
    table(
        source,
        {
            "residues": lambda i: words[i] + ("*" if i == 1 else ""),
            "file": lambda i: f"{i}.pdb" if i % 2 else "",
            "chain": lambda i: "B",
        },
    )
    records, built = built_records(
        source,
        inputs={"protein": {"value": "residues"}},
        targets={"structure": {"kind": "coordinates", "file": "file", "chain": "chain"}},
    )
    for i, record in records.items():
        assert record["protein"]["sequence"].decode() == words[i]
        expected = [backbone_points(k) for k in range(20 + i)] if i % 2 else np.zeros((0, 3, 3))
        np.testing.assert_allclose(record["targets"]["structure"], expected, atol=1e-3)
    assert metadata_of(built)["target_kinds"] == {"structure": "coordinates"}


def cells() -> scipy.sparse.csr_matrix:
    values = np.random.default_rng(0).poisson(0.8, (NUM, 6))
    values[:, 0] += 1
    values[:, 1] = np.arange(NUM)  # no two cells are equal
    return scipy.sparse.csr_matrix(values.astype(np.float32))


def write_text_column(group: Any, name: str, values: list[str]) -> None:
    group.create_dataset(name, data=values, dtype=h5py.string_dtype())


def write_h5ad(path: Path, layout: str) -> None:
    """An AnnData file of version 0.8 on, written by hand; its X is scaled in layout "layer"."""
    matrix = cells()
    path.parent.mkdir(parents=True, exist_ok=True)
    with h5py.File(path, "w") as file:
        place = {"layer": "layers/counts", "raw": "raw/X"}.get(layout, "X")
        if layout == "dense":
            file["X"] = matrix.toarray()
        else:
            stored: Any = matrix.tocsc() if layout == "csc" else matrix
            group = file.create_group(place)
            group.attrs["encoding-type"] = "csc_matrix" if layout == "csc" else "csr_matrix"
            group.attrs["shape"] = stored.shape
            for name in ("data", "indices", "indptr"):
                group[name] = getattr(stored, name)
        for frame in ("obs", "var", "raw/var"):
            group = file.require_group(frame)
            group.attrs["_index"] = "_index"
            names = [f"s{i}" for i in range(NUM)] if frame == "obs" else [f"G{g}" for g in range(6)]
            write_text_column(group, "_index", names)
        write_text_column(file["obs"], "donor", [f"p{i // 2}" for i in range(NUM)])
        kind: Any = file.create_group("obs/Type")
        kind["codes"] = np.array([i % 2 if i else -1 for i in range(NUM)], np.int8)
        write_text_column(kind, "categories", ["T cell", "B cell"])
        file["obs/age"] = np.array([30.0 + i for i in range(NUM)])


def check_cells(records: dict[int, Any]) -> None:
    dense = cells().toarray()
    for i, record in records.items():
        values = dict(zip(record["scrna"]["gene_keys"], record["scrna"]["values"], strict=True))
        assert values == {gene_key(f"G{g}"): v for g, v in enumerate(dense[i]) if v}
        assert record["scrna"]["unit"] == b"counts"
    assert sorted(records) == list(range(NUM))


@pytest.mark.parametrize("layout", ["csr", "csc", "dense", "layer", "raw"])
def test_cells_of_an_h5ad_file_whose_obs_is_the_table(tmp_path, layout):
    source = tmp_path / "source"
    write_h5ad(source / "cells.h5ad", layout)
    given = {"h5ad": "cells.h5ad", "unit": "counts"}
    given |= (
        {"layer": {"layer": "counts", "raw": "raw.X"}[layout]} if layout in ("layer", "raw") else {}
    )
    records, built = built_records(
        source,
        table="",
        sample_id="",
        group_id="donor",
        inputs={"scrna": given},
        targets={"cell_type": {"kind": "class", "column": "type"}},
        age_years="AGE",
    )
    check_cells(records)
    for i, record in records.items():
        assert record["targets"]["cell_type"] == (-1 if i == 0 else 1 - i % 2)
        assert record["age_years"] == 30 + i
    assert metadata_of(built)["class_names"] == {"cell_type": ["B cell", "T cell"]}


def test_cells_of_a_published_file_against_another_reader(shared_data):
    path = shared_data / "scanpy_pbmc68k_reduced" / "10x_pbmc68k_reduced.h5ad"
    file, other = H5adFile(path, "raw.X"), read_cells(path, "bulk_labels")
    assert file.names == other.barcodes
    assert file.column("Bulk_Labels") == list(other.labels)
    for row in range(0, len(file.names), 37):
        keys, values = expressed(*file.cell(row), "log1p")
        columns, levels = other.cell(row)
        expected = {gene_key(other.genes[c]): v for c, v in zip(columns, levels, strict=True)}
        assert dict(zip(keys, values, strict=True)) == pytest.approx(expected, rel=1e-6)


def test_cells_of_a_matrix_folder_with_a_table(tmp_path):
    source = tmp_path / "source"
    table(source, {})
    coo = cells().T.tocoo()
    lines = ["%%MatrixMarket matrix coordinate integer general", f"6 {NUM} {coo.nnz}"]
    lines += [
        f"{r + 1} {c + 1} {int(v)}" for r, c, v in zip(coo.row, coo.col, coo.data, strict=True)
    ]
    write(source / "m/matrix.mtx", "\n".join(lines).encode())
    write(source / "m/features.tsv", "".join(f"ENSG{g}\tG{g}\tx\n" for g in range(6)).encode())
    write(source / "m/barcodes.tsv", "".join(f"s{i}\n" for i in range(NUM)).encode())
    records, _ = built_records(source, inputs={"scrna": {"matrix": "m", "unit": "counts"}})
    check_cells(records)


def test_texts_in_cells_and_files(tmp_path):
    source = tmp_path / "source"
    table(source, {"note": lambda i: f"{i}.txt", "label": lambda i: "ab"[i % 2]})
    for i in range(NUM):
        write(source / f"{i}.txt", f"Befund {i}: ödematös.\n".encode())
    records, _ = built_records(
        source,
        inputs={"text": {"file": "note"}},
        targets={"disease": {"kind": "class", "column": "label"}},
    )
    assert records[4]["text"]["text"].decode() == "Befund 4: ödematös."


def test_questions_about_pictures_and_an_absent_modality(tmp_path):
    source = tmp_path / "source"
    for person in range(6):
        write(source / f"{person}.jpg", jpeg(smooth_image(person)))
    table(
        source,
        {
            "film": lambda i: "" if i == 4 else f"{i // 2}.jpg",
            "q": lambda i: f"Is it {'ab'[i % 2]}?",
            "a": lambda i: "" if i == 2 else "yes" if i % 2 else "a mass",
            "options": lambda i: "yes| no" if i % 2 else "",
        },
    )
    records, built = built_records(
        source,
        inputs={"xray": {"file": "film"}, "text": {"value": "q"}},
        answer={"text": "a", "candidates": "options"},
    )
    for i, record in records.items():
        assert record["text"]["text"].decode() == f"Is it {'ab'[i % 2]}?"
        assert record["answer"]["text"].decode() == ("" if i == 2 else ("a mass", "yes")[i % 2])
        assert list(record["answer"]["candidates"]) == ([b"yes", b"no"] if i % 2 else [])
        assert bool(record["xray"]["encoded"]) == (i != 4)
    assert metadata_of(built)["target_kinds"] == {"vqa": "answer"}
    assert metadata_of(built)["tasks"] == ["vqa"]


def pictures(source: Path, **columns: Any) -> dict[str, Any]:
    for i in range(NUM):
        write(source / f"{i}.jpg", jpeg(smooth_image(i)))
    table(source, {"file": lambda i: f"{i}.jpg", "label": lambda i: "ab"[i % 2], **columns})
    return {
        "name": "x",
        "inputs": {"xray": {"file": "file"}},
        "targets": {"disease": {"kind": "class", "column": "label"}},
    }


def test_a_split_of_ones_own_and_a_leak_in_it(tmp_path):
    where = ["train", "train", "train", "val", "val", "test"]
    fields = pictures(tmp_path / "source", fold=lambda i: where[i // 2])
    built = build(
        Builder, tmp_path / "source", tmp_path / "a", OwnDataConfig(**fields, split="fold")
    )
    expected = {"val": "validation"}
    for split, record in read(built):
        home = where[int(record["sample_id"][1:]) // 2]
        assert split == expected.get(home, home)
    assert metadata_of(built)["split_mode"] == "official"
    path = tmp_path / "source/samples.csv"
    path.write_text(path.read_text().replace("s10,p5", "s10,p0"))
    with pytest.raises(UserError, match="lie in more than one split: p0 in test and train"):
        build(Builder, tmp_path / "source", tmp_path / "b", OwnDataConfig(**fields, split="fold"))


def test_equal_pictures_of_two_people_end_the_build_or_unite_them(tmp_path):
    source = tmp_path / "source"
    fields = pictures(source)
    for i in range(2, NUM):
        write(source / f"{i}.jpg", jpeg(smooth_image(0 if i % 2 else i)))
    with pytest.raises(UserError, match="duplicate.* across splits"):
        build(Builder, source, tmp_path / "a", OwnDataConfig(**fields))
    # All six people share a picture: one group is left, and nothing to split.
    with pytest.raises(UserError, match="1 group"):
        build(
            Builder, source, tmp_path / "b", OwnDataConfig(**fields, on_duplicates="merge_groups")
        )


def test_broken_files_are_put_aside(tmp_path, monkeypatch):
    source = tmp_path / "source"
    fields = pictures(source)
    write(source / "3.jpg", b"\xff\xd8no picture")
    with pytest.raises(
        UserError, match="1 of 12 records cannot be read .*s3: is no JPEG or PNG file"
    ):
        build(Builder, source, tmp_path / "a", OwnDataConfig(**fields))
    monkeypatch.setattr(Builder, "MAX_BAD_RATE", 0.2)
    built = build(Builder, source, tmp_path / "b", OwnDataConfig(**fields))
    assert metadata_of(built)["quarantine"]["count"] == 1
    assert sum(1 for _ in read(built)) == NUM - 1


@pytest.mark.parametrize(
    ("old", "new", "match"),
    [
        ("label", "class", "no column 'label'; it has: sample_id, group_id, file, class"),
        ("0.jpg", "../0.jpg", "names a path outside of the folder: '../0.jpg'"),
        (",p0,", ",,", "row 1: 'group_id' is empty"),
        ("s1,", "s0,", "has one id in the rows 1, 2; accepted: each once"),
    ],
)
def test_mistakes_in_the_table(tmp_path, old, new, match):
    fields = pictures(tmp_path / "source")
    path = tmp_path / "source/samples.csv"
    path.write_text(path.read_text().replace(old, new, 1))
    with pytest.raises(UserError, match=match):
        build(Builder, tmp_path / "source", tmp_path / "data", OwnDataConfig(**fields))


CLASS = {"kind": "class", "column": "c"}


@pytest.mark.parametrize(
    ("fields", "match"),
    [
        ({}, "has no inputs"),
        ({"name": "a/b"}, "has the name 'a/b'"),
        ({"inputs": {"xrays": {"file": "f"}}}, "'xrays' .did you mean 'xray'"),
        ({"inputs": {"xray": {"path": "f"}}}, "a key of inputs.xray is 'path'"),
        ({"inputs": {"xray": {}}}, "exactly one of file"),
        (
            {"inputs": {"genomics": {"value": "a", "fasta": "b"}}},
            "exactly one of value, file, fasta",
        ),
        ({"inputs": {"scrna": {"h5ad": "a"}}}, "unit is ''; accepted: counts, log1p, scaled"),
        ({"inputs": {"eeg": {"file": "a"}}}, "has no channel_names"),
        ({"inputs": {"text": {"value": 3}}}, "inputs.text.value is 3; accepted: a text"),
        ({"target": {}}, "'target' .did you mean 'targets'"),
        ({"targets": {"disease": {"kind": "clas"}}}, "'clas' .did you mean 'class'"),
        ({"targets": {"disease": {"kind": "class"}}}, "has no 'column'"),
        ({"targets": {"disease": {"kind": "labels", "columns": "a"}}}, "accepted: a list of names"),
        ({"targets": {"x": {"kind": "coordinates", "file": "f"}}}, "need inputs.protein"),
        (
            {"answer": {"text": "a"}, "inputs": {"xray": {"file": "f"}}},
            "inputs.text for the question",
        ),
        ({"on_duplicates": "keep"}, "accepted: fail, merge_groups"),
        ({"table": ""}, "has no table"),
        ({"card": {"license": "x"}}, "'license' .did you mean 'licence'"),
    ],
)
def test_mistakes_in_a_config(fields, match):
    given = {
        "name": "x",
        **({} if fields == {} else {"inputs": {"text": {"value": "t"}}}),
        **fields,
    }
    with pytest.raises(UserError, match=match):
        OwnDataConfig(**given)


@pytest.mark.parametrize("suffix", [".yaml", ".json"])
def test_a_config_in_a_file(tmp_path, suffix):
    fields = pictures(tmp_path / "source")
    path = tmp_path / f"mine{suffix}"
    text = json.dumps(fields)
    if suffix == ".yaml":
        text = (
            "name: x\ninputs:\n  xray: {file: file}\n"
            "targets:\n  disease: {kind: class, column: label, names: [a, b]}\n"
        )
    path.write_text(text)
    assert pick_config("own_data", Builder, str(path)) == str(path)
    built = build(Builder, tmp_path / "source", tmp_path / "data", str(path))
    assert Path(built.data_dir).parent.name == "x"
    assert metadata_of(built)["class_names"] == {"disease": ["a", "b"]}
    with pytest.raises(UserError, match="cannot be read: No such file"):
        Builder.get_builder_config(str(tmp_path / "none.yaml"))
