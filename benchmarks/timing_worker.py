"""The protocol between a benchmark and the processes that it times.

A worker prepares, prints `{"ready": ...}` and then takes one step for each line that it reads from
its input, until that ends; for each it prints its seconds. At the end it prints what it knows of
itself, its peak memory among it. So several workers can take turns, each in its own process.
"""

from __future__ import annotations

import contextlib
import json
import resource
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

REPOSITORY = Path(__file__).resolve().parents[1]


def serve(
    step: Callable[[], None],
    about: dict[str, Any],
    clock: Callable[[], float] = time.process_time,
) -> None:
    """The worker's side: takes a step for every line of the input.

    `clock` gives processor seconds so far.
    """
    print(json.dumps({"ready": True}), flush=True)
    for _ in sys.stdin:
        wall_s, cpu_s = time.perf_counter(), clock()
        step()
        wall_s, cpu_s = time.perf_counter() - wall_s, clock() - cpu_s
        print(json.dumps({"wall_s": wall_s, "cpu_s": cpu_s}), flush=True)
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    print(json.dumps(about | {"peak_rss_mib": round(peak)}), flush=True)


class Worker:
    """A process that takes steps when it is asked to."""

    def __init__(self, module: str, arguments: Sequence[str]):
        self._process = subprocess.Popen(
            [sys.executable, "-m", module, *arguments],
            cwd=REPOSITORY,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        self.steps: list[dict[str, float]] = []
        self._read()

    def step(self) -> None:
        assert self._process.stdin is not None
        with contextlib.suppress(BrokenPipeError):  # it has ended; reading says how
            self._process.stdin.write("\n")
            self._process.stdin.flush()
        self.steps.append(self._read())

    def finish(self) -> dict[str, Any]:
        """Ends the worker; what it said of itself."""
        assert self._process.stdin is not None
        self._process.stdin.close()
        about = self._read()
        self._process.wait()
        return about

    def kill(self) -> None:
        self._process.kill()
        self._process.wait()

    def _read(self) -> dict[str, Any]:
        assert self._process.stdout is not None
        for line in self._process.stdout:
            if line.startswith("{"):
                return json.loads(line)
        raise RuntimeError(f"a worker ended early, with code {self._process.wait()}")


def take_turns(workers: dict[str, Worker], repeats: int) -> None:
    """Each worker takes `repeats` steps; the order turns round every time."""
    names = list(workers)
    for turn in range(repeats):
        for name in names if turn % 2 == 0 else reversed(names):
            workers[name].step()
