"""The model's primary metric beside ridge regression on simple features of the same records.

For tasks of values, as `logistic_baseline` is for classes: one regression for each column, its
strength chosen inside train over folds of groups. The interval of the difference is paired.
"""

from __future__ import annotations

import dataclasses
import logging
from collections.abc import Iterator
from typing import Any

import numpy as np

from multimed_jax.config import EvaluatorSpec
from multimed_jax.evaluators.context import EvalContext, Predictions
from multimed_jax.evaluators.measured import make_row, measure, modalities_of, resampling_for
from multimed_jax.evaluators.simple_features import FeatureReader, Features
from multimed_jax.metrics.result_row import ResultRow
from multimed_jax.metrics.ridge import ridge_regression
from multimed_jax.types import UserError

log = logging.getLogger(__name__)

BASELINE = "ridge_regression"


@dataclasses.dataclass(frozen=True)
class RidgeBaselineOptions:
    """What the regression may learn from.

    Attributes:
        max_train_records: at most this many training records of a task, drawn by the run's seed.
    """

    max_train_records: int = 4000

    def __post_init__(self) -> None:
        """Raises UserError unless max_train_records is at least 1."""
        if self.max_train_records < 1:
            raise UserError(
                f"ridge_baseline.max_train_records is {self.max_train_records}; it must be at "
                "least 1"
            )


def run(options: RidgeBaselineOptions, context: EvalContext) -> Iterator[ResultRow]:
    """Yields one row per split and (source, task) of values; other tasks have none."""
    for split in context.config.eval.splits:
        for predictions in context.predict(split, None):
            if predictions.kind == "values" and predictions.task.read_target is None:
                yield _row(options, context, split, predictions)


@dataclasses.dataclass
class _Train:
    features: list[Features] = dataclasses.field(default_factory=list)
    targets: list[np.ndarray] = dataclasses.field(default_factory=list)
    groups: list[Any] = dataclasses.field(default_factory=list)


def _row(
    options: RidgeBaselineOptions, context: EvalContext, split: str, predictions: Predictions
) -> ResultRow:
    task, source = predictions.task, predictions.source.name
    names = modalities_of(context, predictions)
    reader = FeatureReader([m for m in context.config.modalities if m.name in names])
    train = _choose_train(
        reader, context.open_source(source, "train"), task.name, options, context.config.seed
    )
    if not train.targets:
        raise UserError(
            f"source {source!r} has no training record of {task.name!r}, so ridge regression "
            "cannot stand beside it"
        )
    records = context.open_source(source, split)
    features = reader.matrix(
        [*train.features, *(reader.read(records[int(row)]) for row in predictions.rows)]
    )
    if reader.num_undecodable:
        log.warning(
            "%s: %d inputs cannot be decoded; the ridge baseline takes them as missing",
            source,
            reader.num_undecodable,
        )
    num_train = len(train.targets)
    values = ridge_regression(
        features[:num_train],
        np.stack(train.targets),
        features[num_train:],
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
        baseline_name=BASELINE,
    )


def _choose_train(
    reader: FeatureReader, source: Any, task: str, options: RidgeBaselineOptions, seed: int
) -> _Train:
    """Training records that know at least one column, in drawn order."""
    train = _Train()
    for row in np.random.default_rng(seed).permutation(len(source)):
        if len(train.targets) == options.max_train_records:
            break
        record = source[int(row)]
        target = np.asarray(record["targets"][task], np.float32)
        if np.isfinite(target).any():
            train.features.append(reader.read(record))
            train.targets.append(target)
            train.groups.append(record["group_id"])
    return train


SPEC = EvaluatorSpec(
    name="ridge_baseline",
    spec="multimed_jax.evaluators.ridge_baseline:SPEC",
    options=RidgeBaselineOptions(),
    run=run,
)
