"""Records a second, resident memory and size of builds, plain and by Beam.

    python -m benchmarks.builder_scale --json [--records 1000,10000] [--beam_records 20000]
    python -m benchmarks.builder_scale --json --records '' --beam_records '' --read 4000

The records are phantoms of at most 1 kB: brief EEG trials (config `eeg_N`) and windows of DNA
(`dna_N`). Goals: the rate of the largest build is at least 0.9 of that of the smallest, its peak of
resident memory at most 50 MiB above, and the Direct runner of Beam is faster with two workers than
with one. Issue 5 asks for `--records 10000,1000000`.

`--read` builds a source that is read: so many made films, JPEG of `--side` pixels in the layout of
kermany_chest_xray, without Beam and with one and two workers. Goal: two workers are faster than
one.

Every build has a process of its own. The smallest of the ladder is built before and after the
others, and the turns of one and two workers alternate, so a load that comes and goes shows. Rates
count `download_and_prepare` alone, without the imports; processor time counts the workers too.
"""

from __future__ import annotations

import argparse
import json
import os
import resource
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from benchmarks.measure import cpu_seconds, peak_rss_mib, print_json, rss_mib

LEAST_RATIO, MOST_GROWTH_MIB = 0.9, 50.0
WORKERS = (1, 2)


def build(
    name: str, config: str, num_workers: int | None, data_dir: str, manual_dir: str | None = None
) -> dict[str, Any]:
    """Builds a source in this process; plain, or by Beam with so many workers."""
    import tensorflow_datasets as tfds
    from absl import logging

    from tfds_builders.__main__ import load_builder

    logging.set_verbosity(logging.ERROR)
    tfds.disable_progress_bar()
    flags: dict[str, Any] = {"manual_dir": manual_dir}
    if num_workers is not None:
        from apache_beam.options.pipeline_options import PipelineOptions

        given = [f"--direct_num_workers={num_workers}", "--direct_running_mode=multi_processing"]
        flags |= {"beam_runner": "DirectRunner", "beam_options": PipelineOptions(given)}
    download_config = tfds.download.DownloadConfig(**flags)
    builder = load_builder(name)(config=config, data_dir=data_dir)
    before_mib = rss_mib()
    wall_s, cpu_s = time.perf_counter(), cpu_seconds()
    builder.download_and_prepare(download_config=download_config)
    wall_s, cpu_s = time.perf_counter() - wall_s, cpu_seconds() - cpu_s
    splits = builder.info.splits.values()
    records = sum(split.num_examples for split in splits)
    size = sum(path.stat().st_size for path in Path(builder.data_dir).iterdir())
    worker_kib = resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss
    return {
        "config": config,
        "beam_workers": num_workers,
        "records": records,
        "seconds": round(wall_s, 2),
        "cpu_seconds": round(cpu_s, 2),
        "records_per_s": round(records / wall_s, 1),
        "records_per_cpu_s": round(records / cpu_s, 1),
        "before_mib": round(before_mib, 1),
        "peak_mib": round(peak_rss_mib(), 1),
        "peak_mib_of_largest_worker": None if num_workers is None else round(worker_kib / 1024, 1),
        "bytes_per_record": round(sum(split.num_bytes for split in splits) / records, 1),
        "disk_bytes_per_record": round(size / records, 1),
        "shards": sum(split.num_shards for split in splits),
        "content_hash": builder.info.metadata["content_hash"],
    }


def build_apart(
    config: str,
    num_workers: int | None = None,
    name: str = "phantoms",
    manual_dir: str | None = None,
) -> dict[str, Any]:
    """`build` in a process of its own, into a folder that goes away."""
    with tempfile.TemporaryDirectory() as data_dir:
        command = [sys.executable, "-m", "benchmarks.builder_scale", "--build", f"{name}/{config}"]
        command += ["--data_dir", data_dir]
        command += [] if num_workers is None else ["--workers", str(num_workers)]
        command += [] if manual_dir is None else ["--manual_dir", manual_dir]
        done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        raise RuntimeError(done.stderr)
    values = json.loads(done.stdout.splitlines()[-1])
    print(f"{config}: {values['seconds']} s, {values['peak_mib']} MiB", file=sys.stderr, flush=True)
    return {**values, "load_1min": round(os.getloadavg()[0], 2)}


def ladder(kind: str, records: Sequence[int]) -> dict[str, Any]:
    """Plain builds of so many records; the smallest twice."""
    builds = [build_apart(f"{kind}_{number}") for number in (*records, records[0])]
    first, largest = [builds[0], builds[-1]], builds[-2]
    ratios = {
        f"ratio_{name}": round(largest[name] / statistics.mean(b[name] for b in first), 3)
        for name in ("records_per_s", "records_per_cpu_s")
    }
    growth_mib = round(largest["peak_mib"] - max(b["peak_mib"] for b in first), 1)
    met = {
        "rate": ratios["ratio_records_per_s"] >= LEAST_RATIO,
        "rate_by_processor_time": ratios["ratio_records_per_cpu_s"] >= LEAST_RATIO,
        "memory": growth_mib <= MOST_GROWTH_MIB,
    }
    return {"builds": builds, **ratios, "growth_mib": growth_mib, "met": met}


