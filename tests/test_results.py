"""The store: refuses half-said figures, never holds one twice, is never half-written."""

from __future__ import annotations

import dataclasses
import json

import pytest

from multimed_jax.results import ResultRow, format_table, read_rows, write_rows
from multimed_jax.types import UserError


def make_row(**changes) -> ResultRow:
    row = ResultRow(
        method="multimodal_multitask",
        seed=0,
        dataset="toy/a:1.0.0",
        task="tumor",
        split="test",
        protocol="full",
        metric="accuracy",
        value=0.8,
        n=120,
        groups=40,
        interval=(0.75, 0.85),
        interval_unit="group",
        baseline=0.3,
        baseline_name="majority",
        difference=0.5,
        difference_interval=(0.4, 0.6),
        checkpoint=500,
        config_hash="0123456789ab",
    )
    return dataclasses.replace(row, **changes)


def test_rows_survive_the_file(tmp_path):
    rows = [make_row(), make_row(task="disease", value=1 / 3)]
    write_rows(tmp_path / "deep" / "results.jsonl", rows)
    assert read_rows(tmp_path / "deep" / "results.jsonl") == rows


def test_evaluating_twice_replaces_in_place(tmp_path):
    path = tmp_path / "results.jsonl"
    rows = [make_row(), make_row(metric="kappa"), make_row(baseline_name="bayes")]
    write_rows(path, rows)
    before = path.read_bytes()
    write_rows(path, rows[::-1])
    assert path.read_bytes() == before
    changed = make_row(value=0.9, n=7, groups=3, interval_unit="sample")
    write_rows(path, [changed, make_row(seed=1)])
    assert read_rows(path) == [changed, *rows[1:], make_row(seed=1)]


def test_what_was_measured_makes_another_row(tmp_path):
    path = tmp_path / "results.jsonl"
    changes = {
        "method": "unimodal",
        "seed": 1,
        "dataset": "b",
        "task": "t",
        "split": "validation",
        "protocol": "keep:xray",
        "metric": "auroc",
        "baseline_name": "logistic_regression",
        "checkpoint": 9,
        "config_hash": "ba9876543210",
    }
    rows = [make_row(), *(make_row(**{key: value}) for key, value in changes.items())]
    write_rows(path, rows)
    assert len(read_rows(path)) == len(changes) + 1


def test_a_kill_while_writing_leaves_the_old_store(tmp_path, monkeypatch):
    path = tmp_path / "results.jsonl"
    write_rows(path, [make_row()])

    def killed(*_):
        raise KeyboardInterrupt

    monkeypatch.setattr("multimed_jax.results.os.replace", killed)
    with pytest.raises(KeyboardInterrupt):
        write_rows(path, [make_row(value=0.1)])
    assert read_rows(path) == [make_row()]
    assert [p.name for p in tmp_path.iterdir()] == ["results.jsonl"]


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"value": float("nan")}, "value"),
        ({"baseline": None}, "baseline"),
        ({"baseline_name": ""}, "no name"),
        ({"n": 0}, "n is 0"),
        ({"n": None}, "n is None"),
        ({"groups": 0}, "groups is 0"),
        ({"interval": None}, "interval"),
        ({"interval": (0.9, 0.1)}, "interval"),
        ({"interval": (0.9, float("inf"))}, "interval"),
        ({"difference_interval": (0.1,)}, "difference_interval"),
        ({"interval_unit": "patient"}, "group, sample"),
    ],
)
def test_an_incomplete_figure_is_refused(change, message):
    with pytest.raises(UserError, match=message):
        make_row(**change)


@pytest.mark.parametrize("column", ["baseline", "n", "interval", "difference_interval"])
def test_a_stored_row_without_a_column_is_refused(tmp_path, column):
    values = dataclasses.asdict(make_row())
    del values[column]
    path = tmp_path / "results.jsonl"
    path.write_text(json.dumps(dataclasses.asdict(make_row())) + "\n" + json.dumps(values) + "\n")
    with pytest.raises(UserError, match=f"line 2 lacks the key '{column}'"):
        read_rows(path)


