"""Builder of lentiMPRA elements: `WTC11*.tsv` with values, or `*.fasta` without."""

from __future__ import annotations

import csv
import dataclasses
import functools
import hashlib
import math
import re
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import tensorflow_datasets as tfds

from multimed_jax.types import UserError
from tfds_builders.core.base import MedicalBuilder
from tfds_builders.core.features import genomics_features
from tfds_builders.core.planning import DuplicatePolicy, SplitMode
from tfds_builders.core.quarantine import Quarantine
from tfds_builders.core.records import (
    Datasheet,
    SourceCard,
    SourceRecord,
    UnreadableRecord,
    text_audit,
)
from tfds_builders.lentimpra.elements import canonical, group_elements, reverse_complement

# Adapters of the library (Agarwal et al. 2025, Methods); a sequence without them is refused.
ADAPTERS = ("AGGACCGGATCAACT", "CATTGCGTGAACCGA")
CELL_TYPES = ("WTC11",)
# Of the ten folds of the full tables; the publisher tests each in turn.
VALIDATION_FOLD, TEST_FOLD = 9, 10
_BASES = re.compile("[ACGTN]+")
_GENE = re.compile(r"ENSG\d{11}(?=_|$)", re.ASCII)


@dataclasses.dataclass(frozen=True)
class Row:
    """One sequence of the source; `value` is NaN and `fold` None where it gives none."""

    sample_id: str
    sequence: str
    value: float = math.nan
    fold: int | None = None

    @property
    def element(self) -> str:
        """The canonical form of what lies between the adapters."""
        return canonical(self.sequence[len(ADAPTERS[0]) : -len(ADAPTERS[1])])


class Builder(MedicalBuilder):
    """DNA elements and their expression in WTC11 cells."""

    VERSION = tfds.core.Version("1.0.0")
    BUILDER_CONFIGS = [
        tfds.core.BuilderConfig(
            name="wtc11", description="sequences with values, split by groups of alike elements"
        ),
        tfds.core.BuilderConfig(
            name="folds", description="the publisher's folds (column fold_num): 9 and 10 held out"
        ),
        tfds.core.BuilderConfig(
            name="elements", description="sequences without values (FASTA), some named by a gene"
        ),
    ]
    CARD = SourceCard(
        name="lentimpra",
        title="lentiMPRA: regulatory DNA elements and their expression in WTC11 cells",
        namespace="lentimpra_wtc11",
        modalities=("genomics",),
        tasks=("expression",),
        publisher="Agarwal et al.; tables of the MPRA-LegNet authors (Zenodo 10558183)",
        homepage="https://github.com/autosome-ru/human_legnet",
        licence="MIT, as stated in the repository of the tables",
        licence_forbids="Passing the files on without the licence text.",
        how_to_obtain="copy WTC11*.tsv (tutorial/dataset or Zenodo 10558183), and for the config "
        "elements datasets/fasta/example.fasta, from GitHub autosome-ru/human_legnet; "
        "--manual_dir is the folder that holds them",
        citation="Agarwal et al. Massively parallel characterization of transcriptional regulatory "
        "elements. Nature, 2025. doi:10.1038/s41586-024-08430-9",
        group_key="elements that are alike: either orientation, or a common word of 20 bases",
        unit="sequence",
        size="not known",
    )
    DATASHEET = Datasheet(
        collection="Synthetic reporters integrated into a cell line by lentivirus; each element "
        "of 200 bases was taken from the human reference genome, most in both orientations.",
        labels="Mean log2 ratio of RNA to DNA barcodes over replicates; the two orientations of "
        "an element agree with a correlation of about 0.74.",
        personal_data="None: elements of the reference genome, no person's variants.",
        consent="Not applicable: a cell line, as described by its providers.",
        patients_separable="Not applicable: groups are elements.",
        known_biases="Elements were picked as promoters and candidate enhancers; GC content "
        "explains part of the values.",
        intended_use="Prediction of expression from sequence.",
        unsuitable_use="Variant interpretation in patients, or claims about native genes.",
    )
    EXPECTED_LAYOUT = "WTC11*.tsv with columns seq and mean_value (config elements: *.fasta)"
    LEARNT = ("_groups",)

    def __init__(self, **kwargs: Any) -> None:
        """Groups are computed once, at the first reading."""
        self._groups: dict[str, str] = {}
        super().__init__(**kwargs)

    def record_features(self) -> dict[str, Any]:
        """The sequence with its adapters, as published."""
        return {"genomics": genomics_features(), "gene_id": tfds.features.Text()}

    def target_kinds(self) -> dict[str, Any]:
        """Levels."""
        return {"expression": "values"}

    def class_names(self) -> dict[str, tuple[str, ...]]:
        """The cell line."""
        return {"expression": CELL_TYPES}

    def split_mode(self) -> SplitMode:
        """The publisher's folds in config `folds`."""
        return "official" if self._config_name() == "folds" else "group"

    def duplicate_policy(self) -> DuplicatePolicy:
        """Equal sequences share a group; across the publisher's folds the test copy stays."""
        return "leave_out" if self._config_name() == "folds" else "fail"

    def extra_metadata(self) -> dict[str, Any]:
        """The unit of the values, and how large groups are."""
        sizes = Counter(self._groups.values())
        return {
            "value_unit": "log2(RNA/DNA)",
            "elements": {"number": len(self._groups), "largest_group": max(sizes.values())},
        }

    def read_source(self, manual_dir: Path, quarantine: Quarantine) -> Iterator[SourceRecord]:
        """Yields the sequences in the order of the files."""
        if self._config_name() == "elements":
            rows = read_fasta(manual_dir, quarantine)
        else:
            rows = read_tables(manual_dir, quarantine, self._config_name() == "folds")
        if not self._groups:
            self._groups = group_elements([row.element for row in rows])
            if self._config_name() == "folds":
                self._groups = {element: element for element in self._groups}
        for row in rows:
            gene = _GENE.match(row.sample_id)
            yield SourceRecord(
                sample_id=row.sample_id,
                group_id="element" + _short(self._groups[row.element]),
                record={
                    "genomics": {"sequence": row.sequence, "site": -1},
                    "gene_id": gene[0] if gene else "",
                    "targets": {"expression": np.array([row.value], np.float32)},
                },
                stratum="",
                official_split=None if row.fold is None else _fold_split(row.fold),
                audit=functools.partial(text_audit, row.sequence),
            )

    def _config_name(self) -> str:
        assert self.builder_config is not None
        return self.builder_config.name


