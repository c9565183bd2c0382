"""Builder of promoter windows with expression levels; chromosomes are held out."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, cast

import numpy as np
import tensorflow_datasets as tfds

from multimed_jax.types import UserError
from tfds_builders.core.base import MedicalBuilder
from tfds_builders.core.fasta import ReferenceGenome
from tfds_builders.core.features import genomics_features
from tfds_builders.core.genes import SUFFIXES, Gene, Window, bare_id, only_file, read_genes
from tfds_builders.core.quarantine import Quarantine
from tfds_builders.core.records import (
    Datasheet,
    SourceCard,
    SourceRecord,
    UnreadableRecord,
    text_audit,
)
from tfds_builders.core.tables import read_csv, read_tsv

GENOMES = (".fa", ".fasta", ".fna")
LEVELS = ("tpm", "log1p")
# A window with more unknown bases than this says nothing of its gene.
MAX_UNKNOWN = 0.5
_TABLES = ("expression.tsv", "expression.tsv.gz", "expression.csv", "expression.csv.gz")


@dataclasses.dataclass(kw_only=True)
class WindowsConfig(tfds.core.BuilderConfig):
    """Which columns, and how much DNA.

    Attributes:
        gene_column: of the table, with Ensembl ids (a version is ignored).
        columns: levels to predict, one for each cell type or tissue.
        level: "tpm" (stored as log1p) or "log1p" (stored as they are).
        window_bp: length of the window.
        upstream_bp: bases of it before the transcription start.
        namespace: names the columns' space and salts the split: one of your own for each source.
    """

    gene_column: str = "gene_id"
    columns: Sequence[str] = ()
    level: str = "tpm"
    window_bp: int = 2048
    upstream_bp: int = 1024
    namespace: str = "expression_windows"

    def __post_init__(self) -> None:
        """Raises UserError for a value that is not accepted."""
        self.columns = tuple(self.columns)
        if self.level not in LEVELS:
            raise UserError(
                f"a config of expression_windows has level {self.level!r}; accepted: "
                f"{', '.join(LEVELS)}"
            )
        if not (self.name and self.namespace and self.gene_column and self.columns):
            raise UserError(
                "a config of expression_windows lacks a name, namespace, gene_column or columns"
            )
        self.window = Window(self.window_bp, self.upstream_bp)


class Builder(MedicalBuilder):
    """One record for each gene."""

    VERSION = tfds.core.Version("1.0.0")
    BUILDER_CONFIGS = [
        WindowsConfig(
            name="tpm", columns=("tpm",), description="column tpm, 2,048 bases round each start"
        ),
        WindowsConfig(
            name="log1p", columns=("log1p",), level="log1p", description="column log1p, the same"
        ),
    ]
    CARD = SourceCard(
        name="expression_windows",
        title="DNA windows round transcription starts and expression of their genes",
        namespace="expression_windows",
        modalities=("genomics",),
        tasks=("expression",),
        publisher="whoever published the table; GENCODE or Ensembl (annotation, genome)",
        homepage="https://www.gencodegenes.org/human/",
        licence="that of the table, not known to the builder",
        licence_forbids="What the publisher of the table forbids.",
        how_to_obtain="unpack a genome (GRCh38.primary_assembly.genome.fa of GENCODE), put the "
        "annotation of the same assembly (gencode.v*.annotation.gtf.gz) and expression.tsv with "
        "gene_id and a column for each cell type or tissue beside it; --manual_dir is the folder",
        citation="Frankish et al. GENCODE reference annotation for the human and mouse genomes. "
        "Nucleic Acids Research 47:D766, 2019; and the table's own paper",
        group_key="chromosome",
        unit="gene",
        size="that of the table",
    )
    DATASHEET = Datasheet(
        collection="Windows of a reference genome; levels as the table's publisher measured them.",
        labels="The table's columns; noise and normalisation are those of its publisher.",
        personal_data="None by the builder: a reference genome and levels of genes.",
        consent="Not known to the builder; it rests with the table's publisher.",
        patients_separable="No: a record is a gene, and levels are those of cell types or tissues.",
        known_biases="GC content and gene families explain a part of the levels; families can lie "
        "on several chromosomes.",
        intended_use="Prediction of expression from sequence on chromosomes not trained on.",
        unsuitable_use="Interpretation of a person's variants.",
    )
    EXPECTED_LAYOUT = "*.fa, *.gtf[.gz] or *.bed[.gz], and expression.tsv or .csv with gene_id"
    # PAR genes of X and Y have equal windows.
    ON_DUPLICATES = "share_group"

    def __init__(self, **kwargs: Any) -> None:
        """The table is read once."""
        self._levels: Mapping[str, np.ndarray] = {}
        super().__init__(**kwargs)

    @property
    def _config(self) -> WindowsConfig:
        return cast(WindowsConfig, self.builder_config)

    def _info(self) -> tfds.core.DatasetInfo:
        vars(self)["CARD"] = dataclasses.replace(type(self).CARD, namespace=self._config.namespace)
        return super()._info()

    def record_features(self) -> dict[str, Any]:
        """The window, and which gene it is."""
        return {
            "genomics": genomics_features(),
            "gene_id": tfds.features.Text(),
            "symbol": tfds.features.Text(),
        }

    def target_kinds(self) -> dict[str, Any]:
        """Levels."""
        return {"expression": "values"}

    def class_names(self) -> dict[str, tuple[str, ...]]:
        """The columns."""
        return {"expression": tuple(self._config.columns)}

    def extra_metadata(self) -> dict[str, Any]:
        """The unit of the values, and the windows."""
        return {
            "value_unit": "log1p TPM" if self._config.level == "tpm" else "log1p, as published",
            "window_bp": self._config.window_bp,
            "upstream_bp": self._config.upstream_bp,
        }

    def read_source(self, manual_dir: Path, quarantine: Quarantine) -> Iterator[SourceRecord]:
        """Yields the genes in the order of the annotation."""
        if not self._levels:
            self._levels = read_levels(manual_dir, self._config)
        genome = ReferenceGenome(only_file(manual_dir, GENOMES, "with a genome"))
        genes = read_genes(only_file(manual_dir, SUFFIXES, "with an annotation"))
        for gene in genes:
            if gene.gene_id not in self._levels:
                quarantine.leave_out("gene without levels in the table")
                continue
            target = {"expression": self._levels[gene.gene_id]}
            yield from gene_records(gene, genome, self._config.window, target, quarantine)


def gene_records(
    gene: Gene,
    genome: ReferenceGenome,
    window: Window,
    targets: Mapping[str, Any],
    quarantine: Quarantine,
) -> Iterator[SourceRecord]:
    """The record of a gene; none, counted, off the chromosomes 1 to 22, X and Y."""
    if not gene.chromosome:
        quarantine.leave_out("gene off the chromosomes 1 to 22, X and Y")
        return
    try:
        sequence = check_window(window.cut(genome, gene))
    except UnreadableRecord as error:
        quarantine.add(gene.gene_id, str(error))
        return
    yield SourceRecord(
        sample_id=gene.gene_id,
        group_id=gene.chromosome,
        record={
            "genomics": {"sequence": sequence, "site": window.upstream},
            "gene_id": gene.gene_id,
            "symbol": gene.symbol,
            "targets": dict(targets),
        },
        stratum="",
        audit=text_audit(sequence),
    )


def check_window(text: str) -> str:
    """The window with N for every letter that is no base.

    Raises:
        UnreadableRecord: more than `MAX_UNKNOWN` of it is not known.
    """
    sequence = "".join(base if base in "ACGT" else "N" for base in text)
    if sequence.count("N") > MAX_UNKNOWN * len(sequence):
        raise UnreadableRecord(f"has more than {MAX_UNKNOWN:.0%} unknown bases")
    return sequence


def read_levels(manual_dir: Path, config: WindowsConfig) -> dict[str, np.ndarray]:
    """Gene id -> log1p levels by column; NaN where a cell is empty.

    Raises:
        UserError: the table or a column is missing, a gene occurs twice, a level is none.
    """
    path = next((manual_dir / n for n in _TABLES if (manual_dir / n).is_file()), None)
    if path is None:
        raise UserError(f"the folder {manual_dir} has no {' or '.join(_TABLES[::2])}")
    key = config.gene_column.strip().lower()
    columns = [name.strip().lower() for name in config.columns]
    rows = (read_tsv if ".tsv" in path.name else read_csv)(path, [key, *columns])
    levels: dict[str, np.ndarray] = {}
    for number, row in enumerate(rows, start=1):
        gene = bare_id(row[key].strip())
        if gene in levels:
            raise UserError(f"the file {path} has the gene {gene!r} twice; accepted: each once")
        cells = [row[name].strip() if name in row else "" for name in columns]
        levels[gene] = np.array([_level(c, config.level, path, number) for c in cells], np.float32)
    return levels


def _level(text: str, unit: str, path: Path, number: int) -> float:
    if text.lower() in ("", "na", "nan"):
        return math.nan
    try:
        value = float(text)
    except ValueError:
        value = math.nan
    if not (0 if unit == "tpm" else -100) <= value < 1e9:
        raise UserError(
            f"the file {path}, row {number}, has the level {text!r}; accepted: {unit} or empty"
        )
    return math.log1p(value) if unit == "tpm" else value
