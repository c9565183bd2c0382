"""The page is complete, self-contained and honest; a folder without results ends in a sentence."""

from __future__ import annotations

import base64
import dataclasses
import json
import re
import shutil
from html.parser import HTMLParser

import numpy as np
import pytest
from PIL import Image
from sklearn.metrics import confusion_matrix

from multimed_jax.report.__main__ import main
from multimed_jax.report.page import write_report
from multimed_jax.report.prediction_figures import confusion_counts
from multimed_jax.report.run_data import read_runs
from multimed_jax.results import read_rows, write_rows
from tests.report.synthetic_run import HOSTILE, PLACES, SECRET_FOLDER, make_run

VOID = {"meta", "img", "br"}


class Page(HTMLParser):
    """Checks that tags nest, and gathers table lines, links and sources."""

    def __init__(self, text: str):
        super().__init__()
        self.open: list[str] = []
        self.lines: list[list[str]] = []
        self.outside: list[str] = []
        self.tags: set[str] = set()
        self.feed(text)
        assert not self.open, self.open

    def handle_starttag(self, tag, attrs):
        self.tags.add(tag)
        if tag not in VOID:
            self.open.append(tag)
        if tag == "tr":
            self.lines.append([])
        if tag in ("td", "th"):
            self.lines[-1].append("")
        for name, value in attrs:
            inside = str(value).startswith(("data:image/png;base64,", "#"))
            if name in ("src", "href") and not inside:
                self.outside.append(str(value))

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def handle_data(self, data):
        if any(tag in ("td", "th") for tag in self.open):
            self.lines[-1][-1] += data


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    """A run folder with its report."""
    folder = make_run(tmp_path_factory.mktemp("runs") / "quickstart")
    assert main([str(folder)]) == 0
    return folder


@pytest.fixture(scope="module")
def text(run):
    return (run / "report" / "report.html").read_text("utf-8")


def test_page_needs_no_other_file(text, run):
    page = Page(text)
    assert page.outside == []
    assert not page.tags & {"script", "link", "iframe", "object"}
    assert "@import" not in text and "url(" not in text
    assert text.count("data:image/png;base64,") == len(list((run / "report").glob("*.png")))


def test_texts_of_the_run_are_escaped(text):
    assert HOSTILE not in text
    assert "&lt;script&gt;alert(&#x27;x&#x27;)&lt;/script&gt; &amp; $" in text


def test_no_folder_of_a_machine_is_told(text, run):
    assert SECRET_FOLDER not in text
    assert str(run.parent) not in text


def test_table_says_what_the_store_says(text, run):
    lines = Page(text).lines
    rows = read_rows(run / "results.jsonl")
    tumor = [r for r in rows if r.task == "tumor" and r.metric == "accuracy"]
    majority = next(r for r in tumor if r.baseline_name == "majority")
    low, high = majority.interval
    gap_low, gap_high = majority.difference_interval
    assert [
        *("phantoms/quickstart:1.0.0", "tumor", "full", "accuracy"),
        *(f"{majority.value:.3f}", f"[{low:.3f}, {high:.3f}]"),
        *(f"{majority.baseline:.3f}", "majority", f"{majority.difference:+.3f}"),
        *(f"[{gap_low:+.3f}, {gap_high:+.3f}]", "yes", "900", "300"),
    ] in lines
    at = next(i for i, line in enumerate(lines) if line[:2] == [majority.dataset, "tumor"])
    assert [line[2] for line in lines[at + 1 : at + 3]] == ["logistic regression", "bayes"]
    assert [line[5] for line in lines[at + 1 : at + 3]] == ["yes", "ceiling"]


def test_intervals_over_samples_are_marked(text):
    motor = next(line for line in Page(text).lines if line[1:3] == ["motor", "full"])
    assert motor[5].endswith("]*")
    assert motor[-1] == "8*"
    assert motor[-3] == "no"


def test_every_figure_is_there(run):
    names = {path.stem for path in (run / "report").glob("*.png")}
    assert {"intervals", "fill"} <= names
    for source, task, modalities, *_ in PLACES:
        stem = f"{source.replace('/', '_').replace(':', '_')}--{task}"
        assert f"curves-{task}" in names
        assert f"confusion-test-{stem}" in names
        for modality in modalities:
            assert (f"samples-{stem}-{modality}" in names) == (modality != "text")
    for path in (run / "report").glob("*.png"):
        with Image.open(path) as image:
            assert image.size[0] >= 700
            # Drawn, not blank.
            assert len(np.unique(np.asarray(image.convert("L")))) > 8


def test_embedded_figures_are_the_files(text, run):
    found = re.findall(r"base64,([A-Za-z0-9+/=]+)'", text)
    files = {path.read_bytes() for path in (run / "report").glob("*.png")}
    assert {base64.b64decode(data) for data in found} == files


def test_texts_are_cards_with_truth_and_verdict(text):
    # 16 of the two tasks with notes, 4 of each of the five further kinds.
    assert len(re.findall(r"class='card( miss| plain)?'", text)) == 16 + 5 * 4
    assert "✗ said" in text and "✓ said" in text


def test_the_same_folder_gives_the_same_page(text, run, tmp_path):
    page = write_report([run], tmp_path)
    assert page.read_text("utf-8") == text


