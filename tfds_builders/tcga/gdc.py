"""Files of the GDC: a sample sheet, STAR gene counts, and masked somatic mutations (MAF)."""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Iterator
from pathlib import Path

import numpy as np
from jaxtyping import Float64

from multimed_jax.types import UserError
from tfds_builders.core.genes import bare_id
from tfds_builders.core.records import UnreadableRecord
from tfds_builders.core.tables import open_text, read_tsv

COUNTS_ENDING = ".augmented_star_gene_counts.tsv"
_SHEET_COLUMNS = ("file id", "file name", "project id", "case id", "sample id")
# Source: TCGA barcode, field "sample": 01 to 09 tumours, 10 to 19 normal tissue.
_BARCODE = re.compile(r"TCGA-\w{2}-\w{4}-(\d{2})\w?", re.ASCII)
_MAF_COLUMNS = (
    "Hugo_Symbol",
    "Chromosome",
    "Start_Position",
    "Reference_Allele",
    "Tumor_Seq_Allele2",
    "Variant_Type",
    "Tumor_Sample_Barcode",
)


@dataclasses.dataclass(frozen=True)
class Sample:
    """One counts file: its path, project ("TCGA-BRCA"), case and sample; tumour or normal."""

    path: Path
    project: str
    case: str
    sample: str
    is_tumour: bool


@dataclasses.dataclass(frozen=True)
class Counts:
    """Genes of one sample: ids without version, symbols, reads and transcripts per million."""

    gene_ids: tuple[str, ...]
    symbols: tuple[str, ...]
    reads: Float64[np.ndarray, "g"]
    tpm: Float64[np.ndarray, "g"]


@dataclasses.dataclass(frozen=True)
class Substitution:
    """One base of one case that differs from the reference; `place` counts from 0."""

    case: str
    contig: str
    place: int
    reference: str
    allele: str


def read_sheet(manual_dir: Path) -> list[Sample]:
    """The counts files of `gdc_sample_sheet*.tsv`, sorted by sample and file.

    Raises:
        UserError: no sheet, a column is missing, no counts file, or a barcode that is none.
    """
    sheets = sorted(manual_dir.glob("gdc_sample_sheet*.tsv"))
    if not sheets:
        raise UserError(f"the folder {manual_dir} has no gdc_sample_sheet*.tsv")
    found = []
    for sheet in sheets:
        for row in read_tsv(sheet, _SHEET_COLUMNS):
            if not row["file name"].endswith(COUNTS_ENDING):
                continue
            barcode = _BARCODE.match(row["sample id"].strip())
            if barcode is None:
                raise UserError(
                    f"the file {sheet} has a Sample ID that is no TCGA barcode; accepted: "
                    "TCGA-XX-XXXX-NNX"
                )
            path = manual_dir / Path(row["file id"]).name / Path(row["file name"]).name
            found.append(
                Sample(
                    path,
                    row["project id"].strip(),
                    row["case id"].strip(),
                    row["sample id"].strip(),
                    int(barcode[1]) < 10,
                )
            )
    if not found:
        raise UserError(f"the sheets of {manual_dir} name no file *{COUNTS_ENDING}")
    return sorted(found, key=lambda sample: (sample.sample, sample.path.name))


def read_counts(path: Path) -> Counts:
    """The genes of a counts file; the four rows N_* of reads without a gene are dropped.

    Raises:
        UnreadableRecord: the file is missing, damaged, or lacks a column or all genes.
    """
    if not path.is_file():
        raise UnreadableRecord("names a file that does not exist")
    genes: list[tuple[str, str]] = []
    values: list[tuple[float, float]] = []
    try:
        with open_text(path) as lines:
            header: list[str] = []
            at: list[int] = []
            for line in lines:
                if line.startswith("#"):
                    continue
                cells = line.rstrip("\r\n").split("\t")
                if not header:
                    header = cells
                    at = [header.index(n) for n in ("gene_name", "unstranded", "tpm_unstranded")]
                elif not cells[0].startswith("N_"):
                    genes.append((bare_id(cells[0]), cells[at[0]]))
                    values.append((float(cells[at[1]]), float(cells[at[2]])))
    except (UserError, ValueError, IndexError) as error:
        raise UnreadableRecord(f"is no table of STAR counts: {str(error)[-60:]}") from None
    table = np.array(values, np.float64).reshape(-1, 2)
    if not len(table) or not np.isfinite(table).all() or table.min() < 0:
        raise UnreadableRecord("has no gene, or a count that is none")
    ids, symbols = zip(*genes, strict=True)
    return Counts(ids, symbols, table[:, 0], table[:, 1])


def read_substitutions(manual_dir: Path) -> Iterator[Substitution]:
    """Single bases of every `*.maf[.gz]` below the folder; other kinds of variants are passed over.

    Raises:
        UserError: there is no such file, one is damaged or lacks a column.
    """
    paths = sorted(p for p in manual_dir.rglob("*") if p.name.endswith((".maf", ".maf.gz")))
    if not paths:
        raise UserError(f"no file *.maf or *.maf.gz under {manual_dir}")
    for path in paths:
        header: list[str] = []
        at: list[int] = []
        with open_text(path) as lines:
            for line in lines:
                if line.startswith("#"):
                    continue
                cells = line.rstrip("\r\n").split("\t")
                if not header:
                    header = cells
                    missing = [name for name in _MAF_COLUMNS if name not in header]
                    if missing:
                        raise UserError(f"the file {path} has no column {missing[0]!r}")
                    at = [header.index(name) for name in _MAF_COLUMNS]
                    continue
                _, contig, place, reference, allele, kind, barcode = (cells[i] for i in at)
                if kind == "SNP" and place.isdecimal():
                    case = "-".join(barcode.split("-")[:3])
                    yield Substitution(case, contig, int(place) - 1, reference, allele)
