"""Cells of a table: from an h5ad file, whose obs may be the table, or a Matrix Market folder."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from multimed_jax.types import UserError
from tfds_builders.core import features
from tfds_builders.core.records import AuditKey, UnreadableRecord, array_audit
from tfds_builders.own_data.cells import H5adFile, MatrixFolder, expressed
from tfds_builders.own_data.config import OwnDataConfig
from tfds_builders.own_data.inputs import Input
from tfds_builders.own_data.table import Sample


class CellReader:
    """The expressed genes of the cell that has the sample's id."""

    def __init__(self, given: Input) -> None:
        """Reads as the config's input says."""
        self._input = given
        self._source: H5adFile | MatrixFolder | None = None
        self._rows: dict[str, int] = {}

    def features(self) -> Any:
        return features.scrna_features()

    def empty(self) -> Any:
        return {
            "gene_keys": np.zeros(0, np.int32),
            "values": np.zeros(0, np.float32),
            "unit": "",
        }

    def present(self, sample: Sample) -> bool:
        return True

    def open(self, manual_dir: Path) -> H5adFile | MatrixFolder:
        """The file or folder, opened once. Raises UserError."""
        if self._source is None:
            if self._input.h5ad:
                self._source = H5adFile(manual_dir / self._input.h5ad, self._input.layer)
            else:
                self._source = MatrixFolder.open(manual_dir / self._input.matrix)
            self._rows = {name: i for i, name in enumerate(self._source.names)}
            if len(self._rows) < len(self._source.names):
                raise UserError("two cells of own_data have one name; accepted: each name once")
        return self._source

    def read(self, manual_dir: Path, sample: Sample) -> Any:
        source = self.open(manual_dir)
        if sample.sample_id not in self._rows:
            raise UnreadableRecord("has no cell of its name in the matrix")
        keys, values = source.cell(self._rows[sample.sample_id])
        found, levels = expressed(keys, values, self._input.unit)
        return {"gene_keys": found, "values": levels, "unit": self._input.unit}

    def audit(self, value: Any) -> AuditKey:
        return array_audit(np.stack([value["gene_keys"], value["values"].view(np.int32)]))


def rows_of_obs(source: Any, config: OwnDataConfig) -> list[dict[str, str]]:
    """The rows of a table whose columns are those of obs; without `sample_id` the cell's name.

    Raises:
        UserError: a column is missing, or the source is no h5ad file.
    """
    if not isinstance(source, H5adFile):
        raise UserError("own_data has no table; accepted: one, or inputs.scrna.h5ad")
    columns: dict[str, Sequence[str]] = {
        name.strip().lower(): source.column(name.strip())
        for name in config.columns
        if name != config.sample_id
    }
    if config.sample_id:
        columns[config.sample_id.strip().lower()] = source.column(config.sample_id.strip())
    return [dict(zip(columns, row, strict=True)) for row in zip(*columns.values(), strict=True)]