def test_two_runs_side_by_side(run, tmp_path):
    other = make_run(tmp_path / "quickstart", seed=1, method="unimodal")
    rows = [row for row in read_rows(other / "results.jsonl") if row.task != "motor"]
    (other / "results.jsonl").unlink()
    write_rows(other / "results.jsonl", rows)
    assert main([str(run), str(other), "--output", str(tmp_path / "both")]) == 0
    page = Page((tmp_path / "both" / "report.html").read_text("utf-8"))
    assert page.lines[0] == ["dataset", "figure", "quickstart", "quickstart (2)"]
    motor = next(line for line in page.lines if line[1].startswith("motor"))
    assert "majority" in motor[2] and motor[3] == "not run"
    tumor = next(line for line in page.lines if line[1].startswith("tumor"))
    theirs = next(r for r in rows if r.task == "tumor")
    assert tumor[3].startswith(f"{theirs.value:.3f} [")
    assert "n 900, groups 300" in tumor[3] and "beats: yes" in tumor[3]
    assert (tmp_path / "both" / "quickstart_2-fill.png").exists()


def test_only_the_latest_checkpoint_is_told(run, tmp_path):
    folder = tmp_path / "run"
    shutil.copytree(run, folder)
    rows = read_rows(folder / "results.jsonl")
    older = [dataclasses.replace(row, checkpoint=100, value=0.123) for row in rows]
    again = [dataclasses.replace(rows[0], config_hash="f" * 12, value=0.456)]
    write_rows(folder / "results.jsonl", older + again)
    (found,) = read_runs([folder])
    assert len(found.rows) == len(rows)
    assert found.rows[0].value == 0.456
    assert [row.value for row in found.rows[1:]] == [row.value for row in rows[1:]]


def test_a_run_without_log_predictions_and_samples(run, tmp_path):
    folder = tmp_path / "run"
    folder.mkdir()
    for name in ("manifest.json", "results.jsonl"):
        shutil.copy(run / name, folder)
    assert main([str(folder)]) == 0
    text = (folder / "report" / "report.html").read_text("utf-8")
    for said in ("no training log", "No fill rates", "No predictions", "No samples"):
        assert said in text


# ------------------------------------------------------------------------------- bad input


def no_folder(folder):
    shutil.rmtree(folder)


def empty_folder(folder):
    shutil.rmtree(folder)
    folder.mkdir()


def no_results(folder):
    (folder / "results.jsonl").unlink()


def empty_results(folder):
    (folder / "results.jsonl").write_text("")


def broken_results(folder):
    with (folder / "results.jsonl").open("a") as file:
        file.write('{"method": "x"}\n')


def broken_manifest(folder):
    (folder / "manifest.json").write_text("{")


def broken_log(folder):
    (folder / "metrics.jsonl").write_text('{"step": 1}\n')


def broken_predictions(folder):
    path = next((folder / "eval" / "test").glob("*.npz"))
    path.write_bytes(path.read_bytes()[:100])


def broken_samples(folder):
    next((folder / "eval" / "samples").glob("*.json")).write_text("[")


@pytest.mark.parametrize(
    ("harm", "message"),
    [
        (no_folder, "is not a folder"),
        (empty_folder, "holds no run"),
        (no_results, "has no results.jsonl yet"),
        (empty_results, "holds no result"),
        (broken_results, "lacks the key"),
        (broken_manifest, "damaged"),
        (broken_log, "line 1"),
        (broken_predictions, "damaged"),
        (broken_samples, "damaged"),
    ],
)
def test_a_folder_that_is_no_finished_run(run, tmp_path, capsys, harm, message):
    folder = tmp_path / "run"
    shutil.copytree(run, folder)
    shutil.rmtree(folder / "report")
    harm(folder)
    assert main([str(folder)]) == 1
    told = capsys.readouterr().err
    assert told.startswith("error: ") and message in told
    assert len(told.splitlines()) == 1
    assert not (folder / "report").exists()


def test_a_place_that_cannot_be_written(run, tmp_path, capsys):
    (tmp_path / "file").write_text("")
    assert main([str(run), "--output", str(tmp_path / "file")]) == 1
    assert "cannot be written" in capsys.readouterr().err


# ------------------------------------------------------------------------------- small parts


def test_confusion_counts_equal_scikit_learn(run):
    (found,) = read_runs([run])
    for stored in found.predictions:
        if stored.kind != "classes":
            continue
        theirs = confusion_matrix(
            stored.targets,
            stored.probabilities.argmax(1),
            labels=list(range(len(stored.class_names))),
        )
        np.testing.assert_array_equal(confusion_counts(stored), theirs)


def test_values_that_were_not_finite_and_a_cut_line_are_left_out(run):
    (found,) = read_runs([run])
    lines = (run / "metrics.jsonl").read_text().splitlines()[:-1]
    logged = [json.loads(line) for line in lines]
    expected = [e["value"] for e in logged if e["name"] == "loss/tumor/mri" and e["value"]]
    np.testing.assert_array_equal(found.curves["loss/tumor/mri"].values, expected)
    assert 999 not in found.curves["loss/tumor/mri"].steps
