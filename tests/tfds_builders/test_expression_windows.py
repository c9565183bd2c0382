"""expression_windows: windows against plain indexing, levels, chromosomes that stay whole."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from multimed_jax.types import UserError
from tests.tfds_builders.built import build, metadata_of, read
from tests.tfds_builders.genomes import genes, window, write_genome, write_gtf
from tfds_builders.expression_windows.expression_windows_dataset_builder import (
    Builder,
    WindowsConfig,
)

CONFIG = WindowsConfig(name="mine", columns=("K562", "HepG2"), window_bp=200, upstream_bp=50)


def source(folder: Path) -> Path:
    write_genome(folder / "genome.fa")
    write_gtf(folder / "genes.gtf")
    lines = ["gene_id\tsymbol\tK562\tHepG2"]
    for i, (name, *_) in enumerate(genes()):
        lines.append(f"{name}.2\tx\t{i}\t{'' if i == 4 else 2 * i}")
    (folder / "expression.tsv").write_text("\n".join(lines) + "\n")
    return folder


def test_genes_with_levels_on_held_out_chromosomes(tmp_path):
    built = build(Builder, source(tmp_path / "s"), tmp_path / "d", CONFIG)
    homes, found = {}, {}
    for split, record in read(built):
        found[record["gene_id"].decode()] = record
        homes.setdefault(record["group_id"].decode(), set()).add(split)
    assert set(homes) == {f"chr{n}" for n in range(1, 7)}
    assert all(len(where) == 1 for where in homes.values())
    for i, (name, contig, *_) in enumerate(genes()):
        record = found[name]
        assert record["genomics"]["sequence"].decode() == window(name, 200, 50)
        assert record["genomics"]["site"] == 50 and record["group_id"].decode() == contig
        expected = [np.log1p(i), np.nan if i == 4 else np.log1p(2 * i)]
        np.testing.assert_allclose(record["targets"]["expression"], expected, rtol=1e-6)
    metadata = metadata_of(built)
    assert metadata["class_names"] == {"expression": ["K562", "HepG2"]}
    assert metadata["left_out"] == {"gene without levels in the table": 1}
    assert metadata["value_unit"] == "log1p TPM"


def test_what_lies_off_the_genome_is_put_aside(tmp_path):
    folder = source(tmp_path / "s")
    table = folder / "expression.tsv"
    table.write_text(table.read_text() + "ENSG99.1\tx\t1\t1\n")
    path = folder / "genes.gtf"
    path.write_text(path.read_text().replace("chr2\tX\tgene\t1502", "chr9\tX\tgene\t1502"))
    with pytest.raises(UserError, match="1 of 18 records .*ENSG20: lies on 'chr9', which the gen"):
        build(Builder, folder, tmp_path / "d", CONFIG)


@pytest.mark.parametrize(
    ("old", "new", "match"),
    [
        ("HepG2", "Hep", "no column 'hepg2'; it has: gene_id, symbol, k562, hep"),
        ("ENSG11", "ENSG10", "has the gene 'ENSG10' twice"),
        ("\tx\t1\t", "\tx\t-1\t", "row 2, has the level '-1'; accepted: tpm"),
    ],
)
def test_mistakes_in_the_table(tmp_path, old, new, match):
    folder = source(tmp_path / "s")
    table = folder / "expression.tsv"
    table.write_text(table.read_text().replace(old, new, 1))
    with pytest.raises(UserError, match=match):
        build(Builder, folder, tmp_path / "d", CONFIG)


def test_missing_files_and_a_window_that_misses_its_start(tmp_path):
    folder = source(tmp_path / "s")
    (folder / "other.fa").write_text(">1\nA\n")
    with pytest.raises(UserError, match="has 2 files with a genome"):
        build(Builder, folder, tmp_path / "d", CONFIG)
    (folder / "expression.tsv").unlink()
    with pytest.raises(UserError, match="has no expression.tsv or expression.csv"):
        build(Builder, folder, tmp_path / "e", CONFIG)
    with pytest.raises(UserError, match="fewer upstream than in all"):
        WindowsConfig(name="x", columns=("a",), window_bp=10, upstream_bp=10)
