"""tcga: profiles, mean levels of projects, and windows with a case's own bases."""

from __future__ import annotations

import gzip
from pathlib import Path

import numpy as np
import pytest

from multimed_jax.modalities.scrna import gene_key
from multimed_jax.types import UserError
from tests.tfds_builders.built import build, metadata_of, read
from tests.tfds_builders.genomes import genes, turned, window, write_genome, write_gtf
from tfds_builders.tcga.tcga_dataset_builder import Builder

NUM_CASES = 8
_SHEET = "File ID\tFile Name\tData Category\tData Type\tProject ID\tCase ID\tSample ID\tSample Type"
_HEAD = "gene_id\tgene_name\tgene_type\tunstranded\tstranded_first\tstranded_second\ttpm_unstranded"


def case(i: int) -> str:
    return f"TCGA-AA-00{i:02d}"


def project(i: int) -> str:
    return "TCGA-BRCA" if i % 2 else "TCGA-LUAD"


def reads(i: int) -> np.ndarray:
    """Reads of the 18 genes in sample i; samples from NUM_CASES on are normal tissue."""
    return np.random.default_rng(i).integers(0, 50, len(genes()))


def source(folder: Path) -> Path:
    """A tumour of each case, and normal tissue of the first two."""
    write_genome(folder / "genome.fa")
    write_gtf(folder / "gencode.gtf")
    rows = [_SHEET]
    for i in range(NUM_CASES + 2):
        who, code = (i, "01A") if i < NUM_CASES else (i - NUM_CASES, "11A")
        name = f"u{i}.rna_seq.augmented_star_gene_counts.tsv"
        rows.append(
            f"id{i}\t{name}\tTranscriptome Profiling\tGene Expression Quantification\t"
            f"{project(who)}\t{case(who)}\t{case(who)}-{code}\tx"
        )
        lines = ["# gene-model: GENCODE v36", _HEAD, "N_unmapped\t\t\t99\t9\t9\t"]
        for (gene, *_), n in zip(genes(), reads(i).tolist(), strict=True):
            lines.append(f"{gene}.4\tSYM{gene[4:]}\tx\t{n}\t0\t0\t{n / 4}")
        (folder / f"id{i}").mkdir(parents=True)
        (folder / f"id{i}" / name).write_text("\n".join(lines) + "\n")
    rows.append("idm\tm.maf.gz\tSimple Nucleotide Variation\tx\tTCGA-LUAD\tx\tx\tx")
    (folder / "gdc_sample_sheet.2024-01-01.tsv").write_text("\n".join(rows) + "\n")
    return folder


def test_profiles(tmp_path):
    built = build(Builder, source(tmp_path / "s"), tmp_path / "d", "profiles")
    names = metadata_of(built)["class_names"]["disease"]
    assert len(names) == 34 and names[-1] == "normal"
    homes, count = {}, 0
    for split, record in read(built):
        i = int(record["sample_id"].decode().split("/id")[1])
        who = i if i < NUM_CASES else i - NUM_CASES
        assert record["group_id"].decode() == case(who)
        kind = project(who) if i < NUM_CASES else "normal"
        assert names[record["targets"]["disease"]] == kind
        value = record["scrna"]
        found = dict(zip(value["gene_keys"].tolist(), value["values"].tolist(), strict=True))
        expected = {
            gene_key(f"SYM{gene[4:]}"): n
            for (gene, *_), n in zip(genes(), reads(i).tolist(), strict=True)
            if n
        }
        assert found == expected and value["unit"] == b"counts"
        homes.setdefault(record["group_id"], set()).add(split)
        count += 1
    assert count == NUM_CASES + 2 and all(len(where) == 1 for where in homes.values())
    assert metadata_of(built)["modalities"] == ["scrna"]


def test_mean_levels_of_the_tumours_of_each_project(tmp_path):
    built = build(Builder, source(tmp_path / "s"), tmp_path / "d", "genes")
    metadata = metadata_of(built)
    names = metadata["class_names"]["expression"]
    levels = np.log1p(np.stack([reads(i) for i in range(NUM_CASES)]) / 4)
    homes = {}
    for split, record in read(built):
        name = record["gene_id"].decode()
        i = [gene for gene, *_ in genes()].index(name)
        assert record["genomics"]["sequence"].decode() == window(name)
        assert record["genomics"]["site"] == 1024
        target = record["targets"]["expression"]
        for k, kind in ((0, "TCGA-LUAD"), (1, "TCGA-BRCA")):
            mean = levels[k::2, i].mean()
            np.testing.assert_allclose(target[names.index(kind)], mean, rtol=1e-5)
        assert np.isnan(target).sum() == 31
        homes.setdefault(record["group_id"], set()).add(split)
    assert len(homes) == 6 and all(len(where) == 1 for where in homes.values())
    assert metadata["modalities"] == ["genomics"]


