"""single_cell_expression_atlas: cells joined with the design, donors kept whole, mistakes."""

from __future__ import annotations

import gzip
from pathlib import Path

import numpy as np
import pytest

from multimed_jax.modalities.scrna import gene_key
from multimed_jax.types import UserError
from tests.tfds_builders.built import build, metadata_of, read
from tfds_builders.single_cell_expression_atlas.single_cell_expression_atlas_dataset_builder import (  # noqa: E501
    AtlasConfig,
    Builder,
)

NUM_CELLS, NUM_GENES = 60, 7
ACC = "E-TEST-1"
COLUMNS = (
    "Assay",
    "Sample Characteristic[organism part]",
    "Sample Characteristic Ontology Term[organism part]",
    "Sample Characteristic[individual]",
    "Sample Characteristic[sex]",
    "Factor Value[inferred cell type - authors labels]",
    "Factor Value[inferred cell type - ontology labels]",
)


def counts() -> np.ndarray:
    """[genes, cells]."""
    values = np.random.default_rng(3).poisson(2.0, (NUM_GENES, NUM_CELLS))
    values[0] = np.arange(NUM_CELLS) + 1
    return values


def kind(i: int) -> str:
    return "" if i == 7 else "rare cell" if i < 3 else ("T cell", "B cell")[i % 2]


def source(folder: Path, packed: bool = False) -> Path:
    folder.mkdir(parents=True)
    values = counts()
    places = np.argwhere(values)
    lines = [
        "%%MatrixMarket matrix coordinate real general",
        f"{NUM_GENES} {NUM_CELLS} {len(places)}",
    ]
    lines += [f"{g + 1} {c + 1} {values[g, c]}" for g, c in places]
    stem = f"{ACC}.aggregated_filtered_counts.mtx"
    parts = {
        stem: lines,
        f"{stem}_rows": [f"ENSG{g}\tENSG{g}" for g in range(NUM_GENES)],
        f"{stem}_cols": [f"SAMEA{i % 9}-AC{i}" for i in range(NUM_CELLS)],
    }
    for name, rows in parts.items():
        content = "\n".join(rows).encode() + b"\n"
        path = folder / (f"{name}.gz" if packed else name)
        path.write_bytes(gzip.compress(content) if packed else content)
    design = ["\t".join(COLUMNS)]
    for i in range(NUM_CELLS):
        if i != 11:  # the design lacks one cell
            row = [f"SAMEA{i % 9}-AC{i}", ("lung", "blood")[i % 2], "UBERON", f"donor {i // 10}"]
            design.append("\t".join([*row, ("female", "n/a")[i % 2], "x", kind(i)]))
    (folder / f"ExpDesign-{ACC}.tsv").write_text("\n".join(design) + "\n")
    return folder


@pytest.mark.parametrize("packed", [False, True])
def test_cells_of_the_design(tmp_path, packed):
    built = build(Builder, source(tmp_path / "s", packed), tmp_path / "d")
    homes, found = {}, set()
    for split, record in read(built):
        i = int(record["sample_id"].decode().split("-AC")[1])
        value = record["scrna"]
        pairs = dict(zip(value["gene_keys"].tolist(), value["values"].tolist(), strict=True))
        column = counts()[:, i].tolist()
        assert pairs == {gene_key(f"ENSG{g}"): n for g, n in enumerate(column) if n}
        assert record["group_id"].decode() == f"donor {i // 10}"
        assert record["cell_type"].decode() == kind(i)
        target = {"B cell": 0, "T cell": 1}.get(kind(i), -1)
        assert record["targets"]["cell_type"] == target
        assert record["organ"] == (b"lung", b"blood")[i % 2]
        assert record["sex"] == (b"female", b"")[i % 2]
        homes.setdefault(record["group_id"], set()).add(split)
        found.add(i)
    assert found == set(range(NUM_CELLS)) - {11}
    assert len(homes) == 6 and all(len(where) == 1 for where in homes.values())
    metadata = metadata_of(built)
    assert metadata["class_names"] == {"cell_type": ["B cell", "T cell"]}
    assert metadata["left_out"] == {"cell that the design does not name": 1}
    assert set(metadata["highly_variable"]) == {gene_key(f"ENSG{g}") for g in range(NUM_GENES)}


def test_another_column_for_classes_and_groups(tmp_path):
    config = AtlasConfig(
        name="mine",
        type_column="Sample Characteristic[organism part]",
        group_column="Factor Value[inferred cell type - ontology labels]",
        namespace="mine",
    )
    folder = source(tmp_path / "s")
    path = folder / f"ExpDesign-{ACC}.tsv"
    path.write_text(path.read_text().replace("female\tx\t\n", "female\tx\tB cell\n"))
    path.write_text(path.read_text().replace("n/a\tx\t\n", "n/a\tx\tB cell\n"))
    metadata = metadata_of(build(Builder, folder, tmp_path / "d", config))
    assert metadata["class_names"] == {"cell_type": ["blood", "lung"]}
    assert metadata["namespace"] == "mine" and sum(metadata["num_groups"].values()) == 3


def test_mistakes(tmp_path):
    folder = source(tmp_path / "s")
    design = folder / f"ExpDesign-{ACC}.tsv"
    text = design.read_text()
    design.write_text(text.replace("[individual]", "[donor]"))
    with pytest.raises(UserError, match=r"no column 'sample characteristic\[individual\]'; it has"):
        build(Builder, folder, tmp_path / "a")
    design.write_text(text.replace("inferred cell type", "type"))
    with pytest.raises(UserError, match=r"no column 'factor value\[inferred cell type - ontology"):
        build(Builder, folder, tmp_path / "b")
    design.write_text(text.replace("donor 3", "").replace("donor 4", ""))
    with pytest.raises(UserError, match=r"20 of 59 records .*has no sample characteristic"):
        build(Builder, folder, tmp_path / "c")
    (folder / f"{ACC}.aggregated_filtered_counts.mtx_cols").unlink()
    with pytest.raises(UserError, match="has no E-TEST-1.aggregated_filtered_counts.mtx_cols"):
        build(Builder, folder, tmp_path / "d")
    (folder / f"{ACC}.aggregated_filtered_counts.mtx").unlink()
    with pytest.raises(UserError, match=r"has no \*.aggregated_filtered_counts.mtx"):
        build(Builder, folder, tmp_path / "e")
