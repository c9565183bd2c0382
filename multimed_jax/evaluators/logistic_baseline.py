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
from jaxtyping import Float, Int

from multimed_jax.config import EvaluatorSpec
from multimed_jax.evaluators.context import EvalContext, Predictions
from multimed_jax.evaluators.measured import make_row, measure, modalities_of, resampling_for
from multimed_jax.layers.decode_errors import DecodeError
from multimed_jax.metrics.baselines import logistic_regression
from multimed_jax.metrics.result_row import ResultRow
from multimed_jax.types import ModalitySpec, Record, UserError

log = logging.getLogger(__name__)

BASELINE = "logistic_regression"


@dataclasses.dataclass(frozen=True)
class LogisticBaselineOptions:
    """What the regression may learn from.

    Attributes:
        max_train_records: at most this many training records, drawn by the run's seed.
    """

    max_train_records: int = 3000

    def __post_init__(self) -> None:
        """Raises UserError unless max_train_records is at least 1."""
        if self.max_train_records < 1:
            raise UserError(
                f"logistic_baseline.max_train_records is {self.max_train_records}; it must be at "
                "least 1"
            )


def run(options: LogisticBaselineOptions, context: EvalContext) -> Iterator[ResultRow]:
    """Yields one row per split and (source, task) with classes."""
    for split in context.config.eval.splits:
        for predictions in context.predict(split, None):
            if predictions.namespace.class_names:
                yield _row(options, context, split, predictions)


def _row(
    options: LogisticBaselineOptions, context: EvalContext, split: str, predictions: Predictions
) -> ResultRow:
    task = predictions.task
    names = modalities_of(context, predictions)
    modalities = [spec for spec in context.config.modalities if spec.name in names]
    reader = _FeatureReader(modalities)
    train = context.open_source(predictions.source.name, "train")
    train_y, groups = reader.add_train(train, task.name, options, context.config.seed)
    measured = context.open_source(predictions.source.name, split)
    for row in predictions.rows:
        reader.add(measured[int(row)])
    features = reader.matrix()
    if reader.num_undecodable:
        log.warning(
            "%s: %d inputs cannot be decoded; the logistic baseline takes them as missing",
            predictions.source.name,
            reader.num_undecodable,
        )
    probabilities = logistic_regression(
        features[: len(train_y)],
        train_y,
        features[len(train_y) :],
        len(predictions.namespace.class_names),
        context.config.seed,
        groups,
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


class _FeatureReader:
    """Collects the features of records, a NaN block where a record lacks a modality."""

    def __init__(self, modalities: Sequence[ModalitySpec]):
        self._modalities = modalities
        self._found: list[dict[str, np.ndarray]] = []
        self.num_undecodable = 0

    def add_train(
        self, source: Any, task: str, options: LogisticBaselineOptions, seed: int
    ) -> tuple[Int[np.ndarray, "n"], np.ndarray]:
        """Adds labelled training records in drawn order; returns their classes and groups."""
        targets, groups = [], []
        for row in np.random.default_rng(seed).permutation(len(source)):
            if len(targets) == options.max_train_records:
                break
            record = source[int(row)]
            target = int(record["targets"][task])
            if target >= 0:
                targets.append(target)
                groups.append(record["group_id"])
                self.add(record)
        return np.array(targets, np.int64), np.array(groups)

    def add(self, record: Record) -> None:
        """Reads one record."""
        found = {}
        for spec in self._modalities:
            if not spec.count(record, spec.options):
                continue
            try:
                found[spec.name] = np.asarray(spec.features(record, spec.options), np.float32)
            except DecodeError:
                self.num_undecodable += 1
        self._found.append(found)

    def matrix(self) -> Float[np.ndarray, "n F"]:
        """All records so far, in the order in which they were added."""
        blocks = []
        for spec in self._modalities:
            widths = [found[spec.name].size for found in self._found if spec.name in found]
            if not widths:
                continue
            absent = np.full(widths[0], np.nan, np.float32)
            blocks.append(
                np.stack([f[spec.name] if spec.name in f else absent for f in self._found])
            )
        if not blocks:
            return np.zeros((len(self._found), 0), np.float32)
        return np.concatenate(blocks, 1)


SPEC = EvaluatorSpec(
    name="logistic_baseline",
    spec="multimed_jax.evaluators.logistic_baseline:SPEC",
    options=LogisticBaselineOptions(),
    run=run,
)
