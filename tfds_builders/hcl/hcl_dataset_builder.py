"""Builder of the Human Cell Landscape's cluster reference."""

from __future__ import annotations

from collections import Counter
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
from tfds_builders.core.tables import read_csv
from tfds_builders.core.variable_genes import TrainingGenes
from tfds_builders.hcl.matrix_market import Columns, find, read_matrix, read_names

# A type that fewer clusters have cannot lie in every split; its clusters have no target.
MIN_CLUSTERS = 10
# Names that say what a cell does or that nobody knows, not what type it is.
NO_TYPES = ("Unknown", "Proliferating cell")
_COLUMNS = ("cluster", "cell_type", "organ_stage", "sample")


class Builder(MedicalBuilder):
    """Aggregated expression of cell clusters, with cell type and organ."""

    VERSION = tfds.core.Version("1.0.0")
    BUILDER_CONFIGS = [
        tfds.core.BuilderConfig(
            name="samples", description="held-out samples (pieces of tissue), organs in common"
        ),
        tfds.core.BuilderConfig(
            name="organs", description="held-out organs: whole organ_stage values, by hash"
        ),
    ]
    CARD = SourceCard(
        name="hcl",
        title="Human Cell Landscape: clusters of cells over 45 organs and stages",
        namespace="hcl",
        modalities=("scrna",),
        tasks=("cell_type",),
        publisher="Guo laboratory, Zhejiang University (GitHub ggjlab/scHCL)",
        homepage="https://github.com/ggjlab/scHCL",
        licence="GPL-3 (the R package that ships the reference)",
        licence_forbids="Passing it on under other terms than the GPL.",
        how_to_obtain="write ref.expr of scHCL's data/ref.expr.rda as matrix.mtx.gz, genes.tsv.gz "
        "and barcodes.tsv.gz, and its column names as cluster_annotation.csv (cluster, cell_type, "
        "organ_stage, sample, donor_no); --manual_dir is the folder that holds them",
        citation="Han et al. Construction of a human cell landscape at single-cell level. Nature "
        "581:303, 2020.",
        group_key="sample (a piece of tissue of one donor); organ and stage in config organs",
        unit="cluster",
        size="1,254 clusters",
    )
    DATASHEET = Datasheet(
        collection="Microwell-seq of tissues of adults and fetuses; the publishers clustered the "
        "cells of each sample and summed the expression of marker genes per cluster.",
        labels="Named by the publishers from the marker genes of each cluster, which are also the "
        "input; names are free text and overlap.",
        personal_data="No identifiers: sums over many cells, a sample name and a donor number.",
        consent="According to the paper donors or families consented and an ethics board approved; "
        "the files do not say so.",
        patients_separable="No: samples are told apart, but a donor may have given several organs.",
        known_biases="Samples are processed in batches by organ, so organ and batch are "
        "confounded; only marker genes are given.",
        intended_use="Cell types across samples and unseen organs.",
        unsuitable_use="Claims about single cells: every record is a sum over a cluster.",
    )
    EXPECTED_LAYOUT = (
        "matrix.mtx.gz, genes.tsv.gz, barcodes.tsv.gz (or unpacked) and cluster_annotation.csv"
    )
    # 45 organs, 63 samples: a hash of so few leaves types of a dozen clusters out of test.
    SPLIT_MODE = "stratified"

    def __init__(self, **kwargs: Any) -> None:
        """The classes become known while the source is walked."""
        self._classes: tuple[str, ...] = ()
        self._symbols: tuple[str, ...] = ()
        self._matrix: Columns | None = None
        super().__init__(**kwargs)

    def record_features(self) -> dict[str, Any]:
        """The expressed marker genes of a cluster."""
        return {
            "scrna": scrna_features(),
            "organ": tfds.features.Text(),
            "cell_type": tfds.features.Text(),
        }

    def class_names(self) -> dict[str, tuple[str, ...]]:
        """Types of at least `MIN_CLUSTERS` clusters, by name; known once the source is read."""
        return {"cell_type": self._classes}

    def statistics(self) -> TrainingGenes:
        """The genes of the training split."""
        return TrainingGenes("counts")

    def extra_metadata(self) -> dict[str, Any]:
        """Symbols of the genes, and their keys by dispersion in train, the most variable first."""
        return {
            "gene_symbols": list(self._symbols),
            "highly_variable": self.written.ranked(),
            "rare_types": {"fewer_clusters_than": MIN_CLUSTERS, "treatment": "no target"},
        }

    def read_source(self, manual_dir: Path, quarantine: Quarantine) -> Iterator[SourceRecord]:
        """Yields the clusters in the order of the matrix."""
        table = manual_dir / "cluster_annotation.csv"
        rows = {row["cluster"]: row for row in read_csv(table, _COLUMNS)}
        symbols = read_names(find(manual_dir, "genes.tsv"))
        clusters = read_names(find(manual_dir, "barcodes.tsv"))
        path = find(manual_dir, "matrix.mtx")
        if self._matrix is None:
            self._matrix = read_matrix(path)
        if self._matrix.shape != (len(symbols), len(clusters)):
            raise UserError(
                f"the file {path} is {self._matrix.shape[0]} x {self._matrix.shape[1]}; genes and "
                f"barcodes name {len(symbols)} x {len(clusters)}"
            )
        self._symbols = tuple(symbols)
        self._classes = common_types([row["cell_type"] for row in rows.values()])
        keys = np.array([gene_key(symbol) for symbol in symbols], np.int32)
        for number, cluster in enumerate(clusters):
            try:
                if cluster not in rows:
                    raise UnreadableRecord("has no row in cluster_annotation.csv")
                row = rows[cluster]
                genes, values = self._matrix.cell(number)
                found, sums = sum_by_key(keys[genes], values)
                organ, sample = row["organ_stage"].strip(), row["sample"].strip()
                if not (organ and sample):
                    raise UnreadableRecord("has no organ_stage or sample")
            except UnreadableRecord as error:
                quarantine.add(cluster, str(error))
                continue
            label = row["cell_type"].strip()
            yield SourceRecord(
                sample_id=cluster,
                group_id=organ if self._config_name() == "organs" else sample,
                record={
                    "scrna": {"gene_keys": found, "values": sums, "unit": "counts"},
                    "organ": organ,
                    "cell_type": label,
                    "targets": {
                        "cell_type": self._classes.index(label) if label in self._classes else -1
                    },
                },
                stratum=label if label in self._classes else "",
                audit=array_audit(np.stack([found, sums.view(np.int32)])),
            )

    def _config_name(self) -> str:
        assert self.builder_config is not None
        return self.builder_config.name


def common_types(labels: list[str]) -> tuple[str, ...]:
    """Types that at least `MIN_CLUSTERS` clusters have, in the order of the alphabet."""
    counts = Counter(label.strip() for label in labels)
    return tuple(
        sorted(name for name, n in counts.items() if n >= MIN_CLUSTERS and name not in NO_TYPES)
    )


def sum_by_key(keys: np.ndarray, values: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Positive values by key, ascending; symbols that differ by case alone are one gene, summed.

    Raises:
        UnreadableRecord: for a value that is negative or not finite, or where none is positive.
    """
    if not np.isfinite(values).all() or (values < 0).any():
        raise UnreadableRecord("has a value that is negative or not finite")
    found, place = np.unique(keys, return_inverse=True)
    sums = np.bincount(place, values, len(found)).astype(np.float32)
    if not (sums > 0).any():
        raise UnreadableRecord("has no expressed gene")
    return found[sums > 0], sums[sums > 0]
