"""The rule table, and that a step gives the same figures however the mesh is cut."""

from __future__ import annotations

import dataclasses

import jax
import numpy as np
import pytest
from jax.sharding import AxisType

from multimed_jax.config import (
    AlignmentConfig,
    MeshConfig,
    ModelConfig,
    OptimConfig,
    ScheduleConfig,
)
from multimed_jax.data.layout import make_layout
from multimed_jax.data.loader import TrainLoader
from multimed_jax.model import ModelSpec
from multimed_jax.sharding import (
    AXES,
    batch_sharding,
    check_width,
    make_mesh,
    param_spec,
    whole_leaves,
)
from multimed_jax.steps import jit_train_step, make_predict_step
from multimed_jax.types import UserError
from tests.data.fakes import TOY, A, make_setup
from tests.questions import TEXT, QuestionSource

MESHES = [(1, 1, 1), (8, 1, 1), (2, 2, 2), (1, 8, 1), (1, 1, 4)]
RATE = ScheduleConfig("constant", 1e-2)
# Compiled fast rather than to run fast.
QUICK = {"xla_backend_optimization_level": "0", "xla_llvm_disable_expensive_passes": True}
WIDE = ModelConfig(d_model=32, num_layers=2, num_heads=4)


def mesh_of(shape: tuple[int, int, int]) -> jax.sharding.Mesh:
    devices = jax.devices()[: int(np.prod(shape))]
    return jax.make_mesh(shape, AXES, axis_types=(AxisType.Auto,) * 3, devices=devices)


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    """Eight packs of a toy modality, texts and halves."""
    setup = make_setup(
        [QuestionSource(num=96)],
        tmp_path_factory.mktemp("sharded"),
        modalities=(A, TEXT),
        tasks=(TOY,),
        lanes=8,
        rows=2,
        row_width=64,
        window=48,
    )
    optim = OptimConfig({g: RATE for g in ("tokenizers", "trunk", "heads")}, weight_decay=0.01)
    align = AlignmentConfig(weight=0.5, pair_rate=0.5, dim=8)
    config = dataclasses.replace(setup.config, optim=optim, alignment=align, model=WIDE)
    layout = make_layout(config, setup.sources, setup.sizes)
    loader = TrainLoader(config, layout, setup.sources, setup.sizes, setup.namespaces)
    batch = next(loader)
    loader.close()
    return config, setup.namespaces, batch


def run(data, shape, steps: int = 2, accumulate: int = 1, **model):
    """Losses by step, the metrics of the last, and the parameters."""
    config, namespaces, batch = data
    optim = dataclasses.replace(config.optim, accumulate=accumulate)
    model = dataclasses.replace(config.model, **model)
    config = dataclasses.replace(config, optim=optim, model=model)
    spec = ModelSpec(model, config.modalities, config.tasks, namespaces, config.alignment)
    mesh = mesh_of(shape)
    step, fresh, shapes = jit_train_step(config, spec, mesh)
    losses, metrics = [], {}
    with jax.set_mesh(mesh):
        state = jax.device_put(fresh(), jax.tree.map(lambda s: s.sharding, shapes))
        sent = jax.device_put(batch, batch_sharding(mesh))
        compiled = step.lower(state, sent).compile(compiler_options=QUICK)
        for _ in range(steps):
            state, metrics = compiled(state, sent)
            losses.append(float(metrics["loss"]))
    return losses, jax.device_get(metrics), jax.device_get(state.params)


def predictions(data, shape):
    """Of a fresh state."""
    config, namespaces, batch = data
    spec = ModelSpec(config.model, config.modalities, config.tasks, namespaces, config.alignment)
    mesh = mesh_of(shape)
    _, fresh, shapes = jit_train_step(config, spec, mesh)
    with jax.set_mesh(mesh):
        state = jax.device_put(fresh(), jax.tree.map(lambda s: s.sharding, shapes))
        sent = jax.device_put(batch, batch_sharding(mesh))
        predict = jax.jit(make_predict_step(spec), out_shardings=batch_sharding(mesh))
        lowered = predict.lower(state.params, state.model_state, sent)
        return jax.device_get(
            lowered.compile(compiler_options=QUICK)(state.params, state.model_state, sent)["toy"]
        )


@pytest.fixture(scope="module")
def reference(data):
    return run(data, (1, 1, 1))


def assert_same_figures(found, wanted):
    np.testing.assert_allclose(found[0], wanted[0], rtol=1e-5)
    assert wanted[1]["alignment_loss"] > 0.1
    for name in ("alignment_loss", "grad_norm"):
        np.testing.assert_allclose(found[1][name], wanted[1][name], rtol=1e-5, err_msg=name)
    for name in ("task_loss", "task_weight"):
        for task, values in wanted[1][name].items():
            np.testing.assert_allclose(found[1][name][task], values, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("shape", MESHES[1:])
def test_every_mesh_gives_the_same_figures(data, reference, shape):
    """Loss, its parts, the alignment over the global batch, gradient norm."""
    assert_same_figures(run(data, shape), reference)


def test_predictions_of_a_mesh(data):
    found, wanted = predictions(data, (2, 2, 2)), predictions(data, (1, 1, 1))
    np.testing.assert_allclose(found, wanted, rtol=1e-5, atol=1e-6)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("shape", "model"),
    [
        ((2, 2, 2), dict(scan_layers=True)),
        ((1, 8, 1), dict(scan_layers=True, remat="dots")),
        ((2, 2, 2), dict(remat="full")),
        ((1, 1, 1), dict(remat="dots")),
    ],
)
def test_scan_and_remat_change_no_figure_on_a_mesh(data, reference, shape, model):
    if "scan_layers" in model:  # its layers start from other draws
        reference = run(data, (1, 1, 1), scan_layers=True)
    assert_same_figures(run(data, shape, **model), reference)


