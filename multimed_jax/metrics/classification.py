"""Metrics of a classifier, for one sample or for thousands of resamples of it at once.

A bootstrap draws each record w times; every metric here is a function of those integer weights, so
a resample never copies records. `weighted_classification` sorts and counts once, and then answers
any block of weights `[B, n]`.

Policy where a metric is undefined (every value is finite, none is NaN):

    accuracy           share of records whose most probable class is the target (ties: lower index)
    balanced_accuracy  mean recall over the classes that are present among the targets
    macro_f1           mean F1 over the classes present among the targets or the predictions
    auroc              one-vs-rest, mean over the classes that have both positives and negatives;
                       0.5 where there is none (a single class in the sample); with two classes
                       it is the area of class 1
    sensitivity        one-vs-rest, mean over the classes that have positives; the mean over
                       classes makes it equal to balanced_accuracy
    specificity        one-vs-rest, mean over the classes of the namespace that have negatives
                       (absent classes count: predicting them is a false positive); 1 where a
                       namespace of one class leaves no negative
    kappa              Cohen's, unweighted; 0 where chance agreement is already complete
"""

from __future__ import annotations

from collections.abc import Callable, Collection

import numpy as np
from jaxtyping import Float, Int, Num

from multimed_jax.metrics.ranking import RankedScores, divide, mean_over

METRICS = (
    "accuracy",
    "balanced_accuracy",
    "macro_f1",
    "auroc",
    "sensitivity",
    "specificity",
    "kappa",
)

# Resample weights [B, n] -> metric name -> its value in each of the B resamples.
Statistic = Callable[[np.ndarray], dict[str, np.ndarray]]


def classification_metrics(
    probabilities: Float[np.ndarray, "n C"], targets: Int[np.ndarray, "n"]
) -> dict[str, float]:
    """All of `METRICS` on one sample. Undefined cases follow the module's policy.

    Args:
        probabilities: of each class; only their order within a column and a row matters.
        targets: class index of each record.

    Raises:
        ValueError: where there is no record, or a target lies outside the classes.
    """
    statistic = weighted_classification(probabilities, targets)
    values = statistic(np.ones((1, len(targets)), np.int64))
    return {name: float(value[0]) for name, value in values.items()}


def weighted_classification(
    probabilities: Float[np.ndarray, "n C"],
    targets: Int[np.ndarray, "n"],
    names: Collection[str] = METRICS,
) -> Statistic:
    """Prepares the metrics for many resamples of the same records.

    Args:
        probabilities: as `classification_metrics` takes them.
        targets: as `classification_metrics` takes them.
        names: which of `METRICS` are wanted; AUROC is by far the dearest.

    Returns:
        weights [B, n] (how often each record was drawn) -> metric -> [B].

    Raises:
        ValueError: where there is no record, a target lies outside the classes, a probability is
            not finite or a metric is unknown.
    """
    _check(probabilities, targets, names)
    num_classes = probabilities.shape[1]
    predicted = probabilities.argmax(1)
    is_true = np.eye(num_classes)[targets]
    is_predicted = np.eye(num_classes)[predicted]
    counted = np.concatenate([is_true, is_predicted, is_true * is_predicted], 1)
    areas = []
    if "auroc" in names:
        # With two classes both areas are the same figure, so one is enough.
        scored = [1] if num_classes == 2 else range(num_classes)
        areas = [RankedScores(probabilities[:, c], targets == c) for c in scored]

    def statistic(weights: Num[np.ndarray, "B n"]) -> dict[str, np.ndarray]:
        weights = weights.astype(np.float64)
        values = _from_counts(*np.split(weights @ counted, 3, axis=1))
        if areas:
            values["auroc"] = mean_over(
                np.stack([area.auroc(weights) for area in areas], 1), empty=0.5
            )
        return {name: values[name] for name in METRICS if name in names}

    return statistic


def _check(probabilities: np.ndarray, targets: np.ndarray, names: Collection[str]) -> None:
    if probabilities.ndim != 2 or targets.shape != probabilities.shape[:1]:
        raise ValueError(
            f"probabilities [n, C] and targets [n] do not fit: {probabilities.shape} and "
            f"{targets.shape}"
        )
    if not len(targets):
        raise ValueError("metrics of no record are undefined")
    if not np.isfinite(probabilities).all():
        raise ValueError("probabilities hold a value that is not finite")
    if targets.min() < 0 or targets.max() >= probabilities.shape[1]:
        raise ValueError(
            f"targets span {targets.min()} to {targets.max()}; accepted: 0 to "
            f"{probabilities.shape[1] - 1}"
        )
    for name in names:
        if name not in METRICS:
            raise ValueError(f"unknown metric {name!r}; accepted: {', '.join(METRICS)}")


def _from_counts(
    actual: Float[np.ndarray, "B C"],
    predicted: Float[np.ndarray, "B C"],
    correct: Float[np.ndarray, "B C"],
) -> dict[str, np.ndarray]:
    """Every metric of a confusion matrix that its margins and diagonal decide."""
    total = actual.sum(1)
    accuracy = correct.sum(1) / total
    recall = mean_over(divide(correct, actual), empty=0.0)
    negatives = total[:, None] - actual
    true_negatives = negatives - (predicted - correct)
    chance = (actual * predicted).sum(1) / total**2
    # Compared in counts, which are exact: 1 - chance can miss 0 by a rounding.
    complete = (actual * predicted).sum(1) == total**2
    kappa = np.where(complete, 0.0, (accuracy - chance) / np.where(complete, 1.0, 1.0 - chance))
    return {
        "accuracy": accuracy,
        "balanced_accuracy": recall,
        "macro_f1": mean_over(divide(2 * correct, actual + predicted), empty=0.0),
        "sensitivity": recall,
        "specificity": mean_over(divide(true_negatives, negatives), empty=1.0),
        "kappa": kappa,
    }


def selected_metrics(
    *names: str,
) -> Callable[[Float[np.ndarray, "n C"], Int[np.ndarray, "n"]], dict[str, float]]:
    """`classification_metrics` cut to the figures that a task reports, in that order."""

    def metrics(
        probabilities: Float[np.ndarray, "n C"], targets: Int[np.ndarray, "n"]
    ) -> dict[str, float]:
        values = classification_metrics(probabilities, targets)
        return {name: values[name] for name in names}

    return metrics
