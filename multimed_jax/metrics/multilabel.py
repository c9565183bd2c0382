"""Metrics of several yes-or-no labels per record, for one sample or for thousands of resamples.

A target is 1 (has it), 0 (has it not) or -1 (uncertain, or not told); what is not known counts in
no figure. Every figure is a mean over labels: a rare finding counts as much as a common one. A
label for which a figure is undefined is left out of that figure's mean:

    label_accuracy     share of known records on the right side of 0.5 (0.5 itself says yes); labels
                       with a known record
    macro_auroc        labels that have both positives and negatives; 0.5 where there is none
    average_precision  area under precision and recall by steps; labels that have positives; 0 where
                       there is none

Label accuracy is high for whoever says no to all of many rare labels: read it beside its baseline.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence

import numpy as np
from jaxtyping import Float, Int, Num

from multimed_jax.metrics.classification import Statistic
from multimed_jax.metrics.ranking import RankedScores, divide, mean_over

METRICS = ("label_accuracy", "macro_auroc", "average_precision")
THRESHOLD = 0.5


@dataclasses.dataclass(frozen=True)
class LabelFigures:
    """The figures of one label; NaN where undefined."""

    name: str
    known: int
    positives: int
    accuracy: float
    auroc: float
    average_precision: float


def label_metrics(
    probabilities: Float[np.ndarray, "n F"], targets: Int[np.ndarray, "n F"]
) -> dict[str, float]:
    """All of `METRICS` on one sample.

    Args:
        probabilities: of each label.
        targets: 1, 0, or -1 where not known.

    Raises:
        ValueError: where there is no record, the shapes differ, or a probability is not finite.
    """
    values = weighted_labels(probabilities, targets)(np.ones((1, len(targets))))
    return {name: float(value[0]) for name, value in values.items()}


def weighted_labels(
    probabilities: Float[np.ndarray, "n F"], targets: Int[np.ndarray, "n F"]
) -> Statistic:
    """Prepares the metrics for many resamples of the same records; the rest as above."""
    labels = _labels(probabilities, targets)

    def statistic(weights: Num[np.ndarray, "B n"]) -> dict[str, np.ndarray]:
        weights = weights.astype(np.float64)
        found = np.stack([label.figures(weights) for label in labels], 2)
        empty = (0.0, 0.5, 0.0)
        return {name: mean_over(found[i], empty[i]) for i, name in enumerate(METRICS)}

    return statistic


def per_label(
    probabilities: Float[np.ndarray, "n F"],
    targets: Int[np.ndarray, "n F"],
    names: Sequence[str],
) -> list[LabelFigures]:
    """The figures of each label by itself; arguments and errors as above."""
    once = np.ones((1, len(targets)))
    out = []
    for f, label in enumerate(_labels(probabilities, targets)):
        figures = [float(value) for value in label.figures(once)[:, 0]]
        known = int((targets[:, f] >= 0).sum())
        out.append(LabelFigures(names[f], known, int((targets[:, f] == 1).sum()), *figures))
    return out


def _labels(probabilities: np.ndarray, targets: np.ndarray) -> list[_Label]:
    if probabilities.ndim != 2 or probabilities.shape != targets.shape:
        raise ValueError(
            f"probabilities and targets must both be [n, F]: {probabilities.shape} and "
            f"{targets.shape}"
        )
    if not targets.size:
        raise ValueError("metrics of no record are undefined")
    if not np.isfinite(probabilities).all():
        raise ValueError("probabilities hold a value that is not finite")
    return [_Label(probabilities[:, f], targets[:, f]) for f in range(targets.shape[1])]


class _Label:
    """One label over the records where it is known."""

    def __init__(self, probabilities: np.ndarray, targets: np.ndarray):
        self._known = np.flatnonzero(targets >= 0)
        positive = targets[self._known] == 1
        scores = probabilities[self._known]
        self._right = ((scores >= THRESHOLD) == positive).astype(np.float64)
        self._ranked = RankedScores(scores, positive) if len(self._known) else None

    def figures(self, weights: Float[np.ndarray, "B n"]) -> Float[np.ndarray, "3 B"]:
        """Accuracy, area and average precision; NaN where undefined."""
        if self._ranked is None:
            return np.full((3, len(weights)), np.nan)
        weights = weights[:, self._known]
        accuracy = divide(weights @ self._right, weights.sum(1))
        return np.stack(
            [accuracy, self._ranked.auroc(weights), self._ranked.average_precision(weights)]
        )
