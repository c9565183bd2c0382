"""pbmc68k: cells against scipy.sparse, three generations of h5ad, damaged and refused files."""

from __future__ import annotations

import collections
import hashlib
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import scipy.sparse
import tensorflow_datasets as tfds

from multimed_jax.types import UserError
from tfds_builders.pbmc68k.h5ad_cells import read_cells
from tfds_builders.pbmc68k.pbmc68k_dataset_builder import FILE_NAME, Builder

h5py = pytest.importorskip("h5py", reason="reads h5ad (extra `formats`)")

LABELS = ("CD19+ B", "CD34+", "Dendritic")
SYMBOLS = [f"GENE{i}" for i in range(11)] + ["Cd3e"]
NUM_CELLS = 40
STRING = h5py.string_dtype()


def draw_matrix() -> scipy.sparse.csr_matrix:
    """Log-normalised levels of 40 cells, with one explicit zero and unsorted columns."""
    rng = np.random.default_rng(5)
    counts = rng.poisson(0.8, (NUM_CELLS, len(SYMBOLS)))
    counts[:, 0] += 1  # every cell expresses a gene
    matrix = scipy.sparse.csr_matrix(np.log1p(counts * 1.7).astype(np.float32))
    matrix.data[1] = 0.0
    for row in range(NUM_CELLS):
        part = slice(matrix.indptr[row], matrix.indptr[row + 1])
        matrix.indices[part] = matrix.indices[part][::-1].copy()
        matrix.data[part] = matrix.data[part][::-1].copy()
    return matrix


def barcodes() -> list[str]:
    return [f"{'ACGT'[i % 4]}{'ACGT'[i // 4 % 4]}{'ACGT'[i // 16]}T-{i % 4 + 1}" for i in range(40)]


def codes() -> np.ndarray:
    return np.arange(NUM_CELLS, dtype=np.int8) % 3


def put_csr(file: Any, name: str, matrix: Any, encoding: str | None = "csr_matrix") -> None:
    group = file.create_group(name)
    if encoding is None:
        group.attrs["h5sparse_format"] = "csr"
    else:
        group.attrs["encoding-type"] = encoding
    for part in ("data", "indices", "indptr"):
        group[part] = getattr(matrix, part)


