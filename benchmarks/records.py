"""A set of 10^7 records beside one of 10^5: opening, memory, random reads, data state.

    python -m benchmarks.records --json [--records 10000000] [--copies] [--group 16]

The sets are those of `record_set`: the larger has the shard of the smaller under many names, which
is sparse on disk and kind to the system's cache; `--copies` writes every byte (3.3 GB for 10^7).
`--group N` writes the shard again with N records a chunk. Each set is opened as the trainer opens
it, in a process of its own that has opened a set of 100 records before, so that no import counts;
the two take turns, and the order turns round every time. Figures:

    open_ms            source, sizes (with their spot check), layout and loader; the summary of
                       sizes is there, as from the second run on (`first_open_ms` makes it);
                       `open_cpu_ms` by processor time
    read_ms            of one random record, mean, once every shard has been opened
    read_cpu_ms        the same by processor time
    first_read_ms      of random records of which many open their shard: mean; and the largest
    rss_mib            growth of resident memory from before opening to after all reads and batches,
                       without the cache of parsed records; `private` leaves mapped files out
    state_bytes        of the data state, a lane
"""

from __future__ import annotations

import argparse
import contextlib
import json
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.measure import private_mib, report, rss_mib
from benchmarks.timing_worker import REPOSITORY

LANES, WINDOW, BATCHES = 4, 4096, 50
_BEST = ("open_ms", "open_cpu_ms", "read_ms", "read_cpu_ms")
GOALS = {"open_ms": 50.0, "growth_mib": 20.0, "read_ratio": 1.1, "read_ms": 2.0, "state_bytes": 16}


def run_config(data_dir: Path) -> Any:
    """A run over the set, without the cache of parsed records."""
    from benchmarks.record_set import NAME
    from multimed_jax import config as c
    from multimed_jax.modalities import genomics
    from multimed_jax.tasks import expression

    return c.RunConfig(
        method="benchmark",
        data_dir=str(data_dir),
        seed=0,
        num_steps=1,
        log_every_steps=1,
        modalities=(genomics.SPEC,),
        tasks=(expression.SPEC,),
        evals=(),
        data=c.DataConfig(
            (c.SourceConfig(NAME, 1.0),),
            lanes=LANES,
            rows=4,
            row_width=64,
            window=WINDOW,
            threads=0,
            cache_mib=0,
        ),
        model=c.ModelConfig(d_model=8, num_layers=1, num_heads=1),
        optim=c.OptimConfig(learning_rate={}, weight_decay=0.0),
        checkpoint=c.CheckpointConfig(every_steps=1),
    )


def open_set(data_dir: Path) -> tuple[Any, Any, dict[str, float]]:
    """What the trainer opens before its first batch: source, loader, milliseconds of each part."""
    from benchmarks.record_set import SPLIT
    from multimed_jax.data.layout import make_layout
    from multimed_jax.data.loader import TrainLoader
    from multimed_jax.data.sizes import load_sizes
    from multimed_jax.data.sources import namespaces, open_source

    config, clock, cpu = run_config(data_dir), [time.perf_counter()], time.process_time()
    source = open_source(config.data.sources[0], config.data_dir, SPLIT)
    clock.append(time.perf_counter())
    sizes = load_sizes(source, config.modalities, config.tasks, data_dir)
    clock.append(time.perf_counter())
    layout = make_layout(config, [source], [sizes])
    spaces = {task.name: namespaces([source], task.name) for task in config.tasks}
    loader = TrainLoader(config, layout, [source], [sizes], spaces)
    clock.append(time.perf_counter())
    cpu = 1e3 * (time.process_time() - cpu)
    source_ms, sizes_ms, loader_ms = (1e3 * float(d) for d in np.diff(clock))
    parts = {"source_ms": source_ms, "sizes_ms": sizes_ms, "layout_and_loader_ms": loader_ms}
    values = {"open_ms": source_ms + sizes_ms + loader_ms, "open_cpu_ms": cpu}
    return source, loader, values | parts


def measure_set(data_dir: Path, warm_dir: Path, reads: int, seed: int) -> dict[str, float]:
    """The figures of one set, in this process."""
    source, loader, _ = open_set(warm_dir)
    next(loader)
    loader.close()
    rss, private = rss_mib(), private_mib()
    source, loader, values = open_set(data_dir)
    values["open_rss_mib"] = rss_mib() - rss
    rng = np.random.default_rng(seed)
    first = _read(source, rng.integers(0, len(source), reads))
    values |= {"first_read_ms": first[0], "largest_read_ms": first[1]}
    mean, _, cpu = _read(source, rng.integers(0, len(source), reads))
    values |= {"read_ms": mean, "read_cpu_ms": cpu}
    with contextlib.closing(loader):
        for _ in range(BATCHES):
            batch = next(loader)
    values |= {"rss_mib": rss_mib() - rss, "private_mib": private_mib() - private}
    values["state_bytes"] = batch.cursor.nbytes / len(batch.cursor)
    values["records"] = len(source)
    return {name: round(value, 4) for name, value in values.items()}


