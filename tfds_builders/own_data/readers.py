"""What a reader of one modality offers, and where the files that a table names lie."""

from __future__ import annotations

from pathlib import Path
from typing import Any, Protocol

from multimed_jax.types import UserError
from tfds_builders.core.records import AuditKey, UnreadableRecord
from tfds_builders.own_data.table import Cells, Sample, cell


class Reader(Protocol):
    """Reads one modality of the samples; made once for a build, for the manual folder."""

    def features(self) -> Any:
        """The tfds features of its record key."""
        ...

    def empty(self) -> Any:
        """The value of a record that lacks the modality."""
        ...

    def present(self, sample: Sample) -> bool:
        """Whether the table gives the sample a value."""
        ...

    def read(self, manual_dir: Path, sample: Sample) -> Any:
        """The value of a sample that has one. Raises UnreadableRecord."""
        ...

    def audit(self, value: Any) -> AuditKey:
        """The key by which the value is compared with others."""
        ...


def has_cell(sample: Sample, column: str) -> bool:
    """Whether any row of the sample has something in the column."""
    return any(cell(row, column) for row in sample.rows)


def file_of(manual_dir: Path, row: Cells, column: str) -> Path:
    """The file or folder that a row names.

    Raises:
        UserError: the path leads out of the manual folder.
        UnreadableRecord: there is nothing at that place.
    """
    name = cell(row, column)
    path = manual_dir / name
    if not path.resolve().is_relative_to(manual_dir.resolve()):
        raise UserError(f"the column {column!r} names a path outside of the folder: {name!r}")
    if not path.exists():
        raise UnreadableRecord("names a file that does not exist")
    return path
