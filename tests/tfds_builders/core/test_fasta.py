"""FASTA and reference genomes against plain indexing, with and without an index of samtools."""

from __future__ import annotations

import gzip

import pytest

from multimed_jax.types import UserError
from tests.tfds_builders.genomes import (
    LENGTH,
    chromosome,
    genes,
    turned,
    window,
    write_genome,
    write_gtf,
)
from tfds_builders.core.fasta import ReferenceGenome, read_fasta, reverse_complement
from tfds_builders.core.genes import Gene, Window, bare_id, read_genes
from tfds_builders.core.records import UnreadableRecord


@pytest.mark.parametrize("width", [1, 60, 61, LENGTH])
def test_windows_equal_plain_indexing(tmp_path, width):
    write_genome(tmp_path / "g.fa", width=width)
    genome = ReferenceGenome(tmp_path / "g.fa")
    for number, start, stop in [(1, 0, 5), (2, 59, 62), (3, 60, 61), (6, LENGTH - 9, LENGTH)]:
        assert genome.window(f"chr{number}", start, stop) == chromosome(number)[start:stop]
    assert genome.window("1", -3, 2) == "NNN" + chromosome(1)[:2]
    assert genome.window("1", LENGTH - 2, LENGTH + 2) == chromosome(1)[-2:] + "NN"
    assert genome.length("chr4") == LENGTH
    with pytest.raises(UnreadableRecord, match="'chrX', which the genome lacks"):
        genome.window("chrX", 0, 1)
    with pytest.raises(UnreadableRecord, match="of a contig of 6000 bases"):
        genome.window("1", LENGTH, LENGTH + 1)


def test_an_index_of_samtools_is_used(tmp_path):
    write_genome(tmp_path / "g.fa", "chr", width=50)
    (tmp_path / "g.fa.fai").write_text(f"chr1\t{LENGTH}\t21\t50\t51\n")
    genome = ReferenceGenome(tmp_path / "g.fa")
    assert genome.window("1", 45, 107) == chromosome(1)[45:107]
    with pytest.raises(UnreadableRecord, match="lacks"):
        genome.length("chr2")


@pytest.mark.parametrize(
    ("content", "match"),
    [
        ("ACGT\n", "does not start with '>'"),
        (">1\nACGT\nAC\nACGT\n", "lines of unequal width in '1'"),
        (">1\nAC\nACGT\n", "lines of unequal width in '1'"),
        ("", "holds no sequence"),
    ],
)
def test_files_that_are_no_genome(tmp_path, content, match):
    (tmp_path / "g.fa").write_text(content)
    with pytest.raises(UserError, match=match):
        ReferenceGenome(tmp_path / "g.fa")


def test_sequences_of_a_small_file(tmp_path):
    with gzip.open(tmp_path / "a.fa.gz", "wt") as file:
        file.write(">one first\nAC\nGT \n>two\n\nNN\n")
    assert list(read_fasta(tmp_path / "a.fa.gz")) == [("one", "ACGT"), ("two", "NN")]
    (tmp_path / "a.fa.gz").write_bytes(b"\x1f\x8b\x08cut")
    with pytest.raises(UserError, match="a.fa.gz (is damaged|cannot be read)"):
        list(read_fasta(tmp_path / "a.fa.gz"))
    assert reverse_complement("AACGTN") == turned("AACGTN") == "NACGTT"


def test_windows_of_genes_on_both_strands(tmp_path):
    write_genome(tmp_path / "g.fa")
    write_gtf(tmp_path / "a.gtf")
    genome = ReferenceGenome(tmp_path / "g.fa")
    found = {gene.gene_id: gene for gene in read_genes(tmp_path / "a.gtf")}
    assert set(found) == {name for name, *_ in genes()} | {"ENSG99"}
    assert found["ENSG10"].symbol == "SYM10" and found["ENSG99"].chromosome == ""
    for name, gene in found.items():
        if name != "ENSG99":
            assert Window(300, 100).cut(genome, gene) == window(name, 300, 100)
    lines = [f"{c}\t{a - 1}\t{b}\t{n}.3\t0\t{s}" for n, c, a, b, s in genes()]
    (tmp_path / "a.bed").write_text("\n".join(lines))
    for gene in read_genes(tmp_path / "a.bed"):
        other = found[gene.gene_id]
        assert gene == Gene(other.gene_id, "", other.contig, other.start, other.forward)
    assert bare_id("ENSG00000002586.20_PAR_Y") == "ENSG00000002586_PAR_Y"
    (tmp_path / "b.bed").write_text("chr1\t5\t9\tG\t0\t.\n")
    with pytest.raises(UserError, match="has a wrong line 1"):
        read_genes(tmp_path / "b.bed")
