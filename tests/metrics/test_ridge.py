from __future__ import annotations

import numpy as np
import pytest
from sklearn.linear_model import Ridge
from sklearn.model_selection import GroupKFold
from sklearn.preprocessing import StandardScaler

from multimed_jax.metrics.ridge import FOLDS, PENALTIES, ridge_regression


def problem(n: int = 80, features: int = 6, seed: int = 0):
    rng = np.random.default_rng(seed)
    x = rng.normal(3.0, 2.0, (n, features))
    y = x @ rng.normal(size=(features, 2)) + rng.normal(0, 2.0, (n, 2)) + 50.0
    groups = np.repeat(np.arange(n // 2), 2)
    return x.astype(np.float32), y.astype(np.float32), groups


def reference(x, y, test, groups, seed):
    """One column, by scikit-learn from end to end."""
    scaler = StandardScaler().fit(x)
    x, test = scaler.transform(x), scaler.transform(test)
    errors = []
    for penalty in PENALTIES:
        error = 0.0
        splitter = GroupKFold(FOLDS, shuffle=True, random_state=seed)
        for train, held_out in splitter.split(x, y, groups):
            model = Ridge(alpha=penalty * len(train)).fit(x[train], y[train])
            error += ((model.predict(x[held_out]) - y[held_out]) ** 2).sum()
        errors.append(error)
    best = PENALTIES[int(np.argmin(errors))]
    return Ridge(alpha=best * len(x)).fit(x, y).predict(test)


@pytest.mark.parametrize("features", [6, 120], ids=["tall", "wide"])
def test_equals_scikit_learn(features):
    x, y, groups = problem(80, features)
    test = problem(20, features, seed=1)[0]
    got = ridge_regression(x, y, test, 5, groups)
    for column in range(2):
        expected = reference(x, y[:, column], test, groups, 5)
        np.testing.assert_allclose(got[:, column], expected, rtol=1e-4, atol=1e-3)


def test_unknown_targets_are_left_out_column_by_column():
    x, y, groups = problem()
    test = problem(20, seed=1)[0]
    gaps = y.copy()
    gaps[::3, 0] = np.nan
    got = ridge_regression(x, gaps, test, 5, groups)
    np.testing.assert_allclose(got[:, 1], ridge_regression(x, y, test, 5, groups)[:, 1], rtol=1e-6)
    assert np.isfinite(got).all() and np.abs(got[:, 0] - got[:, 1]).max() > 1
    gaps[:, 0] = np.nan
    assert not ridge_regression(x, gaps, test, 5, groups)[:, 0].any()


def test_missing_features_and_lone_groups():
    x, y, groups = problem()
    x[::4, 2] = np.nan
    test = problem(20, seed=1)[0]
    test[0, 2] = np.nan
    assert np.isfinite(ridge_regression(x, y, test, 0, groups)).all()
    # One group cannot be held out: the strongest penalty, nearly the mean.
    one = ridge_regression(x, y, test, 0, np.zeros(len(x)))
    assert np.abs(one - y.mean(0)).max() < np.abs(y - y.mean(0)).max() / 10


def test_noise_is_predicted_as_the_mean():
    rng = np.random.default_rng(0)
    x, y = rng.normal(size=(60, 40)), rng.normal(5.0, 1.0, (60, 1))
    got = ridge_regression(x, y, rng.normal(size=(30, 40)), 0)
    assert np.abs(got - 5.0).max() < 1.0


def test_no_train():
    with pytest.raises(ValueError, match="at least one"):
        ridge_regression(np.zeros((0, 2)), np.zeros((0, 1)), np.zeros((1, 2)), 0)
