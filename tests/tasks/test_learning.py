"""Head, loss, predictions and figures of a task fit together: what can be learnt is learnt."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from flax import nnx

from multimed_jax.predictions import _cut, _cut_targets
from multimed_jax.specs import BaselineInputs, Namespace
from multimed_jax.tasks import bone_age, breast, radiographic, retinopathy
from multimed_jax.types import TargetSlots

NUM_TRAIN, NUM_TEST, DIM = 300, 300, 6


def make_states(seed: int) -> np.ndarray:
    return np.random.default_rng(seed).normal(size=(2, NUM_TRAIN + NUM_TEST, DIM))


def grades(x: np.ndarray, cuts) -> np.ndarray:
    return np.digitize(x[..., 0] - 0.5 * x[..., 1], cuts).astype(np.int32)


def case_of_grades(task):
    """Two sources that cut the same direction into five and into two."""
    x = make_states(0)
    values = np.stack([grades(x[0], [-1.2, -0.3, 0.4, 1.5]), grades(x[1], [0.2])])
    spaces = tuple(
        Namespace(name, tuple("abcde"[:size]), tuple(np.bincount(v[:NUM_TRAIN], minlength=size)))
        for name, size, v in zip(("five", "two"), (5, 2), values, strict=True)
    )
    return task, x, values, spaces, "majority"


def case_of_labels():
    """Three labels and one, of which a third is not told."""
    x = make_states(1)
    values = np.stack([(x[..., f] > c) for f, c in enumerate((0.0, 1.0, -1.0))], -1).astype(
        np.int32
    )
    values[np.random.default_rng(2).random(values.shape) < 1 / 3] = -1
    values[1, :, 1:] = -1
    spaces = []
    for s, size in enumerate((3, 1)):
        train = values[s, :NUM_TRAIN, :size]
        stats = {
            "count": tuple((train >= 0).sum(0).tolist()),
            "sum": tuple((train == 1).sum(0).tolist()),
        }
        spaces.append(Namespace(f"source {s}", tuple("abc"[:size]), (), stats))
    return radiographic.SPEC, x, values, tuple(spaces), "prevalence"


def case_of_months():
    x = make_states(3)
    months = (120 + 40 * x[..., :1] + 6 * x[..., 1:2] ** 2).astype(np.float32)
    spaces = []
    for s in range(2):
        train = months[s, :NUM_TRAIN].astype(np.float64)
        stats = {
            "count": (float(NUM_TRAIN),),
            "sum": (float(train.sum()),),
            "sum_squares": (float((train**2).sum()),),
        }
        spaces.append(Namespace(f"source {s}", ("months",), (), stats))
    return bone_age.SPEC, x, months, tuple(spaces), "median"


CASES = {
    "retinopathy": lambda: case_of_grades(retinopathy.SPEC),
    "breast": lambda: case_of_grades(breast.SPEC),
    "breast, no order": lambda: case_of_grades(breast.SPEC.with_options(ordered=False)),
    "radiographic": case_of_labels,
    "bone_age": case_of_months,
}


def make_slots(values: np.ndarray) -> TargetSlots:
    """One pack for each source."""
    shape = values.shape[:2]
    return TargetSlots(
        segment=jnp.ones(shape, jnp.int32),
        value=jnp.asarray(values),
        weight=jnp.ones(shape),
        namespace=jnp.asarray(np.arange(2)[:, None] + np.zeros(shape, np.int32), jnp.int32),
        modality_share=jnp.ones((*shape, 1)),
    )


def trained(task, x, values, spaces):
    """The head after 300 full-batch steps."""
    graph, params = nnx.split(task.make_head(DIM, spaces, nnx.Rngs(0)))
    optimizer = optax.adam(3e-2)
    slots, states = make_slots(values), jnp.asarray(x, jnp.float32)

    def loss(p):
        return task.loss_fn(nnx.merge(graph, p)(states), slots, spaces).mean()

    def step(carry, _):
        value, grads = jax.value_and_grad(loss)(carry[0])
        updates, state = optimizer.update(grads, carry[1])
        return (optax.apply_updates(carry[0], updates), state), value

    start = (params, optimizer.init(params))
    (params, _), losses = jax.jit(lambda c: jax.lax.scan(step, c, None, length=300))(start)
    assert np.isfinite(losses).all() and losses[-1] < 0.7 * losses[0]
    return nnx.merge(graph, params)


@pytest.mark.parametrize("name", CASES)
def test_what_can_be_learnt_is_learnt(name):
    task, x, values, spaces, trivial = CASES[name]()
    head = trained(task, x[:, :NUM_TRAIN], values[:, :NUM_TRAIN], spaces)
    held_out, truth = x[:, NUM_TRAIN:], values[:, NUM_TRAIN:]
    found = task.predict(head(jnp.asarray(held_out, jnp.float32)), make_slots(truth), spaces)
    for s, space in enumerate(spaces):
        said, targets = _cut(np.asarray(found[s]), spaces, s), _cut_targets(truth[s], space)
        figures = task.metrics(said, targets)
        if task.baselines is None:
            shares = np.array(space.class_counts) / NUM_TRAIN
            theirs = task.metrics(np.tile(shares, (NUM_TEST, 1)), targets)
        else:
            train = [{"targets": {task.name: v}} for v in values[s, :NUM_TRAIN]]
            baselines = task.baselines(BaselineInputs(space, train, [{}] * NUM_TEST))
            theirs = task.metrics(baselines[trivial], targets)
        for metric, value in figures.items():
            if metric in task.lower_is_better:
                assert value < 0.5 * theirs[metric], metric
            else:
                assert value > theirs[metric] + 0.05, metric
        assert figures[task.primary_metric] > 0.8
