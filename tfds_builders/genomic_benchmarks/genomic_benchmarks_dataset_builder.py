"""Builder of one set of Genomic Benchmarks: coordinates with a genome, or files of sequences."""

from __future__ import annotations

import dataclasses
import functools
import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, cast

import tensorflow_datasets as tfds

from multimed_jax.types import UserError
from tfds_builders.core.base import MedicalBuilder
from tfds_builders.core.fasta import ReferenceGenome, reverse_complement
from tfds_builders.core.features import genomics_features
from tfds_builders.core.folders import files
from tfds_builders.core.genes import only_file
from tfds_builders.core.planning import DuplicatePolicy, SplitMode
from tfds_builders.core.quarantine import Quarantine
from tfds_builders.core.records import (
    Datasheet,
    SourceCard,
    SourceRecord,
    UnreadableRecord,
    text_audit,
)
from tfds_builders.core.tables import read_csv

TASK = "regulatory"
GENOMES = (".fa", ".fasta")
_CLASSES = {
    "human_nontata_promoters": ("negative", "positive"),
    "human_enhancers_cohn": ("negative", "positive"),
    "human_enhancers_ensembl": ("negative", "positive"),
    "human_ocr_ensembl": ("negative", "positive"),
    "human_ensembl_regulatory": ("enhancer", "ocr", "promoter"),
    "demo_coding_vs_intergenomic_seqs": ("coding_seqs", "intergenomic_seqs"),
}
_COLUMNS = ("id", "region", "start", "end", "strand")
_OTHER = re.compile("[^ACGT]")


@dataclasses.dataclass(kw_only=True)
class BenchmarkConfig(tfds.core.BuilderConfig):
    """Which set, and how it is split.

    Attributes:
        set_name: folder of the set.
        official: keep the publisher's test part; else chromosomes are held out.
    """

    set_name: str
    official: bool = False


@dataclasses.dataclass(frozen=True)
class Row:
    """One region of a set; `path` is None where the genome has its sequence."""

    name: str
    kind: str
    part: str
    chromosome: str
    cells: Mapping[str, str]
    path: Path | None = None