def workers(kind: str, records: int, repeats: int) -> dict[str, Any]:
    """Builds by Beam with one worker and with two."""
    builds = []
    for turn in range(repeats):
        for number in WORKERS if turn % 2 == 0 else reversed(WORKERS):
            builds.append(build_apart(f"{kind}_{records}", number))
    best = {n: min(b["seconds"] for b in builds if b["beam_workers"] == n) for n in WORKERS}
    assert len({b["content_hash"] for b in builds}) == 1
    speedup = round(best[1] / best[2], 3)
    return {"builds": builds, "speedup_best": speedup, "met": speedup > 1}


def numbers(text: str) -> tuple[int, ...]:
    """Ascending numbers of a list with commas."""
    return tuple(sorted(int(part) for part in text.split(",") if part))


def make_films(folder: Path, number: int, side: int) -> None:
    """Writes films of two classes, five of each patient, no two alike."""
    rng = np.random.default_rng(0)
    kinds = (("NORMAL", "NORMAL-{patient}-{i:04d}"), ("PNEUMONIA", "VIRUS-{patient}-{i:04d}"))
    for part in ("train", "test"):
        for kind, _ in kinds:
            (folder / part / kind).mkdir(parents=True)
    for i in range(number):
        coarse = rng.integers(0, 256, (16, 16), np.uint8)
        image = Image.fromarray(coarse).resize((side, side), Image.Resampling.BICUBIC)
        noisy = np.asarray(image, np.int16) + rng.integers(-12, 13, (side, side))
        kind, stem = kinds[i % 2]
        name = stem.format(patient=100_000 + i // 10 * 2 + i % 2, i=i)
        place = folder / ("test" if i // 10 % 10 == 9 else "train") / kind / f"{name}.jpeg"
        Image.fromarray(np.clip(noisy, 0, 255).astype(np.uint8)).save(place, "JPEG", quality=90)


def read(number: int, side: int, repeats: int) -> dict[str, Any]:
    """Builds of so many films without Beam, with one worker and with two, in turn."""
    counts = (None, *WORKERS)
    builds = []
    with tempfile.TemporaryDirectory() as folder:
        make_films(Path(folder), number, side)
        for turn in range(repeats):
            for count in counts if turn % 2 == 0 else reversed(counts):
                builds.append(build_apart("original", count, "kermany_chest_xray", folder))
    assert len({b["content_hash"] for b in builds}) == 1
    best = {
        str(n or "plain"): min(b["seconds"] for b in builds if b["beam_workers"] == n)
        for n in counts
    }
    return {
        "builds": builds,
        "side": side,
        "best_seconds": best,
        "speedup_best": round(best["1"] / best["2"], 3),
        "speedup_best_over_plain": round(best["plain"] / best["2"], 3),
        "met": best["1"] > best["2"],
    }


def main() -> None:
    parser = argparse.ArgumentParser(description="Rate and memory of builds of small records.")
    parser.add_argument("--records", type=numbers, default=(1_000, 10_000), help="plain builds")
    parser.add_argument("--beam_records", type=numbers, default=(20_000,), help="'' for none")
    parser.add_argument("--kinds", default="eeg,dna", help="of eeg, dna")
    parser.add_argument("--repeats", type=int, default=2, help="turns of one and two workers")
    parser.add_argument("--read", type=int, default=0, help="films of a source that is read")
    parser.add_argument("--side", type=int, default=256, help="pixels of a film")
    parser.add_argument("--json", action="store_true", help="one line of JSON (the default)")
    parser.add_argument("--build", metavar="NAME/CONFIG", help="build one in this process")
    parser.add_argument("--workers", type=int, help="of --build, by Beam")
    parser.add_argument("--data_dir", help="of --build")
    parser.add_argument("--manual_dir", help="of --build")
    flags = parser.parse_args()
    if flags.build:
        name, config = flags.build.split("/")
        made = build(name, config, flags.workers, flags.data_dir, flags.manual_dir)
        print(json.dumps(made), flush=True)
        return
    values: dict[str, Any] = {"benchmark": "builder_scale"}
    if flags.read:
        values[f"read_{flags.read}"] = read(flags.read, flags.side, flags.repeats)
    for kind in flags.kinds.split(","):
        if flags.records:
            values[f"{kind}_plain"] = ladder(kind, flags.records)
        for records in flags.beam_records:
            values[f"{kind}_beam_{records}"] = workers(kind, records, flags.repeats)
    print_json(values)


if __name__ == "__main__":
    main()
