"""The registry of the paper's tasks: a generated page that says no more than the builders do."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from multimed_jax.types import UserError
from tests.tfds_builders.core.toy_source import ToySource
from tfds_builders.__main__ import load_builder, main, source_names
from tfds_builders.core.paper import TASKS, PaperCitation
from tfds_builders.core.registry import make_page, read_counts, with_sources

REPOSITORY = Path(__file__).resolve().parents[2]
COMMAND = "python -m tfds_builders registry --out docs/registry.md --readme tfds_builders/README.md"
# Counts of the paper that could be traced, by builder.
TRACED = {"covidx_ct": "194,922", "cc_ccii": "617,775", "malaria_cells": "27,560"}


def builders():
    return {name: load_builder(name) for name in source_names()}


def rows(page: str, heading: str) -> list[list[str]]:
    lines = page.split(f"## {heading}\n\n")[1].split("\n\n")[0].splitlines()[2:]
    return [[cell.strip() for cell in line.strip("|").split(" | ")] for line in lines]


def test_the_committed_page_is_what_the_command_makes(tmp_path, capsys):
    made, readme = tmp_path / "registry.md", tmp_path / "README.md"
    own = (REPOSITORY / "tfds_builders" / "README.md").read_text(encoding="utf-8")
    readme.write_text(own, encoding="utf-8")
    assert main(["registry", f"--out={made}", f"--readme={readme}"]) == 0
    page = (REPOSITORY / "docs" / "registry.md").read_text(encoding="utf-8")
    assert page == made.read_text(encoding="utf-8"), COMMAND
    assert own == readme.read_text(encoding="utf-8"), COMMAND
    assert capsys.readouterr().out == ""
    assert main(["registry"]) == 0
    assert capsys.readouterr().out == page


def test_the_tasks_are_those_that_can_be_trained():
    files = (REPOSITORY / "multimed_jax" / "tasks").glob("[a-z]*.py")
    assert sorted(TASKS) == sorted(path.stem for path in files)
    assert len(TASKS) == 11


def test_every_task_says_what_is_cited_and_what_is_used():
    page = make_page(builders())
    cited = rows(page, "What the paper cites")
    assert {row[0] for row in cited} == set(TASKS)
    for task, count, really, role, source in cited:
        traced = [name for name in TRACED if f"[{name}]" in source]
        assert (role == "paper") == bool(traced)
        if traced:
            assert TRACED[traced[0]] in count and task == "disease" and really != "not known"
        else:
            assert (count, really, role) == ("not known", "not known", "substitute")
    assert sum(row[3] == "paper" for row in cited) == len(TRACED)

    serving = rows(page, "What serves each task")
    expected = {
        (task, name)
        for name, builder in builders().items()
        for task in set(builder.CARD.tasks) & set(TASKS)
        if name != "phantoms"
    }
    assert {(row[0], row[1].split("]")[0][1:]) for row in serving} == expected
    assert {row[1].split("]")[0][1:] for row in serving if row[2] == "paper"} == set(TRACED)
    assert {row[0] for row in serving} == set(TASKS)


def test_every_citation_is_of_a_task_of_its_builder():
    for name, builder in builders().items():
        for citation in builder.PAPER:
            assert citation.task in TASKS and citation.task in builder.CARD.tasks, name
            assert citation.cited and citation.really


class Cited(ToySource):
    PAPER = (PaperCitation("disease", "X-ray | 12", "drawings"),)


def write_card(folder: Path, counts: dict[str, int], groups: dict[str, int]) -> None:
    folder.mkdir(parents=True)
    (folder / "dataset_info.json").write_text("{}")
    card = {
        "mm:unit": "image",
        "mm:counts": {split: {"image": count} for split, count in counts.items()},
        "mm:groups": groups,
    }
    (folder / "dataset_card.json").write_text(json.dumps(card))


def test_counts_of_built_datasets(tmp_path):
    write_card(tmp_path / "cited" / "1.0.0", {"train": 9, "test": 3}, {"train": 3, "test": 1})
    write_card(tmp_path / "cited" / "1.1.0", {"train": 1990, "test": 10}, {"train": 30, "test": 2})
    write_card(tmp_path / "cited" / "small" / "1.0.0", {"train": 5, "test": 1}, {"train": 2})
    counts = read_counts(tmp_path)
    assert sorted(counts["cited"]) == [
        "1.1.0: 2,000 (image) in 32 groups",
        "small 1.0.0: 6 (image) in 2 groups",
    ]
    page = make_page({"cited": Cited, "toy": ToySource}, counts)
    first, second = rows(page, "What serves each task")
    assert first[2] == "paper" and first[-1] == "; ".join(counts["cited"])
    assert second[2] == "substitute" and second[-1] == "-"
    assert "X-ray \\| 12" in page  # a bar ends no cell
    (plain,) = rows(make_page({"cited": Cited}), "What serves each task")
    assert plain == first[:-1]


@pytest.mark.parametrize("content", ["", "[]", '{"mm:counts": {}}', '{"mm:counts": 3}'])
def test_a_card_that_cannot_be_read(tmp_path, content):
    write_card(tmp_path / "cited" / "1.0.0", {"train": 9}, {"train": 3})
    (tmp_path / "cited" / "1.0.0" / "dataset_card.json").write_text(content)
    with pytest.raises(UserError, match="cannot be read; accepted: the card that a build writes"):
        read_counts(tmp_path)


@pytest.mark.parametrize(
    ("flags", "sentence"),
    [
        (["--data_dir={tmp}/none"], "the folder {tmp}/none does not exist"),
        (["--data_dir={tmp}"], "there is no built dataset in {tmp}"),
        (["--out={tmp}/none/page.md"], "the folder {tmp}/none does not exist"),
        (["--readme={tmp}/none.md"], "the file {tmp}/none.md does not exist"),
        (["--outt=x"], "unrecognized arguments: --outt=x"),
    ],
)
def test_mistakes_end_in_one_sentence(flags, sentence, tmp_path, capsys):
    assert main(["registry", *(flag.format(tmp=tmp_path) for flag in flags)]) == 1
    error = capsys.readouterr().err
    assert error.startswith(f"error: {sentence.format(tmp=tmp_path)}")
    assert error.count("\n") == 1
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("text", ["# no table", "<!-- end of sources --> <!-- sources -->"])
def test_a_readme_without_its_markers(text):
    with pytest.raises(UserError, match="has no table of sources"):
        with_sources(text, {"toy": ToySource})


def test_a_wrong_page_leaves_the_readme_alone(tmp_path):
    readme = tmp_path / "README.md"
    before = "<!-- sources -->\nold\n<!-- end of sources -->"
    readme.write_text(before)
    flags = [f"--readme={readme}", f"--out={tmp_path}/none/page.md"]
    assert main(["registry", *flags]) == 1
    assert readme.read_text() == before
