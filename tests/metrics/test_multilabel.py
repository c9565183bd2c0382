"""Labels against scikit-learn with what is not known left out; resamples against repeats."""

from __future__ import annotations

import numpy as np
import pytest
from sklearn.metrics import accuracy_score, average_precision_score, roc_auc_score

from multimed_jax.metrics.baselines import prevalence_probabilities
from multimed_jax.metrics.intervals import resampled
from multimed_jax.metrics.multilabel import label_metrics, per_label, weighted_labels


def make_case(n: int = 60) -> tuple[np.ndarray, np.ndarray]:
    """Four labels: common, rare, never positive, never known; scores with ties."""
    rng = np.random.default_rng(3)
    targets = (rng.random((n, 4)) < [0.5, 0.1, 0.0, 0.5]).astype(np.int32)
    scores = np.clip(0.35 * targets + rng.random((n, 4)) * 0.7, 0, 1).round(1)
    targets[rng.random((n, 4)) < 0.2] = -1
    targets[:, 3] = -1
    return scores, targets


def test_labels_equal_scikit_learn():
    scores, targets = make_case()
    accuracy, area, precision = [], [], []
    for f in range(3):
        known = targets[:, f] >= 0
        truth, said = targets[known, f], scores[known, f]
        accuracy.append(accuracy_score(truth, said >= 0.5))
        if f < 2:
            area.append(roc_auc_score(truth, said))
            precision.append(average_precision_score(truth, said))
    assert label_metrics(scores, targets) == pytest.approx(
        {
            "label_accuracy": np.mean(accuracy),
            "macro_auroc": np.mean(area),
            "average_precision": np.mean(precision),
        }
    )
    found = per_label(scores, targets, ("a", "b", "c", "d"))
    assert [label.accuracy for label in found[:3]] == pytest.approx(accuracy)
    assert [label.auroc for label in found[:2]] == pytest.approx(area)
    assert [label.average_precision for label in found[:2]] == pytest.approx(precision)
    assert np.isnan([found[2].auroc, found[2].average_precision, found[3].accuracy]).all()
    assert [label.known for label in found] == (targets >= 0).sum(0).tolist()
    assert [label.positives for label in found] == (targets == 1).sum(0).tolist()
    assert found[0].name == "a"


def test_resamples_equal_repeated_records():
    scores, targets = make_case()
    weights = np.random.default_rng(0).poisson(1.0, (8, len(targets)))
    fast = weighted_labels(scores, targets)(weights)
    slow = resampled(label_metrics, scores, targets)(weights)
    assert list(fast) == list(slow)
    for name in fast:
        np.testing.assert_allclose(fast[name], slow[name])


def test_resamples_that_lose_every_positive_stay_finite():
    scores, targets = make_case()
    weights = np.stack([(targets != 1).all(1), np.ones(len(targets))]).astype(int)
    values = weighted_labels(scores, targets)(weights)
    assert values["macro_auroc"][0] == 0.5 and values["average_precision"][0] == 0.0
    assert all(np.isfinite(value).all() for value in values.values())


@pytest.mark.parametrize(
    ("scores", "targets", "message"),
    [
        (np.zeros((3, 2)), np.zeros((3, 1), int), "must both be"),
        (np.zeros((0, 2)), np.zeros((0, 2), int), "no record"),
        (np.full((3, 2), np.nan), np.zeros((3, 2), int), "not finite"),
    ],
)
def test_impossible_predictions_are_refused(scores, targets, message):
    with pytest.raises(ValueError, match=message):
        label_metrics(scores, targets)


def test_prevalence_is_the_share_of_what_is_known():
    found = prevalence_probabilities([10, 4, 0], [3, 4, 0], 2)
    np.testing.assert_allclose(found, [[0.3, 1.0, 0.5], [0.3, 1.0, 0.5]])
