"""Plans: figures against counts made here, the command, and what it refuses."""

from __future__ import annotations

import dataclasses
import json
import math

import jax
import numpy as np
import pytest
from jax.sharding import AxisType

from multimed_jax.config import MeshConfig, ModelConfig, OptimConfig, ScheduleConfig
from multimed_jax.optim import GROUPS
from multimed_jax.planning.formula import flops_per_token, layer_weights, run_time_s, tokens_per_s
from multimed_jax.planning.measure import gathered_bytes, measure
from multimed_jax.planning.mesh_text import parse_mesh
from multimed_jax.planning.setup import plan_data, synthetic_sizes
from multimed_jax.planning.table import plan_table, plan_values
from multimed_jax.sharding import AXES, mesh_sizes
from multimed_jax.specs import ANSWERS
from multimed_jax.steps import jit_train_step
from multimed_jax.types import UserError
from tests.data.fakes import TOY, FakeSource, make_config
from tests.end_to_end.conftest import command
from tests.questions import TEXT, VQA

RATE = ScheduleConfig("constant", 1e-3)


def test_flops_by_hand():
    """Width 4, one layer: 16 x (1 + 1 + 1 + 1) + 2 x 4 x 8 elements; 10 tokens are seen."""
    config = ModelConfig(d_model=4, num_layers=1, num_heads=1, mlp_ratio=2.0)
    assert layer_weights(config) == 128
    assert flops_per_token(config, 10.0) == 3 * (2 * 128 + 4 * 4 * 10)
    deep = dataclasses.replace(config, num_layers=7)
    assert flops_per_token(deep, 10.0) == 7 * flops_per_token(config, 10.0)


def test_time_by_hand():
    assert tokens_per_s(0.5, 2.0, 8, 1e9) == 8000
    assert run_time_s(100, 400.0, 8000.0) == 5


def test_meshes_of_the_flag():
    assert parse_mesh("data=2,tensor=4") == MeshConfig(2, 1, 4)
    assert parse_mesh("fsdp=-1") == MeshConfig(1, -1, 1)
    for text in ("data", "rows=2", "data=two", ""):
        with pytest.raises(UserError, match="accepted: data=A,fsdp=B,tensor=C"):
            parse_mesh(text)
    assert mesh_sizes(MeshConfig(-1, 4, 2), 512) == (64, 4, 2)
    with pytest.raises(UserError, match="data=3, fsdp=1, tensor=1, which does not divide the 8"):
        mesh_sizes(MeshConfig(3), 8)


def test_synthetic_samples_show_what_their_tasks_read():
    streams = TEXT.streams
    sizes = synthetic_sizes(streams, (TOY, VQA), 40)
    answers = [n for n, stream in enumerate(streams) if stream.kind == ANSWERS]
    (words,) = set(range(len(streams))) - set(answers)
    assert sizes.num_drawable == len(sizes.tokens)
    np.testing.assert_array_equal(sizes.tokens[:, answers].any(axis=1), sizes.has_target[:, 1])
    assert 0.4 < sizes.has_target[:, 1].mean() < 0.6
    longest = streams[words].max_parts
    assert sizes.tokens[:, words].min() == math.ceil(longest / 4 - 1e-9)
    assert sizes.tokens[:, words].max() == longest


@pytest.fixture(scope="module")
def planned(tmp_path_factory):
    source = FakeSource("one", {"a": [3, 4], "b": [2, 9]})
    config = dataclasses.replace(
        make_config([source], lanes=8),
        model=ModelConfig(d_model=64, num_layers=3, num_heads=2, scan_layers=True),
        optim=OptimConfig(dict.fromkeys(GROUPS, RATE), weight_decay=0.1, ema_decay=0.9),
    )
    mesh = jax.make_mesh((1, 8, 1), AXES, axis_types=(AxisType.Auto,) * 3)
    found = plan_data(config, tmp_path_factory.mktemp("plan"))
    return found, mesh, measure(found.config, found.spec, found.layout, mesh)