def write_h5ad(path: Path, matrix: Any, encoding: str = "0.8") -> Path:
    """The layout of anndata "0.8" (today), "0.7" or "0.6" with three classes."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with h5py.File(path, "w") as file:
        file["X"] = -np.ones((NUM_CELLS, len(SYMBOLS)), np.float32)  # scaled: never to be read
        if encoding == "0.6":
            put_csr(file, "raw.X", matrix, None)
            file["raw.var"] = np.array(
                [(s.encode(), 1) for s in SYMBOLS], [("index", "S8"), ("n", "i4")]
            )
            rows = list(zip([b.encode() for b in barcodes()], codes(), strict=True))
            file["obs"] = np.array(rows, [("index", "S8"), ("bulk_labels", "i1")])
            file.create_dataset("uns/bulk_labels_categories", data=list(LABELS), dtype=STRING)
            return path
        put_csr(file, "raw/X", matrix)
        for frame, column, names in (("raw/var", "index", SYMBOLS), ("obs", "_index", barcodes())):
            group = file.create_group(frame)
            group.attrs["_index"] = column
            group.create_dataset(column, data=names, dtype=STRING)
        if encoding == "0.7":
            file["obs/bulk_labels"] = codes()
            file.create_dataset("obs/__categories/bulk_labels", data=list(LABELS), dtype=STRING)
        else:
            file["obs/bulk_labels/codes"] = codes()
            file.create_dataset("obs/bulk_labels/categories", data=list(LABELS), dtype=STRING)
    return path


def build(manual_dir: Path, data_dir: Path) -> Any:
    builder = Builder(data_dir=data_dir)
    builder.download_and_prepare(
        download_config=tfds.download.DownloadConfig(manual_dir=manual_dir)
    )
    return builder


def by_barcode(builder: Any) -> dict[str, tuple[str, Any]]:
    return {
        record["sample_id"].decode(): (split, record)
        for split in ("train", "validation", "test")
        for record in builder.as_data_source(split)
    }


def levels(record: Any) -> dict[int, float]:
    keys, values = record["scrna"]["gene_keys"], record["scrna"]["values"]
    assert keys.dtype == np.int32 and values.dtype == np.float32 and len(set(keys)) == len(keys)
    return dict(zip(keys.tolist(), values.tolist(), strict=True))


def key_of(symbol: str) -> int:
    return int(hashlib.sha256(symbol.upper().encode()).hexdigest()[:8], 16) % 2**31


def expected_levels(matrix: Any, row: int, symbols: list[str]) -> dict[int, float]:
    dense = matrix[row].toarray()[0]
    return {key_of(symbols[g]): float(dense[g]) for g in np.flatnonzero(dense)}


@pytest.mark.parametrize("encoding", ["0.8", "0.7", "0.6"])
def test_cells_equal_scipy_in_every_encoding(tmp_path: Path, encoding: str) -> None:
    matrix = draw_matrix()
    write_h5ad(tmp_path / "manual" / FILE_NAME, matrix, encoding)
    builder = build(tmp_path / "manual", tmp_path / "data")
    found = by_barcode(builder)
    assert len(found) == NUM_CELLS
    names = builder.info.metadata["class_names"]["cell_type"]
    for row, barcode in enumerate(barcodes()):
        _, record = found[barcode]
        assert levels(record) == expected_levels(matrix, row, SYMBOLS)
        assert names[int(record["targets"]["cell_type"])] == LABELS[row % 3]
        assert record["cell_type"].decode() == LABELS[row % 3]
        assert record["scrna"]["unit"] == b"log1p"
    assert builder.info.metadata["gene_symbols"] == SYMBOLS
    present = collections.Counter(
        key
        for split, record in by_barcode(builder).values()
        if split == "train"
        for key in record["scrna"]["gene_keys"].tolist()
    )
    ranked = builder.info.metadata["highly_variable"]
    assert sorted(ranked) == sorted(key for key, cells in present.items() if cells >= 3)


def test_a_well_stays_in_one_split(tmp_path: Path) -> None:
    write_h5ad(tmp_path / "manual" / FILE_NAME, draw_matrix())
    builder = build(tmp_path / "manual", tmp_path / "data")
    where = collections.defaultdict(set)
    for barcode, (split, record) in by_barcode(builder).items():
        assert record["group_id"].decode() == f"well{barcode[-1]}"
        where[barcode[-1]].add(split)
    assert len(where) == 4 and all(len(splits) == 1 for splits in where.values())
    assert builder.info.metadata["split_mode"] == "group"


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        (lambda m, at: m.data.__setitem__(at, -0.5), "negative value -0.5"),
        (lambda m, at: m.data.__setitem__(at, np.nan), "not finite"),
        (lambda m, at: m.data.__setitem__(at, np.inf), "not finite"),
        (lambda m, at: m.data.__setitem__(at, 812.5), "too large for log1p"),
        (lambda m, at: m.indices.__setitem__(at, 99), "beyond the 12"),
        (lambda m, at: m.indices.__setitem__(at, m.indices[at + 1]), "twice"),
    ],
)
def test_bad_cells_are_quarantined_alone(tmp_path: Path, change: Any, reason: str) -> None:
    matrix = draw_matrix()
    change(matrix, matrix.indptr[7])
    write_h5ad(tmp_path / "manual" / FILE_NAME, matrix)
    builder = build(tmp_path / "manual", tmp_path / "data")
    quarantine = builder.info.metadata["quarantine"]
    assert quarantine["count"] == 1 and quarantine["items"][0]["sample_id"] == barcodes()[7]
    assert reason in quarantine["items"][0]["reason"]
    assert set(by_barcode(builder)) == set(barcodes()) - {barcodes()[7]}


def test_many_bad_cells_fail_the_build(tmp_path: Path) -> None:
    matrix = draw_matrix()
    matrix.data[matrix.indptr[:4]] = np.nan
    write_h5ad(tmp_path / "manual" / FILE_NAME, matrix)
    with pytest.raises(UserError, match=r"4 of 40 records cannot be read \(10\.0%"):
        build(tmp_path / "manual", tmp_path / "data")


def test_a_cell_without_label_has_no_target(tmp_path: Path) -> None:
    path = write_h5ad(tmp_path / "manual" / FILE_NAME, draw_matrix())
    with h5py.File(path, "r+") as file:
        file["obs/bulk_labels/codes"][3] = -1
    _, record = by_barcode(build(tmp_path / "manual", tmp_path / "data"))[barcodes()[3]]
    assert int(record["targets"]["cell_type"]) == -1 and record["cell_type"] == b""


def drop_raw(file: Any) -> None:
    del file["raw"]


def drop_labels(file: Any) -> None:
    del file["obs/bulk_labels"]


def make_counts(file: Any) -> None:
    file["raw/X/data"][...] = np.rint(file["raw/X/data"][...])


def make_columns(file: Any) -> None:
    file["raw/X"].attrs["encoding-type"] = "csc_matrix"


def drop_categories(file: Any) -> None:
    old = file["obs/bulk_labels/codes"][...]
    del file["obs/bulk_labels"]
    file["obs/bulk_labels"] = old


def fall(file: Any) -> None:
    file["raw/X/indptr"][5] = 0


def lose_rows(file: Any) -> None:
    old = file["raw/X/indptr"][...]
    del file["raw/X/indptr"]
    file["raw/X/indptr"] = old[:-3]


def repeat_symbol(file: Any) -> None:
    file["raw/var/index"][1] = "gene0"


@pytest.mark.parametrize(
    ("change", "sentence"),
    [
        (drop_raw, r"has only X, whose values may be scaled; accepted: raw\.X"),
        (drop_labels, "no column 'bulk_labels'"),
        (make_counts, "holds whole numbers; accepted: log1p"),
        (make_columns, "stored as 'csc_matrix'; accepted: csr_matrix"),
        (drop_categories, "no categorical column"),
        (fall, "its row pointers fall"),
        (lose_rows, "40 barcodes, 40 labels and 37 rows"),
        (repeat_symbol, "'GENE0' and 'gene0'"),
    ],
)
def test_unusable_files_end_in_one_sentence(tmp_path: Path, change: Any, sentence: str) -> None:
    path = write_h5ad(tmp_path / "manual" / FILE_NAME, draw_matrix())
    with h5py.File(path, "r+") as file:
        change(file)
    with pytest.raises(UserError, match=sentence) as caught:
        build(tmp_path / "manual", tmp_path / "data")
    assert FILE_NAME in str(caught.value) and "\n" not in str(caught.value)
    assert not list((tmp_path / "data").rglob("dataset_info.json"))


@pytest.mark.parametrize("share", [0.0, 0.3, 0.9])
def test_truncated_files_end_in_one_sentence(tmp_path: Path, share: float) -> None:
    path = write_h5ad(tmp_path / "manual" / FILE_NAME, draw_matrix())
    whole = path.read_bytes()
    path.write_bytes(whole[: int(share * len(whole))])
    with pytest.raises(UserError, match="is truncated or damaged") as caught:
        build(tmp_path / "manual", tmp_path / "data")
    assert FILE_NAME in str(caught.value)


def test_an_object_that_is_no_string_is_not_read(tmp_path: Path) -> None:
    path = write_h5ad(tmp_path / FILE_NAME, draw_matrix())
    with h5py.File(path, "r+") as file:
        del file["raw/X/data"]
        file.create_dataset("raw/X/data", data=["x"] * 3, dtype=STRING)
    with pytest.raises(UserError, match="not numbers"):
        read_cells(path, "bulk_labels")


def test_a_missing_file_or_reader_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "manual").mkdir()
    with pytest.raises(UserError, match=f"{FILE_NAME} does not exist"):
        build(tmp_path / "manual", tmp_path / "data")
    monkeypatch.setitem(sys.modules, "h5py", None)
    with pytest.raises(UserError, match=r"pip install multimed-jax\[formats\]"):
        build(tmp_path / "manual", tmp_path / "data")


def test_staged_cells(shared_data: Path, tmp_path: Path) -> None:
    path = shared_data / "scanpy_pbmc68k_reduced" / FILE_NAME
    if not path.is_file():
        pytest.skip(f"{path.parent.name} is not among the small real sources")
    builder = build(path.parent, tmp_path)
    found = by_barcode(builder)
    with h5py.File(path) as file:
        raw = file["raw/X"]
        parts = tuple(raw[name][...] for name in ("data", "indices", "indptr"))
        matrix = scipy.sparse.csr_matrix(parts, shape=tuple(raw.attrs["shape"]))
        symbols = file["raw/var/index"].asstr()[...].tolist()
        names = file["obs/index"].asstr()[...].tolist()
        categories = file["obs/bulk_labels/categories"].asstr()[...]
        labels = categories[file["obs/bulk_labels/codes"][...]].tolist()
    assert len(found) == 372
    for row, name in enumerate(names):
        _, record = found[name]
        assert levels(record) == expected_levels(matrix, row, symbols)
        assert record["cell_type"].decode() == labels[row]
    counts = collections.Counter(record["cell_type"].decode() for _, record in found.values())
    assert counts == {
        "Dendritic": 133,
        "CD14+ Monocyte": 63,
        "CD19+ B": 52,
        "CD8+ Cytotoxic T": 33,
        "CD4+/CD25 T Reg": 32,
        "CD8+/CD45RA+ Naive Cytotoxic": 24,
        "CD56+ NK": 14,
        "CD4+/CD45RO+ Memory": 12,
        "CD34+": 6,
        "CD4+/CD45RA+/CD25- Naive T": 3,
    }
