"""Evaluators on a generated source whose predictions are known."""

from __future__ import annotations

import dataclasses
import json

import numpy as np
import pytest
from sklearn.metrics import accuracy_score

from multimed_jax.config import EvalConfig
from multimed_jax.evaluators import (
    logistic_baseline,
    modality_subsets,
    samples,
    task_metrics,
)
from multimed_jax.evaluators.measured import measure, resampling_for
from multimed_jax.metrics.classification import METRICS, classification_metrics
from multimed_jax.types import UserError
from tests.evaluators.toy_run import SOURCE, make_context, make_task


def rows_of(module, context, **options):
    spec = module.SPEC.with_options(**options)
    return list(spec.run(spec.options, context))


def accuracy_of(context, keep=None, rows=None):
    (found,) = context.predict("test", keep)
    chosen = slice(None) if rows is None else np.isin(found.rows, rows)
    return accuracy_score(found.targets[chosen], found.probabilities[chosen].argmax(1))


# ---------------------------------------------------------------------------- task_metrics


def test_task_metrics_give_every_metric_beside_the_majority(tmp_path):
    context = make_context(tmp_path)
    rows = rows_of(task_metrics, context)
    assert [row.metric for row in rows] == list(METRICS)
    assert {row.baseline_name for row in rows} == {"majority"}
    (found,) = context.predict("test", None)
    first = rows[0]
    assert first.value == pytest.approx(accuracy_of(context))
    guess = int(np.argmax(found.namespace.class_counts))
    assert first.baseline == pytest.approx(np.mean(found.targets == guess))
    assert first.difference == pytest.approx(first.value - first.baseline)
    assert first.interval[0] < first.value < first.interval[1]
    assert (first.n, first.groups, first.interval_unit) == (120, 60, "group")
    assert (first.checkpoint, first.config_hash, first.protocol) == (70, "0123456789ab", "full")
    assert first.beats
    assert rows_of(task_metrics, context) == rows


def test_task_metrics_store_the_predictions(tmp_path):
    context = make_context(tmp_path)
    rows_of(task_metrics, context)
    (found,) = context.predict("test", None)
    with np.load(tmp_path / "eval" / "test" / "toy_small_1.0.0--state.npz") as stored:
        np.testing.assert_array_equal(stored["probabilities"], found.probabilities)
        np.testing.assert_array_equal(stored["targets"], found.targets)
        np.testing.assert_array_equal(stored["rows"], found.rows)
        np.testing.assert_array_equal(stored["groups"], found.groups)
        assert stored["class_names"].tolist() == list(found.namespace.class_names)
    assert [p.name for p in (tmp_path / "eval" / "test").iterdir()] == [
        "toy_small_1.0.0--state.npz"
    ]


def test_known_ceilings_and_rules_stand_beside_accuracy(tmp_path):
    metadata = {
        "ceilings": {"state": 0.99, "other": 0.5},
        "reference_rules": {
            "state": {"name": "keyword rule", "accuracy": {"test": 0.3, "train": 0.9}}
        },
    }
    rows = rows_of(task_metrics, make_context(tmp_path, metadata=metadata))
    extra = {row.baseline_name: row for row in rows if row.baseline_name != "majority"}
    assert {name: row.baseline for name, row in extra.items()} == {
        "bayes": 0.99,
        "keyword rule": 0.3,
    }
    assert {row.metric for row in extra.values()} == {"accuracy"}
    bayes = extra["bayes"]
    assert bayes.difference < 0 and not bayes.beats and bayes.is_ceiling
    assert bayes.difference_interval == pytest.approx(
        (bayes.interval[0] - 0.99, bayes.interval[1] - 0.99)
    )


def test_sources_whose_splits_share_groups_are_labelled(tmp_path):
    row = rows_of(task_metrics, make_context(tmp_path, interval_unit="sample"))[0]
    assert (row.protocol, row.interval_unit, row.groups) == ("within_group", "sample", 60)


def test_few_groups_are_said(tmp_path):
    row = rows_of(task_metrics, make_context(tmp_path, num_test=12))[0]
    assert (row.protocol, row.interval_unit, row.groups, row.n) == ("full", "sample", 6, 12)


