"""The model's primary metric beside logistic regression on simple features of the same records.

For tasks of classes; `ridge_baseline` is for values. Its strength is chosen inside train over folds
of groups. The interval of the difference is paired.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator

import numpy as np

from multimed_jax.config import EvaluatorSpec
from multimed_jax.evaluators.context import EvalContext
from multimed_jax.evaluators.feature_baseline import (
    FeatureBaseline,
    check_max_train_records,
    feature_rows,
)
from multimed_jax.metrics.baselines import logistic_regression
from multimed_jax.metrics.result_row import ResultRow
from multimed_jax.specs import Namespace


@dataclasses.dataclass(frozen=True)
class LogisticBaselineOptions:
    """What the regression may learn from.

    Attributes:
        max_train_records: at most this many training records of a task, drawn by the run's seed.
    """

    max_train_records: int = 2000

    def __post_init__(self) -> None:
        """Raises UserError unless max_train_records is at least 1."""
        check_max_train_records("logistic_baseline", self.max_train_records)


def _fit(
    features: np.ndarray,
    targets: list[np.ndarray],
    tests: np.ndarray,
    namespace: Namespace,
    seed: int,
    groups: np.ndarray,
) -> np.ndarray:
    num_classes = len(namespace.class_names)
    labels = np.array(targets, np.int64)
    return logistic_regression(features, labels, tests, num_classes, seed, groups)


BASELINE = FeatureBaseline(
    name="logistic_regression",
    words="logistic regression",
    kind="classes",
    knows=lambda target: bool(target >= 0),
    fit=_fit,
)


def run(options: LogisticBaselineOptions, context: EvalContext) -> Iterator[ResultRow]:
    """Yields one row per split and (source, task) with classes; other tasks have none."""
    return feature_rows(BASELINE, options.max_train_records, context)


SPEC = EvaluatorSpec(
    name="logistic_baseline",
    spec="multimed_jax.evaluators.logistic_baseline:SPEC",
    options=LogisticBaselineOptions(),
    run=run,
)
