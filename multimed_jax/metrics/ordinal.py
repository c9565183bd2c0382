"""Metrics of grades, classes in order, for one sample or for thousands of resamples of it at once.

The prediction is the most probable grade (ties: the lower one), for every figure the same.

    accuracy           share of records whose prediction is the target
    kappa_quadratic    Cohen's, disagreement weighted by the squared distance of the grades; 0 where
                       even chance agrees fully (targets and predictions all of one grade)
    mae                mean distance of prediction and target in grades; lower is better
"""

from __future__ import annotations

import numpy as np
from jaxtyping import Float, Int, Num

from multimed_jax.metrics.classification import Statistic

METRICS = ("accuracy", "kappa_quadratic", "mae")
LOWER_IS_BETTER = frozenset({"mae"})


def grade_metrics(
    probabilities: Float[np.ndarray, "n C"], targets: Int[np.ndarray, "n"]
) -> dict[str, float]:
    """All of `METRICS` on one sample.

    Args:
        probabilities: of each grade; only their order within a row matters.
        targets: grade of each record.

    Raises:
        ValueError: where there is no record, or a target lies outside the grades.
    """
    values = weighted_grades(probabilities, targets)(np.ones((1, len(targets))))
    return {name: float(value[0]) for name, value in values.items()}


def weighted_grades(
    probabilities: Float[np.ndarray, "n C"], targets: Int[np.ndarray, "n"]
) -> Statistic:
    """Prepares the metrics for many resamples of the same records; the rest as above.

    All three are functions of the weighted confusion matrix.
    """
    num_grades = probabilities.shape[1]
    if not len(targets):
        raise ValueError("metrics of no record are undefined")
    if targets.min() < 0 or targets.max() >= num_grades:
        raise ValueError(
            f"targets span {targets.min()} to {targets.max()}; accepted: 0 to {num_grades - 1}"
        )
    cells, cell = np.unique(
        targets.astype(np.int64) * num_grades + probabilities.argmax(1), return_inverse=True
    )
    in_cell = np.eye(len(cells))[cell.reshape(-1)]
    actual, predicted = cells // num_grades, cells % num_grades
    is_actual, is_predicted = np.eye(num_grades)[actual], np.eye(num_grades)[predicted]
    grades = np.arange(num_grades)
    cost = np.subtract.outer(grades, grades).astype(float) ** 2

    def statistic(weights: Num[np.ndarray, "B n"]) -> dict[str, np.ndarray]:
        counts = weights.astype(np.float64) @ in_cell
        total = counts.sum(1)
        observed = counts @ cost[actual, predicted]
        # Expected if both margins stayed and were independent; in counts, 0 is exact.
        chance = np.einsum("bi,ij,bj->b", counts @ is_actual, cost, counts @ is_predicted)
        never = chance == 0
        kappa = np.where(never, 0.0, 1.0 - observed * total / np.where(never, 1.0, chance))
        return {
            "accuracy": counts @ (actual == predicted) / total,
            "kappa_quadratic": kappa,
            "mae": counts @ np.abs(actual - predicted) / total,
        }

    return statistic
