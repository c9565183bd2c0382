"""hcl: clusters against scipy.io.mmread, rare types, groups, damaged files, the real subset."""

from __future__ import annotations

import collections
import csv
import gzip
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import scipy.io
import scipy.sparse
import tensorflow_datasets as tfds

from multimed_jax.modalities.scrna import gene_key
from multimed_jax.types import UserError
from tests.tfds_builders.built import metadata_of
from tfds_builders.core.splits import SPLITS
from tfds_builders.hcl.hcl_dataset_builder import Builder

GENES = [f"GENE{i}" for i in range(9)] + ["gene3"]
NUM_CLUSTERS = 48


def rows() -> list[dict[str, str]]:
    """Twelve samples of six organs with four clusters each; `Rare` has two, `Unknown` twelve."""
    types = ("Macrophage", "T cell", "Unknown", "Neuron")
    found = []
    for i in range(NUM_CLUSTERS):
        kind = "Rare" if i in (0, 40) else types[i % 4]
        sample = f"Adult{'ABCDEF'[i // 8]}{i // 4 % 2 + 1}"
        organ = sample[:-1]
        row = {"cluster": f"{kind} {i}_{sample}", "cell_type": kind, "organ_stage": organ}
        found.append(row | {"sample": sample, "donor_no": sample[-1]})
    return found


def draw_matrix() -> np.ndarray:
    rng = np.random.default_rng(2)
    values = np.round(rng.gamma(0.6, 30, (len(GENES), NUM_CLUSTERS)), 4)
    values[rng.random(values.shape) < 0.4] = 0
    values[0] += 1
    return values


def write_source(folder: Path, matrix: np.ndarray, packed: bool = True) -> Path:
    folder.mkdir(parents=True)
    scipy.io.mmwrite(folder / "matrix.mtx", scipy.sparse.coo_matrix(matrix))
    (folder / "genes.tsv").write_text("".join(f"{name}\n" for name in GENES))
    (folder / "barcodes.tsv").write_text("".join(f"{row['cluster']}\n" for row in rows()))
    if packed:
        for name in ("matrix.mtx", "genes.tsv", "barcodes.tsv"):
            content = (folder / name).read_bytes()
            (folder / f"{name}.gz").write_bytes(gzip.compress(content))
            (folder / name).unlink()
    with (folder / "cluster_annotation.csv").open("w", newline="") as file:
        writer = csv.DictWriter(file, list(rows()[0]))
        writer.writeheader()
        writer.writerows(rows())
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


def expected_levels(column: np.ndarray, symbols: list[str]) -> dict[int, float]:
    sums: dict[int, float] = collections.defaultdict(float)
    for symbol, value in zip(symbols, column, strict=True):
        sums[gene_key(symbol)] += float(value)
    return {key: value for key, value in sums.items() if value > 0}


def check_cluster(record: Any, column: np.ndarray, symbols: list[str]) -> None:
    expected = expected_levels(column, symbols)
    keys = record["scrna"]["gene_keys"].tolist()
    assert keys == sorted(expected)
    levels = [expected[key] for key in keys]
    np.testing.assert_allclose(record["scrna"]["values"], levels, rtol=1e-6)
    assert record["scrna"]["unit"] == b"counts"


@pytest.mark.parametrize("packed", [True, False])
def test_clusters_and_targets(tmp_path: Path, packed: bool) -> None:
    matrix = draw_matrix()
    built = build("samples", write_source(tmp_path / "in", matrix, packed), tmp_path / "out")
    found = read(built)
    names = metadata_of(built)["class_names"]["cell_type"]
    assert names == ["Macrophage", "Neuron", "T cell"]
    assert len(found) == NUM_CLUSTERS
    for i, row in enumerate(rows()):
        _, record = found[row["cluster"]]
        check_cluster(record, matrix[:, i], GENES)
        kind = row["cell_type"]
        assert record["cell_type"].decode() == kind
        assert record["targets"]["cell_type"] == (names.index(kind) if kind in names else -1)
        assert record["organ"].decode() == row["organ_stage"]
    assert metadata_of(built)["gene_symbols"] == GENES


@pytest.mark.parametrize(("config", "column"), [("samples", "sample"), ("organs", "organ_stage")])
def test_groups_stay_together(tmp_path: Path, config: str, column: str) -> None:
    found = read(build(config, write_source(tmp_path / "in", draw_matrix()), tmp_path / "out"))
    homes = collections.defaultdict(set)
    for row in rows():
        split, record = found[row["cluster"]]
        assert record["group_id"].decode() == row[column]
        homes[row[column]].add(split)
    assert all(len(splits) == 1 for splits in homes.values())
    assert set().union(*homes.values()) == set(SPLITS)


