"""The results store of a run: `results.jsonl`, one row per figure; tables are views of it."""

from __future__ import annotations

import dataclasses
import json
import os
from collections.abc import Iterable, Sequence
from pathlib import Path

from multimed_jax.config_io import from_dict
from multimed_jax.metrics.result_row import ResultRow, grouped_rows, primary_rows
from multimed_jax.types import UserError

__all__ = ["ResultRow", "format_table", "read_rows", "write_rows"]


def read_rows(path: Path) -> list[ResultRow]:
    """Reads a store.

    Raises:
        UserError: where the file is missing, or a line is not a complete row; the sentence names
            the file and the line.
    """
    try:
        lines = path.read_text(encoding="utf-8").splitlines()
    except FileNotFoundError:
        raise UserError(f"{path} does not exist; evaluate the run to make it") from None
    except (OSError, UnicodeDecodeError) as error:
        raise UserError(f"{path} cannot be read: {error}") from None
    rows = []
    for number, line in enumerate(lines, 1):
        where = f"{path.name} line {number}"
        try:
            values = json.loads(line)
        except json.JSONDecodeError as error:
            raise UserError(f"{where} is not JSON: {error}") from None
        rows.append(from_dict(ResultRow, values, where))
    return rows


def write_rows(path: Path, rows: Iterable[ResultRow]) -> None:
    """Adds rows to a store; a row of the same identity is replaced where it stands.

    The new file takes the old one's place in one step: a kill leaves the one or the other.

    Raises:
        UserError: where the present store cannot be read.
    """
    merged = {row.identity: row for row in (read_rows(path) if path.exists() else ())}
    for row in rows:
        merged[row.identity] = row
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    try:
        with temporary.open("w", encoding="utf-8") as file:
            for row in merged.values():
                file.write(json.dumps(dataclasses.asdict(row), allow_nan=False) + "\n")
            file.flush()
            os.fsync(file.fileno())
        os.replace(temporary, path)
    finally:
        temporary.unlink(missing_ok=True)


_COLUMNS = ("dataset", "task", "metric", "value", "interval", "baseline", "beats", "n", "groups")
_NUMERIC = {"value", "n", "groups"}


def format_table(rows: Sequence[ResultRow], all_metrics: bool = False) -> str:
    """A fixed-width table for a terminal; the baselines of a figure stand in adjacent lines.

    Args:
        rows: a task's primary metric stands before its others.
        all_metrics: every metric instead of the primary one of each task.
    """
    if not rows:
        return "no results"
    shown = grouped_rows(rows if all_metrics else primary_rows(rows))
    columns: list[str] = list(_COLUMNS)
    # Columns that would say the same in every line are left out.
    if any(row.protocol != "full" for row in shown):
        columns.insert(2, "protocol")
    if len({row.split for row in shown}) > 1:
        columns.insert(2, "split")
    cells = [_cells(row) for row in shown]
    widths = {c: max(len(c), *(len(cell[c]) for cell in cells)) for c in columns}

    def line(values: dict[str, str]) -> str:
        padded = [
            values[c].rjust(widths[c]) if c in _NUMERIC else values[c].ljust(widths[c])
            for c in columns
        ]
        return "  ".join(padded).rstrip()

    out = [line({c: c for c in columns}), "  ".join("-" * widths[c] for c in columns)]
    out += [line(cell) for cell in cells]
    if any(row.interval_unit == "sample" for row in shown):
        out.append("* too few groups, or groups shared by the splits: interval over samples")
    return "\n".join(out)


def _cells(row: ResultRow) -> dict[str, str]:
    mark = "*" if row.interval_unit == "sample" else ""
    beats = "yes" if row.beats else "no"
    return {
        "dataset": row.dataset,
        "task": row.task,
        "split": row.split,
        "protocol": row.protocol,
        "metric": row.label,
        "value": f"{row.value:.3f}",
        "interval": f"[{row.interval[0]:.3f}, {row.interval[1]:.3f}]{mark}",
        "baseline": f"{row.baseline:.3f} ({row.baseline_name})",
        "beats": "ceiling" if row.is_ceiling else beats,
        "n": str(row.n),
        "groups": str(row.groups),
    }
