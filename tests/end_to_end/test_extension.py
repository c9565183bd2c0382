"""An eleventh modality and a twelfth task: one new file and one config line each, nothing else."""

from __future__ import annotations

import difflib
import importlib
import json
import math
import re
import shutil
import sys
from pathlib import Path
from typing import NamedTuple

import pytest

from multimed_jax.config_io import from_json
from multimed_jax.metrics.result_row import MAJORITY
from multimed_jax.results import read_rows
from multimed_jax.types import UserError
from tests.end_to_end.conftest import ROOT, TINY, command
from tests.end_to_end.pulse_source import NUM_RECORDS, PulseSource

pytestmark = pytest.mark.slow

NUM_STEPS = 5
# (what stands in the tiny config, what takes its place)
IMPORT = (
    "from multimed_jax.evaluators import task_metrics\n",
    "from bedside import arrhythmia, ppg\nfrom multimed_jax.evaluators import task_metrics\n",
)
MODALITY = (
    "            text.SPEC.with_options(max_tokens=24),\n",
    "            text.SPEC.with_options(max_tokens=24),\n            ppg.SPEC,\n",
)
TASK = ("cell_type.SPEC),", "cell_type.SPEC, arrhythmia.SPEC),")
SOURCE = ('{"phantoms/tiny": 1.0}', '{"phantoms/tiny": 1.0, "pulse_source": 1.0}')
PLUGINS = (
    "        evals=(task_metrics.SPEC,),\n",
    '        evals=(task_metrics.SPEC,),\n        plugins=("bedside",),\n',
)


class Extended(NamedTuple):
    """A finished run with the new modality and task."""

    workdir: Path
    config: Path
    plugins: Path


def extended_text() -> str:
    """The tiny config with the new entries."""
    text = (ROOT / TINY).read_text(encoding="utf-8")
    for old, new in (IMPORT, MODALITY, TASK, SOURCE, PLUGINS):
        assert text.count(old) == 1, old
        text = text.replace(old, new)
    return text


@pytest.fixture(scope="module")
def on_path(tmp_path_factory) -> Path:
    """A folder on the path of Python that holds the two new files and nothing else."""
    folder = tmp_path_factory.mktemp("plugins")
    shutil.copytree(
        Path(__file__).parent / "bedside",
        folder / "bedside",
        ignore=shutil.ignore_patterns("__pycache__"),
    )
    return folder


@pytest.fixture(scope="module")
def extended(tiny_data, on_path, tmp_path_factory) -> Extended:
    """Trained for a few steps and evaluated by the command, on both sources."""
    data = tmp_path_factory.mktemp("both")
    (data / "phantoms").symlink_to(tiny_data / "phantoms")
    PulseSource(data_dir=data).download_and_prepare()
    folder = tmp_path_factory.mktemp("extended")
    config = folder / "extended.py"
    config.write_text(extended_text(), encoding="utf-8")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("PYTHONPATH", str(on_path))
        done = command(
            "multimed_jax.main",
            f"--config={config}",
            f"--workdir={folder / 'run'}",
            f"--config.data_dir={data}",
            f"--config.num_steps={NUM_STEPS}",
            "--config.eval.bootstrap=10",
        )
    assert done.returncode == 0, done.stderr
    return Extended(folder / "run", config, on_path)


def lines_about(workdir: Path) -> list[str]:
    """Rows of the new task, as they lie in the store."""
    lines = (workdir / "results.jsonl").read_text(encoding="utf-8").splitlines()
    return sorted(line for line in lines if json.loads(line)["task"] == "arrhythmia")


