"""Metrics of predicted values, for one sample or for thousands of resamples of it at once.

Predictions and targets are [n, C]: C columns (cell types, months, ...) of n records. A NaN target
is not known and counts in no figure. A figure is computed in each column over its known records and
averaged over the columns that have any. As with classes, a resample is a vector of integer weights.

Policy where a figure is undefined (every value is finite, none is NaN):

    pearson, spearman   0 where predictions or targets of a column do not vary
    r2                  0 where the targets of a column do not vary; it may be far below 0
    across columns      0 where a record's predictions or targets do not vary
    any                 0 where no column has a known target in the resample
"""

from __future__ import annotations

from collections.abc import Callable, Mapping

import numpy as np
from jaxtyping import Bool, Float, Int, Num

from multimed_jax.metrics.classification import Statistic
from multimed_jax.metrics.ranking import divide, mean_over

Weighted = Callable[[np.ndarray], np.ndarray]  # weights [B, n] -> figure [B]
# (predictions [n, C], targets [n, C]) -> the figure of any weights.
Figure = Callable[[np.ndarray, np.ndarray], Weighted]
# A spread below this share of the largest value is a rounding error.
_FLAT = 1e-10


def measured(
    figures: Mapping[str, Figure],
    predictions: Float[np.ndarray, "n C"],
    targets: Float[np.ndarray, "n C"],
) -> dict[str, float]:
    """All figures on one sample. Raises ValueError as `weighted_regression`."""
    values = weighted_regression(figures, predictions, targets)(np.ones((1, len(targets))))
    return {name: float(value[0]) for name, value in values.items()}


def weighted_regression(
    figures: Mapping[str, Figure],
    predictions: Float[np.ndarray, "n C"],
    targets: Float[np.ndarray, "n C"],
) -> Statistic:
    """Prepares the figures for many resamples of the same records.

    Raises:
        ValueError: where there is no record, the shapes differ, or a prediction is not finite.
    """
    if predictions.ndim != 2 or predictions.shape != targets.shape:
        raise ValueError(
            f"predictions and targets must both be [n, C]: {predictions.shape} and {targets.shape}"
        )
    if not targets.size:
        raise ValueError("metrics of no record are undefined")
    if not np.isfinite(predictions).all():
        raise ValueError("predictions hold a value that is not finite")
    predictions, targets = predictions.astype(np.float64), targets.astype(np.float64)
    prepared = {name: figure(predictions, targets) for name, figure in figures.items()}

    def statistic(weights: Num[np.ndarray, "B n"]) -> dict[str, np.ndarray]:
        weights = weights.astype(np.float64)
        return {name: figure(weights) for name, figure in prepared.items()}

    return statistic


# ----------------------------------------------------------------------------- figures


def pearson(predictions: Float[np.ndarray, "n C"], targets: Float[np.ndarray, "n C"]) -> Weighted:
    """Correlation over records, mean over columns with at least two known records."""
    return _over_columns(predictions, targets, _column_pearson, least=2)


def spearman(predictions: Float[np.ndarray, "n C"], targets: Float[np.ndarray, "n C"]) -> Weighted:
    """Correlation of ranks (ties share their mean rank), mean over columns as `pearson`."""
    return _over_columns(predictions, targets, _column_spearman, least=2)


def r2(predictions: Float[np.ndarray, "n C"], targets: Float[np.ndarray, "n C"]) -> Weighted:
    """1 - squared error / variance of the targets, mean over columns as `pearson`."""
    return _over_columns(predictions, targets, _column_r2, least=2)


def mae(predictions: Float[np.ndarray, "n C"], targets: Float[np.ndarray, "n C"]) -> Weighted:
    """Mean absolute error in target units."""
    return _mean_of(predictions, targets, lambda error: np.abs(error))


def mse(predictions: Float[np.ndarray, "n C"], targets: Float[np.ndarray, "n C"]) -> Weighted:
    """Mean squared error in squared target units."""
    return _mean_of(predictions, targets, lambda error: error**2)


def within(limit: float) -> Figure:
    """The figure "share of records whose absolute error is at most `limit` target units"."""

    def figure(predictions: np.ndarray, targets: np.ndarray) -> Weighted:
        return _mean_of(predictions, targets, lambda error: (np.abs(error) <= limit) * 1.0)

    return figure


def has_columns(targets: Float[np.ndarray, "n C"], least: int = 3) -> Bool[np.ndarray, "n"]:
    """Which records have at least `least` known columns."""
    return np.isfinite(targets).sum(1) >= least


def pearson_across_columns(
    predictions: Float[np.ndarray, "n C"], targets: Float[np.ndarray, "n C"]
) -> Weighted:
    """Correlation over the known columns of a record, mean over records that have three."""
    rows = np.flatnonzero(has_columns(targets))
    once = np.ones((1, targets.shape[1]))
    found = np.array(
        [_over_known(predictions[row], targets[row], _column_pearson)(once)[0] for row in rows]
    )

    def figure(weights: np.ndarray) -> np.ndarray:
        own = weights[:, rows]
        return np.nan_to_num(divide(own @ found.reshape(len(rows)), own.sum(1)))

    return figure


