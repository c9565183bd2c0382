"""The worker of `benchmarks.step` that runs this trainer's own step, on one batch."""

from __future__ import annotations

import argparse
import dataclasses
import tempfile
import time
from pathlib import Path
from typing import Any

import jax
import numpy as np

from benchmarks.shapes import Shape, attention_flops, step_lengths, useful_flops
from benchmarks.synthetic import fill_of, make_problem, packed_batch, padded_batch
from benchmarks.timing_worker import serve
from multimed_jax.config import MeshConfig
from multimed_jax.layers.attention import choose, packed_attention
from multimed_jax.layers.sight import make_sight
from multimed_jax.sharding import PACK_AXES, batch_sharding, make_mesh
from multimed_jax.steps import jit_train_step
from multimed_jax.types import Batch


def attention_seconds(
    batch: Batch, shape: Shape, path: str, dtype: str, mesh: jax.sharding.Mesh
) -> float:
    """Seconds of attention alone in a step: all layers and grids, forward and backward."""
    depth = shape.width // shape.heads
    rows = jax.sharding.PartitionSpec(PACK_AXES)
    rng, total = np.random.default_rng(0), 0.0
    for grid in batch.grids:
        segment = jax.numpy.asarray(grid.segment_ids.reshape(-1, grid.segment_ids.shape[-1]))
        size = (4, segment.shape[0], shape.heads, segment.shape[1], depth)
        q, k, v, g = jax.numpy.asarray(rng.standard_normal(size, np.float32), dtype)

        def both(q, k, v, g, segment):
            out, back = jax.vjp(
                lambda q, k, v: packed_attention(q, k, v, make_sight(segment), path), q, k, v
            )
            return out, back(g)

        run: Any = jax.jit(jax.shard_map(both, in_specs=rows, out_specs=rows, check_vma=False))
        inputs = jax.device_put((q, k, v, g, segment), jax.sharding.NamedSharding(mesh, rows))
        jax.block_until_ready(run(*inputs))
        times = []
        for _ in range(3):
            start = time.perf_counter()
            jax.block_until_ready(run(*inputs))
            times.append(time.perf_counter() - start)
        total += shape.layers * min(times)
    return total


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--layout", choices=("packed", "padded"), required=True)
    parser.add_argument("--row_widths", required=True, help="such as 512,1024")
    parser.add_argument("--dtype", choices=("float32", "bfloat16"), required=True)
    parser.add_argument("--attention", required=True)
    parser.add_argument("--scan", action="store_true")
    parser.add_argument("--packs", type=int, default=1)
    parser.add_argument("--devices", type=int, default=1)
    parser.add_argument("--seed", type=int, required=True)
    parser.add_argument("--scale", type=float, required=True)
    for name in ("layers", "width", "heads", "samples"):
        parser.add_argument(f"--{name}", type=int, required=True)
    flags = parser.parse_args()
    jax.config.update("jax_num_cpu_devices", flags.devices)
    shape = Shape(flags.layers, flags.width, flags.heads, flags.samples)
    lengths = step_lengths(shape, flags.seed, flags.scale)
    with tempfile.TemporaryDirectory() as folder:
        problem = make_problem(
            lengths,
            shape,
            Path(folder),
            dtype=flags.dtype,
            attention=flags.attention,
            scan=flags.scan,
        )
        start = time.perf_counter()
        if flags.layout == "padded":
            batch = padded_batch(problem)
        else:
            widths = [int(w) for w in flags.row_widths.split(",")]
            batch = packed_batch(problem, widths, flags.packs)
        host_s = time.perf_counter() - start
    optim = dataclasses.replace(problem.config.optim, accumulate=flags.packs // flags.devices)
    config = dataclasses.replace(problem.config, optim=optim, mesh=MeshConfig(data=flags.devices))
    mesh = make_mesh(config.mesh)
    jax.set_mesh(mesh)
    step, fresh, shapes = jit_train_step(config, problem.spec, mesh)
    state = jax.jit(fresh, out_shardings=jax.tree.map(lambda a: a.sharding, shapes))()
    token_fill, stream_fill = fill_of(batch)
    on_device = jax.device_put(batch, batch_sharding(mesh))
    start = time.perf_counter()
    losses = []

    def take_step() -> None:
        nonlocal state
        state, metrics = step(state, on_device)
        losses.append(float(metrics["loss"]))

    take_step()
    compile_s = time.perf_counter() - start
    take_step()
    paths = [
        choose(
            flags.attention,
            make_sight(g.segment_ids[0]),
            shape.width // shape.heads,
            flags.dtype,
            jax.default_backend(),
        )
        for g in batch.grids
    ]
    seconds = attention_seconds(batch, shape, flags.attention, flags.dtype, mesh)
    about = {
        "framework": f"jax {jax.__version__}",
        "tokens": int(sum(n.sum() for n in lengths.values())),
        "params": sum(leaf.size for leaf in jax.tree.leaves(state.params)),
        "fill": round(token_fill, 4),
        "stream_fill": round(stream_fill, 4),
        "grids": [list(g.segment_ids.shape[1:]) for g in batch.grids],
        "attention_paths": sorted(set(paths)),
        "attention_s": round(seconds, 4),
        "useful_flops": useful_flops(lengths, shape),
        "useful_attention_flops": attention_flops(lengths, shape),
        "compile_s": round(compile_s, 1),
        "host_s": round(host_s, 4),
    }
    serve(take_step, about)
    assert np.isfinite(losses).all() and step._cache_size() == 1


if __name__ == "__main__":
    main()
