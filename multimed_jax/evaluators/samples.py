"""A few test records as a person sees them, with the model's word beside the truth.

Writes `eval/samples/<source>--<task>.json` (what was predicted, and how each preview is to be
read) and `.npz` (the arrays of the previews, by the keys that the json names). Yields no figures.

A record of a task with classes tells the class indices and the probability; any other tells
prediction and truth in words, and whether the one is the other where that can be said.
"""

from __future__ import annotations

import dataclasses
import json
import logging
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np

from multimed_jax.config import EvaluatorSpec
from multimed_jax.evaluators.context import EvalContext, Predictions
from multimed_jax.evaluators.measured import file_stem, modalities_of, write_whole
from multimed_jax.evaluators.wording import in_words
from multimed_jax.layers.decode_errors import DecodeError
from multimed_jax.metrics.result_row import ResultRow
from multimed_jax.types import Record, UserError

log = logging.getLogger(__name__)

# A modality that few records carry is looked for in this many times the records wanted.
_PATIENCE = 16


@dataclasses.dataclass(frozen=True)
class SamplesOptions:
    """How many records are shown.

    Attributes:
        per_modality: records of each modality of a (source, task).
    """

    per_modality: int = 8

    def __post_init__(self) -> None:
        """Raises UserError unless per_modality is at least 1."""
        if self.per_modality < 1:
            raise UserError(f"samples.per_modality is {self.per_modality}; it must be at least 1")


def run(options: SamplesOptions, context: EvalContext) -> Iterator[ResultRow]:
    """Writes the sheets of one split: "test" where it is evaluated, else the last one."""
    splits = context.config.eval.splits
    split = "test" if "test" in splits else splits[-1]
    for predictions in context.predict(split, None):
        _write(options, context, split, predictions)
    yield from ()


def _write(
    options: SamplesOptions, context: EvalContext, split: str, predictions: Predictions
) -> None:
    records = context.open_source(predictions.source.name, split)
    missing = {name: options.per_modality for name in modalities_of(context, predictions)}
    arrays: dict[str, np.ndarray] = {}
    shown: list[dict[str, Any]] = []
    # Drawn by the run's seed, not picked: the sheet shows hits and misses as they come.
    order = np.random.default_rng(context.config.seed).permutation(len(predictions.rows))
    for index in order[: _PATIENCE * options.per_modality]:
        if not any(missing.values()):
            break
        record = records[int(predictions.rows[index])]
        previews = _previews(context, record, int(predictions.rows[index]), missing, arrays)
        if previews:
            shown.append(_judged(predictions, int(index), record) | {"previews": previews})
    sheet = {
        "source": predictions.source.name,
        "task": predictions.task.name,
        "split": split,
        "kind": predictions.kind,
        "class_names": list(predictions.namespace.class_names),
        "records": shown,
    }
    folder = context.workdir / "eval" / "samples"
    stem = file_stem(predictions)

    def write_arrays(path: Path) -> None:
        with path.open("wb") as file:
            # A dict of strings to arrays; the stub types the flag of savez_compressed as well.
            np.savez_compressed(file, **arrays)  # pyright: ignore[reportArgumentType]

    write_whole(folder / f"{stem}.npz", write_arrays)

    def write_sheet(path: Path) -> None:
        path.write_text(json.dumps(sheet, indent=1, allow_nan=False), encoding="utf-8")

    write_whole(folder / f"{stem}.json", write_sheet)


def _judged(predictions: Predictions, index: int, record: Record) -> dict[str, Any]:
    about = {"row": int(predictions.rows[index]), "sample_id": _text(record["sample_id"])}
    if predictions.kind != "classes":
        return about | dataclasses.asdict(in_words(predictions, index))
    probabilities = predictions.probabilities[index]
    guess = int(probabilities.argmax())
    return about | {
        "truth": int(predictions.targets[index]),
        "prediction": guess,
        "probability": float(probabilities[guess]),
        "probability_of_truth": float(probabilities[int(predictions.targets[index])]),
    }


def _previews(
    context: EvalContext,
    record: Record,
    row: int,
    missing: dict[str, int],
    arrays: dict[str, np.ndarray],
) -> list[dict[str, Any]]:
    """Previews of the modalities that the record carries and that are still wanted."""
    out = []
    for spec in context.config.modalities:
        if not (spec.name in missing and missing[spec.name]):
            continue
        try:
            if not spec.count(record, spec.options):
                continue
            preview = spec.preview(record, spec.options)
        except DecodeError as error:
            log.warning("a sample is left out of the sheet: %s", error)
            continue
        missing[spec.name] -= 1
        entry: dict[str, Any] = {
            "modality": spec.name,
            "kind": preview.kind,
            "labels": [_text(label) for label in preview.labels],
            "unit": preview.unit,
        }
        if preview.kind == "text":
            entry["text"] = _text(preview.values)
        else:
            entry["array"] = f"row{row}_{spec.name}"
            arrays[entry["array"]] = np.asarray(preview.values)
        out.append(entry)
    return out


def _text(value: Any) -> str:
    return value.decode("utf-8", "replace") if isinstance(value, bytes) else str(value)


SPEC = EvaluatorSpec(
    name="samples",
    spec="multimed_jax.evaluators.samples:SPEC",
    options=SamplesOptions(),
    run=run,
)