def test_every_configured_split_is_measured(tmp_path):
    context = make_context(tmp_path, eval=EvalConfig(splits=("train", "test"), bootstrap=20))
    rows = rows_of(task_metrics, context)
    assert {(row.split, row.n) for row in rows} == {("train", 300), ("test", 120)}


def test_a_task_of_its_own_metrics_is_resampled_as_it_says(tmp_path):
    def metrics(probabilities, targets):
        values = classification_metrics(probabilities, targets)
        # The same name, another meaning: the fast path must not be taken.
        return {"kappa": values["kappa"] / 2, "accuracy": values["accuracy"]}

    context = make_context(tmp_path, task=make_task(metrics=metrics))
    (found,) = context.predict("test", None)
    resampling = resampling_for(context, found)
    own = measure(found.task, found.probabilities, found.targets, resampling)
    common = measure(make_task(), found.probabilities, found.targets, resampling)
    assert list(own.values) == ["accuracy", "kappa"]
    np.testing.assert_allclose(own.draws["kappa"], common.draws["kappa"] / 2)
    np.testing.assert_allclose(own.draws["accuracy"], common.draws["accuracy"])


def test_a_source_without_training_labels_is_a_users_error(tmp_path):
    context = make_context(tmp_path)
    (found,) = context.predict("test", None)
    empty = dataclasses.replace(found.namespace, class_counts=(0, 0, 0))
    broken = dataclasses.replace(found, namespace=empty)
    context = dataclasses.replace(context, predict=lambda split, keep: [broken])
    with pytest.raises(UserError, match="no training record of 'state'"):
        rows_of(task_metrics, context)


# ----------------------------------------------------------------------- logistic_baseline


def test_logistic_baseline_learns_from_all_modalities(tmp_path):
    context = make_context(tmp_path, kinds=("visit",))
    (row,) = rows_of(logistic_baseline, context)
    assert row.baseline_name == "logistic_regression"
    assert row.metric == "accuracy"
    assert row.value == pytest.approx(accuracy_of(context))
    # Two vectors decide the class almost fully; one alone cannot tell the third class.
    assert row.baseline > 0.9
    assert row.n == 120


def test_logistic_baseline_reads_records_that_lack_a_modality(tmp_path):
    context = make_context(tmp_path)
    (row,) = rows_of(logistic_baseline, context)
    assert 0.5 < row.baseline < 0.95
    assert rows_of(logistic_baseline, context) == [row]


def test_logistic_baseline_takes_broken_inputs_as_missing(tmp_path, caplog):
    context = make_context(tmp_path)
    records = context.open_source(SOURCE, "train")
    records[2]["xray"] = b"broken"
    (row,) = rows_of(logistic_baseline, context)
    assert row.baseline > 0.5
    assert "1 inputs cannot be decoded" in caplog.text


def test_logistic_baseline_reads_no_more_than_it_may(tmp_path):
    context = make_context(tmp_path, kinds=("visit",))
    train = context.open_source(SOURCE, "train")
    for record in train[:50]:
        record["targets"]["state"] = -1
    read = []

    class Counted(list):
        def __getitem__(self, row):
            read.append(row)
            return super().__getitem__(row)

    counted = {"train": Counted(train), "test": context.open_source(SOURCE, "test")}
    context = dataclasses.replace(context, open_source=lambda name, split: counted[split])
    rows_of(logistic_baseline, context, max_train_records=40)
    labelled = [row for row in read if row >= 50]
    assert len(labelled) == len(set(labelled)) == 40
    with pytest.raises(UserError, match="max_train_records is 0"):
        logistic_baseline.SPEC.with_options(max_train_records=0)


# ------------------------------------------------------------------------ modality_subsets


def test_subsets_are_measured_on_the_complete_cases(tmp_path):
    context = make_context(tmp_path)
    rows = rows_of(modality_subsets, context)
    assert [(row.protocol, row.baseline_name) for row in rows] == [
        ("keep:xray", "majority"),
        ("keep:text", "majority"),
        ("keep:text+xray", "majority"),
        ("keep:text+xray", "best_single:text"),
    ]
    assert {row.n for row in rows} == {40}
    visits = np.arange(2, 120, 3)
    both, xray, text = (
        accuracy_of(context, keep, visits)
        for keep in (None, frozenset({"xray"}), frozenset({"text"}))
    )
    assert [row.value for row in rows] == pytest.approx([xray, text, both, both])
    assert text > xray
    synergy = rows[-1]
    assert synergy.baseline == pytest.approx(text)
    assert synergy.difference == pytest.approx(both - text)
    assert synergy.beats


