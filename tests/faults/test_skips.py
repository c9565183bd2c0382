"""Faults 16 and 17: a loss that is not finite, a gradient spike, and too many of them in a row."""

from __future__ import annotations

import dataclasses
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from multimed_jax.config import OptimConfig
from multimed_jax.model import ModelSpec
from multimed_jax.optim import accepts, make_optimizer, make_weighting
from multimed_jax.skips import SkipCount
from multimed_jax.steps import make_state, make_train_step
from multimed_jax.types import UserError
from tests.faults.conftest import figures, steps_kept
from tests.test_steps import BATCH, CONSTANT, SPACES, make_config


def poisoned(value: float):
    """The batch with one part of one sample replaced."""
    stream = BATCH.streams["a.toy"]
    parts = np.array(stream.parts, np.float32)
    parts[0, 0] = value
    return dataclasses.replace(
        BATCH, streams=BATCH.streams | {"a.toy": dataclasses.replace(stream, parts=parts)}
    )


def jitted_step(loss_factor: float):
    """(train step with spike_factor 5 and its loss multiplied, a fresh state)."""
    config = make_config(spike_factor=5.0)
    (task,) = config.tasks

    def loss(*arguments):
        return loss_factor * task.loss_fn(*arguments)

    tasks = (dataclasses.replace(task, loss_fn=loss),)
    spec = ModelSpec(config.model, config.modalities, tasks, SPACES)
    optimizer = make_optimizer(config.optim, config.num_steps)
    weighting = make_weighting({}, ["toy"], ["a", "b"], config.num_steps)
    step = jax.jit(make_train_step(config, spec, optimizer, weighting))
    return step, make_state(config, spec, optimizer, weighting)


@pytest.fixture(scope="module")
def trained():
    """(step function, state after 25 ordinary steps, norms of those steps)."""
    step, state = jitted_step(1.0)
    norms = []
    for _ in range(25):
        state, metrics = step(state, BATCH)
        assert metrics["skipped"] == 0
        norms.append(float(metrics["grad_norm"]))
    return step, state, norms


def assert_only_counted(before, after):
    """Parameters and moments bit for bit; the step counts."""
    assert int(after.step) == int(before.step) + 1
    for part in ("params", "opt_state", "model_state"):
        left, right = (jax.tree.leaves(getattr(state, part)) for state in (before, after))
        for a, b in zip(left, right, strict=True):
            np.testing.assert_array_equal(np.asarray(a), np.asarray(b))


@pytest.mark.parametrize("poison", [np.nan, np.inf])
def test_fault_16_a_poisoned_batch_changes_no_parameter(trained, poison):
    step, state, _ = trained
    after, metrics = step(state, poisoned(poison))
    assert metrics["skipped"] == 1 and not np.isfinite(float(metrics["loss"]))
    assert_only_counted(state, after)
    later, metrics = step(after, BATCH)  # and training goes on
    assert metrics["skipped"] == 0
    assert any(
        (np.asarray(a) != np.asarray(b)).any()
        for a, b in zip(jax.tree.leaves(later.params), jax.tree.leaves(after.params), strict=True)
    )


def test_fault_17_a_spike_is_skipped_and_the_running_norm_is_its_mean(trained):
    _, state, norms = trained
    # The mean by hand: weights 0.02 * 0.98**age, made to sum to one.
    weights = 0.02 * 0.98 ** np.arange(25)[::-1]
    mean = float((weights * norms).sum() / weights.sum())
    config = OptimConfig({}, 0.0, spike_factor=5.0)
    for norm, taken in ((4.99 * mean, True), (5.01 * mean, False), (1e4 * mean, False)):
        found = accepts(config, state.opt_state, jnp.float32(1.0), jnp.float32(norm))
        assert bool(found) == taken, norm / mean
    off = dataclasses.replace(config, spike_factor=0.0)
    assert bool(accepts(off, (), jnp.float32(1.0), jnp.float32(1e4 * mean)))


def test_fault_17_a_gradient_of_ten_thousand_times_is_skipped(trained):
    """Scaled by 1e4 in the loss, as a fault of the data or of the numbers would."""
    step, state, norms = trained
    loud, _ = jitted_step(1e4)
    after, metrics = loud(state, BATCH)
    assert float(metrics["grad_norm"]) > 1e3 * max(norms[-5:])
    assert metrics["skipped"] == 1 and np.isfinite(float(metrics["loss"]))
    assert_only_counted(state, after)
    _, metrics = step(after, BATCH)
    assert metrics["skipped"] == 0


def test_fault_16_the_run_stops_after_so_many_in_a_row():
    skips = SkipCount(3)
    assert skips.add(1, True, float("nan"), 1.0) == (
        "step 1: loss or gradient not finite, update skipped"
    )
    assert "gradient norm 1e+04 is a spike" in skips.add(2, True, 0.5, 1e4)
    assert skips.add(3, False, 0.5, 1.0) == ""
    assert skips.take() == 2.0 and skips.take() == 0.0
    skips.add(4, True, float("inf"), 1.0)
    skips.add(5, True, 0.5, float("nan"))
    with pytest.raises(UserError, match=r"3 steps in a row, to step 6.*max_skipped is 3"):
        skips.add(6, True, float("nan"), 1.0)


@pytest.mark.slow  # a whole run
@pytest.mark.timeout(3600)
def test_fault_16_the_command_stops_and_keeps_what_it_had(start, tmp_path):
    run = start(tmp_path / "run", "--config.optim.max_skipped=4", fault="poisoned_batches")
    assert run.end() == 1, run.text
    assert "Traceback" not in run.text
    for step in (7, 8, 9):
        assert f"step {step}: loss or gradient not finite, update skipped" in run.lines
    assert "4 steps in a row, to step 10, were skipped" in run.lines[-1]
    counted = {s: v for (s, name), v in figures(tmp_path / "run").items() if name == "skipped"}
    assert counted == {step: float(step >= 7) for step in range(1, 10)}
    assert steps_kept(tmp_path / "run") == [4, 8]


def test_limits_have_bounds():
    wrong: list[dict[str, Any]] = [
        {"max_skipped": 0},
        {"spike_factor": 0.5},
        {"spike_factor": -1.0},
    ]
    for changes in wrong:
        with pytest.raises(UserError, match="from 1, 0 or above 1"):
            OptimConfig({"trunk": CONSTANT}, 0.0, **changes)
