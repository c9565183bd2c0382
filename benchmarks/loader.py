"""Images a second through the input pipeline, beside a torch DataLoader over the same files.

    python -m benchmarks.loader --json --peer torch [--peer_script FILE] [--train 20]

Files are made on the fly (`image_set`), 256 pixels a side. Ours are the same bytes in records,
drawn at random, parsed, decoded in colour, resampled to 224 pixels, and laid out as patches of a
packed batch. Contestants have processes of their own, which stay; a turn is one pass over as many
images as there are, and the order turns round every time.

    encoded     records are read and parsed each time (`data.cache_mib` 0)
    cached      parsed records stay in memory, payloads still encoded (`data.cache_mib` 4096)
    decoded     decoded records stay in files (`data.decoded_cache`), which the system's cache holds
    whole       as `encoded`, at 256 pixels: nothing is resampled, but a third more is laid out
    torch       `torch_loader`: decodes and crops to 224 pixels, which is less than resampling

Processor time of an image counts all threads and workers. `--peer_script` runs a script that takes
`DIR --workers N --batch N` and prints one JSON line with `samples_per_s`. `--train` trains a small
model on the records, and reports the share of time that its steps waited for their batch.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import statistics
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

from benchmarks.measure import report
from benchmarks.timing_worker import REPOSITORY, Worker, take_turns

CACHE_MIB = 4096
GOALS = {"encoded": 1.3, "decoded": 3.0, "input_wait": 0.03}


def figures(about: dict[str, Any], steps: list[dict[str, float]]) -> dict[str, Any]:
    """What is reported of one contestant."""
    walls = [step["wall_s"] for step in steps]
    cpus = [step["cpu_s"] for step in steps]
    return about | {
        "cpu_ms_an_image_best": round(1e3 * min(cpus) / about["images"], 3),
        "cpu_ms_an_image_median": round(1e3 * statistics.median(cpus) / about["images"], 3),
        "images_per_s_best": round(about["images"] / min(walls), 1),
        "images_per_s_median": round(about["images"] / statistics.median(walls), 1),
    }


def ratios(found: dict[str, dict[str, Any]]) -> dict[str, dict[str, float]]:
    """Images a second of ours over those of the peer."""
    out = {}
    for name in found:
        if name != "torch" and "torch" in found:
            out[f"{name}/torch"] = {
                key: round(found[name][key] / found["torch"][key], 3)
                for key in ("images_per_s_best", "images_per_s_median")
            }
            out[f"{name}/torch"]["by_processor_time"] = round(
                found["torch"]["cpu_ms_an_image_best"] / found[name]["cpu_ms_an_image_best"], 3
            )
    return out


def run_peer_script(
    path: str, folder: Path, batch: int, workers: int, repeats: int
) -> dict[str, Any]:
    """Best and median of what a script prints in several runs."""
    command = [sys.executable, path, str(folder)]
    command += ["--workers", str(workers), "--batch", str(batch)]
    rates = []
    for _ in range(repeats):
        done = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True)
        rates.append(float(json.loads(done.stdout.splitlines()[-1])["samples_per_s"]))
    return {
        "images_per_s_best": max(rates),
        "images_per_s_median": round(statistics.median(rates), 1),
    }


def run_training(data_dir: Path, flags: argparse.Namespace) -> dict[str, Any]:
    """The log's figures of a short run of `flags.train` steps."""
    command = [sys.executable, "-m", "benchmarks.loader_worker", "--data_dir", str(data_dir)]
    command += ["--images", "1", "--batch", str(flags.train_batch), "--train", str(flags.train)]
    command += ["--threads", str(flags.threads), "--augment"]
    command += ["--width", str(flags.width), "--layers", str(flags.layers)]
    done = subprocess.run(command, cwd=REPOSITORY, stdout=subprocess.PIPE, text=True, check=True)
    values = json.loads(done.stdout.splitlines()[-1])
    return values | {"met": values["input_wait"] <= GOALS["input_wait"]}


def main(arguments: list[str] | None = None) -> dict[str, Any]:
    parser = argparse.ArgumentParser(description="The input pipeline beside a torch DataLoader.")
    parser.add_argument("--images", type=int, default=2000)
    parser.add_argument("--batch", type=int, default=64)
    parser.add_argument("--threads", type=int, default=2, help="of ours; workers of the peer")
    parser.add_argument("--augment", action="store_true", help="ours vary stain, turn and shift")
    parser.add_argument("--peer", choices=("", "torch"), default="")
    parser.add_argument("--peer_script", default="", help="a script to run as a peer, too")
    parser.add_argument("--train", type=int, default=0, help="steps of a training run; 0: none")
    parser.add_argument("--train_batch", type=int, default=16)
    parser.add_argument("--width", type=int, default=192, help="of the model that is trained")
    parser.add_argument("--layers", type=int, default=6)
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--json", action="store_true", help="print one JSON object")
    flags = parser.parse_args(arguments)
    from benchmarks import image_set

    with tempfile.TemporaryDirectory() as temporary, contextlib.ExitStack() as stack:
        images, data_dir = Path(temporary) / "images", Path(temporary) / "data"
        image_set.write_images(images, flags.images)
        image_set.build(images, data_dir)
        ours = ["--data_dir", data_dir, "--images", flags.images, "--batch", flags.batch]
        ours += ["--threads", flags.threads, *(["--augment"] if flags.augment else [])]
        kinds = {
            "encoded": [],
            "cached": ["--cache_mib", CACHE_MIB],
            "decoded": ["--decoded_cache", Path(temporary) / "decoded"],
            "whole": ["--side", image_set.SIDE],
        }
        workers: dict[str, Worker] = {}
        for name, more in kinds.items():
            words = [str(word) for word in [*ours, *more]]
            workers[name] = Worker("benchmarks.loader_worker", words)
            stack.callback(workers[name].kill)
        if flags.peer:
            words = ["--folder", images, "--batch", flags.batch, "--workers", flags.threads]
            workers["torch"] = Worker("benchmarks.torch_loader", [str(word) for word in words])
            stack.callback(workers["torch"].kill)
        take_turns(workers, flags.repeats)
        found = {name: figures(worker.finish(), worker.steps) for name, worker in workers.items()}
        values: dict[str, Any] = {
            "benchmark": "loader",
            "images": flags.images,
            "batch": flags.batch,
            "threads": flags.threads,
            "augment": flags.augment,
            "repeats": flags.repeats,
            "contestants": found,
            "ratios": ratios(found),
            "goals": GOALS,
        }
        if flags.peer_script:
            values["peer_script"] = run_peer_script(
                flags.peer_script, images, flags.batch, flags.threads, flags.repeats
            )
        if flags.train:
            values["training"] = run_training(data_dir, flags)
    report(values, flags.json)
    return values


if __name__ == "__main__":
    main()
