"""Traces of a window of steps: which steps, which files, and what ends them early."""

from __future__ import annotations

import dataclasses
import gzip
import json
from pathlib import Path

import jax
import jax.numpy as jnp
import pytest

from multimed_jax.config import ProfileConfig
from multimed_jax.profile import traced
from multimed_jax.types import UserError


@jax.jit
def work(x):
    return jnp.tanh(x @ x)


def traced_steps(workdir: Path) -> list[set[int]]:
    """The steps that each trace of the folder holds."""
    found = []
    for path in sorted((workdir / "profile").rglob("perfetto_trace.json.gz")):
        events = json.loads(gzip.decompress(path.read_bytes()))["traceEvents"]
        marks = [e["args"] for e in events if e.get("name") == "train" and "args" in e]
        found.append({int(mark["step_num"]) for mark in marks if "step_num" in mark})
    return found


def run(steps, config: ProfileConfig, workdir: Path) -> list[int]:
    seen = []
    for step in traced(steps, config, workdir):
        work(jnp.ones((8, 8))).block_until_ready()
        seen.append(step)
    return seen


def test_the_steps_of_the_window_are_traced(tmp_path):
    assert run(range(1, 7), ProfileConfig(first_step=3, num_steps=2), tmp_path) == list(range(1, 7))
    assert traced_steps(tmp_path) == [{3, 4}]
    assert list((tmp_path / "profile").rglob("*.xplane.pb"))


def test_a_run_that_goes_on_inside_the_window_traces_the_rest(tmp_path):
    run(range(4, 8), ProfileConfig(first_step=3, num_steps=3), tmp_path)
    assert traced_steps(tmp_path) == [{4, 5}]


def test_no_window_no_trace(tmp_path):
    assert run(range(1, 4), ProfileConfig(), tmp_path) == [1, 2, 3]
    assert not (tmp_path / "profile").exists()


def test_a_loop_that_is_left_writes_what_it_has(tmp_path):
    steps = traced(range(1, 9), ProfileConfig(first_step=1, num_steps=8), tmp_path)
    for step in steps:
        work(jnp.ones((8, 8))).block_until_ready()
        if step == 2:
            break
    steps.close()
    assert traced_steps(tmp_path) == [{1, 2}]


@pytest.mark.parametrize("values", [{"first_step": -1}, {"num_steps": 0}])
def test_numbers_out_of_range(values):
    with pytest.raises(UserError, match="accepted"):
        dataclasses.replace(ProfileConfig(), **values)
