"""The model's primary metric beside logistic regression on simple features of the same records.

The features are `ModalitySpec.features` of every modality that the source has, side by side: a
16 x 16 image, band powers, expression, word counts. A modality that a record lacks is NaN, which
the regression reads as the training mean.
"""

from __future__ import annotations

import dataclasses
import logging
from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np

from multimed_jax.config import EvaluatorSpec
from multimed_jax.evaluators.context import EvalContext, Predictions
from multimed_jax.evaluators.measured import make_row, measure, modalities_of, resampling_for
from multimed_jax.evaluators.simple_features import FeatureReader, Features
from multimed_jax.metrics.baselines import logistic_regression
from multimed_jax.metrics.result_row import ResultRow
from multimed_jax.types import UserError

log = logging.getLogger(__name__)

BASELINE = "logistic_regression"


@dataclasses.dataclass(frozen=True)
class LogisticBaselineOptions:
    """What the regression may learn from.

    Attributes:
        max_train_records: at most this many training records of a task, drawn by the run's seed.
    """

    max_train_records: int = 2000

    def __post_init__(self) -> None:
        """Raises UserError unless max_train_records is at least 1."""
        if self.max_train_records < 1:
            raise UserError(
                f"logistic_baseline.max_train_records is {self.max_train_records}; it must be at "
                "least 1"
            )


def run(options: LogisticBaselineOptions, context: EvalContext) -> Iterator[ResultRow]:
    """Yields one row per split and (source, task) with classes; other tasks have none."""
    for split in context.config.eval.splits:
        by_source: dict[str, list[Predictions]] = {}
        for predictions in context.predict(split, None):
            if predictions.kind == "classes" and predictions.task.read_target is None:
                by_source.setdefault(predictions.source.name, []).append(predictions)
        for name, found in by_source.items():
            names = modalities_of(context, found[0])
            reader = FeatureReader([m for m in context.config.modalities if m.name in names])
            tasks = [predictions.task.name for predictions in found]
            train = _choose_train(
                reader,
                context.open_source(name, "train"),
                tasks,
                options.max_train_records,
                context.config.seed,
            )
            measured = context.open_source(name, split)
            for predictions in found:
                task_train = train[predictions.task.name]
                yield _row(context, split, predictions, reader, task_train, measured)
            if reader.num_undecodable:
                log.warning(
                    "%s: %d inputs cannot be decoded; the logistic baseline takes them as missing",
                    name,
                    reader.num_undecodable,
                )


def _row(
    context: EvalContext,
    split: str,
    predictions: Predictions,
    reader: FeatureReader,
    train: _Train,
    measured: Any,
) -> ResultRow:
    task = predictions.task
    tests = [reader.read(measured[int(row)]) for row in predictions.rows]
    features = reader.matrix([*train.features, *tests])
    num_train = len(train.targets)
    if not num_train:
        raise UserError(
            f"source {predictions.source.name!r} has no training record of {task.name!r}, so "
            "logistic regression cannot stand beside it"
        )
    probabilities = logistic_regression(
        features[:num_train],
        np.array(train.targets, np.int64),
        features[num_train:],
        len(predictions.namespace.class_names),
        context.config.seed,
        np.array(train.groups),
    )
    resampling = resampling_for(context, predictions)
    metric = task.primary_metric
    ours = measure(task, predictions.probabilities, predictions.targets, resampling, [metric])
    theirs = measure(task, probabilities, predictions.targets, resampling, [metric])
    return make_row(
        context,
        predictions,
        resampling,
        split=split,
        metric=metric,
        ours=ours,
        baseline=theirs,
        baseline_name=BASELINE,
    )


@dataclasses.dataclass(frozen=True)
class _Train:
    """The training records of one task."""

    features: list[Features] = dataclasses.field(default_factory=list)
    targets: list[int] = dataclasses.field(default_factory=list)
    groups: list[Any] = dataclasses.field(default_factory=list)


def _choose_train(
    reader: FeatureReader, source: Any, tasks: Sequence[str], wanted: int, seed: int
) -> dict[str, _Train]:
    """Labelled training records of each task in drawn order, all tasks in one pass."""
    chosen = {task: _Train() for task in tasks}
    for row in np.random.default_rng(seed).permutation(len(source)):
        open_tasks = [task for task in tasks if len(chosen[task].targets) < wanted]
        if not open_tasks:
            break
        record = source[int(row)]
        targets = {task: int(record["targets"][task]) for task in open_tasks}
        if all(target < 0 for target in targets.values()):
            continue
        features = reader.read(record)
        for task, target in targets.items():
            if target >= 0:
                chosen[task].features.append(features)
                chosen[task].targets.append(target)
                chosen[task].groups.append(record["group_id"])
    return chosen


SPEC = EvaluatorSpec(
    name="logistic_baseline",
    spec="multimed_jax.evaluators.logistic_baseline:SPEC",
    options=LogisticBaselineOptions(),
    run=run,
)