def test_the_full_set_is_not_run_again(tmp_path):
    context = make_context(tmp_path, calls=(calls := []))
    rows_of(modality_subsets, context)
    assert set(calls) == {None, frozenset({"xray"}), frozenset({"text"})}


def test_subset_ceilings(tmp_path):
    metadata = {"subset_ceilings": {"state": {"xray": 0.7, "text+xray": 0.98}}}
    rows = rows_of(modality_subsets, make_context(tmp_path, metadata=metadata))
    bayes = {row.protocol: row.baseline for row in rows if row.is_ceiling}
    assert bayes == {"keep:xray": 0.7, "keep:text+xray": 0.98}


@pytest.mark.parametrize("kinds", [("image",), ("image", "note")])
def test_no_subsets_without_complete_cases(tmp_path, kinds):
    assert rows_of(modality_subsets, make_context(tmp_path, kinds=kinds)) == []


def test_no_subsets_of_one_modality(tmp_path):
    context = make_context(
        tmp_path, metadata={"modalities": ["xray"]}, kinds=("image",), calls=(calls := [])
    )
    assert rows_of(modality_subsets, context) == []
    assert calls == [None]


def test_many_modalities_are_not_all_combined():
    assert len(modality_subsets.subsets("abcd")) == 15
    sizes = [len(keep) for keep in modality_subsets.subsets("abcdef")]
    assert sizes == [1] * 6 + [2] * 15 + [5] * 6 + [6]


# --------------------------------------------------------------------------------- samples


def read_samples(folder):
    sheet = json.loads((folder / "toy_small_1.0.0--state.json").read_text())
    with np.load(folder / "toy_small_1.0.0--state.npz") as stored:
        return sheet, dict(stored)


def test_samples_show_inputs_beside_what_was_said(tmp_path):
    context = make_context(tmp_path)
    assert rows_of(samples, context, per_modality=4) == []
    sheet, arrays = read_samples(tmp_path / "eval" / "samples")
    assert (sheet["source"], sheet["task"], sheet["split"]) == (SOURCE, "state", "test")
    kinds = [p["modality"] for record in sheet["records"] for p in record["previews"]]
    assert kinds.count("xray") == kinds.count("text") == 4
    (found,) = context.predict("test", None)
    records = context.open_source(SOURCE, "test")
    for shown in sheet["records"]:
        record = records[shown["row"]]
        index = found.rows.tolist().index(shown["row"])
        assert shown["truth"] == record["targets"]["state"]
        assert shown["prediction"] == found.probabilities[index].argmax()
        assert shown["probability"] == pytest.approx(float(found.probabilities[index].max()))
        assert shown["sample_id"] == f"record {shown['row']}"
        for preview in shown["previews"]:
            if preview["kind"] == "text":
                assert preview["text"] == f"note of {record['text'][0]:.2f}"
            else:
                np.testing.assert_allclose(arrays[preview["array"]], record["xray"], rtol=1e-6)
                assert preview["labels"] == ["a", "b", "c"]
    assert any(len(record["previews"]) == 1 for record in sheet["records"])


def test_samples_leave_out_what_cannot_be_decoded(tmp_path, caplog):
    context = make_context(tmp_path, kinds=("image",), num_test=6)
    context.open_source(SOURCE, "test")[1]["xray"] = b"broken"
    (found,) = make_context(tmp_path, kinds=("image",), num_test=6).predict("test", None)
    context = dataclasses.replace(context, predict=lambda split, keep: [found])
    rows_of(samples, context)
    sheet, _ = read_samples(tmp_path / "eval" / "samples")
    assert sorted(record["row"] for record in sheet["records"]) == [0, 2, 3, 4, 5]
    assert "left out of the sheet" in caplog.text
