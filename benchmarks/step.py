"""One training step over seven ragged modalities: packed against padded, and against PyTorch.

    python -m benchmarks.step --json [--peer torch] [--repeats 5]

The step is the trainer's own (model, losses, gradients, AdamW) on synthetic inputs of realistic
lengths, 16 samples of each of seven kinds. `packed` is one pack as the planner lays it, or several
(`--packs`), whose gradients are accumulated or which lie on several devices (`--devices`); `padded`
is one padded batch per kind, as wide as its longest sample rounded up to 16, through the same
model. `--peer torch` adds the same step in PyTorch (`torch_step`), padded and packed, in f32 and
bf16. Each contestant has a process of its own, for its peak memory; they take turns, and the
order turns round every time. Figures:

    tokens_per_s_best, _median    useful (real) tokens a second, of the best and the median step
    tokens_per_cpu_s              the same by processor time, which a loaded machine distorts less
    fill, stream_fill             used share of token slots and of part slots
    useful_gflops_per_core        operations that real tokens need, over the median step and cores
    attention_share               attention measured alone over the median step
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import sys
from typing import Any

from benchmarks.measure import print_json
from benchmarks.shapes import Shape
from benchmarks.timing_worker import Worker, take_turns

# Name -> (module, flags).
OURS = {"packed": ["--layout", "packed"], "padded": ["--layout", "padded"]}
PEERS = {
    "torch_padded_f32": ["--layout", "padded", "--dtype", "float32"],
    "torch_packed_f32": ["--layout", "packed", "--dtype", "float32"],
    "torch_padded_bf16": ["--layout", "padded", "--dtype", "bfloat16"],
    "torch_packed_bf16": ["--layout", "packed", "--dtype", "bfloat16"],
}
RATIOS = (
    ("packed", "padded"),
    ("packed", "torch_padded_f32"),
    ("packed", "torch_packed_f32"),
    ("packed", "torch_padded_bf16"),
    ("packed", "torch_packed_bf16"),
)


def figures(about: dict[str, Any], steps: list[dict[str, float]], cores: int) -> dict[str, Any]:
    """What is reported of one contestant."""
    walls = [step["wall_s"] for step in steps]
    tokens, median = about["tokens"], statistics.median(walls)
    cpu_s = sum(step["cpu_s"] for step in steps) / len(steps)
    out = dict(about) | {
        "step_s_best": round(min(walls), 4),
        "step_s_median": round(median, 4),
        "step_cpu_s": round(cpu_s, 4),
        "tokens_per_s_best": round(tokens / min(walls), 1),
        "tokens_per_s_median": round(tokens / median, 1),
        "tokens_per_cpu_s": round(tokens / cpu_s, 1),
        "useful_gflops_per_core": round(about["useful_flops"] / median / cores / 1e9, 2),
        "useful_gflops_per_cpu_s": round(about["useful_flops"] / cpu_s / 1e9, 2),
    }
    if "attention_s" in about:
        out["attention_share"] = round(about["attention_s"] / median, 3)
        useful = about["useful_attention_flops"] / about["attention_s"] / cores / 1e9
        out["attention_gflops_per_core"] = round(useful, 2)
    return out


def ratios(found: dict[str, dict[str, Any]]) -> dict[str, dict[str, float]]:
    """Useful tokens a second of one contestant over another, and their peak memory."""
    out = {}
    for ours, theirs in RATIOS:
        if ours in found and theirs in found:
            a, b = found[ours], found[theirs]
            out[f"{ours}/{theirs}"] = {
                key: round(a[key] / b[key], 3)
                for key in (
                    "tokens_per_s_best",
                    "tokens_per_s_median",
                    "tokens_per_cpu_s",
                    "peak_rss_mib",
                )
            }
    return out


def run_peer_script(path: str, shape: Shape, dtype: str, repeats: int) -> dict[str, Any]:
    """The last line of a script that takes the flags below and prints one JSON object."""
    command = [sys.executable, path, "--pad", "longest", "--dtype", dtype]
    command += ["--per-modality", str(shape.samples), "--layers", str(shape.layers)]
    command += ["--dim", str(shape.width), "--heads", str(shape.heads), "--steps", str(repeats)]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    return json.loads(done.stdout.splitlines()[-1])


def main(arguments: list[str] | None = None) -> dict[str, Any]:
    parser = argparse.ArgumentParser(description="Packed, padded and PyTorch training steps.")
    parser.add_argument("--json", action="store_true", help="print one JSON object")
    parser.add_argument("--samples", type=int, default=16, help="of each modality")
    parser.add_argument("--layers", type=int, default=12)
    parser.add_argument("--width", type=int, default=384)
    parser.add_argument("--heads", type=int, default=6)
    parser.add_argument("--row_widths", default="1024", help="of packed rows, such as 512,1024")
    parser.add_argument("--dtype", choices=("float32", "bfloat16"), default="float32")
    parser.add_argument("--attention", default="auto", help="path of both of ours")
    parser.add_argument("--scan", action="store_true", help="scan the layers of ours")
    parser.add_argument("--packs", type=int, default=1, help="packed rows in as many microbatches")
    parser.add_argument("--devices", type=int, default=1, help="simulated; they share the packs")
    parser.add_argument("--only", default="", help="of ours: packed or padded; empty is both")
    parser.add_argument("--peer", choices=("", "torch"), default="")
    parser.add_argument("--peers", default="", help="some of them, with commas; empty is all")
    parser.add_argument("--peer_script", default="", help="a script to run as a peer, too")
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--scale", type=float, default=1.0, help="shortens all inputs")
    flags = parser.parse_args(arguments)
    shape = Shape(flags.layers, flags.width, flags.heads, flags.samples)
    same = ["--row_widths", flags.row_widths, "--seed", flags.seed, "--scale", flags.scale]
    for name in ("layers", "width", "heads", "samples"):
        same += [f"--{name}", getattr(shape, name)]
    same = [str(word) for word in same]
    own = ["--dtype", flags.dtype, "--attention", flags.attention]
    own += ["--scan"] if flags.scan else []
    if flags.devices < 1 or flags.packs % flags.devices:
        parser.error(f"--packs {flags.packs} do not divide over --devices {flags.devices}")
    cut = ["--packs", str(flags.packs), "--devices", str(flags.devices)]
    workers: dict[str, Worker] = {}
    try:
        for name, words in OURS.items():
            if flags.only in ("", name):
                workers[name] = Worker(
                    "benchmarks.jax_step", [*words, *own, *same, *(cut if name == "packed" else [])]
                )
        for name, words in PEERS.items() if flags.peer else ():
            if not flags.peers or name in flags.peers.split(","):
                workers[name] = Worker("benchmarks.torch_step", [*words, *same])
        take_turns(workers, flags.repeats)
        cores = len(os.sched_getaffinity(0))
        found = {
            name: figures(worker.finish(), worker.steps, cores) for name, worker in workers.items()
        }
    finally:
        for worker in workers.values():
            worker.kill()
    values: dict[str, Any] = {
        "benchmark": "step",
        "shape": vars(shape),
        "row_widths": flags.row_widths,
        "dtype": flags.dtype,
        "repeats": flags.repeats,
        "packs": flags.packs,
        "devices": flags.devices,
        "cores": cores,
        "contestants": found,
        "ratios": ratios(found),
    }
    if flags.peer_script:
        values["peer_script"] = {
            dtype: run_peer_script(flags.peer_script, shape, dtype, flags.repeats)
            for dtype in ("f32", "bf16")
        }
    if flags.json:
        print_json(values)
    else:
        for name, part in [*found.items(), *values["ratios"].items()]:
            print(name)
            print("".join(f"    {key}: {value}\n" for key, value in part.items()), end="")
    return values


if __name__ == "__main__":
    main()
