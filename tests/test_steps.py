"""The training step: denominators, microbatches, meshes, loss weights, skipped updates."""

from __future__ import annotations

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.sharding import AxisType

from multimed_jax.config import (
    CheckpointConfig,
    DataConfig,
    MeshConfig,
    ModelConfig,
    OptimConfig,
    RunConfig,
    ScheduleConfig,
    SourceConfig,
)
from multimed_jax.layers.slot_loss import denominators, mean_loss, numerators
from multimed_jax.model import ModelSpec
from multimed_jax.optim import make_optimizer, make_schedule, make_weighting
from multimed_jax.sharding import (
    AXES,
    batch_sharding,
    check_lanes,
    make_mesh,
    param_spec,
    state_shardings,
)
from multimed_jax.specs import Namespace
from multimed_jax.steps import make_state, make_train_step
from multimed_jax.types import TargetSlots, UserError
from tests.toy import make_toy_modality, make_toy_task, pack

A, B = make_toy_modality("a", 91), make_toy_modality("b", 92)
TASK = make_toy_task("toy")
CONSTANT = ScheduleConfig("constant", 1e-2)


def make_config(**optim) -> RunConfig:
    return RunConfig(
        method="test",
        data_dir="",
        seed=0,
        num_steps=100,
        log_every_steps=1,
        modalities=(A, B),
        tasks=(TASK,),
        evals=(),
        data=DataConfig((SourceConfig("x", 1.0),), lanes=8, rows=2, row_width=12, window=64),
        model=ModelConfig(d_model=16, num_layers=1, num_heads=2),
        optim=OptimConfig(
            {"tokenizers": CONSTANT, "trunk": CONSTANT, "heads": CONSTANT},
            weight_decay=0.01,
            **optim,
        ),
        checkpoint=CheckpointConfig(every_steps=10),
    )


def make_batch():
    """Eight packs that differ in content, in number of targets and in weights."""
    rng = np.random.default_rng(0)

    def sample(a, b):
        return {"a.toy": rng.normal(size=(a, 3)), "b.toy": rng.normal(size=(b, 3))}

    packs = []
    for p in range(8):
        rows = [[sample(3, 2), sample(4, 0), sample(0, 3)], [sample(2, p % 4 + 1), sample(1, 1)]]
        batch = pack(rows, [*A.streams, *B.streams], 12, 24, list(rng.integers(0, 3, 5)), "toy")
        slots = batch.targets["toy"]
        weight = slots.weight.copy()
        weight[0, p % 5 :] *= rng.random()
        if p == 3:
            weight[:] = 0
        packs.append(
            dataclasses.replace(batch, targets={"toy": dataclasses.replace(slots, weight=weight)})
        )
    return jax.tree.map(lambda *x: np.concatenate(x), *packs)


BATCH = make_batch()
SPACES = {"toy": (Namespace("s", ("x", "y", "z"), (1, 1, 1)),)}


def run_steps(config: RunConfig, devices: int, num_steps: int = 3, axes=None):
    """Losses and the state after some steps on the first `devices` devices, cut as `axes` say."""
    spec = ModelSpec(config.model, config.modalities, config.tasks, SPACES)
    optimizer = make_optimizer(config.optim, config.num_steps)
    weighting = make_weighting(config.optim.lambdas, ["toy"], ["a", "b"], config.num_steps)
    mesh = jax.make_mesh(
        axes or (devices, 1, 1),
        AXES,
        axis_types=(AxisType.Auto,) * 3,
        devices=jax.devices()[:devices],
    )
    state = make_state(config, spec, optimizer, weighting)
    shardings = state_shardings(jax.eval_shape(lambda: state), mesh)
    step = jax.jit(
        make_train_step(config, spec, optimizer, weighting),
        in_shardings=(shardings, batch_sharding(mesh)),
        out_shardings=(shardings, None),
    )
    losses, metrics = [], {}
    with jax.set_mesh(mesh):
        state = jax.device_put(state, shardings)
        for _ in range(num_steps):
            state, metrics = step(state, jax.device_put(BATCH, batch_sharding(mesh)))
            losses.append(float(metrics["loss"]))
    return losses, jax.device_get(state), jax.device_get(metrics)


@pytest.fixture(scope="module")
def reference():
    return run_steps(make_config(), devices=1)


def test_slot_loss_by_hand():
    """Two packs; a fused slot counts under both modalities with one half each."""
    slots = TargetSlots(
        segment=np.array([[1, 2], [1, 0]]),
        value=np.zeros((2, 2), np.int32),
        weight=np.array([[1.0, 2.0], [3.0, 0.0]], np.float32),
        namespace=np.zeros((2, 2), np.int32),
        modality_share=np.array([[[0.5, 0.5], [1, 0]], [[0, 1], [0, 0]]], np.float32),
    )
    per_slot = jnp.array([[10.0, 20.0], [30.0, np.nan]])
    top, bottom = numerators(per_slot, slots), denominators(slots)
    np.testing.assert_allclose(top, [5 + 40, 5 + 90])
    np.testing.assert_allclose(bottom, [0.5 + 2, 0.5 + 3])
    np.testing.assert_allclose(mean_loss(top, bottom), [18.0, 95 / 3.5], rtol=1e-6)
    assert np.all(np.asarray(mean_loss(top * 0, bottom * 0)) == 0)


