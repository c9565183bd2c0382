"""The model's primary metric beside a regression on simple features of the same records.

The features are `ModalitySpec.features` of every modality that the source has, side by side: a
16 x 16 image, band powers, expression, word counts. A modality that a record lacks is NaN, which
the regressions read as the training mean.
"""

from __future__ import annotations

import dataclasses
import logging
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import numpy as np
from jaxtyping import Float

from multimed_jax.evaluators.context import EvalContext, Predictions
from multimed_jax.evaluators.measured import make_row, measure, modalities_of, resampling_for
from multimed_jax.evaluators.simple_features import FeatureReader, Features
from multimed_jax.metrics.result_row import ResultRow
from multimed_jax.specs import Namespace
from multimed_jax.types import UserError

log = logging.getLogger(__name__)


@dataclasses.dataclass(frozen=True)
class TrainingSet:
    """The training records of one task: features, targets as stored, groups."""

    features: list[Features] = dataclasses.field(default_factory=list)
    targets: list[np.ndarray] = dataclasses.field(default_factory=list)
    groups: list[Any] = dataclasses.field(default_factory=list)


@dataclasses.dataclass(frozen=True)
class FeatureBaseline:
    """A regression that stands beside one kind of task.

    Attributes:
        name: of the regression, as in `results.jsonl`.
        words: the same in a sentence.
        kind: of the predictions that it stands beside.
        knows: a stored target to whether it teaches anything.
        fit: (features, targets, features of the tests, namespace, seed, groups) -> predictions of
            the tests.
    """

    name: str
    words: str
    kind: str
    knows: Callable[[np.ndarray], bool]
    fit: Callable[[Float[np.ndarray, "n F"], list, Any, Namespace, int, np.ndarray], np.ndarray]


def check_max_train_records(evaluator: str, wanted: int) -> None:
    """Raises UserError unless at least one training record is wanted."""
    if wanted < 1:
        raise UserError(f"{evaluator}.max_train_records is {wanted}; it must be at least 1")


def feature_rows(
    baseline: FeatureBaseline, max_train_records: int, context: EvalContext
) -> Iterator[ResultRow]:
    """Yields one row per split and (source, task) of the baseline's kind; others have none.

    Args:
        baseline: the regression.
        max_train_records: at most this many training records of a task, drawn by the run's seed.
        context: of the evaluation.

    Raises:
        UserError: where a source has no training record of a task.
    """
    for split in context.config.eval.splits:
        by_source: dict[str, list[Predictions]] = {}
        for predictions in context.predict(split, None):
            if predictions.kind == baseline.kind and predictions.task.read_target is None:
                by_source.setdefault(predictions.source.name, []).append(predictions)
        for name, found in by_source.items():
            names = modalities_of(context, found[0])
            reader = FeatureReader([m for m in context.config.modalities if m.name in names])
            train = _choose_train(
                baseline,
                reader,
                context.open_source(name, "train"),
                [predictions.task.name for predictions in found],
                max_train_records,
                context.config.seed,
            )
            measured = context.open_source(name, split)
            for predictions in found:
                task_train = train[predictions.task.name]
                yield _row(baseline, context, split, predictions, reader, task_train, measured)
            if reader.num_undecodable:
                log.warning(
                    "%s: %d inputs cannot be decoded; %s takes them as missing",
                    name,
                    reader.num_undecodable,
                    baseline.words,
                )


def _row(
    baseline: FeatureBaseline,
    context: EvalContext,
    split: str,
    predictions: Predictions,
    reader: FeatureReader,
    train: TrainingSet,
    measured: Any,
) -> ResultRow:
    task = predictions.task
    num_train = len(train.targets)
    if not num_train:
        raise UserError(
            f"source {predictions.source.name!r} has no training record of {task.name!r}, so "
            f"{baseline.words} cannot stand beside it"
        )
    tests = [reader.read(measured[int(row)]) for row in predictions.rows]
    features = reader.matrix([*train.features, *tests])
    values = baseline.fit(
        features[:num_train],
        train.targets,
        features[num_train:],
        predictions.namespace,
        context.config.seed,
        np.array(train.groups),
    )
    resampling = resampling_for(context, predictions)
    metric = task.primary_metric
    ours = measure(task, predictions.probabilities, predictions.targets, resampling, [metric])
    theirs = measure(task, values, predictions.targets, resampling, [metric])
    return make_row(
        context,
        predictions,
        resampling,
        split=split,
        metric=metric,
        ours=ours,
        baseline=theirs,
        baseline_name=baseline.name,
    )


def _choose_train(
    baseline: FeatureBaseline,
    reader: FeatureReader,
    source: Any,
    tasks: Sequence[str],
    wanted: int,
    seed: int,
) -> dict[str, TrainingSet]:
    """Training records that teach each task something, in drawn order, all tasks in one pass."""
    chosen = {task: TrainingSet() for task in tasks}
    for row in np.random.default_rng(seed).permutation(len(source)):
        open_tasks = [task for task in tasks if len(chosen[task].targets) < wanted]
        if not open_tasks:
            break
        record = source[int(row)]
        targets = {task: np.asarray(record["targets"][task]) for task in open_tasks}
        known = [task for task, target in targets.items() if baseline.knows(target)]
        if not known:
            continue
        features = reader.read(record)
        for task in known:
            chosen[task].features.append(features)
            chosen[task].targets.append(targets[task])
            chosen[task].groups.append(record["group_id"])
    return chosen
