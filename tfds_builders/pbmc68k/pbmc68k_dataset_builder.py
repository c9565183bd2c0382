"""Builder of the reduced 68k PBMC data: `10x_pbmc68k_reduced.h5ad`."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import tensorflow_datasets as tfds

from multimed_jax.modalities.scrna import gene_key
from multimed_jax.types import UserError
from tfds_builders.core.base import MedicalBuilder
from tfds_builders.core.features import scrna_features
from tfds_builders.core.quarantine import Quarantine
from tfds_builders.core.records import (
    Datasheet,
    SourceCard,
    SourceRecord,
    UnreadableRecord,
    array_audit,
)
from tfds_builders.core.variable_genes import TrainingGenes
from tfds_builders.pbmc68k.h5ad_cells import read_cells

FILE_NAME = "10x_pbmc68k_reduced.h5ad"
LABEL_COLUMN = "bulk_labels"
# As the file names them, in its order.
CLASSES = (
    "CD4+/CD25 T Reg",
    "CD4+/CD45RA+/CD25- Naive T",
    "CD4+/CD45RO+ Memory",
    "CD8+ Cytotoxic T",
    "CD8+/CD45RA+ Naive Cytotoxic",
    "CD14+ Monocyte",
    "CD19+ B",
    "CD34+",
    "CD56+ NK",
    "Dendritic",
)
_WELL = re.compile(r"[ACGTN]+-(\d+)", re.ASCII)


def gene_keys(symbols: tuple[str, ...], where: str) -> np.ndarray:
    """Stable keys of the genes. Raises UserError where two of them share one."""
    keys: dict[int, str] = {}
    for symbol in symbols:
        key = gene_key(symbol)
        if key in keys:
            raise UserError(
                f"the genes {keys[key]!r} and {symbol!r} of {where} share one key; accepted: "
                "symbols that differ by more than case"
            )
        keys[key] = symbol
    return np.fromiter(keys, np.int32, len(keys))


class Builder(MedicalBuilder):
    """Blood cells of one donor with the type of the most similar sorted population."""

    VERSION = tfds.core.Version("1.0.0")
    CARD = SourceCard(
        name="pbmc68k",
        title="Fresh 68k PBMCs, reduced: blood cells of ten types, 765 genes",
        namespace="pbmc68k",
        modalities=("scrna",),
        tasks=("cell_type",),
        publisher="10x Genomics; the reduced copy ships with scanpy",
        homepage="https://www.10xgenomics.com/datasets",
        licence="CC BY 4.0 (10x Genomics data); BSD-3-Clause (scanpy, which ships the file)",
        licence_forbids="Use without naming the source.",
        how_to_obtain="copy scanpy/datasets/10x_pbmc68k_reduced.h5ad from scanpy's wheel on PyPI; "
        "--manual_dir is the folder that holds it",
        citation="Zheng et al. Massively parallel digital transcriptional profiling of single "
        "cells. Nature Communications 8, 14049, 2017.",
        group_key="GEM well (suffix of the barcode)",
        unit="cell",
        size="700 cells",
    )
    DATASHEET = Datasheet(
        collection="Peripheral blood of one donor, droplets of eight GEM wells; scanpy's authors "
        "kept a subset of cells and genes.",
        labels="Each cell has the name of the sorted population it correlates with most; nobody "
        "checked the cells one by one, and related T cells are confused.",
        personal_data="No identifiers: barcodes are random, and expression of 765 genes is not "
        "linked to a person.",
        consent="Unknown: the file states neither consent nor ethics approval of the donor.",
        patients_separable="No: there is one donor, so wells stand in and nothing generalises "
        "across people.",
        known_biases="Dendritic cells are over-represented; some types have fewer than ten cells; "
        "labels and input come from the same expression values.",
        intended_use="Development and testing of cell-type classification.",
        unsuitable_use="Any claim across donors, tissues or laboratories, or on rare cell types.",
    )
    EXPECTED_LAYOUT = FILE_NAME

    def record_features(self) -> dict[str, Any]:
        """The expressed genes of a cell."""
        return {
            "scrna": scrna_features(),
            "organ": tfds.features.Text(),
            "cell_type": tfds.features.Text(),
        }

    def class_names(self) -> dict[str, tuple[str, ...]]:
        """The populations of `bulk_labels`."""
        return {"cell_type": CLASSES}

    def statistics(self) -> TrainingGenes:
        """The genes of the training split."""
        return TrainingGenes("log1p")

    def extra_metadata(self) -> dict[str, Any]:
        """Symbols of the genes, and their keys by dispersion in train, the most variable first."""
        return {
            "gene_symbols": list(self._gene_symbols),
            "highly_variable": self.written.ranked(),
        }

    def read_source(self, manual_dir: Path, quarantine: Quarantine) -> Iterator[SourceRecord]:
        """Yields the cells in the file's order."""
        path = manual_dir / FILE_NAME
        table = read_cells(path, LABEL_COLUMN)
        keys = gene_keys(table.genes, str(path))
        self._gene_symbols = table.genes
        for row, barcode in enumerate(table.barcodes):
            label = table.labels[row]
            well = _WELL.fullmatch(barcode)
            try:
                if well is None:
                    raise UnreadableRecord("its barcode names no well; accepted: bases-number")
                if label and label not in CLASSES:
                    raise UnreadableRecord(f"has the unknown label {label!r}")
                columns, values = table.cell(row)
            except UnreadableRecord as error:
                quarantine.add(barcode, str(error))
                continue
            yield SourceRecord(
                sample_id=barcode,
                group_id=f"well{well[1]}",
                record={
                    "scrna": {"gene_keys": keys[columns], "values": values, "unit": "log1p"},
                    "organ": "blood",
                    "cell_type": label,
                    "targets": {"cell_type": CLASSES.index(label) if label else -1},
                },
                stratum=label,
                audit=array_audit(np.stack([columns, values.view(np.int32)])),
            )