def test_microbatches_give_the_same_update(reference):
    """Packs differ in their number of targets: a denominator per microbatch would show."""
    losses, state, _ = run_steps(make_config(accumulate=4), devices=1)
    np.testing.assert_allclose(losses, reference[0], rtol=1e-5)
    jax.tree.map(
        lambda a, b: np.testing.assert_allclose(a, b, atol=2e-5),
        state.params,
        reference[1].params,
    )


@pytest.mark.parametrize("axes", [(8, 1, 1), (2, 2, 2)])
def test_eight_devices_give_the_same_losses(reference, axes):
    """Packs over eight devices; packs, parameters and heads over two each."""
    losses, _, metrics = run_steps(make_config(), devices=8, axes=axes)
    np.testing.assert_allclose(losses, reference[0], rtol=1e-5)
    np.testing.assert_allclose(
        metrics["task_weight"]["toy"], reference[2]["task_weight"]["toy"], rtol=1e-6
    )


def test_lambda_of_one_modality(reference):
    """lambda[toy/b] = 0 leaves lambda[toy/a] times the loss under a."""
    lambdas = {"toy": ScheduleConfig("constant", 2.0), "toy/b": ScheduleConfig("constant", 0.0)}
    losses, _, _ = run_steps(make_config(lambdas=lambdas), devices=1, num_steps=1)
    _, _, metrics = run_steps(make_config(), devices=1, num_steps=1)
    assert losses[0] == pytest.approx(2.0 * metrics["task_loss"]["toy"][0], rel=1e-6)


def test_unknown_lambda_is_named():
    with pytest.raises(UserError, match="'tow/b'.*tasks toy and modalities a, b"):
        make_weighting({"tow/b": CONSTANT}, ["toy"], ["a", "b"], 10)


def test_a_loss_that_is_not_finite_changes_no_parameter():
    config = make_config()
    bad = dataclasses.replace(
        TASK, loss_fn=lambda outputs, slots, spaces: outputs[..., 0] / jnp.zeros(())
    )
    config = dataclasses.replace(config, tasks=(bad,))
    _, state, metrics = run_steps(config, devices=1, num_steps=1)
    spec = ModelSpec(config.model, config.modalities, config.tasks, SPACES)
    optimizer = make_optimizer(config.optim, 100)
    fresh = make_state(config, spec, optimizer, make_weighting({}, ["toy"], ["a", "b"], 100))
    assert metrics["skipped"] == 1
    assert state.step == 1
    jax.tree.map(np.testing.assert_array_equal, state.params, jax.device_get(fresh.params))
    jax.tree.map(np.testing.assert_array_equal, state.opt_state, jax.device_get(fresh.opt_state))


def test_ema_follows_the_parameters():
    _, state, _ = run_steps(make_config(ema_decay=0.5), devices=1, num_steps=1)
    _, plain, _ = run_steps(make_config(), devices=1, num_steps=1)
    config = make_config(ema_decay=0.5)
    spec = ModelSpec(config.model, config.modalities, config.tasks, SPACES)
    start = make_state(
        config,
        spec,
        make_optimizer(config.optim, 100),
        make_weighting({}, ["toy"], ["a", "b"], 100),
    ).params
    jax.tree.map(
        lambda e, s, p: np.testing.assert_allclose(e, (s + p) / 2, atol=1e-6),
        state.ema,
        jax.device_get(start),
        plain.params,
    )


def test_schedules_at_known_steps():
    """Values worked out by hand."""
    cosine = make_schedule(ScheduleConfig("cosine", 1.0, 0.2, warmup_steps=10), 110)
    values = [np.asarray(cosine(s)) for s in (0, 5, 10, 60, 110)]
    np.testing.assert_allclose(values, [0.0, 0.5, 1.0, 0.6, 0.2], atol=1e-6)
    linear = make_schedule(ScheduleConfig("linear", 2.0, 1.0), 10)
    np.testing.assert_allclose([np.asarray(linear(s)) for s in (0, 5, 10)], [2.0, 1.5, 1.0])
    piecewise = make_schedule(
        ScheduleConfig("piecewise", 1.0, boundaries=(5, 8), scales=(0.1, 0.5)), 10
    )
    np.testing.assert_allclose(
        [np.asarray(piecewise(s)) for s in (4, 6, 9)], [1, 0.1, 0.05], rtol=1e-6
    )
    with pytest.raises(UserError, match="warmup_steps is 10"):
        make_schedule(ScheduleConfig("cosine", 1.0, warmup_steps=10), 10)


def test_mesh_and_lanes_that_do_not_divide():
    with pytest.raises(UserError, match="data=3"):
        make_mesh(MeshConfig(data=3))
    mesh = make_mesh(MeshConfig(data=-1, tensor=2))
    assert dict(mesh.shape) == {"data": 4, "fsdp": 1, "tensor": 2}
    with pytest.raises(UserError, match="lanes is 6"):
        check_lanes(mesh, 6, 1)
    check_lanes(mesh, 8, 2)


def test_rules_reach_the_parameters():
    mesh = make_mesh(MeshConfig(data=2, fsdp=2, tensor=2))

    def spec(path, shape):
        return tuple(param_spec(path, shape, mesh))

    assert spec("trunk/layers/0/qkv/kernel", (16, 3, 16)) == ("fsdp", None, "tensor")
    assert spec("opt/mu/trunk/layers/qkv/kernel", (2, 16, 3, 16)) == (
        None,
        "fsdp",
        None,
        "tensor",
    )
    assert spec("trunk/layers/0/out/kernel", (31, 16)) == (None, "fsdp")
    assert spec("trunk/norm/scale", (16,)) == ()
