"""Timing that a loaded machine distorts least: turns that alternate, best and median, CPU time.

Take ratios of two contestants that ran side by side, not either figure alone.
"""

from __future__ import annotations

import dataclasses
import importlib.metadata
import json
import os
import platform
import resource
import statistics
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

_PACKAGES = (
    "multimed_jax",
    "jax",
    "jaxlib",
    "numpy",
    "grain",
    "array_record",
    "tensorflow-datasets",
    "apache-beam",
    "torch",
)


@dataclasses.dataclass(frozen=True)
class Times:
    """What each turn of one contestant took.

    Attributes:
        wall_s: elapsed seconds, a figure a turn.
        cpu_s: processor seconds of this process, all threads, and of the children that it waited
            for. They grow less than elapsed time does while others use the machine.
    """

    wall_s: tuple[float, ...]
    cpu_s: tuple[float, ...]

    @property
    def best_s(self) -> float:
        return min(self.wall_s)

    @property
    def median_s(self) -> float:
        return statistics.median(self.wall_s)

    @property
    def median_cpu_s(self) -> float:
        return statistics.median(self.cpu_s)

    def rates(self, count: float, unit: str) -> dict[str, float]:
        """`count` units a turn, as units a second: best, median, and by processor time."""
        return {
            f"{unit}_per_s_best": round(count / self.best_s, 2),
            f"{unit}_per_s_median": round(count / self.median_s, 2),
            f"{unit}_per_cpu_s": round(count / max(self.median_cpu_s, 1e-9), 2),
        }


def alternate(
    contestants: Mapping[str, Callable[[], object]], repeats: int, warm_ups: int = 1
) -> dict[str, Times]:
    """Every contestant takes `repeats` timed turns; the order turns round every time.

    Args:
        contestants: name -> what a turn does. It must wait until its work is done.
        repeats: timed turns of each, at least 1.
        warm_ups: turns of each before those, which are not timed.
    """
    names = list(contestants)
    for _ in range(warm_ups):
        for name in names:
            contestants[name]()
    walls: dict[str, list[float]] = {name: [] for name in names}
    cpus: dict[str, list[float]] = {name: [] for name in names}
    for turn in range(repeats):
        for name in names if turn % 2 == 0 else reversed(names):
            wall_s, cpu_s = time.perf_counter(), cpu_seconds()
            contestants[name]()
            walls[name].append(time.perf_counter() - wall_s)
            cpus[name].append(cpu_seconds() - cpu_s)
    return {name: Times(tuple(walls[name]), tuple(cpus[name])) for name in names}


def cpu_seconds() -> float:
    """Processor seconds so far: of this process and of the children that it has waited for."""
    times = os.times()
    return times.user + times.system + times.children_user + times.children_system


def peak_rss_mib() -> float:
    """Largest resident memory of this process so far, in MiB."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


def rss_mib() -> float:
    """Resident memory of this process now, in MiB (Linux)."""
    pages = int(Path("/proc/self/statm").read_text().split()[1])
    return pages * resource.getpagesize() / 2**20


def private_mib() -> float:
    """Resident memory of this process now without mapped files, in MiB (Linux)."""
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith("RssAnon:")) / 1024


def machine() -> dict[str, Any]:
    """Kind of processor, usable cores, load, and the versions of what is measured."""
    models = [
        line.split(":", 1)[1].strip()
        for line in Path("/proc/cpuinfo").read_text().splitlines()
        if line.startswith("model name")
    ]
    versions = {}
    for name in _PACKAGES:
        try:
            versions[name] = importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:
            continue
    return {
        "processor": models[0] if models else platform.machine(),
        "cores": len(os.sched_getaffinity(0)),
        "load_1min": round(os.getloadavg()[0], 2),
        "python": platform.python_version(),
        "versions": versions,
    }


def print_json(values: Mapping[str, Any]) -> None:
    """Prints one line of JSON with the machine beside the figures."""
    print(json.dumps({**values, "machine": machine()}), flush=True)


def report(values: Mapping[str, Any], as_json: bool) -> None:
    """Prints figures: one line of JSON with the machine, or indented for a reader."""
    if as_json:
        print_json(values)
    else:
        print(json.dumps(values, indent=2))
