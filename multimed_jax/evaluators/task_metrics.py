"""Every metric of every (source, task) beside the majority class, and known bounds where there are.

Also writes the predictions themselves to `eval/<split>/<source>--<task>.npz` (probabilities,
targets, rows, groups, class_names): the confusion matrices of the report are views of them.
"""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Iterator, Mapping
from pathlib import Path

import numpy as np

from multimed_jax.config import EvaluatorSpec
from multimed_jax.evaluators.context import EvalContext, Predictions
from multimed_jax.evaluators.measured import (
    ceiling_metric,
    file_stem,
    make_row,
    measure,
    resampling_for,
    task_metadata,
    trivial_predictors,
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
    others = {
        name: measure(task, values, predictions.targets, resampling)
        for name, values in trivial_predictors(context, split, predictions).items()
    }
    row = functools.partial(make_row, context, predictions, resampling, split=split, ours=ours)
    known = _known_figures(predictions, split)
    for metric in ours.values:
        for number, (name, baseline) in enumerate(others.items()):
            yield row(metric=metric, baseline=baseline, baseline_name=name, trivial=number == 0)
    for metric, name, figure in known:
        if metric in ours.values:
            yield row(metric=metric, baseline=figure, baseline_name=name)


def _known_figures(predictions: Predictions, split: str) -> list[tuple[str, str, float]]:
    """(metric, name, figure) that the metadata states: the Bayes ceiling, a rule of the builder.

    `ceilings` is {task: figure}, an accuracy or the metric of `ceiling_metrics`; `reference_rules`
    is {task: {"name", metric: {split: figure}}}. Neither says on which records it is right, so the
    interval of the difference carries the model's spread alone.
    """
    figures = []
    ceiling = task_metadata(predictions, "ceilings")
    if ceiling is not None:
        figures.append((ceiling_metric(predictions), CEILING, float(ceiling)))
    rule = task_metadata(predictions, "reference_rules")
    if rule is not None:
        for metric, per_split in rule.items():
            if isinstance(per_split, Mapping) and split in per_split:
                figures.append((metric, str(rule["name"]), float(per_split[split])))
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
            kind=np.array(predictions.kind),
        )

    write_whole(context.workdir / "eval" / split / f"{file_stem(predictions)}.npz", write)


SPEC = EvaluatorSpec(
    name="task_metrics",
    spec="multimed_jax.evaluators.task_metrics:SPEC",
    options=TaskMetricsOptions(),
    run=run,
)
