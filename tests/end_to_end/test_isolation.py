"""No sample of a pack reaches another: every stream, stem and head, on records of all phantoms."""

from __future__ import annotations

import contextlib
import dataclasses
from pathlib import Path
from typing import Any

import jax
import numpy as np
import pytest
from flax import nnx

from configs.all_phantoms import get_config
from multimed_jax.config import RunConfig
from multimed_jax.config_io import from_dict
from multimed_jax.data.layout import make_layout
from multimed_jax.data.loader import EvalLoader
from multimed_jax.data.sizes import load_sizes
from multimed_jax.data.sources import namespaces, open_source
from multimed_jax.model import Model, ModelSpec
from multimed_jax.types import Batch
from tests.end_to_end.conftest import command

pytestmark = [pytest.mark.slow, pytest.mark.timeout(900)]

# Other stems than those of the config.
STEMS = {"eeg": {"stem": "lstm"}, "genomics": {"stem": "kmer", "kmer": 4, "stride": 8}}


@pytest.fixture(scope="module")
def all_data(tmp_path_factory) -> Path:
    """A data_dir with phantoms/all_tiny."""
    folder = tmp_path_factory.mktemp("data")
    done = command(
        "tfds_builders", "build", "phantoms", "--config", "all_tiny", "--data_dir", folder
    )
    assert done.returncode == 0, done.stderr
    return folder


def make_config(data: Path, stems: bool) -> RunConfig:
    values: dict[str, Any] = get_config().to_dict() | {"data_dir": str(data)}
    values["data"] |= {"sources": ({"name": "phantoms/all_tiny", "weight": 1.0},)}
    values["data"] |= {"lanes": 1, "rows": 6, "row_width": 128, "window": 256, "threads": 0}
    values["model"] = {"d_model": 32, "num_layers": 2, "num_heads": 2, "fusion": "early"}
    if stems:
        values["modalities"] = tuple(
            spec.with_options(**STEMS[spec.name])
            for spec in values["modalities"]
            if spec.name in STEMS
        )
        values["tasks"] = tuple(t for t in values["tasks"] if t.name in ("motor", "expression"))
        values["alignment"] = {"weight": 0.0}
    return from_dict(RunConfig, values)


def make(data: Path, tmp_path: Path, stems: bool) -> tuple[ModelSpec, Batch]:
    """The model of the config in small, and a batch in which every stream has two samples."""
    config = make_config(data, stems)
    source = open_source(config.data.sources[0], config.data_dir, "test")
    sizes = load_sizes(source, config.modalities, config.tasks, tmp_path)
    layout = make_layout(config, [source], [sizes])
    spaces = {task.name: namespaces([source], task.name) for task in config.tasks}
    loader = EvalLoader(config, layout, [source], [sizes], spaces)
    spec = ModelSpec(config.model, config.modalities, config.tasks, spaces)
    with contextlib.closing(loader):
        for batch in loader:
            found = [len(np.unique(s.segment[s.segment > 0])) for s in batch.streams.values()]
            # Volumes and bags are rare: one of them is enough.
            if min(found) >= 1:
                return spec, batch
    raise AssertionError("no pack holds every stream")


def perturbed(batch: Batch, name: str, segment: int) -> Batch:
    """The batch with other parts of one stream in one segment, each of them valid."""
    stream = batch.streams[name]
    parts, inside = np.array(stream.parts), stream.segment == segment
    rng = np.random.default_rng(segment)
    if parts.dtype.kind == "f":
        parts[inside] += rng.normal(size=parts[inside].shape).astype(np.float32)
    else:
        parts[inside] = np.roll(parts[inside], 1, axis=0)
        parts[inside] = np.where(parts[inside] == parts[inside][:1], 1, parts[inside])
    changed = dataclasses.replace(stream, parts=parts)
    return dataclasses.replace(batch, streams=batch.streams | {name: changed})


def without(batch: Batch, segment: int) -> Batch:
    """The batch whose targets of one segment weigh nothing."""
    targets = {
        name: dataclasses.replace(
            slots, weight=np.where(slots.segment == segment, 0.0, slots.weight).astype(np.float32)
        )
        for name, slots in batch.targets.items()
    }
    return dataclasses.replace(batch, targets=targets)


@pytest.mark.parametrize("stems", [False, True], ids=["all", "other_stems"])
def test_no_sample_reaches_another(stems, all_data, tmp_path):
    spec, batch = make(all_data, tmp_path, stems)
    graphdef, params, rest = nnx.split(Model(spec, nnx.Rngs(0)), nnx.Param, ...)
    # Louder than at the start: a leak must not hide in small residual branches.
    params = jax.tree.map(lambda x: 2 * x if x.ndim > 1 else x, nnx.to_pure_dict(params))
    rest = nnx.to_pure_dict(rest)

    def run(params, batch: Batch):
        outputs = nnx.merge(graphdef, params, rest)(batch)
        total, found = 0.0, {}
        for task in spec.tasks:
            slots, spaces = batch.targets[task.name], spec.namespaces[task.name]
            losses = task.loss_fn(outputs[task.name], slots, spaces)
            total += (losses * slots.weight).sum()
            found[task.name] = task.predict(outputs[task.name], slots, spaces), losses
        return total, found

    step = jax.jit(jax.value_and_grad(run, has_aux=True))
    for name, stream in batch.streams.items():
        segment = int(np.unique(stream.segment[stream.segment > 0])[0])
        before = jax.device_get(step(params, without(batch, segment)))
        after = jax.device_get(step(params, without(perturbed(batch, name, segment), segment)))
        moved = False
        for task in spec.tasks:
            slots = batch.targets[task.name]
            mine = slots.segment[0] == segment
            others = (slots.segment[0] > 0) & ~mine  # what stands in an empty slot means nothing
            for old, new in zip(before[0][1][task.name], after[0][1][task.name], strict=True):
                moved |= differ(old[0, mine], new[0, mine])
                np.testing.assert_array_equal(
                    old[0, others], new[0, others], err_msg=f"{name}: {task.name}"
                )
        assert moved, f"a change of {name} in its own sample changed nothing"
        assert before[0][0] == after[0][0]
        for x, y in zip(jax.tree.leaves(before[1]), jax.tree.leaves(after[1]), strict=True):
            np.testing.assert_allclose(x, y, rtol=1e-4, atol=1e-6, err_msg=name)


def differ(x: Any, y: Any) -> bool:
    return bool(np.abs(np.nan_to_num(x) - np.nan_to_num(y)).max(initial=0.0) > 1e-6)
