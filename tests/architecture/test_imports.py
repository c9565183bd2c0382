"""The layer table of pyproject.toml holds, and would be noticed if it did not."""

from __future__ import annotations

import shutil
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

REPOSITORY = Path(__file__).resolve().parents[2]

# The table as CONTRIBUTING.md shows it, highest row first. Rows may be added between these.
TABLE = (
    {"main", "evaluate", "predict", "plan", "benchmark"},
    {"train", "report"},
    {"evaluators", "checkpoint", "results"},
    {"data", "model"},
    {"modalities", "tasks"},
    {"layers", "metrics", "optim", "sharding"},
    {"config"},
    {"types"},
)


def contracts() -> dict[str, dict]:
    settings = tomllib.loads((REPOSITORY / "pyproject.toml").read_text(encoding="utf-8"))
    return {c["id"]: c for c in settings["tool"]["importlinter"]["contracts"]}


def lint(folder: Path) -> subprocess.CompletedProcess[str]:
    code = (
        "import sys; sys.path.insert(0, '.'); from importlinter.cli import lint_imports; "
        "sys.exit(lint_imports(no_cache=True, no_logo=True))"
    )
    return subprocess.run(
        [sys.executable, "-c", code], cwd=folder, capture_output=True, text=True, check=False
    )


def test_the_contracts_hold():
    found = lint(REPOSITORY)
    assert found.returncode == 0, found.stdout + found.stderr


def test_the_contract_is_the_table_and_has_no_exceptions():
    found = contracts()
    assert set(found) == {"layers", "modalities", "tasks", "package", "builders"}
    assert not any("ignore_imports" in contract for contract in found.values())
    layers = found["layers"]
    assert layers["exhaustive"] and "exhaustive_ignores" not in layers
    rows = [{name.strip(" ()") for name in row.split("|")} for row in layers["layers"]]
    places = [next(i for i, row in enumerate(rows) if names <= row) for names in TABLE]
    assert places == sorted(set(places))


@pytest.mark.parametrize(
    ("file", "statement", "said"),
    [
        ("types.py", "import multimed_jax.train", "The package is layered BROKEN"),
        ("evaluate.py", "import multimed_jax.predict", "The package is layered BROKEN"),
        (
            "modalities/mri.py",
            "import multimed_jax.modalities.eeg",
            "never import each other BROKEN",
        ),
        ("model.py", "import tfds_builders", "other framework BROKEN"),
        ("model.py", "import configs.common", "other framework BROKEN"),
        ("model.py", "import tensorflow", "other framework BROKEN"),
        ("newcomer.py", "import jax", "newcomer"),
        ("../tfds_builders/core/splits.py", "import multimed_jax.config", "gene key BROKEN"),
    ],
)
def test_a_forbidden_import_is_noticed(tmp_path, file, statement, said):
    skip = shutil.ignore_patterns("__pycache__", "dummy_data", "vocabulary")
    for package in ("multimed_jax", "tfds_builders"):
        shutil.copytree(REPOSITORY / package, tmp_path / package, ignore=skip)
    shutil.copy(REPOSITORY / "pyproject.toml", tmp_path)
    with (tmp_path / "multimed_jax" / file).open("a", encoding="utf-8") as changed:
        changed.write(f"\n{statement}\n")
    found = lint(tmp_path)
    assert found.returncode != 0
    # Lines are broken at the width of the terminal.
    assert said in " ".join(found.stdout.split()), found.stdout


def modules_after(statement: str) -> set[str]:
    code = f"import sys; {statement}; print(*sys.modules)"
    found = subprocess.run(
        [sys.executable, "-c", code], cwd=REPOSITORY, capture_output=True, text=True, check=True
    )
    return set(found.stdout.splitlines()[-1].split())


def test_the_bare_import_is_light():
    assert not {"jax", "numpy", "tensorflow_datasets"} & modules_after("import multimed_jax")


def test_nothing_loads_another_framework():
    # TensorBoard's writer takes torch where it is installed: hidden from it, an import of our own
    # would fail.
    hidden = "import sys; sys.modules['torch'] = None; "
    packages = "import multimed_jax.train, multimed_jax.report, tfds_builders.__main__"
    loaded = modules_after(hidden + packages)
    assert "jax" in loaded
    assert not {"tensorflow", "apache_beam"} & loaded
