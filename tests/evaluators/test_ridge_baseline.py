"""The ridge baseline on the toy source, whose levels are a linear function of its vectors."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest

from multimed_jax.evaluators import ridge_baseline
from multimed_jax.metrics import regression
from multimed_jax.metrics.ridge import ridge_regression
from multimed_jax.specs import WIDEST_NAMESPACE, Namespace
from multimed_jax.types import UserError
from tests.evaluators.test_evaluators import rows_of
from tests.evaluators.toy_run import make_context, make_task

FIGURES = {"pearson": regression.pearson, "mae": regression.mae}
LEVELS = dataclasses.replace(
    make_task(metrics=lambda values, targets: regression.measured(FIGURES, values, targets)),
    target_shape=(WIDEST_NAMESPACE,),
    target_dtype="float32",
    primary_metric="pearson",
    lower_is_better=frozenset({"mae"}),
    statistic=lambda values, targets: regression.weighted_regression(FIGURES, values, targets),
)
SPACE = Namespace("toy", ("left", "right"), (0, 0))


def level(record: dict, noise: float) -> list[float]:
    halves = [np.mean(record[name]) if len(record[name]) else 0.5 for name in ("xray", "text")]
    return [3.0 * halves[0] + noise, 7.0 - halves[1] + noise]


def make_levels(tmp_path, skill: float, gaps: bool = True, **changes):
    """Visits with levels; the model's predictions are the truth at `skill`, noise beside it."""
    context = make_context(tmp_path, task=LEVELS, kinds=("visit",), **changes)
    rng = np.random.default_rng(0)
    splits = {}
    for split in ("train", "test"):
        records = []
        for i, record in enumerate(context.open_source("", split)):
            target = level(record, 0.3 * rng.normal())
            if gaps and i % 5 == 0:
                target[0] = np.nan
            records.append({**record, "targets": {"state": np.array(target, np.float32)}})
        splits[split] = records

    def predict(split, keep):
        (found,) = context.predict(split, keep)
        targets = np.stack([splits[split][row]["targets"]["state"] for row in found.rows])
        noise = np.random.default_rng(1).normal(size=targets.shape)
        guess = skill * np.nan_to_num(targets, nan=1.0) + noise
        return [dataclasses.replace(found, namespace=SPACE, probabilities=guess, targets=targets)]

    made = dataclasses.replace(
        context, predict=predict, open_source=lambda name, split: splits[split]
    )
    return made, splits


def test_the_row_holds_the_primary_metric_of_both(tmp_path):
    context, splits = make_levels(tmp_path, skill=0.0)
    (row,) = rows_of(ridge_baseline, context)
    assert (row.metric, row.baseline_name, row.n, row.groups) == (
        "pearson",
        "ridge_regression",
        120,
        60,
    )
    x, y = {}, {}
    for split, records in splits.items():
        x[split] = np.array([[*r["xray"], *r["text"]] for r in records], np.float32)
        y[split] = np.stack([r["targets"]["state"] for r in records])
    order = np.random.default_rng(3).permutation(300)  # the run's seed
    groups = np.array([splits["train"][i]["group_id"] for i in order])
    values = ridge_regression(x["train"][order], y["train"][order], x["test"], 3, groups)
    known = ~np.isnan(y["test"])
    expected = np.mean(
        [np.corrcoef(values[known[:, c], c], y["test"][known[:, c], c])[0, 1] for c in range(2)]
    )
    assert row.baseline == pytest.approx(expected, rel=1e-5) and expected > 0.8
    assert row.difference == pytest.approx(row.value - row.baseline)
    assert row.difference_interval[1] < 0 and not row.beats
    assert rows_of(ridge_baseline, context) == [row]


def test_a_model_that_knows_beats_it(tmp_path):
    context, _ = make_levels(tmp_path, skill=50.0)
    (row,) = rows_of(ridge_baseline, context)
    assert row.value > 0.99 and row.beats


def test_a_modality_that_cannot_be_decoded_is_missing(tmp_path, caplog):
    context, splits = make_levels(tmp_path, skill=0.0)
    splits["test"][4] = {**splits["test"][4], "xray": b"broken"}
    (row,) = rows_of(ridge_baseline, context)
    assert 0.5 < row.baseline < 1 and "1 inputs cannot be decoded" in caplog.text


def test_other_tasks_have_no_row(tmp_path):
    assert rows_of(ridge_baseline, make_context(tmp_path)) == []


def test_limits_and_errors(tmp_path):
    context, splits = make_levels(tmp_path, skill=0.0, gaps=False)
    (few,) = rows_of(ridge_baseline, context, max_train_records=6)
    (many,) = rows_of(ridge_baseline, context)
    assert few.baseline < many.baseline
    for record in splits["train"]:
        record["targets"]["state"][:] = np.nan
    with pytest.raises(UserError, match="has no training record of 'state'"):
        rows_of(ridge_baseline, context)
    with pytest.raises(UserError, match="max_train_records is 0"):
        ridge_baseline.SPEC.with_options(max_train_records=0)
