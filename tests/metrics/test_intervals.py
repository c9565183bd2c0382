"""Intervals against scipy.stats.bootstrap, by coverage, and what is drawn."""

from __future__ import annotations

import numpy as np
import pytest
from scipy import stats

from multimed_jax.metrics.classification import (
    METRICS,
    classification_metrics,
    weighted_classification,
)
from multimed_jax.metrics.intervals import (
    Interval,
    Unit,
    bootstrap_draws,
    bootstrap_interval,
    make_resampling,
    paired_bootstrap,
    percentile_interval,
    resampled,
)


def mean_of(values):
    def statistic(weights):
        return {"mean": weights @ values / weights.sum(1)}

    return statistic


def test_independent_samples_equal_scipy():
    values = np.random.default_rng(0).exponential(size=120)
    ours = bootstrap_interval(mean_of(values), np.arange(120), resamples=20_000)["mean"]
    theirs = stats.bootstrap(
        (values,), np.mean, n_resamples=20_000, method="percentile", rng=np.random.default_rng(1)
    ).confidence_interval
    # Two Monte-Carlo runs of the same bootstrap: 2.5 % quantiles agree to a few hundredths of
    # a standard error (0.09 here).
    assert ours.low == pytest.approx(theirs.low, abs=0.01)
    assert ours.high == pytest.approx(theirs.high, abs=0.01)
    assert ours.unit == "group"


def test_whole_groups_are_drawn():
    groups = np.repeat(np.arange(20), 3)
    weights = np.concatenate(list(make_resampling(groups, resamples=50).weights()))
    assert weights.shape == (50, 60)
    by_group = weights.reshape(50, 20, 3)
    assert (by_group == by_group[:, :, :1]).all()
    assert (by_group[:, :, 0].sum(1) == 20).all()
    assert by_group.max() > 1


@pytest.mark.parametrize(("num_groups", "unit"), [(9, "sample"), (10, "group")])
def test_few_groups_fall_back_to_samples_and_say_so(num_groups, unit):
    groups = np.arange(60) % num_groups
    interval = bootstrap_interval(mean_of(np.arange(60.0)), groups, resamples=20)["mean"]
    assert interval.unit == unit
    resampling = make_resampling(groups, resamples=1)
    assert resampling.num_groups == num_groups
    assert resampling.num_clusters == (60 if unit == "sample" else 10)


def test_samples_on_request():
    assert make_resampling(np.arange(50), unit="sample").unit == "sample"


def test_blocks_do_not_change_the_draws(monkeypatch):
    values = np.arange(40.0)  # whole numbers: sums do not depend on how they are blocked
    whole = bootstrap_draws(mean_of(values), make_resampling(np.arange(40), resamples=100))
    monkeypatch.setattr("multimed_jax.metrics.intervals._BLOCK_CELLS", 40 * 7)
    blocks = bootstrap_draws(mean_of(values), make_resampling(np.arange(40), resamples=100))
    np.testing.assert_array_equal(whole["mean"], blocks["mean"])


def test_seed_decides():
    groups, statistic = np.arange(30), mean_of(np.arange(30.0))
    first = bootstrap_interval(statistic, groups, resamples=200, seed=1)
    assert first == bootstrap_interval(statistic, groups, resamples=200, seed=1)
    assert first != bootstrap_interval(statistic, groups, resamples=200, seed=2)


def test_coverage_of_clustered_records():
    # 40 groups of 5 records that share most of their variance: drawing groups covers the truth
    # (0) about 95 times in 100, drawing records far less often.
    rng = np.random.default_rng(7)
    groups = np.repeat(np.arange(40), 5)
    units: tuple[Unit, ...] = ("group", "sample")
    covered = dict.fromkeys(units, 0)
    trials = 150
    for trial in range(trials):
        values = rng.normal(size=40)[groups] + 0.3 * rng.normal(size=200)
        for unit in units:
            interval = bootstrap_interval(
                mean_of(values), groups, resamples=300, seed=trial, unit=unit
            )["mean"]
            covered[unit] += interval.low <= 0 <= interval.high
    assert 0.88 <= covered["group"] / trials <= 0.99
    assert covered["sample"] / trials < 0.8


def test_paired_differences_are_narrower_than_unpaired():
    rng = np.random.default_rng(0)
    targets = rng.integers(0, 3, 400)
    worse = rng.dirichlet(np.ones(3), 400)
    worse[np.arange(400), targets] += 0.2
    better = worse.copy()
    mended = rng.choice(400, 30, replace=False)  # right on 30 more records, else the same
    better[mended] = np.eye(3)[targets[mended]]
    ours, theirs = (weighted_classification(p, targets) for p in (better, worse))
    groups = np.arange(400)
    paired = paired_bootstrap(ours, theirs, groups)["accuracy"]
    assert paired.beats
    gain = np.mean(better.argmax(1) == targets) - np.mean(worse.argmax(1) == targets)
    assert paired.low < gain < paired.high
    # The wrong way, one series of resamples for each predictor, cannot tell them apart.
    first = bootstrap_draws(ours, make_resampling(groups, seed=0))["accuracy"]
    second = bootstrap_draws(theirs, make_resampling(groups, seed=1))["accuracy"]
    unpaired = percentile_interval(first - second, 0.95, "group")
    assert unpaired.high - unpaired.low > 2 * (paired.high - paired.low)


def test_a_predictor_does_not_beat_itself():
    values = np.random.default_rng(0).normal(size=50)
    interval = paired_bootstrap(mean_of(values), mean_of(values), np.arange(50))["mean"]
    assert (interval.low, interval.high) == (0.0, 0.0)
    assert not interval.beats
    assert not Interval(-0.1, 0.3, "group").beats


def test_metrics_without_weights_give_the_same_draws():
    rng = np.random.default_rng(2)
    probabilities, targets = rng.dirichlet(np.ones(3), 40), rng.integers(0, 3, 40)
    resampling = make_resampling(np.arange(40) // 2, resamples=30)
    fast = bootstrap_draws(weighted_classification(probabilities, targets), resampling)
    slow = bootstrap_draws(resampled(classification_metrics, probabilities, targets), resampling)
    for name in METRICS:
        np.testing.assert_allclose(fast[name], slow[name], atol=1e-12)


def test_one_record_and_none():
    interval = bootstrap_interval(mean_of(np.array([2.0])), np.array([5]), resamples=10)["mean"]
    assert (interval.low, interval.high, interval.unit) == (2.0, 2.0, "sample")
    with pytest.raises(ValueError, match="0 records"):
        make_resampling(np.array([]))
    with pytest.raises(ValueError, match="0 resamples"):
        make_resampling(np.array([1]), resamples=0)
