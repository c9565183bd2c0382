"""The training step, compiled for the devices at hand and not run: memory, operations, traffic."""

from __future__ import annotations

import dataclasses
import math
import time
from collections.abc import Callable, Mapping
from typing import Any

import jax
import numpy as np

from multimed_jax.config import RunConfig
from multimed_jax.data.assemble import empty_batch
from multimed_jax.data.layout import Layout
from multimed_jax.model import ModelSpec
from multimed_jax.optim import GROUPS, group_of
from multimed_jax.planning.hlo import Program, read_program
from multimed_jax.sharding import batch_sharding, is_gathered, path_name, whole_leaves
from multimed_jax.steps import jit_train_step
from multimed_jax.types import TrainState

# The program is read and never run: its machine code need not be fast. Halves the time.
_NO_MACHINE_CODE = {
    "xla_backend_optimization_level": "0",
    "xla_llvm_disable_expensive_passes": True,
}


@dataclasses.dataclass(frozen=True)
class Measured:
    """What a compiled step takes on each device.

    Attributes:
        params: elements of the parameters by group.
        state_bytes: of the whole state: "params", "moments", "average", "rest".
        device_bytes: "params", "moments", "average", "rest", "batch" and "gradients" by the
            shardings; "arguments", "temporaries" and "peak" by the compiler. Gradients are among
            the temporaries. The peak is arguments, temporaries and results that are no donated
            argument.
        ways: devices over which the state is cut.
        gathered_theory: bytes that a device must gather in a step, see `gathered_bytes`.
        whole: path -> bytes of the leaves of at least a kibibyte that every device holds whole.
        program: products and collectives of a step on one device.
        compile_s: processor seconds of tracing, lowering and compiling; all threads together, so
            that they hardly depend on what else the machine does.
    """

    params: Mapping[str, int]
    state_bytes: Mapping[str, int]
    device_bytes: Mapping[str, int]
    ways: int
    gathered_theory: int
    whole: Mapping[str, int]
    program: Program
    compile_s: float

    @property
    def argument_excess(self) -> float:
        """State bytes a device holds by the shardings, over its even share, less 1.

        `arguments` may be less than state and batch: what a step does not read of a batch is no
        argument of the compiled program.
        """
        held = sum(self.device_bytes[name] for name in self.state_bytes)
        return held / (sum(self.state_bytes.values()) / self.ways) - 1.0


def measure(
    config: RunConfig, spec: ModelSpec, layout: Layout, mesh: jax.sharding.Mesh
) -> Measured:
    """Compiles the step of a run for a mesh."""
    start = time.process_time()
    step, _, state = jit_train_step(config, spec, mesh)
    batch = abstract_batch(layout, mesh)
    with jax.set_mesh(mesh):
        compiled = step.lower(state, batch).compile(compiler_options=_NO_MACHINE_CODE)
    compile_s = time.process_time() - start
    memory = compiled.memory_analysis()
    parts = _parts(state)
    cut = {name: _bytes(tree, _shard_size) for name, tree in parts.items()}
    results = memory.output_size_in_bytes - memory.alias_size_in_bytes
    device = cut | {
        "batch": _bytes(batch, _shard_size),
        "gradients": cut["params"],
        "arguments": memory.argument_size_in_bytes,
        "temporaries": memory.temp_size_in_bytes,
        "peak": memory.argument_size_in_bytes + memory.temp_size_in_bytes + results,
    }
    params: dict[str, int] = dict.fromkeys(GROUPS, 0)
    for path, leaf in jax.tree_util.tree_leaves_with_path(state.params):
        params[group_of(path)] += leaf.size
    whole = {path: 4 * size for path, size in whole_leaves(state, mesh).items() if size >= 256}
    return Measured(
        params=params,
        state_bytes={name: _bytes(tree, _whole_size) for name, tree in parts.items()},
        device_bytes=device,
        ways=mesh.shape["fsdp"] * mesh.shape["tensor"],
        gathered_theory=gathered_bytes(config, state),
        whole=whole,
        program=read_program(compiled.as_text()),
        compile_s=compile_s,
    )


def abstract_batch(layout: Layout, mesh: jax.sharding.Mesh) -> Any:
    """Shapes, dtypes and shardings of the run's batches."""
    sharding = batch_sharding(mesh)
    one = empty_batch(layout, np.zeros((1, 2), np.int32))
    return jax.tree.map(
        lambda a: jax.ShapeDtypeStruct((layout.lanes, *a.shape[1:]), a.dtype, sharding=sharding),
        one,
    )


def gathered_bytes(config: RunConfig, state: TrainState) -> int:
    """Bytes that a device must gather in a step, where parameters lie cut over `fsdp`.

    A layer's weights once in the forward and once in the backward pass, in the compute dtype; the
    parameters beside the layers once, in float32; all of it for each microbatch.
    """
    per_weight = np.dtype(np.float32).itemsize
    total = 0
    for path, leaf in jax.tree_util.tree_leaves_with_path(state.params):
        spec, shape = leaf.sharding.spec, leaf.sharding.mesh.shape
        if not is_gathered(spec):
            continue
        name = path_name(path)
        ways = math.prod(shape[a] for a in spec if isinstance(a, str) and a != "fsdp")
        in_layers = name.startswith("trunk/layers/")
        wide = leaf.ndim > (2 if config.model.scan_layers else 1)
        half = in_layers and wide and config.model.dtype == "bfloat16"
        times = 2 if in_layers else 1
        total += leaf.size // ways * times * (2 if half else per_weight)
    return total * config.optim.accumulate


# ------------------------------------------------------------------------------- internals


def _parts(state: TrainState) -> dict[str, Any]:
    rest = (state.step, state.model_state, state.weighting_state, state.rng)
    return {
        "params": state.params,
        "moments": state.opt_state,
        "average": state.ema,
        "rest": rest,
    }


def _whole_size(leaf: Any) -> int:
    return leaf.size


def _shard_size(leaf: Any) -> int:
    return math.prod(leaf.sharding.shard_shape(leaf.shape))


def _bytes(tree: Any, size: Callable[[Any], int]) -> int:
    return sum(size(leaf) * leaf.dtype.itemsize for leaf in jax.tree.leaves(tree))