def test_one_file_and_one_line_each(extended):
    files = sorted(path.name for path in extended.plugins.rglob("*.py"))
    assert files == ["arrhythmia.py", "ppg.py"]
    before = (ROOT / TINY).read_text(encoding="utf-8").splitlines()
    after = extended.config.read_text(encoding="utf-8").splitlines()
    changed = {"+": set(), "-": set()}
    for line in difflib.ndiff(before, after):
        if line[0] in changed:
            changed[line[0]].add(line[1:].strip())
    assert changed["+"] == {
        "from bedside import arrhythmia, ppg",
        "ppg.SPEC,",
        "tasks=(tumor.SPEC, disease.SPEC, motor.SPEC, cell_type.SPEC, arrhythmia.SPEC),",
        'sources=common.sources({"phantoms/tiny": 1.0, "pulse_source": 1.0}),',
        'plugins=("bedside",),',
    }
    assert changed["-"] == {
        "tasks=(tumor.SPEC, disease.SPEC, motor.SPEC, cell_type.SPEC),",
        'sources=common.sources({"phantoms/tiny": 1.0}),',
    }


def test_no_file_of_the_package_names_them():
    found = [
        f"{path.relative_to(ROOT)}: {word.group()}"
        for folder in ("multimed_jax", "tfds_builders", "configs")
        for path in (ROOT / folder).rglob("*.py")
        for word in re.finditer(r"\b(ppg|arrhythmia|bedside)\b", path.read_text(encoding="utf-8"))
    ]
    assert not found


def test_rows_of_the_new_task_beside_the_others(extended):
    rows = read_rows(extended.workdir / "results.jsonl")
    assert {row.task for row in rows} == {"tumor", "disease", "motor", "cell_type", "arrhythmia"}
    mine = {row.metric: row for row in rows if row.task == "arrhythmia"}
    assert set(mine) == {"accuracy", "brier"}
    for row in mine.values():
        assert row.n == NUM_RECORDS["test"] and row.dataset == "pulse_source"
        assert row.split == "test" and 0 <= row.value <= 1
        assert row.baseline_name == MAJORITY
    # As many records are regular as not, in train and in test: so says the majority baseline.
    assert mine["accuracy"].baseline == 0.5 and mine["brier"].baseline == 0.25


def test_the_new_task_is_trained_through_the_new_modality(extended):
    lines = (extended.workdir / "metrics.jsonl").read_text(encoding="utf-8").splitlines()
    losses = [row for row in map(json.loads, lines) if row["name"] == "loss/arrhythmia/ppg"]
    assert [row["step"] for row in losses] == list(range(1, NUM_STEPS + 1))
    # Logits start near 0, and a few steps do not move them far: about log 2.
    assert all(0.2 < row["value"] < 2.0 for row in losses)
    assert len({row["value"] for row in losses}) == NUM_STEPS
    assert math.isfinite(sum(row["value"] for row in losses))


def test_a_stored_run_loads_the_plugin_and_gives_its_rows_again(extended, tmp_path, monkeypatch):
    stored = json.loads((extended.workdir / "manifest.json").read_text(encoding="utf-8"))["config"]
    assert stored["plugins"] == ["bedside"]
    assert stored["modalities"][-1]["spec"] == "bedside.ppg:SPEC"
    assert stored["tasks"][-1]["spec"] == "bedside.arrhythmia:SPEC"
    copy = tmp_path / "copy"
    shutil.copytree(extended.workdir, copy)
    before = lines_about(copy)
    (copy / "results.jsonl").unlink()
    monkeypatch.setenv("PYTHONPATH", str(extended.plugins))
    done = command("multimed_jax.evaluate", "--checkpoint", copy)
    assert done.returncode == 0, done.stderr
    assert before and lines_about(copy) == before


def test_a_stored_spec_needs_its_prefix(extended, monkeypatch):
    stored = json.loads((extended.workdir / "manifest.json").read_text(encoding="utf-8"))["config"]
    with pytest.raises(UserError, match="'bedside.ppg:SPEC', which lies outside"):
        from_json(stored | {"plugins": []})
    with pytest.raises(UserError, match="'bedside.ppg:SPEC', which is not there"):
        from_json(stored)
    monkeypatch.syspath_prepend(extended.plugins)
    config = from_json(stored)
    assert config.modalities[-1] == importlib.import_module("bedside.ppg").SPEC
    assert config.tasks[-1].name == "arrhythmia"
    for name in [name for name in sys.modules if name.partition(".")[0] == "bedside"]:
        del sys.modules[name]