def test_bytes_are_those_of_the_state(planned):
    plan, mesh, measured = planned
    _, fresh, shapes = jit_train_step(plan.config, plan.spec, mesh)
    params = sum(leaf.size for leaf in jax.tree.leaves(shapes.params))
    assert sum(measured.params.values()) == params
    assert measured.state_bytes["params"] == measured.state_bytes["average"] == 4 * params
    assert 8 * params <= measured.state_bytes["moments"] < 8 * params + 100
    state = jax.device_put(fresh(), jax.tree.map(lambda s: s.sharding, shapes))
    on_first = [
        shard.data.nbytes
        for leaf in jax.tree.leaves(state)
        for shard in leaf.addressable_shards
        if shard.device == jax.devices()[0]
    ]
    parts = ("params", "moments", "average", "rest")
    assert sum(on_first) == sum(measured.device_bytes[part] for part in parts)
    device = measured.device_bytes
    # XLA aligns and pads arguments by little, and drops those that the step does not read.
    assert device["arguments"] == pytest.approx(sum(on_first) + device["batch"], rel=0.01)
    assert device["peak"] >= device["arguments"] + device["temporaries"]


def test_traffic_is_the_theory(planned):
    plan, mesh, measured = planned
    traffic = measured.program.traffic()
    assert traffic["all-gather"]["bytes"] <= 1.1 * measured.gathered_theory
    assert not [kind for kind in traffic if "all-to-all" in kind]
    assert measured.program.unknown_loops == 0
    # By hand: the kernels of 3 layers twice, everything else that is cut once.
    layers = 3 * (64 * 3 * 64 + 64 * 64 + 2 * 64 * 256)
    _, _, shapes = jit_train_step(plan.config, plan.spec, mesh)
    beside = sum(
        leaf.size
        for name, tree in shapes.params.items()
        for leaf in jax.tree.leaves(tree)
        if name != "trunk" and any(leaf.sharding.spec)
    )
    assert gathered_bytes(plan.config, shapes) == 4 * (2 * layers + beside)


def test_the_table_says_all(planned):
    plan, mesh, measured = planned
    values = plan_values(plan, measured, dict(mesh.shape), None, 0.4, 100.0)
    assert "synthetic lengths" in values["data"] and 0.5 < values["fill"]["token"] <= 1
    per_step = values["flops"]["model_per_token"] * values["batch"]["tokens_per_step"]
    seconds = values["time"]["seconds"] / plan.config.num_steps
    assert per_step / seconds == pytest.approx(0.4 * 100e12 * 8, rel=1e-3)
    # Padding, heads, tokenizers and masked scores come on top of the trunk's useful work.
    assert values["flops"]["compiled_per_token"] > values["flops"]["model_per_token"]
    table = plan_table(json.loads(json.dumps(values)))
    for word in ("synthetic", "all-gather", "temporaries", "stream", "hours"):
        assert word in table
    kept = [path for path in values["kept_whole"] if path.startswith("params/")]
    assert all(f"warning: {path} (" in table for path in kept)


@pytest.mark.slow
def test_the_command(tmp_path):
    """Without data, on 16 devices of which two cut the heads; then a mesh that does not fit."""
    out = tmp_path / "plan.json"
    flags = ("--config", "tests/end_to_end/tiny.py", f"--config.data_dir={tmp_path}")
    more = ("--config.model.scan_layers=True", "--config.data.lanes=8", "--rate=1000")
    mesh = "data=2,fsdp=4,tensor=2"
    done = command(
        "multimed_jax.plan", *flags, *more, "--devices=16", f"--mesh={mesh}", "--json", out
    )
    assert done.returncode == 0, done.stderr
    values = json.loads(out.read_text())
    assert values["mesh"] == {"data": 2, "fsdp": 4, "tensor": 2} and values["devices"] == 16
    assert "phantoms" in values["data"] and "synthetic" in values["data"]
    tokens = values["batch"]["tokens_per_step"]
    assert values["time"]["seconds"] == pytest.approx(40 * tokens / 1000, rel=1e-2)
    assert "plan for 16 devices" in done.stdout

    bad = command("multimed_jax.plan", *flags, "--devices=16", "--mesh=data=3,fsdp=5")
    assert bad.returncode == 1 and "data=3, fsdp=5, tensor=1" in bad.stderr
    assert "Traceback" not in bad.stderr
    bad = command("multimed_jax.plan", *flags, "--devices=3", "--mesh=fsdp=3")
    assert bad.returncode == 1 and "axes data x fsdp hold 3" in bad.stderr
    bad = command("multimed_jax.plan", *flags, "--devices=4", "--mesh=tensor=4")
    assert bad.returncode == 1 and "config.mesh.tensor is 4" in bad.stderr
