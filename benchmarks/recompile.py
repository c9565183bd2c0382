"""Compilations of the training step over many mixed batches: after the first, there are none.

    python -m benchmarks.recompile --json [--batches 1000] [--data_dir DIR]

Batches come from the real planner and loader over the tiny phantoms of all ten modalities (built
into a temporary folder unless `--data_dir` has them), and each goes through the compiled step of a
tiny model. Batches differ in which modalities, tasks and lengths they hold; shapes may not.
"""

from __future__ import annotations

import argparse
import contextlib
import dataclasses
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import jax
import numpy as np

from benchmarks.measure import print_json
from configs import all_phantoms
from multimed_jax.command import resolve_config
from multimed_jax.config import DataConfig, EvalConfig, ModelConfig, RunConfig, SourceConfig
from multimed_jax.run import make_run

DATASET = "phantoms/all_tiny"


def make_config(data_dir: str, rows: int, row_width: int) -> RunConfig:
    """The config of all phantoms in small."""
    config = resolve_config(all_phantoms.get_config())
    return dataclasses.replace(
        config,
        data_dir=data_dir,
        data=DataConfig(
            (SourceConfig(DATASET, 1.0),),
            lanes=jax.device_count(),
            rows=rows,
            row_width=row_width,
            window=512,
            stream_slack=1.5,
            modality_dropout=0.2,
            threads=0,
        ),
        model=ModelConfig(d_model=16, num_layers=1, num_heads=2),
        eval=EvalConfig(splits=()),
    )


def build(data_dir: str) -> None:
    """Builds the tiny phantoms."""
    command = [sys.executable, "-m", "tfds_builders", "build", "phantoms"]
    command += ["--config", DATASET.split("/")[1], "--data_dir", data_dir]
    subprocess.run(command, check=True, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)


def count(config: RunConfig, workdir: Path, batches: int) -> dict[str, Any]:
    """Runs the batches through the step, and counts its compilations.

    `kinds` is how many sets of tasks and streams occurred together in a batch: it shows that
    batches were mixed.
    """
    run = make_run(config, workdir)
    state, kinds = run.init(), set()
    compiled: list[int] = []
    start = time.perf_counter()
    with contextlib.closing(run.train_batches(None)) as loader:
        for _, batch in zip(range(batches), loader, strict=False):
            streams = [name for name, s in batch.streams.items() if (s.segment > 0).any()]
            tasks = [name for name, slots in batch.targets.items() if (slots.weight > 0).any()]
            kinds.add((*streams, "|", *tasks, int((batch.record[..., 0] >= 0).sum())))
            state, metrics = run.train_step(state, run.put(batch))
            jax.block_until_ready(metrics["loss"])
            compiled.append(run.train_step.compilations())  # type: ignore[attr-defined]
    assert np.isfinite(float(metrics["loss"]))
    return {
        "benchmark": "recompile",
        "batches": len(compiled),
        "kinds": len(kinds),
        "compilations": compiled[-1],
        "after_warm_up": compiled[-1] - compiled[0],
        "met": compiled[-1] == compiled[0],
        "seconds": round(time.perf_counter() - start, 1),
    }


def main(arguments: list[str] | None = None) -> dict[str, Any]:
    parser = argparse.ArgumentParser(description="Compilations over many mixed batches.")
    parser.add_argument("--batches", type=int, default=1000)
    parser.add_argument("--data_dir", default="", help=f"where {DATASET} is; empty builds it")
    parser.add_argument("--rows", type=int, default=4)
    parser.add_argument("--row_width", type=int, default=128)
    parser.add_argument("--json", action="store_true", help="print one JSON object")
    flags = parser.parse_args(arguments)
    with tempfile.TemporaryDirectory() as folder:
        data_dir = flags.data_dir or folder
        if not flags.data_dir:
            build(data_dir)
        config = make_config(data_dir, flags.rows, flags.row_width)
        values = count(config, Path(folder) / "run", flags.batches)
    if flags.json:
        print_json(values)
    else:
        print("\n".join(f"{name}: {value}" for name, value in values.items()))
    return values


if __name__ == "__main__":
    main()
