"""Writes predictions: `python -m multimed_jax.predict --checkpoint RUN --split test --out F.csv`.

One line per (source, task, record): sample id, predicted class, its probability, the true class.
"""

from __future__ import annotations

import csv
import os
from pathlib import Path

from absl import flags

from multimed_jax.command import run_command, use_compilation_cache

_CHECKPOINT = flags.DEFINE_string("checkpoint", "", "Run folder of a trained model.")
_SPLIT = flags.DEFINE_string("split", "test", "Split to predict.")
_OUT = flags.DEFINE_string("out", "", "CSV file to write.")
_DATA_DIR = flags.DEFINE_string("data_dir", "", "Where the data are now, if they have moved.")

COLUMNS = ("source", "task", "sample_id", "prediction", "probability", "target")


def main() -> int:
    """Reads the flags and predicts."""
    use_compilation_cache()
    from multimed_jax.predictions import predict_split
    from multimed_jax.restore import restore_run
    from multimed_jax.run import eval_params
    from multimed_jax.types import UserError

    run, state = restore_run(Path(_CHECKPOINT.value), _DATA_DIR.value or None)
    if _SPLIT.value not in run.splits:
        raise UserError(f"--split is {_SPLIT.value!r}; the run has {', '.join(run.splits)}")
    found = predict_split(run, eval_params(run, state), state.model_state, _SPLIT.value)
    out = Path(_OUT.value)
    temporary = out.with_name(out.name + ".tmp")
    try:
        with temporary.open("w", newline="", encoding="utf-8") as file:
            writer = csv.writer(file)
            writer.writerow(COLUMNS)
            for predictions in found:
                writer.writerows(_lines(run, _SPLIT.value, predictions))
        os.replace(temporary, out)
    except OSError as error:
        raise UserError(f"--out {out} cannot be written: {error.strerror}") from None
    return 0


def _lines(run, split, predictions):
    source = next(s for s in run.splits[split].sources if s.info.name == predictions.source.name)
    names = predictions.namespace.class_names
    for row, probabilities, target in zip(
        predictions.rows, predictions.probabilities, predictions.targets, strict=True
    ):
        best = int(probabilities.argmax())
        sample = source[int(row)]["sample_id"]
        yield (
            predictions.source.name,
            predictions.task.name,
            sample.decode() if isinstance(sample, bytes) else sample,
            names[best],
            f"{probabilities[best]:.6f}",
            names[int(target)],
        )


if __name__ == "__main__":
    run_command(main, required=("checkpoint", "out"))
