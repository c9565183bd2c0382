"""Losses and gradients of every task's head stay finite on what training may ever show it."""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

import multimed_jax.tasks
from multimed_jax.layers.slot_loss import denominators, mean_loss, numerators
from multimed_jax.specs import TaskSpec
from multimed_jax.types import TargetSlots
from tests.option_variants import all_variants, smaller, specs_of
from tests.tasks.degenerate_cases import (
    CASES,
    D_MODEL,
    SLOTS,
    SPACES,
    Case,
    all_unknown,
    half_empty,
    usual,
)

# Small enough to compile in seconds; sizes do not decide what is finite.
SIZES = dict(width=8, pair_dim=4, pair_blocks=1, steps=2, num_heads=2, num_points=2, num_bins=8)
TASKS = {name: smaller(spec, **SIZES) for name, spec in all_variants(multimed_jax.tasks).items()}


@functools.cache
def step_of(name: str) -> Callable[[Case], Any]:
    """`make_step`, compiled once for all tests of a task."""
    return make_step(TASKS[name])


def make_step(task: TaskSpec) -> Callable[[Case], Any]:
    """Case -> ((mean loss, (losses, predictions)), gradients of parameters, states and parts)."""
    graph, params = nnx.split(task.make_head(D_MODEL, SPACES, nnx.Rngs(0)))

    def total(inputs, slots: TargetSlots):
        params, states, read = inputs
        head = nnx.merge(graph, params)
        outputs = head(states) if read is None else head(states, read)
        losses = task.loss_fn(outputs, slots, SPACES)
        mean = mean_loss(numerators(losses, slots), denominators(slots))
        return mean.sum(), (losses, task.predict(outputs, slots, SPACES))

    @jax.jit
    def step(params, states, parts, read, slots):
        def loss(inputs):
            params, states, parts = inputs
            whole = None if read is None else dataclasses.replace(read, states=parts)
            return total((params, states, whole), slots)

        return jax.value_and_grad(loss, has_aux=True)((params, states, parts))

    def run(case: Case):
        parts = None if case.read is None else case.read.states
        return jax.device_get(step(params, case.states, parts, case.read, case.slots))

    return run


def assert_finite(tree: Any, where: str) -> None:
    for path, leaf in jax.tree_util.tree_leaves_with_path(tree):
        assert np.isfinite(leaf).all(), f"{where}: {jax.tree_util.keystr(path)}"


def largest(tree: Any) -> float:
    return max(float(np.abs(leaf).max(initial=0.0)) for leaf in jax.tree.leaves(tree))


@pytest.mark.parametrize("name", TASKS)
def test_losses_gradients_and_predictions_are_finite(name):
    task = TASKS[name]
    run = step_of(name)
    for what, make in CASES.items():
        (mean, (losses, predictions)), gradient = run(make(task))
        assert losses.shape == (1, SLOTS)
        assert_finite((mean, losses), f"{what}: loss")
        assert_finite(gradient, f"{what}: gradient")
        assert_finite(predictions, f"{what}: prediction")
        assert (losses >= 0).all(), what
        if what == "usual":
            assert (losses > 0).all() and largest(gradient) > 0
        if what in ("empty", "all unknown"):
            assert mean == 0 and largest(gradient) == 0, what
        if what == "all unknown":
            assert not losses.any()


@pytest.mark.parametrize("name", TASKS)
def test_an_empty_slot_changes_nothing(name):
    """Whatever value stands in it, the mean and its gradients are those of the used slots."""
    task = TASKS[name]
    run = step_of(name)
    case = half_empty(task)
    (mean, (losses, _)), gradient = run(case)
    # Both modalities of the slots have the same mean, and the sum over them is taken.
    assert mean == pytest.approx(2 * float(losses[0, : SLOTS - 1].mean()), rel=1e-5)
    wild = dataclasses.replace(
        case, slots=dataclasses.replace(case.slots, value=usual(task).slots.value)
    )
    (again, _), same = run(wild)
    assert again == mean
    for x, y in zip(jax.tree.leaves(gradient), jax.tree.leaves(same), strict=True):
        np.testing.assert_allclose(x, y, rtol=1e-5, atol=1e-7)


def column_case(task: TaskSpec, number: int) -> tuple[np.ndarray, np.ndarray]:
    """Predictions that do not vary and targets of so many records, as evaluators give them."""
    value = usual(task).slots.value[0, :number]
    if task.target_shape == ():
        columns = len(SPACES[0].class_names)
        return np.full((number, columns), 1 / columns, np.float32), value
    return np.zeros_like(value[:, 0] if task.generates else value), value


@pytest.mark.parametrize("name", TASKS)
@pytest.mark.parametrize("number", [1, SLOTS])
def test_figures_of_few_records_and_constant_predictions_are_finite(name, number):
    task = TASKS[name]
    predictions, targets = column_case(task, number)
    figures = task.metrics(predictions, targets)
    assert task.primary_metric in figures
    assert_finite(figures, "figures")
    if task.statistic is not None:
        # Among the resamples one that draws the first record alone.
        weights = np.array([[1] * number, [number] + [0] * (number - 1)], np.float64)
        resampled = task.statistic(predictions, targets)(weights)
        assert set(figures) <= set(resampled)
        assert_finite({k: resampled[k] for k in figures}, "resampled figures")


def test_every_task_of_the_package_is_here():
    folder = {task.name for task in specs_of(multimed_jax.tasks).values()}
    assert {task.name for task in TASKS.values()} == folder and len(folder) >= 11


def test_the_checks_notice_a_loss_that_divides_by_what_is_known():
    """A head without guards fails: the sum over known columns by their number, NaN for none."""

    def loss_fn(outputs, slots, namespaces):
        known = jnp.isfinite(slots.value)
        error = jnp.where(known, jnp.square(outputs[..., :3] - slots.value), 0.0)
        return error.sum(-1) / known.sum(-1)

    task = dataclasses.replace(TASKS["bone_age"], loss_fn=loss_fn)
    run = make_step(task)
    (_, (losses, _)), _ = run(all_unknown(task))
    with pytest.raises(AssertionError):
        assert_finite(losses, "loss")
