"""Against scikit-learn, which shares no code with the vectorised metrics."""

from __future__ import annotations

import time

import numpy as np
import pytest
from sklearn import metrics as sk

from multimed_jax.metrics.classification import (
    METRICS,
    classification_metrics,
    weighted_classification,
)
from multimed_jax.metrics.intervals import bootstrap_interval


def make_sample(n, num_classes, seed, decimals=None):
    """Informative scores; with `decimals` many of them tie."""
    rng = np.random.default_rng(seed)
    targets = rng.integers(0, num_classes, n)
    logits = rng.normal(size=(n, num_classes))
    logits[np.arange(n), targets] += 1.0
    probabilities = np.exp(logits) / np.exp(logits).sum(1, keepdims=True)
    if decimals is not None:
        probabilities = np.round(probabilities, decimals)
    return probabilities, targets


def reference(probabilities, targets):
    guess = probabilities.argmax(1)
    num_classes = probabilities.shape[1]
    matrices = sk.multilabel_confusion_matrix(targets, guess, labels=list(range(num_classes)))
    specificities = [m[0, 0] / m[0].sum() for m in matrices if m[0].sum()]
    sensitivities = [m[1, 1] / m[1].sum() for m in matrices if m[1].sum()]
    scored = [1] if num_classes == 2 else np.unique(targets)
    return {
        "accuracy": sk.accuracy_score(targets, guess),
        "balanced_accuracy": sk.balanced_accuracy_score(targets, guess),
        "macro_f1": sk.f1_score(targets, guess, average="macro"),
        "auroc": np.mean([sk.roc_auc_score(targets == c, probabilities[:, c]) for c in scored]),
        "sensitivity": np.mean(sensitivities),
        "specificity": np.mean(specificities),
        "kappa": sk.cohen_kappa_score(targets, guess),
    }


@pytest.mark.filterwarnings("ignore:y_pred contains classes")
@pytest.mark.parametrize("num_classes", [2, 3, 7])
@pytest.mark.parametrize("decimals", [None, 1])
def test_all_metrics_equal_scikit_learn(num_classes, decimals):
    probabilities, targets = make_sample(200, num_classes, num_classes, decimals)
    ours = classification_metrics(probabilities, targets)
    theirs = reference(probabilities, targets)
    assert list(ours) == list(METRICS)
    for name in METRICS:
        assert ours[name] == pytest.approx(theirs[name], abs=1e-12), name


@pytest.mark.filterwarnings("ignore:y_pred contains classes")
def test_a_class_absent_from_the_targets_still_costs_when_it_is_predicted():
    probabilities, targets = make_sample(200, 5, 3)
    present = np.isin(targets, (0, 1, 3))
    probabilities, targets = probabilities[present], targets[present]
    assert (probabilities.argmax(1) == 4).any()
    ours = classification_metrics(probabilities, targets)
    theirs = reference(probabilities, targets)
    for name in METRICS:
        assert ours[name] == pytest.approx(theirs[name], abs=1e-12), name


def test_weights_equal_repeated_records():
    probabilities, targets = make_sample(60, 4, 5, decimals=1)
    weights = np.random.default_rng(1).integers(0, 4, (20, 60))
    values = weighted_classification(probabilities, targets)(weights)
    for b, w in enumerate(weights):
        rows = np.repeat(np.arange(60), w)
        repeated = reference(probabilities[rows], targets[rows])
        for name in METRICS:
            assert values[name][b] == pytest.approx(repeated[name], abs=1e-12), name


def test_a_hand_computed_case():
    # Truth 0 0 1 1 2; said 0 1 1 1 0 -> class recalls 1/2, 1, 0; specificities 2/3, 2/3, 1.
    probabilities = np.eye(3)[[0, 1, 1, 1, 0]]
    values = classification_metrics(probabilities, np.array([0, 0, 1, 1, 2]))
    assert values["accuracy"] == pytest.approx(3 / 5)
    assert values["balanced_accuracy"] == values["sensitivity"] == pytest.approx(1 / 2)
    assert values["specificity"] == pytest.approx(7 / 9)
    assert values["macro_f1"] == pytest.approx((2 / 4 + 4 / 5 + 0) / 3)
    # Chance: (2*2 + 2*3 + 1*0) / 25 = 10/25.
    assert values["kappa"] == pytest.approx((0.6 - 0.4) / 0.6)


@pytest.mark.parametrize("num_classes", [1, 2, 3])
@pytest.mark.parametrize("n", [1, 4])
def test_one_class_in_the_sample_is_finite_and_uninformed(num_classes, n):
    probabilities = np.tile(np.eye(num_classes)[0], (n, 1))
    values = classification_metrics(probabilities, np.zeros(n, int))
    assert all(np.isfinite(list(values.values())))
    assert values["accuracy"] == values["macro_f1"] == values["specificity"] == 1.0
    assert values["auroc"] == 0.5
    assert values["kappa"] == 0.0


def test_one_record_missed_in_a_binary_task():
    values = classification_metrics(np.array([[0.2, 0.8]]), np.array([0]))
    assert values["accuracy"] == values["macro_f1"] == values["sensitivity"] == 0.0
    assert values["specificity"] == 0.0
    assert values["auroc"] == 0.5


def test_constant_scores_rank_nothing():
    values = classification_metrics(np.tile([0.7, 0.2, 0.1], (30, 1)), np.arange(30) % 3)
    assert values["auroc"] == 0.5
    assert values["kappa"] == 0.0


@pytest.mark.parametrize(
    ("probabilities", "targets", "message"),
    [
        (np.zeros((0, 3)), np.zeros(0, int), "no record"),
        (np.ones((2, 3)), np.array([0, 3]), "0 to 2"),
        (np.ones((2, 3)), np.array([-1, 0]), "-1 to 0"),
        (np.full((1, 2), np.nan), np.array([0]), "not finite"),
        (np.ones((2, 3)), np.array([0]), "do not fit"),
    ],
)
def test_invalid_input_is_refused(probabilities, targets, message):
    with pytest.raises(ValueError, match=message):
        classification_metrics(probabilities, targets)


def test_unknown_metric_is_refused():
    with pytest.raises(ValueError, match="acuracy"):
        weighted_classification(np.ones((1, 2)), np.array([0]), ["acuracy"])


def test_a_thousand_resamples_take_seconds():
    probabilities, targets = make_sample(2000, 4, 0)
    start = time.perf_counter()
    bootstrap_interval(weighted_classification(probabilities, targets), np.arange(2000))
    assert time.perf_counter() - start < 10  # 0.5 s alone; a loop over resamples takes minutes
