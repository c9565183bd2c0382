"""Paths of packed attention: operations a second, forward and with gradients, by row width.

    python -m benchmarks.attention --json [--widths 128,256,512,1024] [--paths dense,cpu]

Rows are packed with samples of the lengths of `benchmarks.shapes` (those that fit a row), so a path
that leaves other samples' scores out is seen to. All paths that run on the devices at hand take
turns. Figures, per core of a CPU and per device of others:

    useful_gflops    of scores between tokens of one sample
    total_gflops     of all [T, T] scores, which the dense path computes
    by_cpu_s         useful operations by processor time (CPUs only)

The backward pass counts twice the forward one. `agreement` is the largest difference from the
dense path, in units of the largest figure.
"""

from __future__ import annotations

import argparse
import os
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from benchmarks.measure import alternate, print_json
from benchmarks.shapes import KINDS, draw_lengths
from multimed_jax.layers.attention import PLATFORMS, choose, packed_attention
from multimed_jax.layers.sight import Sight, make_sight


def packed_segments(width: int, rows: int, seed: int) -> np.ndarray:
    """Segment numbers of rows that are filled, the longest samples first, by what fits best."""
    rng = np.random.default_rng(seed)
    lengths: list[int] = []
    while sum(lengths) < width * rows:
        lengths += [int(draw_lengths(kind, 1, rng)[0]) for kind in KINDS]
        lengths = [n for n in lengths if n <= width]
    used = np.zeros(rows, int)
    segments = np.zeros((rows, width), np.int32)
    for number, n in enumerate(sorted(lengths, reverse=True), 1):
        free = np.where(used + n <= width, used, -1)
        row = int(free.argmax())
        if free[row] < 0:
            continue
        segments[row, used[row] : used[row] + n] = number
        used[row] += n
    return segments


def useful_pairs(segments: np.ndarray) -> int:
    """Pairs of tokens that see each other."""
    counts = [np.unique(row[row > 0], return_counts=True)[1] for row in segments]
    return int(sum((n.astype(np.int64) ** 2).sum() for n in counts))


def available_paths(sight: Sight, depth: int, dtype: str) -> list[str]:
    """Paths that run on these devices and rows without a fallback."""
    backend = jax.default_backend()
    fitting = [p for p, platform in PLATFORMS.items() if platform in (backend, "cpu")]
    return ["dense"] + [p for p in fitting if choose(p, sight, depth, dtype, backend) == p]


def run_width(width: int, flags: argparse.Namespace) -> dict[str, Any]:
    """The figures of every path on rows of one width."""
    rows = max(1, flags.tokens // width)
    segments = packed_segments(width, rows, flags.seed)
    # Every sample is one run of tokens, and padding lies behind them.
    most = max(len(np.unique(row)) for row in segments)
    sight = make_sight(jnp.asarray(segments), contiguous=True, max_runs=most)
    rng = np.random.default_rng(flags.seed)
    size = (4, rows, flags.heads, width, flags.depth)
    q, k, v, g = jnp.asarray(rng.standard_normal(size, np.float32), flags.dtype)
    g = g * (sight.segment_ids > 0)[:, None, :, None].astype(g.dtype)
    paths = available_paths(sight, flags.depth, flags.dtype)
    if flags.paths:
        paths = [p for p in paths if p in flags.paths.split(",")]
    calls, results = {}, {}
    for path in paths:

        def forward(q, k, v, sight, path=path):
            return packed_attention(q, k, v, sight, path)

        def both(q, k, v, sight, g, path=path):
            out, back = jax.vjp(lambda *qkv: packed_attention(*qkv, sight, path), q, k, v)
            return out, *back(g)

        only, with_gradients = jax.jit(forward), jax.jit(both)
        results[path] = jax.device_get(with_gradients(q, k, v, sight, g))
        calls[f"{path} forward"] = lambda f=only: jax.block_until_ready(f(q, k, v, sight))
        calls[f"{path} both"] = lambda f=with_gradients: jax.block_until_ready(f(q, k, v, sight, g))
    times = alternate(calls, flags.repeats)
    workers = len(os.sched_getaffinity(0)) if jax.default_backend() == "cpu" else 1
    each = 4 * flags.heads * flags.depth
    useful, total = each * useful_pairs(segments), each * rows * width**2
    found: dict[str, Any] = {"rows": rows, "useful_share": round(useful / total, 3)}
    real = (segments > 0)[:, None, :, None]
    for path in paths:
        found[path] = {}
        for name, passes in (("forward", 1), ("both", 3)):
            timed = times[f"{path} {name}"]
            found[path][name] = {
                "best_s": round(timed.best_s, 5),
                "useful_gflops": _short(passes * useful / timed.best_s / workers / 1e9),
                "total_gflops": _short(passes * total / timed.best_s / workers / 1e9),
                "by_cpu_s": _rate(passes * useful, timed.median_cpu_s),
            }
        if "dense" in results:
            pairs = zip(results[path], results["dense"], strict=True)
            found[path]["agreement"] = max(
                float(np.abs((np.float32(a) - np.float32(b)) * real).max() / np.abs(b).max())
                for a, b in pairs
            )
    return found


def _rate(operations: float, cpu_s: float) -> float | None:
    """GF per CPU second; None where the clock saw no time pass."""
    return _short(operations / cpu_s / 1e9) if cpu_s > 0 else None


def _short(value: float) -> float:
    """Four digits."""
    return float(f"{value:.4g}")


def main(arguments: list[str] | None = None) -> dict[str, Any]:
    parser = argparse.ArgumentParser(description="Speed of the paths of packed attention.")
    parser.add_argument("--widths", default="128,256,512,1024")
    parser.add_argument("--tokens", type=int, default=8192, help="of all rows together")
    parser.add_argument("--heads", type=int, default=6)
    parser.add_argument("--depth", type=int, default=64, help="width of a head")
    parser.add_argument("--dtype", choices=("float32", "bfloat16"), default="float32")
    parser.add_argument("--paths", default="", help="some of them, with commas; empty is all")
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--json", action="store_true", help="print one JSON object")
    flags = parser.parse_args(arguments)
    values: dict[str, Any] = {"benchmark": "attention", "dtype": flags.dtype}
    for width in map(int, flags.widths.split(",")):
        values[f"T={width}"] = run_width(width, flags)
    if flags.json:
        print_json(values)
    else:
        for name, value in values.items():
            print(f"{name}: {value}")
    return values


if __name__ == "__main__":
    main()
