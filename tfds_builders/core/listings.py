"""What tables and lists of a source name: files, splits, people. Refused where it is senseless."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from pathlib import Path

from multimed_jax.types import UserError
from tfds_builders.core.tables import open_text

_AGE = re.compile(r"0*(\d{1,3})(?:\.0*)?\s*Y?", re.ASCII)
_OLDEST = 120
_TABLES = (".csv", ".txt")
_SEXES = {"f": "female", "m": "male", "female": "female", "male": "male"}


def read_words(path: Path, least: int) -> list[list[str]]:
    """The lines of a list without a header, each parted at blanks; empty ones are skipped.

    Args:
        path: of the file.
        least: number of words of every line at least.

    Raises:
        UserError: where the file is missing, no UTF-8 text, or a line has too few words.
    """
    with open_text(path) as lines:
        rows = [line.split() for line in lines]
    for number, row in enumerate(rows, 1):
        if row and len(row) < least:
            raise UserError(
                f"line {number} of the file {path} has {len(row)} word(s); accepted: {least} or "
                "more, parted by blanks"
            )
    return [row for row in rows if row]


def file_named(folder: Path, name: str, table: Path) -> Path:
    """The file of this name directly in the folder, which may be missing.

    Raises:
        UserError: where the name is empty or a path.
    """
    if not name or Path(name).name != name or "\\" in name:
        raise UserError(f"the file {table} names a path, not a file: {name!r}")
    return folder / name


def first_there(places: Sequence[Path], layout: str) -> Path:
    """The first of the files or folders that exists.

    Raises:
        UserError: where none does.
    """
    for place in places:
        if place.exists():
            return place
    what = "file" if places[0].suffix in _TABLES else "folder"
    raise UserError(f"the {what} {places[0]} does not exist; expected layout: {layout}")


def splits_of(lists: Mapping[str, Sequence[str]], source: str) -> dict[str, str]:
    """Name -> split, from the names that each split lists.

    Raises:
        UserError: where two splits list one name.
    """
    where: dict[str, str] = {}
    for split, names in lists.items():
        for name in names:
            if where.setdefault(name, split) != split:
                raise UserError(
                    f"the published lists of {source} have {name!r} in {where[name]} and {split}; "
                    "accepted: one of them"
                )
    return where


def sex_named(text: str) -> str:
    """Female, male, or "" where the cell says neither."""
    key = text.strip().lower()
    return _SEXES[key] if key in _SEXES else ""


def age_named(text: str) -> float | None:
    """Whole years such as "58" or "058Y"; None for anything else, and above 120."""
    match = _AGE.fullmatch(text.strip())
    return float(match[1]) if match and int(match[1]) <= _OLDEST else None


def one_of(text: str, accepted: Sequence[str], what: str, table: Path) -> int:
    """Index of a cell among the accepted values.

    Raises:
        UserError: for any other value.
    """
    if text.strip() not in accepted:
        raise UserError(
            f"the file {table} has the {what} {text!r}; accepted: {', '.join(accepted)}"
        )
    return accepted.index(text.strip())
