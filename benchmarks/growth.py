"""How memory, traffic and compile time of the training step grow with devices and with depth.

    python -m benchmarks.growth [--json] [--devices 1,8,64,512] [--d_model 512] [--layers 8]

Nothing runs: the step of three modalities and two tasks is compiled for simulated devices, each
device count in a process of its own, with two packs a device, and the compiler's own account is
read. Parameters lie over `fsdp` = all devices. Goals, each with its figure and whether it is met:

    arguments      state bytes a device takes, within 2 % of state / N
    temporaries    do not grow in N (largest over N = 8)
    all_gather     bytes at most 1.1 x theory (weights twice, the rest of the parameters once)
    all_to_all     none
    compile_n      seconds at the largest N at most 2 x those at N = 1
    compile_depth  seconds of 48 layers at most 1.5 x those of 4
    tensor         on fsdp x tensor, no all-gather but that of weights
"""

from __future__ import annotations

import argparse
import dataclasses
import json
import os
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

PACKS_PER_DEVICE = 2
MODALITIES, TASKS = ("xray", "scrna", "text"), ("disease", "cell_type")
DEPTHS = (4, 48)
LIMITS = dict(
    arguments=0.02, temporaries=1.02, all_gather=1.1, all_to_all=0, compile_n=2.0, compile_depth=1.5
)


