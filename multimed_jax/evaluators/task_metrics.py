"""Every metric of every (source, task) beside the majority class, and known bounds where there are.

Also writes the predictions themselves to `eval/<split>/<source>--<task>.npz` (probabilities,
targets, rows, groups, class_names): the confusion matrices of the report are views of them.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator
from pathlib import Path

import numpy as np

from multimed_jax.config import EvaluatorSpec
from multimed_jax.evaluators.context import EvalContext, Predictions
from multimed_jax.evaluators.measured import (
    METADATA_METRIC,
    file_stem,
    majority,
    make_row,
    measure,
    resampling_for,
    task_metadata,
    write_whole,
)
from multimed_jax.metrics.result_row import CEILING, ResultRow


@dataclasses.dataclass(frozen=True)
class TaskMetricsOptions:
    """No options."""


def run(options: TaskMetricsOptions, context: EvalContext) -> Iterator[ResultRow]:
    """Yields the rows of each split, (source, task) and metric, the primary metric first."""
    for split in context.config.eval.splits:
        for predictions in context.predict(split, None):
            _store(context, split, predictions)
            yield from _rows(context, split, predictions)


def _rows(context: EvalContext, split: str, predictions: Predictions) -> Iterator[ResultRow]:
    resampling = resampling_for(context, predictions)
    task = predictions.task
    ours = measure(task, predictions.probabilities, predictions.targets, resampling)
    trivial = measure(task, majority(predictions), predictions.targets, resampling)
    for metric in ours.values:
        yield make_row(
            context,
            predictions,
            resampling,
            split=split,
            metric=metric,
            ours=ours,
            baseline=trivial,
            baseline_name="majority",
        )
    if METADATA_METRIC not in ours.values:
        return
    for name, figure in _known_figures(predictions, split).items():
        yield make_row(
            context,
            predictions,
            resampling,
            split=split,
            metric=METADATA_METRIC,
            ours=ours,
            baseline=figure,
            baseline_name=name,
        )


def _known_figures(predictions: Predictions, split: str) -> dict[str, float]:
    """Accuracies that the metadata states: the Bayes ceiling, and a simple rule of the builder.

    `ceilings` is {task: accuracy}; `reference_rules` is {task: {"name", "accuracy": {split: ...}}}.
    Neither says on which records it is right, so the interval of the difference carries the
    model's spread alone.
    """
    figures: dict[str, float] = {}
    ceiling = task_metadata(predictions, "ceilings")
    if ceiling is not None:
        figures[CEILING] = float(ceiling)
    rule = task_metadata(predictions, "reference_rules")
    if rule is not None and split in rule["accuracy"]:
        figures[str(rule["name"])] = float(rule["accuracy"][split])
    return figures


def _store(context: EvalContext, split: str, predictions: Predictions) -> None:
    def write(path: Path) -> None:
        np.savez_compressed(
            path,
            probabilities=predictions.probabilities,
            targets=predictions.targets,
            rows=predictions.rows,
            groups=predictions.groups,
            class_names=np.array(predictions.namespace.class_names, dtype=np.str_),
        )

    write_whole(context.workdir / "eval" / split / f"{file_stem(predictions)}.npz", write)


SPEC = EvaluatorSpec(
    name="task_metrics",
    spec="multimed_jax.evaluators.task_metrics:SPEC",
    options=TaskMetricsOptions(),
    run=run,
)
