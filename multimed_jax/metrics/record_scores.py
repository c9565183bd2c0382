"""Metrics that are means over records: the figure of a record is made once, resamples weigh it.

A record that a figure does not concern (an open question among closed ones) has NaN there and is
left out of its mean.
"""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
from jaxtyping import Float, Num

from multimed_jax.metrics.classification import Statistic

Scores = Mapping[str, Float[np.ndarray, "n"]]


def mean_scores(scores: Scores) -> dict[str, float]:
    """The mean of every figure over the records that it concerns; figures of none are left out."""
    return {
        name: float(np.nanmean(values))
        for name, values in scores.items()
        if np.isfinite(values).any()
    }


def mean_statistic(scores: Scores) -> Statistic:
    """`mean_scores` for many resamples of the same records.

    A resample without any record that a figure concerns has the figure of the whole sample.
    """
    whole = mean_scores(scores)

    def statistic(weights: Num[np.ndarray, "B n"]) -> dict[str, np.ndarray]:
        out = {}
        for name, mean in whole.items():
            known = np.isfinite(scores[name])
            total = weights[:, known].sum(1)
            weighted = weights[:, known] @ scores[name][known]
            out[name] = np.where(total > 0, weighted / np.maximum(total, 1), mean)
        return out

    return statistic
