"""Builder of an experiment of the Single Cell Expression Atlas (EMBL-EBI)."""

from __future__ import annotations

import dataclasses
from collections import Counter
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, cast

import numpy as np
import tensorflow_datasets as tfds

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
from tfds_builders.core.tables import read_tsv
from tfds_builders.core.variable_genes import TrainingGenes
from tfds_builders.own_data.cells import MatrixFolder, expressed

KINDS = (
    "aggregated_filtered_counts",
    "aggregated_counts",
    "aggregated_filtered_normalised_counts",
)
# The columns of an experiment's design, in the order in which they are looked for.
TYPE_COLUMNS = (
    "factor value[inferred cell type - ontology labels]",
    "factor value[inferred cell type - authors labels]",
    "factor value[cell type]",
    "sample characteristic[cell type]",
)
ORGAN_COLUMN = "sample characteristic[organism part]"
DONOR_COLUMN = "sample characteristic[individual]"
SEX_COLUMN = "sample characteristic[sex]"


@dataclasses.dataclass(kw_only=True)
class AtlasConfig(tfds.core.BuilderConfig):
    """Which columns of the design are read.

    Attributes:
        type_column: of the class; "" takes the first of `TYPE_COLUMNS` that is there.
        group_column: what must not cross splits.
        min_cells: a type with fewer cells has no target.
        namespace: names the label space; one of your own for each experiment.
    """

    type_column: str = ""
    group_column: str = DONOR_COLUMN
    min_cells: int = 10
    namespace: str = "single_cell_expression_atlas"

    def __post_init__(self) -> None:
        """Raises UserError for a value that is not accepted."""
        if not (self.name and self.namespace and self.group_column) or self.min_cells < 1:
            raise UserError(
                "a config of single_cell_expression_atlas lacks a name, namespace or "
                "group_column, or has min_cells below 1"
            )


