"""Lists of records in JSON files, refused where a key is missing."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path

from multimed_jax.types import UserError


def read_json(path: Path, keys: Sequence[str]) -> list[dict[str, str]]:
    """The records of a JSON list of objects; values of `keys` as text, blanks around them cut.

    Args:
        path: of the file.
        keys: that every record must have; others are dropped. Null becomes "".

    Raises:
        UserError: where the file or a key is missing, or the file is no such list.
    """
    if not path.is_file():
        raise UserError(f"the file {path} does not exist; expected records of {', '.join(keys)}")
    try:
        found = json.loads(path.read_text("utf-8-sig"))
    except (ValueError, OSError) as error:
        raise UserError(f"the file {path} is no JSON file: {str(error)[:80]}") from error
    if not isinstance(found, list) or not all(isinstance(item, dict) for item in found):
        raise UserError(f"the file {path} holds no list of records")
    rows = []
    for item in found:
        for key in keys:
            if key not in item:
                raise UserError(
                    f"the file {path} has a record without {key!r}; it has: {', '.join(item)}"
                )
        rows.append({key: "" if item[key] is None else str(item[key]).strip() for key in keys})
    return rows
