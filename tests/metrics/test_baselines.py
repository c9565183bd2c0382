"""The trivial predictors."""

from __future__ import annotations

import numpy as np
import pytest
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import GridSearchCV
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from multimed_jax.metrics import baselines
from multimed_jax.metrics.baselines import logistic_regression, majority_probabilities
from multimed_jax.metrics.classification import classification_metrics


def test_majority_is_the_training_majority_not_the_test_one():
    probabilities = majority_probabilities((10, 30, 0), 4)
    np.testing.assert_allclose(probabilities, np.tile([0.25, 0.75, 0.0], (4, 1)))
    values = classification_metrics(probabilities, np.array([0, 0, 0, 1]))
    assert values["accuracy"] == 0.25
    assert values["auroc"] == 0.5


def test_majority_of_nothing_is_refused():
    with pytest.raises(ValueError, match="no training record"):
        majority_probabilities((0, 0), 3)


def make_problem(n=240, width=6, num_classes=3, seed=0):
    rng = np.random.default_rng(seed)
    y = rng.integers(0, num_classes, n)
    x = rng.normal(size=(n, width)) * np.logspace(-3, 3, width) + 50.0
    x[:, 1] += y * np.logspace(-3, 3, width)[1]
    return x, y


def test_probabilities_equal_a_standardised_pipeline(monkeypatch):
    monkeypatch.setattr(baselines, "STRENGTHS", (0.1,))
    x, y = make_problem()
    ours = logistic_regression(x[:160], y[:160], x[160:], 3, seed=0)
    pipeline = make_pipeline(StandardScaler(), LogisticRegression(C=0.1, max_iter=5000))
    theirs = pipeline.fit(x[:160], y[:160]).predict_proba(x[160:])
    np.testing.assert_allclose(ours, theirs, atol=2e-3)
    np.testing.assert_allclose(ours.sum(1), 1.0)


def test_more_features_than_records_give_the_same_probabilities(monkeypatch):
    monkeypatch.setattr(baselines, "STRENGTHS", (0.01,))
    x, y = make_problem(width=90)
    ours = logistic_regression(x[:60], y[:60], x[60:], 3, seed=0)
    pipeline = make_pipeline(StandardScaler(), LogisticRegression(C=0.01, max_iter=5000))
    theirs = pipeline.fit(x[:60], y[:60]).predict_proba(x[60:])
    np.testing.assert_allclose(ours, theirs, atol=2e-3)


def test_test_features_do_not_change_the_fit():
    x, y = make_problem()
    alone = logistic_regression(x[:160], y[:160], x[160:170], 3, seed=0)
    far = np.concatenate([x[160:170], x[170:] * 1e3])
    np.testing.assert_array_equal(logistic_regression(x[:160], y[:160], far, 3, seed=0)[:10], alone)


def test_constant_and_missing_features():
    x, y = make_problem()
    clean = logistic_regression(x[:160], y[:160], x[160:], 3, seed=0)
    constant = np.concatenate([x, np.full((240, 1), 0.1)], 1)
    np.testing.assert_allclose(
        logistic_regression(constant[:160], y[:160], constant[160:], 3, seed=0), clean, atol=1e-3
    )
    holes = x.copy()
    holes[::7, 3] = np.nan
    assert np.isfinite(logistic_regression(holes[:160], y[:160], holes[160:], 3, seed=0)).all()
    assert (
        logistic_regression(x[:160, :0], y[:160], x[160:, :0], 3, seed=0).argmax(1)
        == np.bincount(y[:160]).argmax()
    ).all()


def test_folds_of_the_choice_keep_groups_whole(monkeypatch):
    x, y = make_problem()
    groups = np.arange(240) // 6
    seen = []
    make_folds = baselines._folds

    def spy(*args):
        seen.extend(make_folds(*args))
        return seen

    monkeypatch.setattr(baselines, "_folds", spy)
    logistic_regression(x, y, x[:1], 3, 0, groups)
    assert len(seen) == baselines.FOLDS
    for train, held_out in seen:
        assert not set(groups[train]) & set(groups[held_out])
    assert sorted(np.concatenate([held_out for _, held_out in seen])) == list(range(240))


def test_the_strength_is_the_one_of_a_grid_search():
    rng = np.random.default_rng(0)
    y = rng.integers(0, 2, 120)
    x = rng.normal(size=(120, 60))
    x[:, :4] += 0.6 * y[:, None]
    groups = np.arange(120) // 2
    search = GridSearchCV(
        LogisticRegression(max_iter=5000),
        {"C": list(baselines.STRENGTHS)},
        cv=baselines._folds(y, groups, seed=0),
        scoring="accuracy",
    ).fit(x, y)
    assert baselines._choose_strength(x, y, groups, seed=0) == search.best_params_["C"]
    assert baselines.STRENGTHS[0] < search.best_params_["C"] < baselines.STRENGTHS[-1]


@pytest.mark.parametrize("y", [[2], [2, 2, 2], [0, 1], [0, 0, 0, 0, 1]])
def test_tiny_training_sets(y):
    y = np.array(y)
    x = np.arange(len(y), dtype=float)[:, None]
    out = logistic_regression(x, y, np.array([[0.0], [9.0]]), 4, seed=0)
    assert out.shape == (2, 4)
    np.testing.assert_allclose(out.sum(1), 1.0)
    absent = [c for c in range(4) if c not in y]
    assert (out[:, absent] == 0).all()


def test_no_training_record_is_refused():
    with pytest.raises(ValueError, match="at least one"):
        logistic_regression(np.zeros((0, 2)), np.zeros(0, int), np.zeros((1, 2)), 2, 0)