class Builder(MedicalBuilder):
    """Cells of one experiment."""

    VERSION = tfds.core.Version("1.0.0")
    BUILDER_CONFIGS = [
        AtlasConfig(name="donors", description="held-out individuals"),
        AtlasConfig(
            name="organs", group_column=ORGAN_COLUMN, description="held-out organism parts"
        ),
    ]
    CARD = SourceCard(
        name="single_cell_expression_atlas",
        title="An experiment of the Single Cell Expression Atlas",
        namespace="single_cell_expression_atlas",
        modalities=("scrna",),
        tasks=("cell_type",),
        publisher="EMBL-EBI, Single Cell Expression Atlas; the experiment's own authors",
        homepage="https://www.ebi.ac.uk/gxa/sc",
        licence="see https://www.ebi.ac.uk/gxa/licence.html and the experiment",
        licence_forbids="Use without citing the atlas and the experiment.",
        how_to_obtain="of one experiment download <ACC>.aggregated_filtered_counts.mtx with its "
        "mtx_rows and mtx_cols, and ExpDesign-<ACC>.tsv (folder sc_experiments/<ACC> of the "
        "atlas's FTP site); --manual_dir is the folder that holds them",
        citation="Moreno et al. Expression Atlas update: gene and protein expression in multiple "
        "species. Nucleic Acids Research 50:D129, 2022; and the experiment's paper",
        group_key="individual (config donors) or organism part (config organs)",
        unit="cell",
        size="MBs to GBs an experiment",
    )
    DATASHEET = Datasheet(
        collection="Cells of one study, aligned and counted again by the atlas.",
        labels="Cell types that the study's authors inferred, some mapped to an ontology.",
        personal_data="No identifiers: cell ids, and donors by the study's own labels.",
        consent="Unknown: it rests with the study.",
        patients_separable="By the column individual, where the study fills it.",
        known_biases="Batches go together with donors; types come from clusters of the same "
        "expression values that are the input.",
        intended_use="Cell types across donors or organs.",
        unsuitable_use="Claims that the study itself does not support.",
    )
    EXPECTED_LAYOUT = (
        "<ACC>.aggregated_filtered_counts.{mtx,mtx_rows,mtx_cols}[.gz] and ExpDesign-<ACC>.tsv"
    )
    # Donors are few, and some types occur in few of them.
    SPLIT_MODE = "stratified"

    def __init__(self, **kwargs: Any) -> None:
        """The classes become known while the source is walked."""
        self._classes: tuple[str, ...] = ()
        self._matrix: MatrixFolder | None = None
        super().__init__(**kwargs)

    @property
    def _config(self) -> AtlasConfig:
        return cast(AtlasConfig, self.builder_config)

    def _info(self) -> tfds.core.DatasetInfo:
        vars(self)["CARD"] = dataclasses.replace(type(self).CARD, namespace=self._config.namespace)
        return super()._info()

    def record_features(self) -> dict[str, Any]:
        """The expressed genes of a cell, and where it comes from."""
        made = {key: tfds.features.Text() for key in ("organ", "cell_type", "sex")}
        return {"scrna": scrna_features(), **made}

    def class_names(self) -> dict[str, tuple[str, ...]]:
        """Types of at least `min_cells` cells, by name; known once the source is read."""
        return {"cell_type": self._classes}

    def statistics(self) -> TrainingGenes:
        """The genes of the training split."""
        return TrainingGenes("counts")

    def extra_metadata(self) -> dict[str, Any]:
        """Keys of the genes by dispersion in train, and what became of rare types."""
        return {
            "gene_names": "Ensembl ids, as the atlas gives them",
            "highly_variable": self.written.ranked(),
            "rare_types": {"fewer_cells_than": self._config.min_cells, "treatment": "no target"},
        }

    def read_source(self, manual_dir: Path, quarantine: Quarantine) -> Iterator[SourceRecord]:
        """Yields the cells that matrix and design share, in the order of the matrix."""
        accession, matrix, rows, columns = find_experiment(manual_dir)
        if self._matrix is None:
            self._matrix = MatrixFolder.join(matrix, rows, columns, 0)
        design = manual_dir / f"ExpDesign-{accession}.tsv"
        group_column = self._config.group_column.strip().lower()
        table = read_tsv(design, ["assay", group_column])
        type_column = _type_column(table, self._config.type_column.strip().lower(), design)
        cells = {row["assay"].strip(): row for row in table}
        counts = Counter(_cell(cells[n], type_column) for n in self._matrix.names if n in cells)
        self._classes = tuple(
            sorted(name for name, n in counts.items() if name and n >= self._config.min_cells)
        )
        for number, name in enumerate(self._matrix.names):
            if name not in cells:
                quarantine.leave_out("cell that the design does not name")
                continue
            try:
                yield self._cell_record(name, number, cells[name], type_column, group_column)
            except UnreadableRecord as error:
                quarantine.add(name, str(error))

    def _cell_record(
        self, name: str, number: int, row: Mapping[str, str], type_column: str, group_column: str
    ) -> SourceRecord:
        assert self._matrix is not None
        keys, values = expressed(*self._matrix.cell(number), "counts")
        group, kind = _cell(row, group_column), _cell(row, type_column)
        if not group:
            raise UnreadableRecord(f"has no {group_column}")
        sex = _cell(row, SEX_COLUMN).lower()
        return SourceRecord(
            sample_id=name,
            group_id=group,
            record={
                "scrna": {"gene_keys": keys, "values": values, "unit": "counts"},
                "organ": _cell(row, ORGAN_COLUMN),
                "cell_type": kind,
                "sex": sex if sex in ("female", "male") else "",
                "targets": {
                    "cell_type": self._classes.index(kind) if kind in self._classes else -1
                },
            },
            stratum=kind if kind in self._classes else "",
            audit=array_audit(np.stack([keys, values.view(np.int32)])),
        )


def find_experiment(manual_dir: Path) -> tuple[str, Path, Path, Path]:
    """Accession, matrix, genes and cells of the one experiment in a folder.

    Raises:
        UserError: none, several, or one without its genes or cells.
    """
    for kind in KINDS:
        found = sorted(p for end in ("", ".gz") for p in manual_dir.glob(f"*.{kind}.mtx{end}"))
        if len(found) > 1:
            raise UserError(
                f"the folder {manual_dir} has {len(found)} files *.{kind}.mtx; accepted: 1"
            )
        if found:
            stem = found[0].name.removesuffix(".gz")
            parts = []
            for ending in ("_rows", "_cols"):
                places = [manual_dir / f"{stem}{ending}{end}" for end in ("", ".gz")]
                place = next((p for p in places if p.is_file()), None)
                if place is None:
                    raise UserError(f"the folder {manual_dir} has no {stem}{ending}")
                parts.append(place)
            return stem.removesuffix(f".{kind}.mtx"), found[0], parts[0], parts[1]
    raise UserError(f"the folder {manual_dir} has no *.{KINDS[0]}.mtx")


def _type_column(table: list[dict[str, str]], given: str, design: Path) -> str:
    there = list(table[0]) if table else []
    for name in (given,) if given else TYPE_COLUMNS:
        if name in there:
            return name
    raise UserError(
        f"the file {design} has no column {given or TYPE_COLUMNS[0]!r}; it has: {', '.join(there)}"
    )


def _cell(row: Mapping[str, str], column: str) -> str:
    return row[column].strip() if column in row else ""
