"""The rows of a table as samples: ids, groups, splits, targets and the cells that name payloads."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from multimed_jax.types import UserError
from tfds_builders.core.tables import read_csv, read_tsv
from tfds_builders.own_data.config import OwnDataConfig, Target
from tfds_builders.own_data.inputs import check_choice

Cells = Mapping[str, str]
_SEXES = {"f": "female", "female": "female", "m": "male", "male": "male", "": ""}
_SPLITS = {name: name for name in ("train", "validation", "test")} | {"val": "validation"}
# What tables write where a label or value is not known.
_UNKNOWN = ("", "na", "nan", "n/a")
_LABELS = {"1": 1, "0": 0, "-1": -1, "true": 1, "false": 0, "yes": 1, "no": 0}


@dataclasses.dataclass(frozen=True)
class Sample:
    """One record of the table.

    Attributes:
        sample_id: of the record.
        group_id: what must not cross splits.
        fine_group_id: None where the config names no such column.
        split: None where the config names no such column.
        rows: its rows; several only for a bag of tiles.
        targets: by task, those of kind "coordinates" left out.
        stratum: class of the first class target, "" where it has none.
        described: sex, age_years, site, organ and cell_type, those that the config names.
    """

    sample_id: str
    group_id: str
    fine_group_id: str | None
    split: str | None
    rows: tuple[Cells, ...]
    targets: dict[str, Any]
    stratum: str
    described: dict[str, Any]


def read_rows(manual_dir: Path, config: OwnDataConfig) -> list[dict[str, str]]:
    """The rows of the config's table, a tsv file where it is named so.

    Raises:
        UserError: the file or a column is missing.
    """
    path = manual_dir / config.table
    read = read_tsv if path.name.lower().endswith((".tsv", ".tsv.gz")) else read_csv
    return read(path, [column.strip().lower() for column in config.columns])


class Cutter:
    """Turns rows into samples and says of a wrong cell where it is.

    Attributes:
        names: classes, labels or columns of every task, in order.
    """

    def __init__(self, config: OwnDataConfig, rows: Sequence[Cells], where: str) -> None:
        """Finds the classes that occur, where the config names none."""
        self._config = config
        self._where = where
        self.names = {task: self._names(made, rows) for task, made in config.chosen_targets.items()}

    def _names(self, target: Target, rows: Sequence[Cells]) -> tuple[str, ...]:
        if target.kind != "class" or target.names:
            return target.names
        found = {cell(row, target.columns[0]) for row in rows}
        return tuple(sorted(name for name in found if name.lower() not in _UNKNOWN))

    def samples(self, rows: Sequence[Cells]) -> list[Sample]:
        """The samples in the order of their first rows.

        Raises:
            UserError: an id or group is missing, an id occurs twice (of a bag: with another group
                or target), a split, sex, age, class, label or value is none.
        """
        by_id: dict[str, list[tuple[int, Cells]]] = {}
        for number, row in enumerate(rows, start=1):
            name = self._needed(number, row, self._config.sample_id)
            by_id.setdefault(name, []).append((number, row))
        return [self._sample(name, mine) for name, mine in by_id.items()]

    def _sample(self, name: str, rows: list[tuple[int, Cells]]) -> Sample:
        # Rows are named by number: an id may be that of a person.
        first, *others = [self._read(name, number, row) for number, row in rows]
        numbers = ", ".join(str(number) for number, _ in rows[:4])
        if others and "pathology" not in self._config.inputs:
            raise UserError(f"{self._where} has one id in the rows {numbers}; accepted: each once")
        for other in others:
            if str(other) != str(first):
                raise UserError(
                    f"{self._where} has one id in the rows {numbers}, and they differ in more than "
                    "their tile; accepted: one group, split and target for each id"
                )
        return dataclasses.replace(first, rows=tuple(row for _, row in rows))

    def _read(self, name: str, number: int, row: Cells) -> Sample:
        config = self._config
        split = cell(row, config.split).lower() if config.split else None
        if split is not None:
            check_choice(f"{self._where}, row {number}: the split", split, _SPLITS)
        classes = [t.columns[0] for t in config.chosen_targets.values() if t.kind == "class"]
        return Sample(
            sample_id=name,
            group_id=self._needed(number, row, config.group_id),
            fine_group_id=self._needed(number, row, config.fine_group_id)
            if config.fine_group_id
            else None,
            split=None if split is None else _SPLITS[split],
            rows=(),
            targets={
                task: self._target(number, row, target, self.names[task])
                for task, target in config.chosen_targets.items()
                if target.kind in ("class", "labels", "values")
            },
            stratum=cell(row, classes[0]) if classes else "",
            described={key: self._described(number, row, key) for key in config.described},
        )

    def _needed(self, number: int, row: Cells, column: str) -> str:
        text = cell(row, column)
        if not text:
            raise UserError(f"{self._where}, row {number}: {column!r} is empty; accepted: any text")
        return text

    def _target(self, number: int, row: Cells, target: Target, names: tuple[str, ...]) -> Any:
        cells = [cell(row, column) for column in target.columns]
        what = f"{self._where}, row {number}: {', '.join(target.columns)}"
        if target.kind == "class":
            if cells[0].lower() in _UNKNOWN:
                return -1
            check_choice(what, cells[0], names)
            return names.index(cells[0])
        if target.kind == "labels":
            return np.array([_label(what, text) for text in cells], np.int32)
        return np.array([_number(what, text) for text in cells], np.float32)

    def _described(self, number: int, row: Cells, key: str) -> Any:
        column = self._config.described[key]
        text = cell(row, column)
        what = f"{self._where}, row {number}: {column}"
        if key == "sex":
            check_choice(what, text.lower(), _SEXES)
            return _SEXES[text.lower()]
        if key == "age_years":
            age = _number(what, text)
            if age < 0 or age >= 150:
                raise UserError(f"{what} is {text!r}; accepted: 0 to 150, or empty")
            return np.float32(age)
        return text


def cell(row: Cells, column: str) -> str:
    """A cell by the name of its column in any case; "" where the row is short."""
    key = column.strip().lower()
    return row[key].strip() if key in row else ""


def _label(what: str, text: str) -> int:
    folded = text.lower().removesuffix(".0")
    if folded in _UNKNOWN:
        return -1
    check_choice(what, folded, _LABELS)
    return _LABELS[folded]


def _number(what: str, text: str) -> float:
    if text.lower() in _UNKNOWN:
        return math.nan
    try:
        value = float(text)
    except ValueError:
        value = math.inf
    if math.isinf(value):
        raise UserError(f"{what} is {text!r}; accepted: numbers, or empty where not known")
    return value
