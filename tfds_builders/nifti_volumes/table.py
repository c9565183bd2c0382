"""What a config of `nifti_volumes` reads: its fields, and the rows of its table."""

from __future__ import annotations

import dataclasses
import difflib
import math
import re
from collections.abc import Mapping
from pathlib import Path

import tensorflow_datasets as tfds

from multimed_jax.types import UserError
from tfds_builders.core.nifti import SERIES, Series, is_nifti
from tfds_builders.core.tables import read_csv

MODALITIES = ("mri", "ct")
TASKS = ("disease", "tumor", "cell_type", "breast")
_SEXES = {"f": "female", "female": "female", "m": "male", "male": "male", "": ""}


@dataclasses.dataclass(kw_only=True)
class NiftiConfig(tfds.core.BuilderConfig):
    """Which volumes, which columns, which task.

    Attributes:
        modality: "mri" (intensities as they are) or "ct" (Hounsfield units).
        table: csv file with one row per volume; "" for a folder without labels.
        file_column: path of the volume below the manual folder.
        group_column: patient.
        label_column: class.
        task: that the classes belong to, one of `TASKS`.
        classes: in order; () takes the labels that occur, sorted.
        series: "first" reads the first volume of a file with several, "refuse" quarantines it.
        sequence: of all MRI volumes, such as "T1"; a column of that name has priority.
        namespace: names the label space and salts the split: one of your own for each source.
    """

    modality: str = "mri"
    table: str = "volumes.csv"
    file_column: str = "file"
    group_column: str = "group"
    label_column: str = "label"
    task: str = "disease"
    classes: tuple[str, ...] = ()
    series: Series = "refuse"
    sequence: str = ""
    namespace: str = "nifti_volumes"

    def __post_init__(self) -> None:
        """Raises UserError for a value that is not accepted."""
        self.classes = tuple(self.classes)  # a list where the config came as JSON
        for field, accepted in (("modality", MODALITIES), ("task", TASKS), ("series", SERIES)):
            value = getattr(self, field)
            if value not in accepted:
                near = difflib.get_close_matches(str(value), accepted, n=1)
                hint = f" (did you mean {near[0]!r}?)" if near else ""
                raise UserError(
                    f"a config of nifti_volumes has {field} {value!r}{hint}; accepted: "
                    f"{', '.join(accepted)}"
                )
        for field in ("name", "namespace"):
            if not getattr(self, field):
                raise UserError(f"a config of nifti_volumes lacks a {field}; accepted: any text")
        if len(set(self.classes)) < len(self.classes):
            raise UserError(
                f"a config of nifti_volumes has classes {list(self.classes)}; accepted: each once"
            )


@dataclasses.dataclass(frozen=True)
class Row:
    """One volume.

    Attributes:
        file: path below the manual folder, with forward slashes; also the record's id.
        group: patient.
        label: class, "" where it has none.
        sequence: of an MRI volume; the config's where the table has no such column.
        site: "" where there is no such column.
        sex: "female", "male" or "".
        age_years: None where unknown.
    """

    file: str
    group: str
    label: str
    sequence: str
    site: str = ""
    sex: str = ""
    age_years: float | None = None


def read_rows(manual_dir: Path, config: NiftiConfig) -> list[Row]:
    """The rows of the table, or all NIfTI files below the folder, sorted by path.

    Without a table a file is its own group, by its path without the extension.

    Raises:
        UserError: a column, group or label is missing, a path leads out of the folder, an age or
            sex is none, a label is none of `config.classes`.
    """
    if not config.table:
        paths = sorted(p for p in manual_dir.rglob("*") if is_nifti(p) and p.name[0] != ".")
        names = [path.relative_to(manual_dir).as_posix() for path in paths]
        return [Row(name, _without_extension(name), "", config.sequence) for name in names]
    path = manual_dir / config.table
    columns = [config.file_column, config.group_column, config.label_column]
    rows = read_csv(path, [name.strip().lower() for name in columns])
    return [_row(row, columns, path, manual_dir, config) for row in rows]


def _without_extension(name: str) -> str:
    return re.sub(r"\.nii(\.gz)?$", "", name, flags=re.IGNORECASE)


def _row(
    row: Mapping[str, str], columns: list[str], table: Path, manual_dir: Path, config: NiftiConfig
) -> Row:
    file, group, label = (row[name.strip().lower()].strip() for name in columns)
    if not (manual_dir / file).resolve().is_relative_to(manual_dir.resolve()):
        raise UserError(f"the file {table} names a path outside: {file!r}")
    for name, value in zip(columns, (file, group, label), strict=True):
        if not value:
            raise UserError(f"the file {table} has a row without {name!r}; accepted: any text")
    if config.classes and label not in config.classes:
        near = difflib.get_close_matches(label, config.classes, n=1)
        hint = f" (did you mean {near[0]!r}?)" if near else ""
        raise UserError(
            f"the file {table} has the label {label!r}{hint}; accepted: {', '.join(config.classes)}"
        )
    sex = _cell(row, "sex").lower()
    if sex not in _SEXES:
        raise UserError(
            f"the file {table} has the sex {row['sex']!r}; accepted: female, f, male, m or empty"
        )
    return Row(
        file,
        group,
        label,
        sequence=_cell(row, "sequence") if "sequence" in row else config.sequence,
        site=_cell(row, "site"),
        sex=_SEXES[sex],
        age_years=_age(_cell(row, "age_years"), table),
    )


def _cell(row: Mapping[str, str], column: str) -> str:
    """An optional column's value, empty where the table lacks it."""
    return row[column].strip() if column in row else ""


def _age(text: str, table: Path) -> float | None:
    if not text:
        return None
    try:
        age = float(text)
    except ValueError:
        age = math.nan
    if not 0 <= age < 150:
        raise UserError(f"the file {table} has age_years {text!r}; accepted: 0 to 150 or empty")
    return age
