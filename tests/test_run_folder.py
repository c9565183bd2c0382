"""The run folder's manifest (which config began it) and its lock (who writes to it)."""

from __future__ import annotations

import dataclasses
import os
import subprocess
import sys
from pathlib import Path

import pytest

from multimed_jax import config as configs
from multimed_jax.config_io import config_hash, to_json
from multimed_jax.run_folder import check_same_run, lock_workdir, read_manifest, write_manifest
from multimed_jax.types import UserError
from tests.toy import make_toy_modality, make_toy_task

# ----------------------------------------------------------------------------- manifest


def make_config(**changes) -> configs.RunConfig:
    schedule = configs.ScheduleConfig("constant", 1e-3)
    config = configs.RunConfig(
        method="multimodal_multitask",
        data_dir="data",
        seed=0,
        num_steps=10,
        log_every_steps=5,
        modalities=(make_toy_modality("alpha", 1), make_toy_modality("beta", 2)),
        tasks=(make_toy_task("sort"),),
        evals=(),
        data=configs.DataConfig(
            sources=(configs.SourceConfig("toy:1.0.0", 1.0),),
            lanes=2,
            rows=2,
            row_width=16,
            window=32,
        ),
        model=configs.ModelConfig(d_model=96, num_layers=2, num_heads=4),
        optim=configs.OptimConfig(learning_rate={"trunk": schedule}, weight_decay=0.1),
        checkpoint=configs.CheckpointConfig(every_steps=5),
    )
    return dataclasses.replace(config, **changes)


def stored_manifest(tmp_path, config):
    path = tmp_path / "manifest.json"
    write_manifest(
        path,
        config=to_json(config),
        config_hash=config_hash(config),
        git_commit=None,
    )
    return read_manifest(path)


def test_the_manifest_comes_back_and_leaves_no_other_file(tmp_path):
    config = make_config()
    manifest = stored_manifest(tmp_path, config)
    assert manifest["config_hash"] == config_hash(config)
    assert manifest["config"]["model"]["d_model"] == 96
    assert manifest["git_commit"] is None
    assert [p.name for p in tmp_path.iterdir()] == ["manifest.json"]


def test_a_failed_write_keeps_the_old_manifest(tmp_path):
    before = stored_manifest(tmp_path, make_config())
    with pytest.raises(TypeError):
        write_manifest(tmp_path / "manifest.json", config=object())
    assert read_manifest(tmp_path / "manifest.json") == before


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (None, "cannot be read"),
        ("{", "is damaged"),
        ("[]", "is damaged"),
        ('{"format": 1}', "the key 'config'"),
        ('{"format": 2, "config": {}}', "has format 2"),
    ],
)
def test_a_bad_manifest_is_one_sentence(tmp_path, content, said):
    path = tmp_path / "manifest.json"
    if content is not None:
        path.write_text(content)
    with pytest.raises(UserError, match=said):
        read_manifest(path)


def changed(config, field, **values):
    return dataclasses.replace(
        config, **{field: dataclasses.replace(getattr(config, field), **values)}
    )


def test_the_same_run_may_move_and_be_measured_otherwise(tmp_path):
    config = make_config()
    manifest = stored_manifest(tmp_path, config)
    check_same_run(manifest, config)
    other = changed(config, "data", threads=9, prefetch=1)
    other = changed(other, "mesh", data=2, tensor=4)
    other = changed(other, "checkpoint", every_steps=1, keep=7)
    other = changed(other, "eval", bootstrap=10, splits=("test", "validation"))
    other = dataclasses.replace(
        other,
        data_dir="elsewhere",
        log_every_steps=1,
        evals=(configs.EvaluatorSpec("e", "multimed_jax.evaluators.e:SPEC", None, None),),
    )
    check_same_run(manifest, other)


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (lambda c: changed(c, "model", d_model=128), r"model\.d_model = 96, this config says 128"),
        (lambda c: dataclasses.replace(c, num_steps=11), "num_steps = 10, this config says 11"),
        (lambda c: dataclasses.replace(c, seed=1), "seed = 0, this config says 1"),
        (lambda c: changed(c, "data", lanes=4), r"data\.lanes = 2, this config says 4"),
        (
            lambda c: changed(c, "data", sources=(configs.SourceConfig("toy:1.0.0", 2.0),)),
            r"data\.sources\[0\]\.weight = 1\.0, this config says 2\.0",
        ),
        (
            lambda c: changed(c, "data", sources=(*c.data.sources, configs.SourceConfig("b", 1.0))),
            r"data\.sources\[1\]\.name = nothing, this config says b",
        ),
        (
            lambda c: dataclasses.replace(c, modalities=c.modalities[:1]),
            r"modalities\[1\]\.spec = tests\.toy:beta, this config says nothing",
        ),
        (
            lambda c: dataclasses.replace(
                c, modalities=(c.modalities[0].with_options(width=5), c.modalities[1])
            ),
            r"modalities\[0\]\.options\.width = 3, this config says 5",
        ),
        (
            lambda c: changed(
                c, "optim", lambdas={"sort": configs.ScheduleConfig("constant", 2.0)}
            ),
            r"optim\.lambdas",
        ),
    ],
)
def test_another_run_is_refused_by_the_names_of_its_fields(tmp_path, change, said):
    config = make_config()
    manifest = stored_manifest(tmp_path, config)
    with pytest.raises(UserError, match=said):
        check_same_run(manifest, change(config))


# --------------------------------------------------------------------------------- lock


def test_a_second_writer_is_refused(tmp_path):
    with lock_workdir(tmp_path):
        with pytest.raises(UserError, match="in use by another process"), lock_workdir(tmp_path):
            pass
    with lock_workdir(tmp_path):
        pass


HOLD = """
import sys, time
from pathlib import Path
from multimed_jax.run_folder import lock_workdir
with lock_workdir(Path(sys.argv[1])):
    print("held", flush=True)
    time.sleep(100)
"""


def test_a_killed_writer_frees_the_folder(tmp_path):
    process = subprocess.Popen(
        [sys.executable, "-c", HOLD, str(tmp_path)],
        stdout=subprocess.PIPE,
        env=os.environ | {"PYTHONPATH": str(Path(__file__).resolve().parent.parent)},
        text=True,
    )
    assert process.stdout is not None
    assert process.stdout.readline() == "held\n"
    with pytest.raises(UserError, match="in use"), lock_workdir(tmp_path):
        pass
    process.kill()
    process.communicate()
    with lock_workdir(tmp_path):
        pass


def test_a_folder_that_is_absent_cannot_be_locked(tmp_path):
    with pytest.raises(UserError, match="cannot be written"), lock_workdir(tmp_path / "absent"):
        pass