class Builder(MedicalBuilder):
    """DNA of two or three classes."""

    VERSION = tfds.core.Version("1.0.0")
    BUILDER_CONFIGS = [
        BenchmarkConfig(
            name=name + ending,
            set_name=name,
            official=bool(ending),
            description="the publisher's test part" if ending else "chromosomes held out",
        )
        for name in _CLASSES
        for ending in ("", "_official")
    ]
    CARD = SourceCard(
        name="genomic_benchmarks",
        title="Genomic Benchmarks: classes of regulatory DNA",
        namespace="genomic_benchmarks",
        modalities=("genomics",),
        tasks=(TASK,),
        publisher="Gresova, Martinek, Cechak, Simecek, Alexiou (GitHub "
        "ML-Bioinfo-CEITEC/genomic_benchmarks)",
        homepage="https://github.com/ML-Bioinfo-CEITEC/genomic_benchmarks",
        licence="Apache-2.0",
        licence_forbids="Passing it on without the licence text.",
        how_to_obtain="copy datasets/<set> of the repository and put the unpacked genome of its "
        "metadata.yaml (Homo_sapiens.GRCh38.dna.toplevel.fa of Ensembl 97) beside it, or take "
        "the sequences that the package `genomic-benchmarks` makes; --manual_dir is the folder "
        "that holds <set>",
        citation="Gresova et al. Genomic benchmarks: a collection of datasets for genomic sequence "
        "classification. BMC Genomic Data 24:25, 2023.",
        group_key="chromosome; in the official configs the sequence",
        unit="sequence",
        size="that of the set",
    )
    DATASHEET = Datasheet(
        collection="Regions of the human reference genome from EPDnew, FANTOM5 and Ensembl, and "
        "as negatives other regions of equal length.",
        labels="The database that a region comes from; negatives were drawn at random.",
        personal_data="None: a reference genome, no person's variants.",
        consent="Not applicable: a reference genome.",
        patients_separable="Not applicable: groups are chromosomes.",
        known_biases="GC content and repeats alone tell a part of the positives from negatives.",
        intended_use="Comparison of models of DNA sequences.",
        unsuitable_use="Interpretation of a person's variants.",
    )
    EXPECTED_LAYOUT = (
        "<set>/{train,test}/<class>.csv.gz and *.fa, or <set>/{train,test}/<class>/<id>.txt"
    )

    @property
    def _config(self) -> BenchmarkConfig:
        return cast(BenchmarkConfig, self.builder_config)

    def record_features(self) -> dict[str, Any]:
        """The sequence, in the direction of its strand."""
        return {"genomics": genomics_features()}

    def class_names(self) -> dict[str, tuple[str, ...]]:
        """The classes of the set."""
        return {TASK: _CLASSES[self._config.set_name]}

    def split_mode(self) -> SplitMode:
        """The publisher's test part in the official configs."""
        return "official" if self._config.official else "group"

    def duplicate_policy(self) -> DuplicatePolicy:
        """Repeats give equal sequences: one group, or of the publisher's parts the test copy."""
        return "leave_out" if self._config.official else "share_group"

    def extra_metadata(self) -> dict[str, Any]:
        """Sets have label spaces of their own."""
        return {"namespace": f"{self.CARD.namespace}/{self._config.set_name}"}

    def read_source(self, manual_dir: Path, quarantine: Quarantine) -> Iterator[SourceRecord]:
        """Yields the sequences by part, class and place in the file."""
        folder = manual_dir / self._config.set_name
        if not folder.is_dir():
            raise UserError(f"the folder {folder} does not exist; expected {self.EXPECTED_LAYOUT}")
        rows = list(self._rows(folder))
        by_place = any(row.path is None for row in rows)
        genome = None
        if by_place:
            genome = ReferenceGenome(only_file(manual_dir, GENOMES, "with a genome"))
        elif not self._config.official:
            raise UserError(
                f"the files of {folder} state no chromosome; accepted: the config "
                f"{self._config.set_name}_official, or csv.gz files with a genome"
            )
        classes = _CLASSES[self._config.set_name]
        for row in rows:
            try:
                sequence = _sequence(row, genome)
            except UnreadableRecord as error:
                quarantine.add(row.name, str(error))
                continue
            yield SourceRecord(
                sample_id=row.name,
                group_id=row.name if self._config.official else row.chromosome,
                record={
                    "genomics": {"sequence": sequence, "site": -1},
                    "targets": {TASK: classes.index(row.kind)},
                },
                stratum=row.kind,
                official_split=row.part if self._config.official else None,
                audit=functools.partial(text_audit, sequence),
            )

    def _rows(self, folder: Path) -> Iterator[Row]:
        for part in ("train", "test"):
            for kind in _CLASSES[self._config.set_name]:
                table, inside = folder / part / f"{kind}.csv.gz", folder / part / kind
                if inside.is_dir():
                    for path in files(inside, (".txt",)):
                        yield Row(f"{part}/{kind}/{path.stem}", kind, part, "", {}, path)
                    continue
                for row in read_csv(table, _COLUMNS):
                    region = row["region"].strip()
                    yield Row(f"{part}/{kind}/{row['id'].strip()}", kind, part, region, row)


def _sequence(row: Row, genome: ReferenceGenome | None) -> str:
    """Start from 0, end not counted; the other strand is turned round. Source: loc2seq."""
    if row.path is not None:
        text = row.path.read_text("ascii", "replace").strip().upper()
    else:
        assert genome is not None
        try:
            start, end = int(row.cells["start"]), int(row.cells["end"])
        except (KeyError, ValueError):
            raise UnreadableRecord("has a start or end that is no number") from None
        if start < 0 or end > genome.length(row.chromosome):
            raise UnreadableRecord("leaves its chromosome: another assembly?")
        text = genome.window(row.chromosome, start, end)
        if row.cells["strand"].strip() == "-":
            text = reverse_complement(text)
    if not text:
        raise UnreadableRecord("is empty")
    return _OTHER.sub("N", text)