def _read(source: Any, rows: np.ndarray) -> tuple[float, float, float]:
    """Milliseconds a record: mean, largest, by processor time."""
    largest, cpu, start = 0.0, time.process_time(), time.perf_counter()
    for row in rows.tolist():
        begun = time.perf_counter()
        source[row]
        largest = max(largest, time.perf_counter() - begun)
    wall, cpu = time.perf_counter() - start, time.process_time() - cpu
    return 1e3 * wall / len(rows), 1e3 * largest, 1e3 * cpu / len(rows)


def summary(found: dict[str, list[dict[str, float]]]) -> dict[str, Any]:
    """Medians of each set over its turns, their ratios, and the goals."""
    medians = {
        name: {key: round(statistics.median(t[key] for t in turns), 4) for key in turns[0]}
        for name, turns in found.items()
    }
    small, large = medians["small"], medians["large"]
    best = {
        name: {key: min(t[key] for t in turns) for key in _BEST} for name, turns in found.items()
    }
    cpu_ratio = best["large"]["read_cpu_ms"] / best["small"]["read_cpu_ms"]
    growth = large["rss_mib"] - small["rss_mib"]
    measured = {
        "open_ms": large["open_ms"],
        "growth_mib": round(growth, 2),
        "read_ratio": round(best["large"]["read_ms"] / best["small"]["read_ms"], 3),
        "read_ms": large["read_ms"],
        "state_bytes": large["state_bytes"],
    }
    return {
        "sets": medians,
        "best": best,
        "read_cpu_ratio": round(cpu_ratio, 3),
        "goals": {
            name: {"measured": measured[name], "at_most": goal, "met": measured[name] <= goal}
            for name, goal in GOALS.items()
        },
    }


def make_sets(folder: Path, records: int, base: int, copies: bool, group: int) -> dict[str, Any]:
    """Builds the sets below a folder, unless they are there; how long their first opening took."""
    from benchmarks import record_set

    out = {}
    for name, count in (("warm", 100), ("small", base)):
        if not (folder / name).exists():
            built = record_set.build_shard(folder / name, count)
            if group:
                record_set.regroup(built, group)
        start = time.perf_counter()
        open_set(folder / name)[1].close()
        out[f"count_{name}_s"] = round(time.perf_counter() - start, 2)
    if not (folder / "large").exists():
        version = next((folder / "small" / record_set.NAME).glob("[0-9]*"))
        record_set.widen(version, folder / "large", records // base, copies)
    source, loader, values = open_set(folder / "large")
    loader.close()
    return {**out, "first_open_ms": round(values["open_ms"], 2), "large_records": len(source)}


def main(arguments: list[str] | None = None) -> dict[str, Any]:
    parser = argparse.ArgumentParser(description="10^7 records beside 10^5.")
    parser.add_argument("--records", type=int, default=10_000_000, help="of the larger set")
    parser.add_argument("--base", type=int, default=100_000, help="of the smaller; one shard")
    parser.add_argument("--copies", action="store_true", help="copies of the shard, no links")
    parser.add_argument("--group", type=int, default=0, help="records a chunk; 0 as built")
    parser.add_argument("--reads", type=int, default=5000)
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--folder", default="", help="keeps the sets there; empty: a temporary one")
    parser.add_argument("--worker", default="", help=argparse.SUPPRESS)
    parser.add_argument("--seed", type=int, default=0, help=argparse.SUPPRESS)
    parser.add_argument("--json", action="store_true", help="print one JSON object")
    flags = parser.parse_args(arguments)
    if flags.worker:
        folder = Path(flags.folder)
        found = measure_set(folder / flags.worker, folder / "warm", flags.reads, flags.seed)
        print(json.dumps(found), flush=True)
        return found
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(flags.folder or temporary)
        made = make_sets(folder, flags.records, flags.base, flags.copies, flags.group)
        turns: dict[str, list[dict[str, float]]] = {"small": [], "large": []}
        for turn in range(flags.repeats):
            for name in ("small", "large") if turn % 2 == 0 else ("large", "small"):
                command = [sys.executable, "-m", "benchmarks.records", "--worker", name]
                command += ["--folder", str(folder), "--reads", str(flags.reads)]
                done = subprocess.run(
                    [*command, "--seed", str(turn)],
                    cwd=REPOSITORY,
                    stdout=subprocess.PIPE,
                    text=True,
                    check=True,
                )
                turns[name].append(json.loads(done.stdout.splitlines()[-1]))
    values = {
        "benchmark": "records",
        "fixture": {
            "shards": "copies" if flags.copies else "hard links of one",
            "records_a_chunk": flags.group or "as built",
            **made,
        },
        "repeats": flags.repeats,
        "reads": flags.reads,
        **summary(turns),
    }
    report(values, flags.json)
    return values


if __name__ == "__main__":
    main()
