"""Scores against a yes-or-no truth, sorted once: areas under curves for any resample weights."""

from __future__ import annotations

import numpy as np
from jaxtyping import Bool, Float


class RankedScores:
    """The scores of one class or label over the records where its truth is known."""

    def __init__(
        self,
        scores: Float[np.ndarray, "n"],
        positive: Bool[np.ndarray, "n"],  # noqa: F821
    ):
        self._order = np.argsort(scores, kind="stable")
        ranked = scores[self._order]
        # Records of equal score form one step of the curve: [0.1, 0.4 0.4, 0.9] -> 0, 1, 3.
        self._starts = np.flatnonzero(np.r_[True, ranked[1:] != ranked[:-1]])
        self._positive = positive[self._order]

    def auroc(self, weights: Float[np.ndarray, "B n"]) -> Float[np.ndarray, "B"]:
        """Weighted share of (positive, negative) pairs in order, ties half; NaN without pairs."""
        ranked = weights[:, self._order]
        positives = self._per_step(ranked * self._positive)
        negatives = self._per_step(ranked * ~self._positive)
        below = np.cumsum(negatives, 1)
        num_negatives = below[:, -1].copy()
        below -= 0.5 * negatives
        pairs = positives.sum(1) * num_negatives
        return divide(np.einsum("bu,bu->b", positives, below), pairs)

    def average_precision(self, weights: Float[np.ndarray, "B n"]) -> Float[np.ndarray, "B"]:
        """Sum over steps, highest score first, of the gain in recall times the precision there.

        Without interpolation between steps; NaN where no positive has weight.
        """
        ranked = weights[:, self._order]
        positives = self._per_step(ranked * self._positive)[:, ::-1]
        taken = np.cumsum(self._per_step(ranked)[:, ::-1], 1)
        precision = np.divide(
            np.cumsum(positives, 1), taken, out=np.zeros(taken.shape), where=taken > 0
        )
        return divide(np.einsum("bu,bu->b", positives, precision), positives.sum(1))

    def _per_step(self, ranked: np.ndarray) -> np.ndarray:
        if len(self._starts) == ranked.shape[1]:
            return ranked
        return np.add.reduceat(ranked, self._starts, axis=1)


def divide(part: np.ndarray, whole: np.ndarray) -> np.ndarray:
    """The quotient, NaN where `whole` is 0; `mean_over` leaves those out."""
    return np.divide(part, whole, out=np.full(part.shape, np.nan), where=whole > 0)


def mean_over(per_class: Float[np.ndarray, "B C"], empty: float) -> Float[np.ndarray, "B"]:
    """Mean over the columns where the figure is defined, `empty` where there is none."""
    defined: Bool[np.ndarray, "B C"] = ~np.isnan(per_class)
    total = np.where(defined, per_class, 0.0).sum(1)
    count = defined.sum(1)
    return np.where(count > 0, total / np.maximum(count, 1), empty)
