"""Writes predictions: `python -m multimed_jax.predict --checkpoint RUN --split test --out F.csv`.

One line per (source, task, record):

    classes           predicted class, its probability, the true class
    labels, values    "name=value;..." for prediction and truth, without what is not known
    answers           predicted and true answer

Coordinates do not fit a line: `--files DIR` writes them as `DIR/<source>--<task>/<sample>.pdb` and
`.cif`, which any viewer opens; without it their tasks are named at the end.
"""

from __future__ import annotations

import csv
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from absl import flags

from multimed_jax.command import run_command, use_compilation_cache

COLUMNS = ("source", "task", "sample_id", "prediction", "probability", "target")


def define_flags() -> None:
    """The command's flags; only the command itself defines them, for others have their names."""
    flags.DEFINE_string("checkpoint", "", "Run folder of a trained model.")
    flags.DEFINE_string("split", "test", "Split to predict.")
    flags.DEFINE_string("out", "", "CSV file to write.")
    flags.DEFINE_string("files", "", "Folder for predictions that are files (structures).")
    flags.DEFINE_string("data_dir", "", "Where the data are now, if they have moved.")


def main() -> int:
    """Reads the flags and predicts."""
    use_compilation_cache()
    from multimed_jax.environment import job_place
    from multimed_jax.evaluators.wording import can_be_said
    from multimed_jax.predictions import predict_split
    from multimed_jax.restore import restore_run
    from multimed_jax.run import eval_params
    from multimed_jax.types import UserError

    place = job_place(os.environ)
    if place is not None and place.count > 1:
        raise UserError(f"predict runs as one process, and this is {place.name()}")
    run, state = restore_run(Path(flags.FLAGS.checkpoint), flags.FLAGS.data_dir or None)
    if flags.FLAGS.split not in run.splits:
        raise UserError(f"--split is {flags.FLAGS.split!r}; the run has {', '.join(run.splits)}")
    found = predict_split(run, eval_params(run, state), state.model_state, flags.FLAGS.split)
    left_out = [p for p in found if not can_be_said(p)]
    out = Path(flags.FLAGS.out)
    temporary = out.with_name(out.name + ".tmp")
    try:
        with temporary.open("w", newline="", encoding="utf-8") as file:
            writer = csv.writer(file)
            writer.writerow(COLUMNS)
            for predictions in found:
                if can_be_said(predictions):
                    source = _source_of(run, flags.FLAGS.split, predictions)
                    writer.writerows(lines(source, predictions))
        os.replace(temporary, out)
    except OSError as error:
        raise UserError(f"--out {out} cannot be written: {error.strerror}") from None
    for predictions in left_out:
        name = f"{predictions.task.name} of {predictions.source.name}"
        if flags.FLAGS.files and predictions.task.save is not None:
            source = _source_of(run, flags.FLAGS.split, predictions)
            number = save_files(Path(flags.FLAGS.files), source, predictions)
            print(f"{name}: {number} files below {flags.FLAGS.files}")
        else:
            print(f"{name} predicts coordinates, which {out.name} does not hold (--files DIR)")
    return 0


def save_files(folder: Path, source: Any, predictions: Any) -> int:
    """Writes every prediction of one (source, task) that is a file; returns how many files."""
    from multimed_jax.evaluators.measured import file_stem
    from multimed_jax.types import UserError

    below = folder / file_stem(predictions)
    number, used = 0, set()
    for index, row in enumerate(predictions.rows):
        record = source[int(row)]
        sample = record["sample_id"]
        name = sample.decode() if isinstance(sample, bytes) else sample
        safe = "".join(c if c.isalnum() or c in "-_" else "_" for c in name)
        # Two ids may differ in signs alone: neither file takes the place of the other.
        stem = f"{safe}-{int(row)}" if safe in used else safe
        used.add(safe)
        try:
            below.mkdir(parents=True, exist_ok=True)
            path = below / f"{stem}.file"
            number += len(predictions.task.save(path, predictions.probabilities[index], record))
        except OSError as error:
            raise UserError(f"--files {folder} cannot be written: {error.strerror}") from None
    return number


def _source_of(run: Any, split: str, predictions: Any) -> Any:
    sources = run.splits[split].sources
    return next(source for source in sources if source.info.name == predictions.source.name)


def lines(source: Any, predictions: Any) -> Iterator[tuple[str, ...]]:
    """The lines of one (source, task) in the order of `COLUMNS`.

    Args:
        source: records of the split (`[row]`).
        predictions: `evaluators.context.Predictions` that can be said.
    """
    from multimed_jax.evaluators.wording import for_file

    for index, row in enumerate(predictions.rows):
        sample = source[int(row)]["sample_id"]
        yield (
            predictions.source.name,
            predictions.task.name,
            sample.decode() if isinstance(sample, bytes) else sample,
            *for_file(predictions, index),
        )


if __name__ == "__main__":
    define_flags()
    run_command(main, required=("checkpoint", "out"))