def test_the_ranking_sees_the_training_split_alone(tmp_path: Path) -> None:
    matrix = draw_matrix()
    built = build("samples", write_source(tmp_path / "in", matrix), tmp_path / "out")
    train = [i for i, row in enumerate(rows()) if read(built)[row["cluster"]][0] == "train"]
    present = collections.Counter(
        key for i in train for key in expected_levels(matrix[:, i], GENES)
    )
    ranked = metadata_of(built)["highly_variable"]
    assert sorted(ranked) == sorted(key for key, number in present.items() if number >= 3)


@pytest.mark.parametrize(("value", "reason"), [(-3.0, "negative"), (np.nan, "not finite")])
def test_bad_clusters_are_quarantined_alone(tmp_path: Path, value: float, reason: str) -> None:
    matrix = draw_matrix()
    matrix[4, 5] = value
    built = build("samples", write_source(tmp_path / "in", matrix), tmp_path / "out")
    quarantine = metadata_of(built)["quarantine"]
    assert quarantine["count"] == 1 and reason in quarantine["items"][0]["reason"]
    assert set(read(built)) == {row["cluster"] for row in rows()} - {rows()[5]["cluster"]}


def change(path: Path, edit: Any) -> None:
    path.write_text(edit(path.read_text()))


@pytest.mark.parametrize(
    ("name", "edit", "sentence"),
    [
        ("matrix.mtx", lambda t: t[1:], "no Matrix Market file"),
        ("matrix.mtx", lambda t: t[: len(t) // 2], "damaged|its size line says"),
        ("matrix.mtx", lambda t: t.replace("\n10 48", "\n9 48"), "outside its 9 x 48"),
        ("matrix.mtx", lambda t: t + t.splitlines()[-1] + "\n", "its size line says"),
        ("genes.tsv", lambda t: t + "ONE\n", "is 10 x 48; genes and barcodes name 11 x 48"),
        ("genes.tsv", lambda t: "", "is empty"),
        ("cluster_annotation.csv", lambda t: t.replace("sample", "piece"), "no column 'sample'"),
    ],
)
def test_unusable_files(tmp_path: Path, name: str, edit: Any, sentence: str) -> None:
    folder = write_source(tmp_path / "in", draw_matrix(), packed=False)
    change(folder / name, edit)
    with pytest.raises(UserError, match=sentence) as caught:
        build("samples", folder, tmp_path / "out")
    assert name in str(caught.value) or "genes" in name
    assert "\n" not in str(caught.value)


def test_truncated_and_missing_files(tmp_path: Path) -> None:
    folder = write_source(tmp_path / "in", draw_matrix())
    whole = (folder / "matrix.mtx.gz").read_bytes()
    (folder / "matrix.mtx.gz").write_bytes(whole[: len(whole) // 2])
    with pytest.raises(UserError, match="truncated or damaged"):
        build("samples", folder, tmp_path / "out")
    (folder / "matrix.mtx.gz").unlink()
    with pytest.raises(UserError, match=r"has no matrix\.mtx or matrix\.mtx\.gz"):
        build("samples", folder, tmp_path / "out")


def test_real_clusters(shared_data: Path, tmp_path: Path) -> None:
    folder = shared_data / "hcl_organ_celltype_reference"
    built = build("organs", folder, tmp_path)
    found = read(built)
    stored: Any = scipy.io.mmread(folder / "matrix.mtx.gz")
    matrix = stored.toarray()
    symbols = gzip.decompress((folder / "genes.tsv.gz").read_bytes()).decode().split("\n")[:-1]
    names = gzip.decompress((folder / "barcodes.tsv.gz").read_bytes()).decode().split("\n")[:-1]
    assert matrix.shape == (len(symbols), len(names)) == (5355, 720)
    with (folder / "cluster_annotation.csv").open(newline="") as lines:
        table = {row["cluster"]: row for row in csv.DictReader(lines)}
    for i, name in enumerate(names):
        _, record = found[name]
        if i % 20 == 0:
            check_cluster(record, matrix[:, i], symbols)
        assert record["cell_type"].decode() == table[name]["cell_type"]
        assert record["organ"].decode() == table[name]["organ_stage"]
    counts = collections.Counter(r["cell_type"].decode() for _, r in found.values())
    assert len(found) == 720 and len(counts) == 208
    assert (counts["Fibroblast"], counts["Neutrophil"], counts["Erythrocyte"]) == (47, 42, 23)
    assert len({r["organ"] for _, r in found.values()}) == 45
    assert len(metadata_of(built)["class_names"]["cell_type"]) == 16
