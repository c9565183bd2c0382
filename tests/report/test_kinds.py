"""Grades, labels, values and arrays in the report: drawn, told in words, or left out."""

from __future__ import annotations

import dataclasses
import re

import numpy as np
import pytest
from sklearn.metrics import roc_auc_score

from multimed_jax.report.figures import draw_intervals
from multimed_jax.report.prediction_figures import known_values, label_figures
from multimed_jax.report.run_data import read_runs
from multimed_jax.report.sample_figures import verdict
from multimed_jax.report.style import styled
from multimed_jax.report.synergy import find_synergies, synergy_section
from multimed_jax.report.tables import metrics_table, results_table
from multimed_jax.results import read_rows
from multimed_jax.run_folder import write_json
from tests.report.synthetic_kinds import CELLS, FINDINGS, NUM_RECORDS, add_kinds
from tests.report.test_report import Page
from tests.test_results import make_row


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    made = tmp_path_factory.mktemp("kinds") / "run"
    made.mkdir()
    write_json(made / "manifest.json", {"config": {}, "config_hash": "0123456789ab"})
    add_kinds(made)
    return made


@pytest.fixture(scope="module")
def found(folder):
    (run,) = read_runs([folder])
    return run


def stored(found, task):
    return next(s for s in found.predictions if s.stem.endswith(f"--{task}"))


def test_only_what_can_be_drawn_is_kept(found):
    kinds = {s.stem.rpartition("--")[2]: s.kind for s in found.predictions}
    assert kinds == {
        "retinopathy": "classes",
        "radiographic": "labels",
        "bone_age": "values",
        "levels": "values",
    }


def test_an_older_store_without_kinds_holds_classes(folder, tmp_path):
    path = folder / "eval" / "test" / "hands_native_1.0.0--retinopathy.npz"
    with np.load(path) as arrays:
        old = {name: arrays[name] for name in arrays if name != "kind"}
    for name in ("manifest.json", "results.jsonl"):
        (tmp_path / name).write_text((folder / name).read_text())
    (tmp_path / "eval" / "test").mkdir(parents=True)
    np.savez(tmp_path / "eval" / "test" / path.name, **old)
    (run,) = read_runs([tmp_path])
    assert [s.kind for s in run.predictions] == ["classes"]


def test_values_are_drawn_where_they_are_known(found):
    levels = stored(found, "levels")
    truth, said = known_values(levels, 2)
    known = np.isfinite(levels.targets[:, 2])
    assert 0 < len(truth) == known.sum() < NUM_RECORDS
    np.testing.assert_array_equal(truth, levels.targets[known, 2])
    np.testing.assert_array_equal(said, levels.probabilities[known, 2])
    assert levels.class_names == CELLS


def test_labels_have_a_line_each(found):
    labels = stored(found, "radiographic")
    figures = label_figures(labels)
    assert [label.name for label in figures] == list(FINDINGS)
    known = labels.targets[:, 0] >= 0
    assert figures[0].auroc == pytest.approx(
        roc_auc_score(labels.targets[known, 0], labels.probabilities[known, 0])
    )


def test_errors_are_marked_and_every_baseline_is_named(folder):
    rows = read_rows(folder / "results.jsonl")
    lines = Page(results_table([row for row in rows if row.task == "bone_age"])).lines
    assert [line[3] for line in lines[1:] if len(line) > 10] == [
        "accuracy_within_12_months",
        "mae_months (lower is better)",
        "pearson",
        "accuracy_within_12_months",
    ]
    text = results_table(rows)
    for name in ("majority", "prevalence", "median", "best constant", "mean", "helix", "bayes"):
        assert re.search(rf"<span class='interval'>{name}</span>", text)


def test_every_metric_stands_in_a_table_of_its_kind(folder):
    page = Page(metrics_table(read_rows(folder / "results.jsonl")))
    heads = [line for line in page.lines if line[0] == "figure"]
    assert heads == [
        ["figure", "accuracy", "kappa quadratic", "mae (lower is better)"],
        ["figure", "label accuracy", "macro auroc", "average precision"],
        ["figure", "accuracy within 12 months", "mae months (lower is better)", "pearson"],
        ["figure", "pearson", "mse (lower is better)"],
    ]
    assert all(line[0] == "figure" or line[1][0] in "0123456789-" for line in page.lines)