@pytest.mark.parametrize("text", ['{"method": "x"', "[1]", '{"metod": 1}'])
def test_a_line_that_is_no_row_is_refused(tmp_path, text):
    path = tmp_path / "results.jsonl"
    path.write_text(text + "\n")
    with pytest.raises(UserError, match="results.jsonl line 1"):
        read_rows(path)


def test_a_missing_store_is_refused(tmp_path):
    with pytest.raises(UserError, match="does not exist"):
        read_rows(tmp_path / "results.jsonl")


def test_beats_needs_the_interval_not_the_difference():
    assert make_row().beats
    assert not make_row(difference_interval=(0.0, 0.2)).beats
    assert not make_row(difference=0.1, difference_interval=(-0.01, 0.2)).beats


def test_table():
    rows = [
        make_row(),
        make_row(metric="kappa", value=0.111),
        make_row(baseline_name="bayes", baseline=0.85, difference_interval=(-0.1, 0.0)),
        make_row(dataset="b", value=0.25, difference_interval=(-0.1, 0.1), interval_unit="sample"),
    ]
    lines = format_table(rows).splitlines()
    assert lines[0].split() == [
        *("dataset", "task", "metric", "value", "interval", "baseline", "beats", "n", "groups")
    ]
    assert lines[2].split() == [
        *("toy/a:1.0.0", "tumor", "accuracy", "0.800", "[0.750,", "0.850]"),
        *("0.300", "(majority)", "yes", "120", "40"),
    ]
    assert " ceiling " in lines[3]
    assert "0.850]*" in lines[4] and " no " in lines[4]
    assert "over samples" in lines[5]
    assert "kappa" not in format_table(rows)
    assert "kappa" in format_table(rows, all_metrics=True)
    assert len({line.index("0.300") for line in (lines[2], lines[4])}) == 1


def test_table_keeps_the_baselines_of_a_figure_together():
    rows = [
        make_row(),
        make_row(dataset="b"),
        make_row(protocol="keep:xray"),
        make_row(dataset="b", baseline_name="logistic_regression"),
        make_row(baseline_name="bayes"),
    ]
    lines = format_table(rows).splitlines()[2:]
    shown = [(line.split()[0], line.split("(")[1].split(")")[0]) for line in lines]
    assert shown == [
        ("toy/a:1.0.0", "majority"),
        ("toy/a:1.0.0", "bayes"),
        ("toy/a:1.0.0", "majority"),
        ("b", "majority"),
        ("b", "logistic_regression"),
    ]


def test_table_shows_protocol_and_split_where_they_differ():
    rows = [make_row(), make_row(protocol="keep:xray", split="validation")]
    header = format_table(rows).splitlines()[0].split()
    assert "protocol" in header and "split" in header
    assert format_table([]) == "no results"


def test_a_smaller_error_beats_and_is_marked(tmp_path):
    error = make_row(
        metric="mae_months",
        value=9.0,
        baseline=30.0,
        difference=-21.0,
        difference_interval=(-25.0, -17.0),
        higher_is_better=False,
    )
    assert error.beats
    assert not make_row(difference_interval=(-25.0, -17.0)).beats
    crossing = dataclasses.replace(error, difference_interval=(-2.0, 0.1))
    assert not crossing.beats
    write_rows(tmp_path / "results.jsonl", [error])
    assert read_rows(tmp_path / "results.jsonl") == [error]
    assert "mae_months (lower is better)" in format_table([error])


def test_stores_of_before_the_newer_columns_are_read(tmp_path):
    values = dataclasses.asdict(make_row())
    del values["higher_is_better"], values["trivial"]
    path = tmp_path / "results.jsonl"
    path.write_text(json.dumps(values) + "\n")
    (row,) = read_rows(path)
    assert row == make_row()
    assert row.higher_is_better and row.is_trivial
    assert not dataclasses.replace(row, baseline_name="median").is_trivial
    assert dataclasses.replace(row, baseline_name="median", trivial=True).is_trivial
