"""Builder of TCGA's open tier: expression profiles, or levels of genes from their DNA."""

from __future__ import annotations

import functools
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import tensorflow_datasets as tfds

from tfds_builders.core.base import MedicalBuilder
from tfds_builders.core.fasta import ReferenceGenome
from tfds_builders.core.features import genomics_features, scrna_features
from tfds_builders.core.genes import SUFFIXES, Gene, only_file, read_genes
from tfds_builders.core.planning import DuplicatePolicy
from tfds_builders.core.quarantine import Quarantine
from tfds_builders.core.records import (
    AuditKey,
    Datasheet,
    SourceCard,
    SourceRecord,
    UnreadableRecord,
    array_audit,
    text_audit,
)
from tfds_builders.expression_windows.expression_windows_dataset_builder import (
    GENOMES,
    check_window,
    gene_records,
)
from tfds_builders.own_data.cells import expressed, keys_of
from tfds_builders.tcga.gdc import Sample, Substitution, read_counts, read_sheet, read_substitutions
from tfds_builders.tcga.levels import (
    NORMAL,
    PROJECTS,
    WINDOW,
    by_gene,
    case_levels,
    mean_levels,
    mutate,
)


class Builder(MedicalBuilder):
    """Tumours of 33 projects."""

    VERSION = tfds.core.Version("1.0.0")
    BUILDER_CONFIGS = [
        tfds.core.BuilderConfig(
            name="profiles", description="a record for each sample: its genes' reads and project"
        ),
        tfds.core.BuilderConfig(
            name="genes",
            description="a record for each gene: reference DNA, mean level in each project's "
            "tumours; chromosomes held out",
        ),
        tfds.core.BuilderConfig(
            name="mutated",
            description="a record for each gene and case with a substitution in the window: the "
            "case's DNA and level; chromosomes held out",
        ),
    ]
    CARD = SourceCard(
        name="tcga",
        title="TCGA: gene expression of tumours of 33 kinds",
        namespace="tcga",
        modalities=("scrna", "genomics"),
        tasks=("disease", "expression"),
        publisher="National Cancer Institute, Genomic Data Commons",
        homepage="https://portal.gdc.cancer.gov",
        licence="open tier under the NIH Genomic Data Sharing Policy",
        licence_forbids="Attempts to identify participants.",
        how_to_obtain="choose STAR counts of TCGA in the GDC portal (config mutated: masked "
        "somatic mutations too), fetch them with gdc-client and save the sample sheet; configs "
        "genes and mutated need the unpacked GRCh38.d1.vd1.fa and gencode.v36.annotation.gtf.gz "
        "beside them; --manual_dir is the folder that holds the sheet",
        citation="The Cancer Genome Atlas Research Network. The Cancer Genome Atlas Pan-Cancer "
        "analysis project. Nature Genetics 45:1113, 2013.",
        group_key="case (config profiles); chromosome (configs genes and mutated)",
        unit="sample or gene",
        size="4.2 MB a sample",
    )
    DATASHEET = Datasheet(
        collection="Surgical samples of consenting patients at many centres, sequenced by TCGA and "
        "aligned again by the GDC.",
        labels="The project a case was enrolled in; levels are transcripts per million.",
        personal_data="Case barcodes as published in the open tier; germline variants are not in "
        "it and are not read.",
        consent="Participants consented to TCGA; the open tier holds what may be shared with all.",
        patients_separable="Yes, by case barcode.",
        known_biases="Projects were collected at different centres and times, so batch and kind "
        "of tumour go together; normal tissue exists for some projects only.",
        intended_use="Kinds of tumours from expression; expression from sequence.",
        unsuitable_use="Any clinical use, any attempt to identify a participant.",
    )
    EXPECTED_LAYOUT = (
        "gdc_sample_sheet*.tsv, <file id>/*.rna_seq.augmented_star_gene_counts.tsv; configs genes "
        "and mutated also *.fa and *.gtf[.gz], mutated also **/*.maf.gz"
    )

    def __init__(self, **kwargs: Any) -> None:
        """Levels of genes are gathered once."""
        self._means: dict[str, np.ndarray] = {}
        self._mutated: dict[str, dict[str, list[Substitution]]] = {}
        self._levels: dict[tuple[str, str], tuple[str, float]] = {}
        super().__init__(**kwargs)

    def record_features(self) -> dict[str, Any]:
        """A profile, or a window and which gene it is."""
        if self._config_name() == "profiles":
            return {"scrna": scrna_features(), "organ": tfds.features.Text()}
        return {
            "genomics": genomics_features(),
            "gene_id": tfds.features.Text(),
            "symbol": tfds.features.Text(),
        }

    def target_kinds(self) -> dict[str, Any]:
        """Projects are classes, levels values."""
        return {} if self._config_name() == "profiles" else {"expression": "values"}

    def class_names(self) -> dict[str, tuple[str, ...]]:
        """The projects; of profiles normal tissue too."""
        if self._config_name() == "profiles":
            return {"disease": (*PROJECTS, NORMAL)}
        return {"expression": PROJECTS}

    def duplicate_policy(self) -> DuplicatePolicy:
        """Equal windows (PAR genes) share a group; equal profiles of two cases end the build."""
        return "fail" if self._config_name() == "profiles" else "share_group"

    def extra_metadata(self) -> dict[str, Any]:
        """What the config has, and the windows."""
        if self._config_name() == "profiles":
            return {"modalities": ["scrna"], "tasks": ["disease"]}
        return {
            "modalities": ["genomics"],
            "tasks": ["expression"],
            "value_unit": "log1p TPM",
            "window_bp": WINDOW.length,
            "upstream_bp": WINDOW.upstream,
        }

    def read_source(self, manual_dir: Path, quarantine: Quarantine) -> Iterator[SourceRecord]:
        """Yields the samples of the sheet, or the genes of the annotation."""
        samples = []
        for sample in read_sheet(manual_dir):
            if sample.project in PROJECTS:
                samples.append(sample)
            else:
                quarantine.leave_out("sample of another project than the 33 of TCGA")
        if self._config_name() == "profiles":
            yield from _profiles(samples)
            return
        genome = ReferenceGenome(only_file(manual_dir, GENOMES, "with a genome"))
        genes = read_genes(only_file(manual_dir, SUFFIXES, "with an annotation"))
        if self._config_name() == "genes":
            if not self._means:
                self._means = mean_levels(samples, quarantine)
            for gene in genes:
                if gene.gene_id not in self._means:
                    quarantine.leave_out("gene without counts")
                    continue
                target = {"expression": self._means[gene.gene_id]}
                yield from gene_records(gene, genome, WINDOW, target, quarantine)
            return
        if not self._mutated:
            self._mutated = by_gene(genes, read_substitutions(manual_dir))
            self._levels = case_levels(samples, self._mutated, quarantine)
        for gene in genes:
            cases = self._mutated[gene.gene_id] if gene.gene_id in self._mutated else {}
            for case, substitutions in sorted(cases.items()):
                yield from self._mutant(gene, case, substitutions, genome, quarantine)

    def _mutant(
        self,
        gene: Gene,
        case: str,
        substitutions: list[Substitution],
        genome: ReferenceGenome,
        quarantine: Quarantine,
    ) -> Iterator[SourceRecord]:
        if (case, gene.gene_id) not in self._levels:
            quarantine.leave_out("mutated case without a tumour's counts")
            return
        project, level = self._levels[case, gene.gene_id]
        name = f"{gene.gene_id}/{case}"
        try:
            sequence = check_window(mutate(gene, substitutions, genome))
        except UnreadableRecord as error:
            quarantine.add(name, str(error))
            return
        target = np.full(len(PROJECTS), np.nan, np.float32)
        target[PROJECTS.index(project)] = level
        yield SourceRecord(
            sample_id=name,
            group_id=gene.chromosome,
            record={
                "genomics": {"sequence": sequence, "site": WINDOW.upstream},
                "gene_id": gene.gene_id,
                "symbol": gene.symbol,
                "targets": {"expression": target},
            },
            stratum="",
            audit=text_audit(f"{case} {sequence}"),
        )

    def _config_name(self) -> str:
        assert self.builder_config is not None
        return self.builder_config.name


def _profiles(samples: list[Sample]) -> Iterator[SourceRecord]:
    for sample in samples:
        kind = sample.project if sample.is_tumour else NORMAL
        yield SourceRecord(
            sample_id=f"{sample.sample}/{sample.path.parent.name}",
            group_id=sample.case,
            record=functools.partial(_profile, sample, kind),
            stratum=kind,
            audit=functools.partial(_profile_audit, sample),
        )


def _read_profile(sample: Sample) -> dict[str, Any]:
    counts = read_counts(sample.path)
    keys, values = expressed(keys_of(counts.symbols), counts.reads, "counts")
    return {"gene_keys": keys, "values": values, "unit": "counts"}


def _profile(sample: Sample, kind: str) -> dict[str, Any]:
    target = (*PROJECTS, NORMAL).index(kind)
    return {"scrna": _read_profile(sample), "organ": "", "targets": {"disease": target}}


def _profile_audit(sample: Sample) -> AuditKey:
    value = _read_profile(sample)
    return array_audit(np.stack([value["gene_keys"], value["values"].view(np.int32)]))