def test_the_same_mark_for_every_trivial_predictor(folder, tmp_path):
    rows = [row for row in read_rows(folder / "results.jsonl") if row.metric != "mae_months"]
    with styled():
        first = draw_intervals([("run", rows)], tmp_path / "a.png").read_bytes()
        renamed = [
            dataclasses.replace(row, baseline_name="anything") if row.is_trivial else row
            for row in rows
        ]
        assert all(row.trivial for row in rows if row.is_trivial)
        second = draw_intervals([("run", renamed)], tmp_path / "b.png").read_bytes()
    assert first == second


@pytest.mark.parametrize(
    ("kind", "record", "said"),
    [
        ("values", {"right": None, "truth": "3.00 months", "prediction": "4.00 months"}, ""),
        ("labels", {"right": False, "truth": "none", "prediction": "nodule"}, "✗"),
        ("labels", {"right": True, "truth": "none", "prediction": "none"}, "✓"),
        ("classes", {"truth": 1, "prediction": 1, "probability": 0.7}, "✓"),
        (None, {"truth": 1, "prediction": 0, "probability": 0.7}, "✗"),
    ],
)
def test_verdicts(kind, record, said):
    sheet = {"class_names": ["a", "b"]} | ({} if kind is None else {"kind": kind})
    told = verdict(record, sheet)
    assert told.mark == said
    assert told.probability == ("0.70" if kind in ("classes", None) else "")
    assert told.truth == ("b" if kind in ("classes", None) else record["truth"])


# -------------------------------------------------------------------------------- synergy


def subset_rows(protocol="", task="disease"):
    def row(keep, name, baseline, value=0.8, low=0.05):
        return make_row(
            task=task,
            protocol=f"{protocol}keep:{keep}",
            baseline_name=name,
            baseline=baseline,
            value=value,
            difference=value - baseline,
            difference_interval=(value - baseline - low, value - baseline + low),
        )

    return [
        row("text", "majority", 0.3, 0.6),
        row("text", "bayes", 0.65, 0.6),
        row("xray", "majority", 0.3, 0.7),
        row("xray", "bayes", 0.75, 0.7),
        row("text+xray", "majority", 0.3),
        row("text+xray", "best_single:xray", 0.7),
        row("text+xray", "bayes", 0.9),
    ]


@pytest.mark.parametrize("protocol", ["", "within_group "])
def test_synergy_is_the_gain_over_the_best_single_beside_that_of_the_optima(protocol):
    (synergy,) = find_synergies(subset_rows(protocol))
    assert synergy.modalities == ("text", "xray")
    assert synergy.best == "xray"
    assert synergy.row.difference == pytest.approx(0.1)
    assert synergy.ceiling == 0.9
    assert synergy.optimal == pytest.approx(0.9 - 0.75)
    line = Page(synergy_section(subset_rows(protocol))).lines[1]
    assert line[2:8] == ["text + xray", "0.800", "[0.750, 0.850]", "xray", "0.700", "+0.100"]
    assert line[8:12] == ["[+0.050, +0.150]", "yes", "0.900", "+0.150"]


def test_an_optimum_that_is_not_known_is_not_made_up():
    rows = [row for row in subset_rows() if row.protocol != "keep:text" or not row.is_ceiling]
    (synergy,) = find_synergies(rows)
    assert synergy.ceiling == 0.9 and synergy.optimal is None
    assert "not known" in synergy_section(rows)
    # Optima of another task are not this one's.
    others = [row for row in subset_rows(task="tumor") if row.is_ceiling]
    mine = [row for row in subset_rows() if not row.is_ceiling]
    (synergy,) = find_synergies(others + mine)
    assert synergy.ceiling is None and synergy.optimal is None


def test_no_combination_is_said():
    assert "No combination of modalities was measured" in synergy_section([make_row()])
