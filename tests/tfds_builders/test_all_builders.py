"""Every builder: complete attributes, a README, and one sentence for whoever lacks the source."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import pytest

from tfds_builders.__main__ import list_sources, load_builder, main, source_names
from tfds_builders.core.base import MedicalBuilder
from tfds_builders.core.card import check_datasheet
from tfds_builders.core.paper import TASKS
from tfds_builders.core.records import SourceCard

REPOSITORY = Path(__file__).resolve().parents[2]
NAMES = source_names()
MODALITIES = {path.stem for path in (REPOSITORY / "multimed_jax" / "modalities").glob("[a-z]*.py")}
NEED_A_FOLDER = [name for name in NAMES if load_builder(name).NEEDS_MANUAL_DIR]
OWN_TASKS = {"genomic_benchmarks": {"regulatory"}}  # for which its README shows a plugin
WITHOUT_TASK = {"jats", "own_data"}  # captions alone; the config says them
UNPUBLISHED = {"own_data", "phantoms"}  # no page and no paper to name
FETCHES = "moabb_trials"  # what is missing in its folder, so that an empty one is right


@pytest.mark.parametrize("name", NAMES)
def test_the_class_is_complete(name):
    builder = load_builder(name)
    card: SourceCard = builder.CARD
    assert issubclass(builder, MedicalBuilder)
    assert card.name == name == builder.name
    for field in dataclasses.fields(card):
        value = getattr(card, field.name)
        empty = field.name in ("restricted", "tasks")
        empty |= field.name in ("homepage", "citation") and name in UNPUBLISHED
        assert value or empty, field.name
        assert not isinstance(value, str) or value == value.strip(), field.name
    assert set(card.modalities) <= MODALITIES
    assert set(card.tasks) <= set(TASKS) | OWN_TASKS.get(name, set())
    assert bool(card.tasks) == (name not in WITHOUT_TASK)
    assert len(card.how_to_obtain.split()) > 3
    assert card.licence_forbids != card.licence
    check_datasheet(builder.DATASHEET)
    assert builder.EXPECTED_LAYOUT
    if builder.NEEDS_MANUAL_DIR:
        assert "--manual_dir is" in card.how_to_obtain or name == "own_data"
    else:
        assert builder.DOWNLOADS or builder.stream_splits is not MedicalBuilder.stream_splits
    for alias in builder.ALIASES:
        assert alias in NAMES
    configs = [config.name for config in builder.BUILDER_CONFIGS]
    assert len(set(configs)) == len(configs)


@pytest.mark.parametrize("name", NAMES)
def test_the_readme_says_what_the_card_says(name):
    folder = REPOSITORY / "tfds_builders" / name
    assert (folder / "__init__.py").read_text(encoding="utf-8").startswith('"""')
    text = (folder / "README.md").read_text(encoding="utf-8")
    builder = load_builder(name)
    assert text.startswith(f"# {name}\n")
    for modality in builder.CARD.modalities:
        assert modality in text or name == "own_data", modality
    for task in builder.CARD.tasks:
        assert f"`{task}`" in text, task
    for word in ("licence", "group"):
        assert word in text.lower(), word
    if builder.CARD.restricted:
        assert f"--accept_licence {name}" in text
    for config in builder.BUILDER_CONFIGS:
        assert config.name in text or name in ("genomic_benchmarks", "own_data"), config.name


def test_the_list_shows_all_of_every_source():
    lines = list_sources().splitlines()
    rows = {line.split()[0]: line for line in lines[1 : 1 + len(NAMES)]}
    assert list(rows) == NAMES
    for name, row in rows.items():
        card = load_builder(name).CARD
        shown = [cell.strip() for cell in row.split("  ") if cell.strip()]
        tasks = ", ".join(card.tasks) or "-"
        modalities = ", ".join(card.modalities)
        assert shown == [name, modalities, tasks, card.unit, card.size, card.licence]
        assert f"    obtain:  {card.how_to_obtain}" in lines


def build(name: str, data: Path, *flags: str) -> int:
    return main(["build", name, f"--data_dir={data}", f"--accept_licence={name}", *flags])


def left_behind(folder: Path) -> list[Path]:
    """Files, and folders that hold a version or begin to."""
    return [path for path in folder.rglob("*") if path.is_file() or "1." in path.name]


@pytest.mark.parametrize("name", NEED_A_FOLDER)
def test_without_a_folder_one_sentence_says_how_to_obtain_it(name, tmp_path, capsys):
    assert build(name, tmp_path / "data") == 1
    error = capsys.readouterr().err
    assert error.startswith(f"error: {name} needs --manual_dir, ")
    assert error.count("\n") == 1
    builder = load_builder(name)
    assert builder.EXPECTED_LAYOUT in error
    assert builder.MANUAL_DOWNLOAD_INSTRUCTIONS in error
    assert not left_behind(tmp_path)


@pytest.mark.parametrize("name", NEED_A_FOLDER)
def test_a_folder_that_is_not_there(name, tmp_path, capsys):
    folder = tmp_path / "source"
    assert build(name, tmp_path / "data", f"--manual_dir={folder}") == 1
    error = capsys.readouterr().err
    assert error.startswith(f"error: the folder {folder} does not exist; expected layout: ")
    assert error.count("\n") == 1
    assert not left_behind(tmp_path)


@pytest.mark.parametrize("name", [name for name in NEED_A_FOLDER if name != FETCHES])
@pytest.mark.parametrize("kind", ["empty", "of_something_else"])
def test_a_wrong_folder_ends_in_one_sentence(name, kind, tmp_path, capsys):
    folder, data = tmp_path / "source", tmp_path / "data"
    folder.mkdir()
    if kind == "of_something_else":
        (folder / "holiday").mkdir()
        (folder / "holiday" / "letter.txt").write_text("Dear all")
        (folder / "notes.md").write_text("# notes")
    before = set(left_behind(tmp_path))
    assert build(name, data, f"--manual_dir={folder}") == 1
    error = capsys.readouterr().err
    assert error.startswith("error: ")
    assert error.count("\n") == 1
    assert str(folder) in error
    assert set(left_behind(tmp_path)) == before
