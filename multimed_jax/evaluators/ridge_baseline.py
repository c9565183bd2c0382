"""The model's primary metric beside ridge regression on simple features of the same records.

For tasks of values, as `logistic_baseline` is for classes: one regression for each column, its
strength chosen inside train over folds of groups. The interval of the difference is paired.
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
from multimed_jax.metrics.result_row import ResultRow
from multimed_jax.metrics.ridge import ridge_regression
from multimed_jax.specs import Namespace


@dataclasses.dataclass(frozen=True)
class RidgeBaselineOptions:
    """What the regression may learn from.

    Attributes:
        max_train_records: at most this many training records of a task, drawn by the run's seed.
    """

    max_train_records: int = 4000

    def __post_init__(self) -> None:
        """Raises UserError unless max_train_records is at least 1."""
        check_max_train_records("ridge_baseline", self.max_train_records)


def _fit(
    features: np.ndarray,
    targets: list[np.ndarray],
    tests: np.ndarray,
    namespace: Namespace,
    seed: int,
    groups: np.ndarray,
) -> np.ndarray:
    del namespace  # its columns are those of the targets
    return ridge_regression(features, np.stack(targets).astype(np.float32), tests, seed, groups)


BASELINE = FeatureBaseline(
    name="ridge_regression",
    words="ridge regression",
    kind="values",
    knows=lambda target: bool(np.isfinite(target).any()),
    fit=_fit,
)


def run(options: RidgeBaselineOptions, context: EvalContext) -> Iterator[ResultRow]:
    """Yields one row per split and (source, task) of values; other tasks have none."""
    return feature_rows(BASELINE, options.max_train_records, context)


SPEC = EvaluatorSpec(
    name="ridge_baseline",
    spec="multimed_jax.evaluators.ridge_baseline:SPEC",
    options=RidgeBaselineOptions(),
    run=run,
)
