"""Predictions and truths in words: sample sheets and the lines of the CSV file."""

from __future__ import annotations

import dataclasses
import json
import re
from types import SimpleNamespace

import numpy as np
import pytest

from multimed_jax.evaluators import samples
from multimed_jax.evaluators.wording import Words, can_be_said, in_words, spoken, written
from multimed_jax.layers.decode_errors import DecodeError
from multimed_jax.predict import COLUMNS, lines, save_files
from multimed_jax.predictions import _cut, _cut_targets
from multimed_jax.specs import Namespace
from multimed_jax.types import UserError
from tests.evaluators.test_evaluators import rows_of
from tests.evaluators.toy_kinds import (
    ANSWER,
    FINDINGS,
    LABELS,
    LEVELS,
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


def read_sheet(tmp_path):
    return json.loads((tmp_path / "eval" / "samples" / "toy_small_1.0.0--state.json").read_text())


def test_sheets_say_labels(labels, tmp_path):
    rows_of(samples, labels, per_modality=12)
    sheet = read_sheet(tmp_path)
    assert sheet["kind"] == "labels"
    (found,) = labels.predict("test", None)
    for shown in sheet["records"]:
        at = found.rows.tolist().index(shown["row"])
        said, truth = found.probabilities[at], found.targets[at]
        names = np.array(FINDINGS.class_names)
        assert shown["prediction"] == (", ".join(names[said >= 0.5]) or "none")
        assert shown["truth"].startswith(", ".join(names[truth == 1]) or "none")
        assert shown["truth"].endswith(" (1 not known)") == (truth[1] < 0)
        known = truth >= 0
        assert shown["right"] == ((said >= 0.5)[known] == (truth == 1)[known]).all()
    assert {shown["right"] for shown in sheet["records"]} == {True, False}


def test_sheets_say_values(values, tmp_path):
    rows_of(samples, values, per_modality=2)
    sheet = read_sheet(tmp_path)
    (found,) = values.predict("test", None)
    for shown in sheet["records"]:
        at = found.rows.tolist().index(shown["row"])
        truth = float(found.targets[at, 0])
        assert shown["truth"] == (f"{truth:.1f} months" if truth >= 10 else f"{truth:.2f} months")
        assert shown["right"] is None


def test_sheets_leave_out_what_cannot_be_counted(tmp_path, caplog):
    context = make_context(tmp_path, kinds=("visit",), num_test=8)
    xray, text = context.config.modalities

    def count(record, options):
        if record["sample_id"] == b"record 3":
            raise DecodeError("a header is broken")
        return {"xray.toy": 1}

    modalities = dataclasses.replace(xray, count=count), text
    config = dataclasses.replace(context.config, modalities=modalities)
    rows_of(samples, dataclasses.replace(context, config=config), per_modality=8)
    shown = {
        (record["row"], preview["modality"])
        for record in read_sheet(tmp_path)["records"]
        for preview in record["previews"]
    }
    assert shown == {(row, name) for row in range(8) for name in ("xray", "text")} - {(3, "xray")}
    assert "a header is broken" in caplog.text


@pytest.mark.parametrize(("task", "said"), [(OTHER, ""), (ANSWER, "5 7")], ids=["array", "ids"])
def test_sheets_of_anything_else(tmp_path, task, said):
    context = with_kind(make_context(tmp_path), task, Namespace("toy", (), ()))
    rows_of(samples, context, per_modality=2)
    sheet = read_sheet(tmp_path)
    assert {record["prediction"] for record in sheet["records"]} == {said}
    assert all(record["previews"] for record in sheet["records"])


def test_words_of_values():
    names = LEVELS.class_names
    many = np.array([0.5, np.nan, 12.3456, 0, 0, 0, 0, 0], np.float32)
    assert spoken("values", names, many) == (
        "a 0.50, b not known, c 12.3, d 0.00, e 0.00, f 0.00, and 2 more"
    )
    assert spoken("values", ("months",), np.array([131.96])) == "132.0 months"
    assert spoken("labels", ("p", "q"), np.array([0.2, 0.4])) == "none"
    assert spoken("classes", ("p", "q"), np.array([0.2, 0.4])) == "q"
    assert written("values", names, many).startswith("a=0.500000;c=12.345600;d=0.000000;")
    assert written("labels", ("p", "q", "r"), np.array([1, -1, 0])) == "p=1;r=0"
    assert written("other", (), np.array([4, 2, -1, -1])) == "4 2"


def test_lines_of_the_csv(tmp_path, values, labels):
    context = make_context(tmp_path)
    source = context.open_source(SOURCE, "test")
    for given, form in (
        (context, r"(calm|mixed|wild)"),
        (values, r"months=\d+\.\d{6}"),
        (labels, r"effusion=0\.\d{6};nodule=0\.\d{6};edema=0\.\d{6}"),
    ):
        (found,) = given.predict("test", None)
        out = list(lines(source, found))
        assert len(out) == len(found.rows)
        assert {len(line) for line in out} == {len(COLUMNS)}
        first = dict(zip(COLUMNS, out[0], strict=True))
        assert first["sample_id"] == f"record {found.rows[0]}"
        assert re.fullmatch(form, first["prediction"])
        assert bool(first["probability"]) == (found.kind == "classes")
    (found,) = labels.predict("test", None)
    assert list(lines(source, found))[0][-1].count("=") == 2  # one of three is not known


def test_tasks_say_what_names_do_not(tmp_path):
    """Of a generated answer the truth stands before the candidates."""
    vocabulary = ("", "left", "right", "The", "lung")

    def describe(ids, namespace):
        return " ".join(vocabulary[i] for i in ids if i > 0)

    context = with_kind(make_context(tmp_path), ANSWER, Namespace("toy", (), ()))
    (found,) = context.predict("test", None)
    task = dataclasses.replace(ANSWER, describe=describe, generates=True)
    said = np.array([[3, 1, 4, -1], [2, 4, -1, -1]])
    truth = np.array([[[1, 4, -1, -1], [2, 4, -1, -1]]] * 2)
    found = dataclasses.replace(
        found, task=task, probabilities=said, targets=truth, rows=found.rows[:2]
    )
    assert in_words(found, 0) == Words("The left lung", "left lung", True)
    assert in_words(found, 1) == Words("right lung", "left lung", False)
    source = context.open_source(SOURCE, "test")
    assert [line[3:] for line in lines(source, found)] == [
        ("The left lung", "", "left lung"),
        ("right lung", "", "left lung"),
    ]
    folds = dataclasses.replace(OTHER, describe=lambda chain, namespace: f"{len(chain)} residues")
    arrays = np.zeros((2, 4, 3, 3))
    found = dataclasses.replace(found, task=folds, probabilities=arrays, targets=arrays)
    assert can_be_said(found)
    assert in_words(found, 0) == Words("4 residues", "4 residues", None)


def test_coordinates_are_not_said(tmp_path):
    (found,) = with_kind(make_context(tmp_path), OTHER, Namespace("toy", (), ())).predict(
        "test", None
    )
    assert not can_be_said(found)


def test_targets_and_predictions_are_cut_to_the_namespace():
    spaces = (Namespace("wide", ("a", "b", "c"), ()), Namespace("slim", ("d",), ()))
    predicted = np.arange(8.0).reshape(2, 4)
    np.testing.assert_array_equal(_cut(predicted, spaces, 1), [[3.0], [7.0]])
    np.testing.assert_array_equal(_cut(predicted, spaces, 0), predicted[:, :3])
    padded = np.array([[1, -1, -1], [0, -1, -1]])
    np.testing.assert_array_equal(_cut_targets(padded, spaces[1]), [[1], [0]])
    np.testing.assert_array_equal(_cut_targets(padded, spaces[0]), padded)
    classes = np.array([2, 1])
    np.testing.assert_array_equal(_cut_targets(classes, spaces[1]), classes)
    arrays = np.zeros((2, 5, 3, 3))
    assert _cut_targets(arrays, Namespace("chains", (), ())).shape == arrays.shape


def test_files_of_ids_that_look_alike_are_all_kept(tmp_path):
    """`a/b` and `a_b` have the same letters; a folder that cannot be made is one sentence."""

    def save(path, prediction, record):
        path.with_suffix(".txt").write_text(record["sample_id"].decode())
        return (path.with_suffix(".txt"),)

    records = [{"sample_id": b"a/b"}, {"sample_id": b"a_b"}, {"sample_id": b"c"}]
    predictions = SimpleNamespace(
        rows=np.arange(3),
        probabilities=np.zeros((3, 1)),
        task=SimpleNamespace(name="toy", save=save),
        source=SimpleNamespace(name="x/y:1.0.0"),
    )
    assert save_files(tmp_path, records, predictions) == 3
    found = sorted(path.read_text() for path in tmp_path.rglob("*.txt"))
    assert found == ["a/b", "a_b", "c"]
    (tmp_path / "file").write_text("")
    with pytest.raises(UserError, match="--files .* cannot be written: Not a directory"):
        save_files(tmp_path / "file", records, predictions)
