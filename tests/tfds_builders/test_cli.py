"""`python -m tfds_builders`: one sentence for every mistake, nothing half-written."""

from __future__ import annotations

import importlib.util
import os
import subprocess
import sys
from pathlib import Path

import pytest
import tensorflow_datasets as tfds

from multimed_jax.types import UserError
from tests.tfds_builders.images import jpeg, smooth_image, write
from tfds_builders.__main__ import find_user_error, load_builder, main, source_names

REPOSITORY = Path(__file__).resolve().parents[2]
CLASSES = ("glioma", "meningioma", "notumor", "pituitary")


def make_source(folder: Path) -> Path:
    for k, name in enumerate(CLASSES):
        for side, prefix in (("Training", "Tr"), ("Testing", "Te")):
            for i in range(6):
                number = 10 * i + k
                image = jpeg(smooth_image(1000 * k + number + 500 * (side == "Testing")))
                write(folder / side / name / f"{prefix}-{name[:2]}_{number:04d}.jpg", image)
    return folder


def run(*argv: str) -> subprocess.CompletedProcess[str]:
    env = {**os.environ, "PYTHONPATH": str(REPOSITORY)}
    return subprocess.run(
        [sys.executable, "-m", "tfds_builders", *argv],
        cwd=REPOSITORY,
        env=env,
        capture_output=True,
        text=True,
        check=False,
    )


def test_build_then_build_again(tmp_path):
    source, data = make_source(tmp_path / "source"), tmp_path / "data"
    argv = ["build", "brain_tumor_mri", f"--manual_dir={source}", f"--data_dir={data}"]
    first = run(*argv)
    assert first.returncode == 0, first.stderr
    version = data / "brain_tumor_mri" / "native" / "1.0.0"
    shard = next(version.glob("*train*array_record*"))
    before = shard.stat().st_mtime_ns
    again = run(*argv)
    assert again.returncode == 0
    assert "exists already; nothing was done" in again.stdout
    assert shard.stat().st_mtime_ns == before
    info = tfds.builder_from_directory(version).info
    assert sum(split.num_examples for split in info.splits.values()) == 48


MISTAKES = [
    (["build", "brain_tumour_mri"], "'brain_tumour_mri' (did you mean 'brain_tumor_mri'?); accept"),
    (
        ["build", "brain_tumor_mri/nativ"],
        "no config 'nativ' (did you mean 'native'?); accepted: na",
    ),
    (["build", "brain_tumor_mri", "--config=native2"], "no config 'native2'"),
    (["build", "brain_tumor_mri"], "needs --manual_dir"),
    (["build", "brain_tumor_mri", "--manual_dir=/no/where"], "/no/where does not exist"),
    (["build", "brain_tumor_mri", "--mannual_dir=/x"], "unrecognized arguments: --mannual_dir=/x"),
    (["build"], "needs the name of a source; accepted: "),
    (["biuld", "x"], "'biuld' (did you mean 'build'?); accepted: build, list"),
    ([], "accepted: build, list"),
]


@pytest.mark.parametrize(("argv", "sentence"), MISTAKES)
def test_mistakes_end_in_one_sentence(argv, sentence, tmp_path, capsys):
    where = [f"--data_dir={tmp_path / 'data'}"] if argv[:1] == ["build"] else []
    assert main([*argv, *where]) == 1
    error = capsys.readouterr().err
    assert sentence in error
    assert error.startswith("error: ")
    assert error.count("\n") == 1
    assert not list(tmp_path.rglob("*")) or [p.name for p in tmp_path.iterdir()] == ["data"]
    assert not list((tmp_path / "data").glob("*")) if (tmp_path / "data").exists() else True


def test_a_failed_build_leaves_nothing(tmp_path, capsys):
    source, data = make_source(tmp_path / "source"), tmp_path / "data"
    for path in sorted((source / "Training" / "glioma").glob("*"))[:5]:
        path.write_bytes(path.read_bytes()[:50])
    argv = ["build", "brain_tumor_mri", f"--manual_dir={source}", f"--data_dir={data}"]
    assert main(argv) == 1
    assert "5 of 48 records cannot be read" in capsys.readouterr().err
    assert not list(data.rglob("*"))


def test_a_mistake_in_a_process_has_no_traceback(tmp_path):
    (tmp_path / "empty").mkdir()
    done = run(
        "build", "brain_tumor_mri", f"--manual_dir={tmp_path / 'empty'}", f"--data_dir={tmp_path}"
    )
    assert done.returncode == 1
    assert "Traceback" not in done.stderr
    assert "has no subfolder 'Training'" in done.stderr


def test_a_wrapped_user_error_is_found():
    try:
        try:
            raise UserError("the sentence")
        except UserError as inner:
            raise RuntimeError("Failed to encode example") from inner
    except RuntimeError as outer:
        assert find_user_error(outer) == "the sentence"
    assert find_user_error(ValueError("a bug")) is None


def test_list_names_every_source(capsys):
    assert main(["list"]) == 0
    out = capsys.readouterr().out
    for name in source_names():
        card = load_builder(name).CARD
        assert name in out
        assert card.how_to_obtain in out
        assert card.licence in out


@pytest.mark.skipif(
    importlib.util.find_spec("tensorflow") is None,
    reason="the stock tfds command needs the `build` extra (TensorFlow)",
)
def test_stock_command(tmp_path):
    source, data = make_source(tmp_path / "source"), tmp_path / "data"
    command = ["tfds", "build", "tfds_builders/brain_tumor_mri", "--config=native"]
    flags = [f"--manual_dir={source}", f"--data_dir={data}"]
    subprocess.run([*command, *flags], cwd=REPOSITORY, check=True)
    assert (data / "brain_tumor_mri" / "native" / "1.0.0" / "dataset_card.json").exists()
