"""Levels of genes by project or case, and the DNA of a case round the start of a gene."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator

import numpy as np

from tfds_builders.core.fasta import ReferenceGenome, reverse_complement
from tfds_builders.core.genes import Gene, Window
from tfds_builders.core.quarantine import Quarantine
from tfds_builders.core.records import UnreadableRecord
from tfds_builders.tcga.gdc import Sample, Substitution, read_counts

# Source: GDC, "TCGA Study Abbreviations": the 33 projects with tumours.
PROJECTS = tuple(
    f"TCGA-{name}"
    for name in (
        "ACC BLCA BRCA CESC CHOL COAD DLBC ESCA GBM HNSC KICH KIRC KIRP LAML LGG LIHC LUAD LUSC "
        "MESO OV PAAD PCPG PRAD READ SARC SKCM STAD TGCT THCA THYM UCEC UCS UVM"
    ).split()
)
NORMAL = "normal"
WINDOW = Window(2048, 1024)


def mean_levels(samples: list[Sample], quarantine: Quarantine) -> dict[str, np.ndarray]:
    """Gene id -> mean log1p TPM of each project's tumours; NaN where it has none."""
    sums: dict[str, np.ndarray] = {}
    numbers = np.zeros(len(PROJECTS))
    for sample in samples:
        if not sample.is_tumour:
            continue
        try:
            counts = read_counts(sample.path)
        except UnreadableRecord as error:
            quarantine.add(sample.sample, str(error))
            continue
        column = PROJECTS.index(sample.project)
        numbers[column] += 1
        for gene, level in zip(counts.gene_ids, np.log1p(counts.tpm), strict=True):
            if gene not in sums:
                sums[gene] = np.zeros(len(PROJECTS))
            sums[gene][column] += level
    with np.errstate(invalid="ignore"):  # 0 / 0 of a project without tumours is NaN, as wanted
        return {gene: (total / numbers).astype(np.float32) for gene, total in sums.items()}


def by_gene(
    genes: list[Gene], found: Iterator[Substitution]
) -> dict[str, dict[str, list[Substitution]]]:
    """Gene id -> case -> its substitutions within the gene's window."""
    spans = defaultdict(list)
    for gene in genes:
        if gene.chromosome:
            first, stop = WINDOW.bounds(gene)
            spans[gene.chromosome].append((first, stop, gene.gene_id))
    starts = {}
    for name, rows in spans.items():
        rows.sort()
        starts[name] = np.array([row[0] for row in rows])
    out: dict[str, dict[str, list[Substitution]]] = {}
    for item in found:
        name = item.contig if item.contig.startswith("chr") else f"chr{item.contig}"
        if name not in spans:
            continue
        # Windows have one length: those that hold the place start in a range of that length.
        low, high = np.searchsorted(starts[name], [item.place - WINDOW.length + 1, item.place + 1])
        for _, _, gene_id in spans[name][low:high]:
            out.setdefault(gene_id, {}).setdefault(item.case, []).append(item)
    return out


def case_levels(
    samples: list[Sample],
    wanted: dict[str, dict[str, list[Substitution]]],
    quarantine: Quarantine,
) -> dict[tuple[str, str], tuple[str, float]]:
    """(Case, gene) -> project and log1p TPM of the case's first tumour, for the wanted pairs."""
    pairs = {(case, gene) for gene, cases in wanted.items() for case in cases}
    cases = {case for case, _ in pairs}
    levels: dict[tuple[str, str], tuple[str, float]] = {}
    done: set[str] = set()
    for sample in samples:
        if not sample.is_tumour or sample.case not in cases or sample.case in done:
            continue
        try:
            counts = read_counts(sample.path)
        except UnreadableRecord as error:
            quarantine.add(sample.sample, str(error))
            continue
        done.add(sample.case)
        for gene, tpm in zip(counts.gene_ids, counts.tpm, strict=True):
            if (sample.case, gene) in pairs:
                levels[sample.case, gene] = (sample.project, float(np.log1p(tpm)))
    return levels


def mutate(gene: Gene, substitutions: list[Substitution], genome: ReferenceGenome) -> str:
    """The window of a gene with a case's bases in place of the reference's.

    Raises:
        UnreadableRecord: the genome has another base than the mutation's reference.
    """
    first, stop = WINDOW.bounds(gene)
    bases = list(genome.window(gene.contig, first, stop))
    for item in substitutions:
        at = item.place - first
        if bases[at] != item.reference.upper():
            raise UnreadableRecord("has a mutation whose reference base the genome lacks")
        bases[at] = item.allele.upper()
    text = "".join(bases)
    return text if gene.forward else reverse_complement(text)
