"""The worker of `benchmarks.loader` that reads images through the trainer's own pipeline.

A step is one pass: a loader is made anew, goes on where the last one stopped, and gives batches
until so many images were seen; planning is part of it. `--train` trains instead and says what the
log says.
"""

from __future__ import annotations

import argparse
import dataclasses
import json
import statistics
import tempfile
from pathlib import Path

from benchmarks.image_set import SHOWN, SPLIT, run_config
from benchmarks.timing_worker import serve
from multimed_jax.config import RunConfig
from multimed_jax.data.layout import make_layout
from multimed_jax.data.loader import TrainLoader
from multimed_jax.data.record_cache import CacheBudget, CachedRecords
from multimed_jax.data.sizes import load_sizes
from multimed_jax.data.sources import namespaces, open_source


def serve_passes(config: RunConfig, images: int, warm: int) -> None:
    """Answers requests for passes over so many images, after one of `warm` images."""
    source = open_source(config.data.sources[0], config.data_dir, SPLIT)
    budget = CacheBudget(config.data.cache_mib)
    source = dataclasses.replace(source, records=CachedRecords(source.records, budget))
    sizes = load_sizes(source, config.modalities, config.tasks, config.data_dir)
    layout = make_layout(config, [source], [sizes])
    spaces = {task.name: namespaces([source], task.name) for task in config.tasks}
    cursor = None

    def take_pass(count: int = images) -> None:
        nonlocal cursor
        loader = TrainLoader(config, layout, [source], [sizes], spaces, cursor)
        seen = 0
        while seen < count:
            batch = next(loader)
            seen += int((batch.record[..., 0] >= 0).sum())
        cursor = batch.cursor
        loader.close()

    take_pass(warm)
    take_pass()
    serve(take_pass, {"images": images, "segments": layout.segments})


def input_wait(workdir: Path) -> dict[str, float]:
    """Medians of what a run has logged, without the first line, which holds the compilation."""
    rows = [json.loads(line) for line in (workdir / "metrics.jsonl").read_text().splitlines()]
    out = {}
    for name in ("input_wait", "steps_per_s", "tokens_per_s"):
        values = [row["value"] for row in rows if row["name"] == name][1:]
        out[name] = round(float(statistics.median(values)), 5)
        out[f"{name}_lines"] = len(values)
    return out


def train(config: RunConfig) -> dict[str, float]:
    """Trains, a pack on each device, and gives what the log says."""
    import jax

    from multimed_jax.preemption import stop_on_signals
    from multimed_jax.train import train_and_evaluate

    lanes = jax.device_count()
    config = dataclasses.replace(config, data=dataclasses.replace(config.data, lanes=lanes))
    with tempfile.TemporaryDirectory() as folder, stop_on_signals() as stop:
        train_and_evaluate(config, Path(folder) / "run", stop)
        return input_wait(Path(folder) / "run")


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--data_dir", required=True)
    parser.add_argument("--images", type=int, required=True, help="of a pass")
    parser.add_argument("--batch", type=int, required=True)
    parser.add_argument("--threads", type=int, required=True)
    parser.add_argument("--cache_mib", type=int, default=0)
    parser.add_argument("--decoded_cache", default="", help="a folder")
    parser.add_argument("--augment", action="store_true")
    parser.add_argument("--side", type=int, default=SHOWN)
    parser.add_argument("--train", type=int, default=0, help="steps")
    parser.add_argument("--width", type=int, default=8)
    parser.add_argument("--layers", type=int, default=1)
    flags = parser.parse_args()
    config = run_config(
        Path(flags.data_dir),
        batch=flags.batch,
        threads=flags.threads,
        cache_mib=flags.cache_mib,
        decoded_cache=flags.decoded_cache,
        augment=flags.augment,
        side=flags.side,
        width=flags.width,
        layers=flags.layers,
        steps=max(1, flags.train),
    )
    if flags.train:
        print(json.dumps(train(config)), flush=True)
        return
    # A cache is filled by the draws of three epochs; without one, one batch starts all threads.
    kept = flags.cache_mib or flags.decoded_cache
    epochs = 3 * flags.images if kept else flags.batch
    serve_passes(config, flags.images, epochs)


if __name__ == "__main__":
    main()