# ----------------------------------------------------------------------------- columns

_ColumnFigure = Callable[[np.ndarray, np.ndarray], Weighted]


def _over_columns(
    predictions: np.ndarray, targets: np.ndarray, column: _ColumnFigure, least: int
) -> Weighted:
    chosen = np.flatnonzero(np.isfinite(targets).sum(0) >= least)
    parts = [_over_known(predictions[:, c], targets[:, c], column) for c in chosen]

    def figure(weights: np.ndarray) -> np.ndarray:
        if not parts:
            return np.zeros(len(weights))
        return mean_over(np.stack([part(weights) for part in parts], 1), 0.0)

    return figure


def _over_known(x: np.ndarray, y: np.ndarray, column: _ColumnFigure) -> Weighted:
    known = np.flatnonzero(np.isfinite(y))
    inner = column(x[known], y[known])
    return lambda weights: inner(weights[:, known])


def _mean_of(
    predictions: np.ndarray, targets: np.ndarray, cost: Callable[[np.ndarray], np.ndarray]
) -> Weighted:
    def column(x: np.ndarray, y: np.ndarray) -> Weighted:
        costs = cost(x - y)
        return lambda weights: divide(weights @ costs, weights.sum(1))

    return _over_columns(predictions, targets, column, least=1)


def _column_pearson(x: np.ndarray, y: np.ndarray) -> Weighted:
    floors = _floor(x), _floor(y)
    # Centred first: the weighted means of a resample are then near 0 and nothing cancels.
    x, y = x - x.mean(), y - y.mean()
    products = np.stack([x, y, x * x, y * y, x * y], 1)

    def figure(weights: np.ndarray) -> np.ndarray:
        return _correlation(weights.sum(1), weights @ products, floors)

    return figure


def _correlation(
    total: np.ndarray, sums: np.ndarray, floors: tuple[float, float]
) -> Float[np.ndarray, "B"]:
    """From the weighted sums of x, y, xx, yy, xy; 0 where flat, NaN without weight."""
    mean = sums / np.maximum(total, 1e-300)[:, None]
    var_x, var_y = mean[:, 2] - mean[:, 0] ** 2, mean[:, 3] - mean[:, 1] ** 2
    shared = mean[:, 4] - mean[:, 0] * mean[:, 1]
    varies = (var_x > floors[0]) & (var_y > floors[1])
    scale = np.sqrt(np.where(varies, var_x * var_y, 1.0))
    found = np.where(varies, np.clip(shared / scale, -1.0, 1.0), 0.0)
    return np.where(total > 0, found, np.nan)


def _floor(x: np.ndarray) -> float:
    """The variance below which values are taken as equal."""
    return float((_FLAT * np.abs(x).max(initial=0.0)) ** 2)


def _column_spearman(x: np.ndarray, y: np.ndarray) -> Weighted:
    rankers = [_Ranker(x), _Ranker(y)]

    def figure(weights: np.ndarray) -> np.ndarray:
        total = weights.sum(1)
        centre = (total[:, None] + 1.0) / 2.0
        first, second = (ranker.ranks(weights) - centre for ranker in rankers)
        sums = np.stack(
            [
                np.einsum("bn,bn->b", weights, values)
                for values in (first, second, first**2, second**2, first * second)
            ],
            1,
        )
        return _correlation(total, sums, (1e-9, 1e-9))

    return figure


class _Ranker:
    """The ranks that values have among the records of a resample, each w times there."""

    def __init__(self, values: np.ndarray):
        self._order = np.argsort(values, kind="stable")
        ranked = values[self._order]
        steps = np.r_[True, ranked[1:] != ranked[:-1]]
        self._starts: Int[np.ndarray, "u"] = np.flatnonzero(steps)
        self._step = np.empty(len(values), np.int64)
        self._step[self._order] = np.cumsum(steps) - 1

    def ranks(self, weights: Float[np.ndarray, "B n"]) -> Float[np.ndarray, "B n"]:
        per_step = np.add.reduceat(weights[:, self._order], self._starts, axis=1)
        below = np.cumsum(per_step, 1) - per_step
        return (below + (per_step + 1.0) / 2.0)[:, self._step]


def _column_r2(x: np.ndarray, y: np.ndarray) -> Weighted:
    floor = _floor(y)
    error = (x - y) ** 2
    y = y - y.mean()
    products = np.stack([error, y, y * y], 1)

    def figure(weights: np.ndarray) -> np.ndarray:
        total = weights.sum(1)
        mean = (weights @ products) / np.maximum(total, 1e-300)[:, None]
        variance = mean[:, 2] - mean[:, 1] ** 2
        varies = variance > floor
        found = np.where(varies, 1.0 - mean[:, 0] / np.where(varies, variance, 1.0), 0.0)
        return np.where(total > 0, found, np.nan)

    return figure