def _short(element: str) -> str:
    return hashlib.sha256(element.encode()).hexdigest()[:12]


def _fold_split(fold: int) -> str:
    return {VALIDATION_FOLD: "validation", TEST_FOLD: "test"}.get(fold, "train")


def check_sequence(text: str) -> str:
    """The sequence in upper case.

    Raises:
        UnreadableRecord: for other letters than bases, or where an adapter is missing.
    """
    sequence = text.strip().upper()
    if not _BASES.fullmatch(sequence):
        raise UnreadableRecord("its sequence has other letters than A, C, G, T and N")
    start, end = ADAPTERS
    # The FASTA file also has constructs turned round as a whole.
    strands = (sequence, reverse_complement(sequence))
    if not any(strand.startswith(start) and strand.endswith(end) for strand in strands):
        raise UnreadableRecord(f"lacks the adapters; accepted: {start}...{end}")
    if len(sequence) <= len(start) + len(end):
        raise UnreadableRecord("has no element between its adapters")
    return sequence


def read_tables(manual_dir: Path, quarantine: Quarantine, with_folds: bool) -> list[Row]:
    """Rows of every `WTC11*.tsv`; ids are file name and row number, counted from 0.

    Raises:
        UserError: where there is no table, it lacks a column or is no text.
    """
    paths = sorted(manual_dir.glob("WTC11*.tsv"))
    if not paths:
        raise UserError(f"no file WTC11*.tsv in {manual_dir}; expected columns: seq, mean_value")
    columns = ("seq", "mean_value", *(("fold_num",) if with_folds else ()))
    rows = []
    for path in paths:
        for number, cells in enumerate(_read_tsv(path, columns)):
            name = f"{path.stem}/{number}"
            try:
                rows.append(_table_row(name, cells, with_folds))
            except UnreadableRecord as error:
                quarantine.add(name, str(error))
    return rows


def _read_tsv(path: Path, columns: tuple[str, ...]) -> Iterator[dict[str, str | None]]:
    try:
        with path.open(newline="", encoding="utf-8-sig") as lines:
            reader = csv.DictReader(lines, delimiter="\t")
            header = reader.fieldnames or []
            for column in columns:
                if column not in header:
                    raise UserError(
                        f"the file {path} has no column {column!r}; it has: {', '.join(header)}"
                    )
            yield from reader
    except (UnicodeDecodeError, csv.Error) as error:
        raise UserError(f"the file {path} is no UTF-8 table: {error}") from error


def _table_row(name: str, cells: dict[str, str | None], with_folds: bool) -> Row:
    sequence = check_sequence(cells["seq"] or "")
    try:
        value = float(cells["mean_value"] or "")
        fold = int(float(cells["fold_num"] or "")) if with_folds else None
    except ValueError as error:
        raise UnreadableRecord(f"has no number where one is expected: {error}") from error
    if not math.isfinite(value):
        raise UnreadableRecord(f"has the value {value}, which is not finite")
    if fold is not None and not 1 <= fold <= 10:
        raise UnreadableRecord(f"has fold {fold}; accepted: 1 to 10")
    return Row(name, sequence, value, fold)


def read_fasta(manual_dir: Path, quarantine: Quarantine) -> list[Row]:
    """Sequences of every FASTA file; a repeated id gets the number of its occurrence.

    Raises:
        UserError: where there is no file, or it does not start with `>`.
    """
    paths = sorted(manual_dir.glob("*.fasta"))
    if not paths:
        raise UserError(f"no file *.fasta in {manual_dir}; expected records of >id and bases")
    rows: list[Row] = []
    seen: Counter[str] = Counter()
    for path in paths:
        first, *parts = path.read_text("utf-8-sig", errors="replace").split(">")
        if first.strip() or not parts:
            raise UserError(f"the file {path} is no FASTA file: it does not start with '>'")
        for part in parts:
            header, _, body = part.partition("\n")
            name = (header.split() or ["unnamed"])[0]
            seen[name] += 1
            name = f"{name}/{seen[name]}"
            try:
                rows.append(Row(name, check_sequence("".join(body.split()))))
            except UnreadableRecord as error:
                quarantine.add(name, str(error))
    return rows