def child(flags: argparse.Namespace) -> dict[str, Any]:
    """Compiles one program, in a process whose devices are set."""
    import jax

    from configs import quickstart
    from multimed_jax.command import resolve_config
    from multimed_jax.config import MeshConfig
    from multimed_jax.planning.measure import measure
    from multimed_jax.planning.setup import plan_data
    from multimed_jax.sharding import make_mesh

    jax.config.update("jax_enable_compilation_cache", False)
    config = resolve_config(quickstart.get_config())
    ways = flags.child // flags.tensor
    config = dataclasses.replace(
        config,
        data_dir="",
        modalities=tuple(m for m in config.modalities if m.name in MODALITIES),
        tasks=tuple(t for t in config.tasks if t.name in TASKS),
        mesh=MeshConfig(data=1, fsdp=ways, tensor=flags.tensor),
        data=dataclasses.replace(
            config.data, lanes=PACKS_PER_DEVICE * ways, rows=flags.rows, row_width=256
        ),
        model=dataclasses.replace(
            config.model,
            d_model=flags.d_model,
            num_heads=max(1, flags.d_model // 64),
            num_layers=flags.layers,
            scan_layers=True,
            remat=flags.remat,
            dtype=flags.dtype,
        ),
    )
    mesh = make_mesh(config.mesh)
    with tempfile.TemporaryDirectory() as folder:
        planned = plan_data(config, Path(folder))
    found = measure(planned.config, planned.spec, planned.layout, mesh)
    return {
        "devices": flags.child,
        "tensor": flags.tensor,
        "layers": flags.layers,
        "state_bytes": sum(found.state_bytes.values()),
        "device_bytes": dict(found.device_bytes),
        "argument_excess": found.argument_excess,
        "gather_theory_bytes": found.gathered_theory,
        "traffic": found.program.traffic(),
        "dot_flops": found.program.dot_flops,
        "unknown_loops": found.program.unknown_loops,
        "whole_bytes": dict(found.whole),
        "compile_s": found.compile_s,
    }


def compiled(flags: argparse.Namespace, devices: int, layers: int, tensor: int = 1) -> dict:
    """The figures of one program, compiled in a process of its own."""
    command = [sys.executable, "-m", "benchmarks.growth", "--child", str(devices)]
    command += ["--layers", str(layers), "--tensor", str(tensor)]
    for name in ("d_model", "rows", "remat", "dtype"):
        command += [f"--{name}", str(getattr(flags, name))]
    xla = f"--xla_force_host_platform_device_count={devices}"
    done = subprocess.run(
        command,
        env=os.environ | {"XLA_FLAGS": xla, "JAX_PLATFORMS": "cpu"},
        capture_output=True,
        text=True,
        check=False,
    )
    if done.returncode:
        raise SystemExit(done.stderr)
    return json.loads(done.stdout.splitlines()[-1])


def judged(rows: list[dict], depths: list[dict], pair: dict | None) -> dict[str, dict[str, Any]]:
    """Goal -> its figure, its limit and whether it is met."""
    cut = [row for row in rows if row["devices"] > 1]
    base = min(cut, key=lambda row: row["devices"])
    last = max(rows, key=lambda row: row["devices"])

    def gathered(row: dict) -> int:
        return row["traffic"]["all-gather"]["bytes"] if "all-gather" in row["traffic"] else 0

    figures = {
        "arguments": max(abs(row["argument_excess"]) for row in cut),
        "temporaries": max(
            row["device_bytes"]["temporaries"] / base["device_bytes"]["temporaries"] for row in cut
        ),
        "all_gather": max(gathered(row) / row["gather_theory_bytes"] for row in cut),
        "all_to_all": sum(
            entry["count"]
            for row in [*rows, *([pair] if pair else [])]
            for kind, entry in row["traffic"].items()
            if kind.endswith("all-to-all")
        ),
        "compile_n": last["compile_s"] / rows[0]["compile_s"],
        "compile_depth": depths[-1]["compile_s"] / depths[0]["compile_s"],
    }
    limits = dict(LIMITS)
    if pair:
        figures["tensor"] = gathered(pair) / pair["gather_theory_bytes"]
        limits["tensor"] = LIMITS["all_gather"]
    return {
        name: {"figure": round(figure, 4), "limit": limits[name], "met": figure <= limits[name]}
        for name, figure in figures.items()
    }


def main() -> None:
    parser = argparse.ArgumentParser(description="Growth of the compiled step.")
    parser.add_argument("--devices", default="1,8,64,512")
    parser.add_argument("--d_model", type=int, default=512)
    parser.add_argument("--layers", type=int, default=8)
    parser.add_argument("--rows", type=int, default=4)
    parser.add_argument("--remat", default="none", choices=("none", "dots", "full"))
    parser.add_argument("--dtype", default="float32", choices=("float32", "bfloat16"))
    parser.add_argument("--tensor", type=int, default=1, help=argparse.SUPPRESS)
    parser.add_argument("--child", type=int, default=0, help=argparse.SUPPRESS)
    parser.add_argument("--json", action="store_true", help="print one JSON object")
    flags = parser.parse_args()
    if flags.child:
        print(json.dumps(child(flags)))
        return
    rows = [compiled(flags, int(n), flags.layers) for n in flags.devices.split(",")]
    depths = [compiled(flags, 8, depth) for depth in DEPTHS]
    pair = compiled(flags, 8, flags.layers, tensor=4)
    goals = judged(rows, depths, pair)
    values = {"benchmark": "growth", "goals": goals, "programs": [*rows, *depths, pair]}
    if flags.json:
        print(json.dumps(values))
        return
    print(f"{'devices':>8}{'tensor':>7}{'layers':>7}{'arguments':>11}{'temporary':>11}", end="")
    print(f"{'gathered':>10}{'theory':>10}{'compile':>9}   MiB on each device; seconds")
    for row in values["programs"]:
        sizes = [row["device_bytes"][name] for name in ("arguments", "temporaries")]
        kind = row["traffic"]["all-gather"]["bytes"] if "all-gather" in row["traffic"] else 0
        cells = [n / 2**20 for n in (*sizes, kind, row["gather_theory_bytes"])]
        print(f"{row['devices']:>8}{row['tensor']:>7}{row['layers']:>7}{cells[0]:>11.2f}", end="")
        print(f"{cells[1]:>11.2f}{cells[2]:>10.2f}{cells[3]:>10.2f}{row['compile_s']:>9.1f}")
    for name, goal in goals.items():
        met = "met" if goal["met"] else "MISSED"
        print(f"{name:<14}{goal['figure']:>10} (limit {goal['limit']}) {met}")


if __name__ == "__main__":
    main()