def maf(folder: Path, rows: list[tuple[str, str, int, str, str, str]]) -> None:
    head = ["Hugo_Symbol", "Entrez", "Chromosome", "Start_Position", "Reference_Allele"]
    head += ["Tumor_Seq_Allele2", "Variant_Type", "Tumor_Sample_Barcode"]
    lines = ["#version gdc-1.0.0", "\t".join(head)]
    for who, contig, place, reference, allele, kind in rows:
        lines.append(f"G\t1\t{contig}\t{place}\t{reference}\t{allele}\t{kind}\t{who}-01A-11D-A1-01")
    path = folder / "idm/m.aliquot_ensemble_masked.maf.gz"
    path.parent.mkdir(exist_ok=True)
    path.write_bytes(gzip.compress("\n".join(lines).encode()))


def test_windows_with_the_bases_of_a_case(tmp_path):
    folder = source(tmp_path / "s")
    rows, expected = [], {}
    for k, (name, contig, first, last, strand) in enumerate(genes()):
        start = first if strand == "+" else last  # counted from 1, as a MAF does
        who = case(k % NUM_CASES)
        text = window(name)
        own = text if strand == "+" else turned(text)
        at = 1024 if strand == "+" else 1023
        base = own[at]
        allele = "A" if base != "A" else "C"
        rows.append((who, contig, start, base, allele, "SNP"))
        changed = own[:at] + allele + own[at + 1 :]
        expected[f"{name}/{who}"] = changed if strand == "+" else turned(changed)
    rows.append((case(0), "chr1", genes()[0][2] + 5, "A", "-", "DEL"))
    rows.append(("TCGA-ZZ-9999", "chr1", genes()[0][2] + 1, "N", "A", "SNP"))
    maf(folder, rows)
    built = build(Builder, folder, tmp_path / "d", "mutated")
    names = metadata_of(built)["class_names"]["expression"]
    found = {record["sample_id"].decode(): record for _, record in read(built)}
    # Windows of neighbours overlap: a mutation is in all of them.
    assert set(expected) <= set(found)
    for name, sequence in expected.items():
        record = found[name]
        gene, who = name.split("/")
        i = int(who[-2:])
        place = [g for g, *_ in genes()].index(gene)
        target = record["targets"]["expression"]
        level = np.log1p(reads(i)[place] / 4)
        np.testing.assert_allclose(target[names.index(project(i))], level, rtol=1e-5)
        assert np.isfinite(target).sum() == 1
        assert record["genomics"]["sequence"].decode()[1024] == sequence[1024]
        assert record["genomics"]["sequence"].decode()[1024] != window(gene)[1024]
    assert metadata_of(built)["left_out"]["mutated case without a tumour's counts"] > 0


def test_mistakes(tmp_path):
    folder = source(tmp_path / "s")
    sheet = folder / "gdc_sample_sheet.2024-01-01.tsv"
    text = sheet.read_text()
    with pytest.raises(UserError, match=r"no file \*.maf or \*.maf.gz under"):
        build(Builder, folder, tmp_path / "a", "mutated")
    broken = folder / "id3/u3.rna_seq.augmented_star_gene_counts.tsv"
    broken.write_text(broken.read_text().replace("tpm_unstranded", "tpm"))
    with pytest.raises(UserError, match="1 of 10 records .*/id3: is no table of STAR counts"):
        build(Builder, folder, tmp_path / "b", "profiles")
    sheet.write_text(text.replace("Case ID", "Case"))
    with pytest.raises(UserError, match="no column 'case id'; it has: file id, file name"):
        build(Builder, folder, tmp_path / "c", "profiles")
    sheet.write_text(text.replace("TCGA-AA-0000-01A", "S1"))
    with pytest.raises(UserError, match="has a Sample ID that is no TCGA barcode"):
        build(Builder, folder, tmp_path / "d", "profiles")
    sheet.unlink()
    with pytest.raises(UserError, match=r"has no gdc_sample_sheet\*.tsv"):
        build(Builder, folder, tmp_path / "e", "profiles")
