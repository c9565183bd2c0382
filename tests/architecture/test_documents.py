"""What the documents say is what the code does."""

from __future__ import annotations

import dataclasses
import importlib
import importlib.util
import re
import tomllib
from pathlib import Path

import pytest
import yaml  # of pre-commit

from multimed_jax import command
from multimed_jax.metrics.result_row import ResultRow
from multimed_jax.run_folder import FREE_FIELDS

REPOSITORY = Path(__file__).resolve().parents[2]


def text(name: str) -> str:
    return (REPOSITORY / name).read_text(encoding="utf-8")


def table(name: str, columns: int) -> list[list[str]]:
    """Rows of the tables of a document that have so many columns, without head and rule."""
    rows = [line.strip("|").split("|") for line in text(name).splitlines() if line[:1] == "|"]
    cells = [[cell.strip(" `") for cell in row] for row in rows if len(row) == columns]
    return [row for row in cells[1:] if not set("".join(row)) <= set("-:")]


def shell_blocks() -> list[str]:
    return re.findall(r"^```sh\n(.*?)^```", text("README.md"), flags=re.M | re.S)


def test_the_readme_opens_with_the_job_and_the_tests():
    job, tests = shell_blocks()[:2]
    assert "pip install -c requirements.lock ." in job and "pytest" not in job
    assert "pip install -c requirements.lock '.[dev]'" in tests
    assert 'python -m pytest -m "not slow"' in tests
    # .ci/run takes the lines with `pytest` as the test command and all others as the install.
    assert [("pytest" in line) for line in tests.splitlines()] == [False, False, True]


def test_every_command_of_the_readme_names_what_exists():
    blocks = "\n".join(shell_blocks())
    for module in set(re.findall(r"python -m ((?:multimed_jax|tfds_builders)[\w.]*)", blocks)):
        assert importlib.util.find_spec(module) is not None, module
    for path in set(re.findall(r"configs/\w+\.py", blocks)):
        assert (REPOSITORY / path).exists(), path
    builds = re.findall(r"tfds_builders build (\w+)(?: --config (\w+))?", blocks)
    assert len(builds) == 19
    for name, config in builds:
        module = importlib.import_module(f"tfds_builders.{name}.{name}_dataset_builder")
        accepted = [item.name for item in module.Builder.BUILDER_CONFIGS]
        assert not config or config in accepted, (name, config)


def test_modality_ids():
    rows = {row[1]: (int(row[0]), row[4]) for row in table("docs/modalities.md", 5)}
    assert [number for number, _ in rows.values()] == list(range(1, 11))
    files = {path.stem for path in (REPOSITORY / "multimed_jax" / "modalities").glob("[a-z]*.py")}
    assert {name for name, (_, now) in rows.items() if now == "yes"} == files
    for name in files:
        spec = importlib.import_module(f"multimed_jax.modalities.{name}").SPEC
        assert (spec.name, spec.id) == (name, rows[name][0])
        assert spec.spec == f"multimed_jax.modalities.{name}:SPEC"


def test_result_columns():
    documented = [row[0] for row in table("docs/results.md", 2)]
    assert documented == [field.name for field in dataclasses.fields(ResultRow)]


def test_exit_codes_and_free_fields():
    codes = [row[0] for row in table("docs/errors.md", 3)]
    assert codes[:3] == ["0", str(command.EXIT_PREEMPTED), str(command.EXIT_ERROR)]
    heading = "**A run folder of another config, or of other data.**"
    paragraph = text("docs/errors.md").split(heading)[1]
    paragraph = paragraph.split("\n\n")[0]
    assert set(re.findall(r"`([\w.]+)`", paragraph)) == set(FREE_FIELDS)


def test_contributing_shows_the_layers_of_the_contract():
    settings = tomllib.loads(text("pyproject.toml"))["tool"]["importlinter"]["contracts"]
    layers = next(c for c in settings if c["id"] == "layers")["layers"]
    present = [
        [name.strip() for name in row.split("|") if not name.strip().startswith("(")]
        for row in layers
    ]
    shown = text("CONTRIBUTING.md").split("## The rules")[1].split("```")[1].strip().splitlines()
    assert [[name.strip() for name in row.split("|")] for row in shown] == present


def test_versions_agree():
    version = tomllib.loads(text("pyproject.toml"))["project"]["version"]
    assert f"## [{version}]" in text("CHANGELOG.md")
    assert yaml.safe_load(text("CITATION.cff"))["version"] == version


def test_the_lock_pins_every_dependency_and_names_no_place():
    settings = tomllib.loads(text("pyproject.toml"))["project"]
    lines = [line for line in text("requirements.lock").splitlines() if line and line[0] != "#"]
    assert all(re.fullmatch(r"[a-z0-9.-]+==[\w.+!]+", line) for line in lines), lines
    pinned = {line.split("==")[0] for line in lines}
    optional = settings["optional-dependencies"]
    wanted = settings["dependencies"] + optional["dev"] + optional["formats"]
    names = {re.split(r"[\[<>=;]", w)[0].lower().replace("_", "-") for w in wanted}
    assert names - {"multimed-jax"} <= pinned


DOCUMENTS = sorted(
    path.relative_to(REPOSITORY).as_posix()
    for pattern in ("*.md", "docs/*.md", "launch/*.md", "benchmarks/*.md", "tfds_builders/**/*.md")
    for path in REPOSITORY.glob(pattern)
)


@pytest.mark.parametrize("name", DOCUMENTS)
def test_links_lead_somewhere(name):
    for target in re.findall(r"\]\(([^)#\s]+)", text(name)):
        if not target.startswith("http"):
            assert ((REPOSITORY / name).parent / target).exists(), target