@pytest.mark.slow
def test_microbatches_on_a_mesh(data):
    """The contrast is that of each microbatch: compared with the same ones on one device."""
    wanted = run(data, (1, 1, 1), accumulate=2)
    assert_same_figures(run(data, (2, 2, 2), accumulate=2), wanted)


@pytest.mark.slow
def test_bfloat16_on_a_mesh(data):
    """Rounding depends on the order of sums: to bfloat16's three digits."""
    wanted = run(data, (1, 1, 1), dtype="bfloat16")
    found = run(data, (2, 2, 2), dtype="bfloat16")
    np.testing.assert_allclose(found[0], wanted[0], rtol=1e-2)
    assert found[0] != run(data, (1, 1, 1))[0]


# ------------------------------------------------------------------------------- the table


def specs(shape):
    mesh = mesh_of(shape)
    return lambda path, *size: tuple(param_spec(path, size, mesh))


def test_pairs_of_the_tensor_axis():
    spec = specs((2, 2, 2))
    assert spec("params/trunk/layers/0/qkv/kernel", 16, 3, 16) == ("fsdp", None, "tensor")
    assert spec("opt/mu/trunk/layers/qkv/kernel", 2, 16, 3, 16) == (None, "fsdp", None, "tensor")
    assert spec("params/trunk/layers/0/out/kernel", 16, 16) == ("tensor", "fsdp")
    assert spec("params/trunk/layers/0/mlp_in/kernel", 16, 64) == ("fsdp", "tensor")
    assert spec("ema/trunk/layers/0/mlp_out/kernel", 64, 16) == ("tensor", "fsdp")


def test_fsdp_takes_another_dimension_where_its_own_does_not_divide():
    spec = specs((1, 8, 1))
    assert spec("params/trunk/layers/0/mlp_in/kernel", 12, 48) == (None, "fsdp")
    assert spec("params/heads/toy/kernel", 512, 3) == ("fsdp", None)
    assert spec("params/tokenizers/x/table/embedding", 1001, 512) == (None, "fsdp")
    # The layers of a stack are not cut: a scan reads them one by one.
    assert spec("params/trunk/layers/mlp_in/kernel", 8, 12, 30) == ()
    assert spec("params/trunk/layers/mlp_in/kernel", 8, 16, 30) == (None, "fsdp", None)


def test_small_leaves_stay_whole():
    spec = specs((1, 8, 1))
    assert spec("params/trunk/norm/scale", 64) == ()
    assert spec("params/trunk/norm/scale", 1024) == ("fsdp",)
    # What counts is one layer's part of a stack, for that is what is gathered.
    assert spec("params/trunk/layers/norm_mlp/scale", 48, 64) == ()
    assert spec("params/trunk/layers/norm_mlp/scale", 48, 1024) == (None, "fsdp")
    assert spec("step") == ()


def test_moments_and_averages_lie_as_their_parameters(data):
    config, namespaces, _ = data
    config = dataclasses.replace(config, optim=dataclasses.replace(config.optim, ema_decay=0.9))
    spec = ModelSpec(config.model, config.modalities, config.tasks, namespaces, config.alignment)
    mesh = mesh_of((1, 8, 1))
    _, _, shapes = jit_train_step(config, spec, mesh)
    params = {
        name: leaf.sharding.spec
        for name, leaf in _by_path(shapes.params).items()
        if leaf.size > 256
    }
    for tree in (shapes.opt_state, shapes.ema):
        leaves = _by_path(tree)
        for name, cut in params.items():
            same = [
                leaf for path, leaf in leaves.items() if path.endswith("/" + name) or path == name
            ]
            assert same and all(leaf.sharding.spec == cut for leaf in same), name
    cut = [name for name, spec in params.items() if "fsdp" in tuple(spec)]
    assert len(cut) == len(params)


def test_leaves_that_stay_whole_are_listed():
    state = {
        "trunk": {"layers": {"qkv": {"kernel": np.zeros((9, 3, 9 * 99))}}},
        "step": np.zeros(()),
    }
    whole = whole_leaves(state, mesh_of((1, 8, 1)))
    assert whole == {"trunk/layers/qkv/kernel": 9 * 3 * 9 * 99, "step": 1}
    assert whole_leaves(state, mesh_of((8, 1, 1))) == {}


def test_heads_that_the_tensor_axis_does_not_divide_are_refused():
    mesh = make_mesh(MeshConfig(data=2, tensor=4))
    check_width(mesh, WIDE)
    with pytest.raises(UserError, match=r"tensor is 4, .*num_heads \(6\)"):
        check_width(mesh, dataclasses.replace(WIDE, num_heads=6))


def _by_path(tree):
    from multimed_jax.sharding import path_name

    found = jax.tree_util.tree_leaves_with_path(tree)
    return {path_name(path): leaf for path, leaf in found}
