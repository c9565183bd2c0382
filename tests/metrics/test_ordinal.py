"""Grades against scikit-learn; resamples against repeated records."""

from __future__ import annotations

import numpy as np
import pytest
from sklearn.metrics import accuracy_score, cohen_kappa_score, mean_absolute_error

from multimed_jax.metrics.intervals import resampled
from multimed_jax.metrics.ordinal import grade_metrics, weighted_grades


def make_case(seed: int, n: int = 80, grades: int = 5) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(seed)
    targets = rng.choice(grades, n, p=[0.5, 0.1, 0.3, 0.1, 0.0])
    near = np.exp(-np.abs(np.arange(grades) - targets[:, None] + rng.normal(size=(n, 1))))
    return near / near.sum(1, keepdims=True), targets


@pytest.mark.parametrize("seed", range(3))
def test_grades_equal_scikit_learn(seed):
    probabilities, targets = make_case(seed)
    guess = probabilities.argmax(1)
    assert grade_metrics(probabilities, targets) == pytest.approx(
        {
            "accuracy": accuracy_score(targets, guess),
            "kappa_quadratic": cohen_kappa_score(targets, guess, weights="quadratic"),
            "mae": mean_absolute_error(targets, guess),
        }
    )


def test_resamples_equal_repeated_records():
    probabilities, targets = make_case(7)
    weights = np.random.default_rng(0).poisson(1.0, (6, len(targets)))
    fast = weighted_grades(probabilities, targets)(weights)
    slow = resampled(grade_metrics, probabilities, targets)(weights)
    assert list(fast) == list(slow)
    for name in fast:
        np.testing.assert_allclose(fast[name], slow[name])


def test_kappa_of_one_grade_alone_is_zero():
    sure = np.eye(5)[[2, 2, 2]]
    assert grade_metrics(sure, np.array([2, 2, 2])) == {
        "accuracy": 1.0,
        "kappa_quadratic": 0.0,
        "mae": 0.0,
    }


@pytest.mark.parametrize(
    ("targets", "message"),
    [(np.array([0, 5, 1]), "accepted: 0 to 4"), (np.zeros(0, int), "no record")],
)
def test_impossible_targets_are_refused(targets, message):
    with pytest.raises(ValueError, match=message):
        grade_metrics(np.full((len(targets), 5), 0.2), targets)
