from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from scipy import stats
from sklearn.metrics import mean_absolute_error, mean_squared_error, r2_score

from multimed_jax.metrics import regression
from multimed_jax.metrics.regression import measured, weighted_regression

FIGURES = {
    "pearson": regression.pearson,
    "spearman": regression.spearman,
    "r2": regression.r2,
    "mae": regression.mae,
    "mse": regression.mse,
    "within": regression.within(0.8),
    "across": regression.pearson_across_columns,
}


def first(result: Any) -> float:
    """The correlation of a result of SciPy, whose types say too little."""
    return float(result[0])


REFERENCE = {
    "pearson": lambda x, y: first(stats.pearsonr(x, y)),
    "spearman": lambda x, y: first(stats.spearmanr(x, y)),
    "r2": lambda x, y: r2_score(y, x),
    "mae": lambda x, y: mean_absolute_error(y, x),
    "mse": lambda x, y: mean_squared_error(y, x),
    "within": lambda x, y: np.mean([abs(a - b) <= 0.8 for a, b in zip(x, y, strict=True)]),
}


def values(n: int = 40, columns: int = 4, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    """Ties in both, gaps in the targets, a large offset as of months."""
    rng = np.random.default_rng(seed)
    targets = np.round(rng.normal(120.0, 2.0, (n, columns)), 1)
    predictions = np.round(targets + rng.normal(0.3, 1.0, targets.shape), 1)
    targets[rng.random(targets.shape) < 0.25] = np.nan
    return predictions.astype(np.float32), targets.astype(np.float32)


def by_columns(name: str, predictions: np.ndarray, targets: np.ndarray) -> float:
    found = []
    for x, y in zip(predictions.T.astype(float), targets.T.astype(float), strict=True):
        known = ~np.isnan(y)
        found.append(REFERENCE[name](x[known], y[known]))
    return float(np.mean(found))


@pytest.mark.parametrize("name", REFERENCE)
def test_figures_equal_scipy_and_scikit_learn(name):
    predictions, targets = values()
    got = measured(FIGURES, predictions, targets)[name]
    assert got == pytest.approx(by_columns(name, predictions, targets), rel=1e-6)


@pytest.mark.parametrize("name", REFERENCE)
def test_weights_mean_repeated_records(name):
    predictions, targets = values(24, 2, seed=1)
    weights = np.random.default_rng(2).multinomial(24, np.full(24, 1 / 24), 5)
    got = weighted_regression(FIGURES, predictions, targets)(weights)[name]
    for value, weight in zip(got, weights, strict=True):
        rows = np.repeat(np.arange(24), weight)
        assert value == pytest.approx(by_columns(name, predictions[rows], targets[rows]), rel=1e-6)


def test_across_columns_is_the_mean_of_each_records_correlation():
    predictions, targets = values(30, 5, seed=3)
    weights = np.random.default_rng(4).integers(0, 3, (3, 30))
    each = {}
    for row in range(30):
        known = ~np.isnan(targets[row])
        if known.sum() >= 3:
            each[row] = first(stats.pearsonr(predictions[row, known], targets[row, known]))
    assert 10 < len(each) < 30
    got = weighted_regression(FIGURES, predictions, targets)(weights)["across"]
    for value, weight in zip(got, weights, strict=True):
        rows = np.array(list(each))
        assert value == pytest.approx(
            np.average(list(each.values()), weights=weight[rows]), rel=1e-5
        )


def test_what_is_undefined_is_zero_and_never_nan():
    targets = np.array([[1.0, np.nan], [2.0, np.nan], [4.0, np.nan]])
    constant = np.full((3, 2), 0.1)
    got = measured(FIGURES, constant, targets)
    assert (got["pearson"], got["spearman"], got["across"]) == (0.0, 0.0, 0.0)
    assert got["mae"] == pytest.approx(np.mean([0.9, 1.9, 3.9]))
    assert got["r2"] == pytest.approx(r2_score(targets[:, 0], constant[:, 0]))
    flat = measured(FIGURES, targets[:, :1], np.full((3, 1), 0.3))
    assert (flat["pearson"], flat["spearman"], flat["r2"]) == (0.0, 0.0, 0.0)
    # A resample that drew one record only, and one that drew none of those that are known.
    gap = np.array([[1.0], [2.0], [np.nan]])
    drawn = weighted_regression(FIGURES, np.array([[1.0], [5.0], [2.0]]), gap)(
        np.array([[0, 3, 0], [0, 0, 3]])
    )
    for name in ("pearson", "spearman", "r2", "across"):
        assert drawn[name].tolist() == [0.0, 0.0], name
    np.testing.assert_allclose(drawn["mae"], [3.0, 0.0])
    unknown = measured(FIGURES, constant, np.full((3, 2), np.nan))
    assert set(unknown.values()) == {0.0}


def test_constant_predictions_with_an_odd_mean_do_not_correlate():
    """0.1 seven times has a mean that is not 0.1: the rest must not pass for a spread."""
    targets = np.random.default_rng(0).normal(size=(7, 1))
    for constant in (0.1, 1e6 + 0.1, 1e-8):
        assert measured(FIGURES, np.full((7, 1), constant), targets)["pearson"] == 0.0


def test_perfect_and_reversed():
    _, targets = values(12, 1)
    known = targets[~np.isnan(targets)][:, None]
    assert measured(FIGURES, known, known)["pearson"] == pytest.approx(1.0)
    assert measured(FIGURES, -known, known)["spearman"] == pytest.approx(-1.0)
    assert measured(FIGURES, known, known)["within"] == 1.0


def test_illegal_arguments():
    predictions, targets = values(5, 2)
    with pytest.raises(ValueError, match="must both be"):
        measured(FIGURES, predictions[:, 0], targets[:, 0])
    with pytest.raises(ValueError, match="no record"):
        measured(FIGURES, predictions[:0], targets[:0])
    predictions[0, 0] = np.nan
    with pytest.raises(ValueError, match="not finite"):
        measured(FIGURES, predictions, targets)
