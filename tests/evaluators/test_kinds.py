"""Evaluators of tasks that predict labels, values or something else than classes."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest
from sklearn.metrics import mean_absolute_error

from multimed_jax.evaluators import logistic_baseline, modality_subsets, task_metrics
from multimed_jax.evaluators.measured import measure, resampling_for
from multimed_jax.metrics.intervals import bootstrap_draws, resampled
from multimed_jax.metrics.multilabel import label_metrics
from multimed_jax.specs import Namespace
from multimed_jax.types import UserError
from tests.evaluators.test_evaluators import rows_of
from tests.evaluators.toy_kinds import (
    ANSWER,
    FINDINGS,
    LABELS,
    MONTHS,
    OTHER,
    VALUES,
    with_kind,
)
from tests.evaluators.toy_run import SOURCE, make_context


@pytest.fixture
def values(tmp_path):
    return with_kind(make_context(tmp_path), VALUES, MONTHS)


@pytest.fixture
def labels(tmp_path):
    return with_kind(make_context(tmp_path), LABELS, FINDINGS)


# -------------------------------------------------------------------------------- figures


def test_kinds_are_told_by_target_and_names(tmp_path):
    context = make_context(tmp_path)
    (found,) = context.predict("test", None)
    assert found.kind == "classes"
    for task, space, kind in (
        (VALUES, MONTHS, "values"),
        (LABELS, FINDINGS, "labels"),
        (OTHER, Namespace("toy", (), ()), "other"),
        (ANSWER, Namespace("toy", (), ()), "other"),
    ):
        (found,) = with_kind(context, task, space).predict("test", None)
        assert found.kind == kind


def test_every_baseline_of_a_task_is_a_row_and_errors_are_better_low(values, tmp_path):
    metadata = {"ceilings": {"state": 0.97}, "ceiling_metrics": {"state": "within"}}
    values = with_kind(make_context(tmp_path, metadata=metadata), VALUES, MONTHS)
    rows = rows_of(task_metrics, values)
    assert [(r.metric, r.baseline_name, r.higher_is_better, r.trivial) for r in rows] == [
        ("within", "median", True, True),
        ("within", "of_the_name", True, False),
        ("distance", "median", False, True),
        ("distance", "of_the_name", False, False),
        ("within", "bayes", True, False),
    ]
    (found,) = values.predict("test", None)
    records = values.open_source(SOURCE, "test")
    median = np.median([r["targets"]["state"] for r in values.open_source(SOURCE, "train")])
    error = mean_absolute_error(found.targets, found.probabilities)
    assert rows[2].value == pytest.approx(error)
    assert rows[2].baseline == pytest.approx(np.abs(found.targets - median).mean())
    names = [len(records[row]["sample_id"]) for row in found.rows]
    assert rows[3].baseline == pytest.approx(np.abs(found.targets[:, 0] - names).mean())
    # A smaller error: the difference is negative and that is better.
    assert rows[2].difference_interval[1] < 0 and rows[2].beats
    assert rows[4].baseline == 0.97


def test_a_larger_error_does_not_beat(values):
    row = rows_of(task_metrics, values)[2]
    worse = dataclasses.replace(row, difference=3.0, difference_interval=(2.0, 4.0))
    assert not worse.beats
    assert dataclasses.replace(worse, higher_is_better=True).beats


def test_a_ceiling_of_an_unnamed_metric_is_an_accuracy(tmp_path):
    context = make_context(tmp_path, metadata={"ceilings": {"state": 0.97}})
    rows = rows_of(task_metrics, with_kind(context, VALUES, MONTHS))
    assert not any(row.is_ceiling for row in rows)


def test_the_tasks_own_statistic_gives_the_draws(labels):
    (found,) = labels.predict("test", None)
    resampling = resampling_for(labels, found)
    fast = measure(found.task, found.probabilities, found.targets, resampling)
    slow = bootstrap_draws(resampled(label_metrics, found.probabilities, found.targets), resampling)
    assert list(fast.values) == ["label_accuracy", "macro_auroc", "average_precision"]
    for name, drawn in fast.draws.items():
        np.testing.assert_allclose(drawn, slow[name])
    one = measure(found.task, found.probabilities, found.targets, resampling, ["macro_auroc"])
    assert list(one.values) == list(one.draws) == ["macro_auroc"]


def test_labels_stand_beside_their_prevalence(labels, tmp_path):
    rows = rows_of(task_metrics, labels)
    assert {row.baseline_name for row in rows} == {"prevalence"}
    (found,) = labels.predict("test", None)
    known = found.targets >= 0
    per_label = [np.mean(found.targets[known[:, f], f] == 0) for f in range(3)]
    assert rows[0].metric == "label_accuracy"
    assert rows[0].baseline == pytest.approx(np.mean(per_label))
    with np.load(tmp_path / "eval" / "test" / "toy_small_1.0.0--state.npz") as stored:
        assert str(stored["kind"]) == "labels"
        np.testing.assert_array_equal(stored["targets"], found.targets)


@pytest.mark.parametrize("task", [VALUES, LABELS], ids=["values", "labels"])
def test_subsets_of_every_kind(tmp_path, task):
    ceilings = {"subset_ceilings": {"state": {"xray": 0.7, "text+xray": 0.98}}}
    named = ceilings | {"ceiling_metrics": {"state": task.primary_metric}}
    space = MONTHS if task is VALUES else FINDINGS
    rows = rows_of(modality_subsets, with_kind(make_context(tmp_path, metadata=named), task, space))
    trivial = "median" if task is VALUES else "prevalence"
    assert [(row.protocol, row.baseline_name, row.trivial) for row in rows] == [
        ("keep:xray", trivial, True),
        ("keep:xray", "bayes", False),
        ("keep:text", trivial, True),
        ("keep:text+xray", trivial, True),
        ("keep:text+xray", "best_single:text", False),
        ("keep:text+xray", "bayes", False),
    ]
    assert {row.metric for row in rows} == {task.primary_metric}
    assert {row.n for row in rows} == {40}
    unnamed = make_context(tmp_path, metadata=ceilings)
    again = rows_of(modality_subsets, with_kind(unnamed, task, space))
    assert not any(row.is_ceiling for row in again)


def test_logistic_regression_is_for_classes(values, labels):
    assert rows_of(logistic_baseline, values) == []
    assert rows_of(logistic_baseline, labels) == []


def test_a_task_without_classes_and_baselines_is_a_users_error(tmp_path):
    task = dataclasses.replace(VALUES, baselines=None)
    context = make_context(tmp_path)
    (found,) = with_kind(context, VALUES, MONTHS).predict("test", None)
    found = dataclasses.replace(found, task=task)
    context = dataclasses.replace(context, predict=lambda split, keep: [found])
    with pytest.raises(UserError, match="must name `baselines`"):
        rows_of(task_metrics, context)
