"""What a run folder holds, read for the report. Reads only; needs no model and no data set."""

from __future__ import annotations

import dataclasses
import json
import zipfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Float, Int, Num

from multimed_jax.metrics.result_row import ResultRow
from multimed_jax.results import read_rows
from multimed_jax.run_folder import read_manifest
from multimed_jax.types import UserError


@dataclasses.dataclass(frozen=True)
class Curve:
    """A figure over training steps; steps at which it was not finite are left out."""

    steps: Int[np.ndarray, "n"]
    values: Float[np.ndarray, "n"]


@dataclasses.dataclass(frozen=True)
class StoredPredictions:
    """Predictions of one (source, task) on one split, as `eval/<split>/*.npz` holds them."""

    split: str
    stem: str  # "<source>--<task>" with the source's / and : as _
    kind: str  # "classes", "labels", "values" or "other"
    probabilities: Float[np.ndarray, "n *C"]  # or values in target units
    targets: Num[np.ndarray, "n *F"]
    class_names: tuple[str, ...]


@dataclasses.dataclass(frozen=True)
class SampleSheet:
    """A few records of one (source, task), as `eval/samples/*.json` and `.npz` hold them."""

    stem: str
    sheet: Mapping[str, Any]
    arrays: Mapping[str, np.ndarray]


@dataclasses.dataclass(frozen=True)
class RunData:
    """One run.

    Attributes:
        label: names the run in the report; never a path.
        rows: of the latest evaluated checkpoint.
    """

    label: str
    manifest: Mapping[str, Any]
    curves: Mapping[str, Curve]
    rows: Sequence[ResultRow]
    predictions: Sequence[StoredPredictions]
    samples: Sequence[SampleSheet]


def read_runs(folders: Sequence[Path]) -> list[RunData]:
    """Reads run folders; folders of the same name are told apart by a number.

    Raises:
        UserError: where one is missing, is no run folder, has no results, or holds a damaged file.
    """
    runs = []
    labels: dict[str, int] = {}
    for folder in folders:
        name = folder.resolve().name
        labels[name] = labels[name] + 1 if name in labels else 1
        label = name if labels[name] == 1 else f"{name} ({labels[name]})"
        runs.append(_read_run(folder, label))
    return runs


def _read_run(folder: Path, label: str) -> RunData:
    if not folder.is_dir():
        raise UserError(f"{folder} is not a folder; name the --workdir of a run")
    if not (folder / "manifest.json").is_file():
        raise UserError(f"{folder} holds no run: it has no manifest.json")
    manifest = read_manifest(folder / "manifest.json")
    if not (folder / "results.jsonl").is_file():
        raise UserError(
            f"{folder} has no results.jsonl yet; finish the run, or measure it with "
            "`python -m multimed_jax.evaluate --checkpoint` and this folder"
        )
    rows = _latest(read_rows(folder / "results.jsonl"))
    if not rows:
        raise UserError(f"{folder / 'results.jsonl'} holds no result; evaluate the run again")
    return RunData(
        label=label,
        manifest=manifest,
        curves=_read_curves(folder / "metrics.jsonl"),
        rows=rows,
        predictions=_read_predictions(folder / "eval"),
        samples=_read_samples(folder / "eval" / "samples"),
    )


def _latest(rows: Sequence[ResultRow]) -> list[ResultRow]:
    """Rows of the last checkpoint; of the same figure under two configs, the later row."""
    last = max((row.checkpoint for row in rows), default=0)
    found = {}
    for row in rows:
        if row.checkpoint == last:
            what = (row.dataset, row.task, row.split, row.protocol, row.metric, row.baseline_name)
            found[what] = row
    return list(found.values())


def _read_curves(path: Path) -> dict[str, Curve]:
    if not path.is_file():
        return {}
    points: dict[str, list[tuple[int, float]]] = {}
    for number, line in enumerate(path.read_text("utf-8").splitlines(keepends=True), 1):
        if not line.endswith("\n"):
            break  # a kill cut the last line short
        try:
            entry = json.loads(line)
            step, name, value = entry["step"], entry["name"], entry["value"]
        except (ValueError, KeyError, TypeError):
            raise UserError(
                f"{path.name} line {number} of {path.parent} is no step, name and value"
            ) from None
        if value is not None:
            points.setdefault(name, []).append((int(step), float(value)))
    return {
        name: Curve(np.array([s for s, _ in found]), np.array([v for _, v in found]))
        for name, found in points.items()
    }


def _read_predictions(folder: Path) -> list[StoredPredictions]:
    out = []
    for path in sorted(folder.glob("*/*.npz")):
        if path.parent.name == "samples" or path.name.startswith("."):
            continue
        arrays = _load_arrays(path)
        try:
            names = tuple(str(name) for name in arrays["class_names"])
            # Stores written before the kind was told hold classes, or nothing that has names.
            kind = str(arrays["kind"]) if "kind" in arrays else "classes" if names else "other"
            if kind == "other":
                continue  # coordinates and answers: nothing to draw against the truth
            out.append(
                StoredPredictions(
                    path.parent.name,
                    path.stem,
                    kind,
                    arrays["probabilities"],
                    arrays["targets"],
                    names,
                )
            )
        except KeyError as error:
            raise UserError(f"{path} is damaged: it lacks {error}") from None
    return out


def _read_samples(folder: Path) -> list[SampleSheet]:
    out = []
    for path in sorted(folder.glob("*.json")):
        if path.name.startswith("."):
            continue
        try:
            sheet = json.loads(path.read_text("utf-8"))
        except ValueError as error:
            raise UserError(f"{path} is damaged: {error}") from None
        out.append(SampleSheet(path.stem, sheet, _load_arrays(path.with_suffix(".npz"))))
    return out


def _load_arrays(path: Path) -> dict[str, np.ndarray]:
    try:
        # Opened here: np.load leaves a damaged file open.
        with path.open("rb") as file, np.load(file, allow_pickle=False) as stored:
            return dict(stored)
    except (OSError, ValueError, EOFError, zipfile.BadZipFile) as error:
        raise UserError(f"{path} is damaged: {error}") from None
