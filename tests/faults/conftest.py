"""Whole commands that are watched line by line, so that a fault comes at a chosen moment."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.end_to_end.conftest import ROOT, environment, tiny_data

__all__ = ["tiny_data"]

SHORT = "tests/faults/short.py"
# Generous: on a machine with other work a run of six seconds of CPU may take minutes.
LIMIT_S = 600


class Watched:
    """A command whose lines can be waited for and whose process can be signalled."""

    def __init__(self, command: list[str], devices: int = 1):
        self.lines: list[str] = []
        self._news = threading.Condition()
        self._ended = False
        self.process = subprocess.Popen(
            command,
            cwd=ROOT,
            env=environment(devices),
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )
        self._thread = threading.Thread(target=self._read, daemon=True)
        self._thread.start()

    def _read(self) -> None:
        assert self.process.stdout is not None
        for line in self.process.stdout:
            with self._news:
                self.lines.append(line.rstrip("\n"))
                self._news.notify_all()
        with self._news:
            self._ended = True
            self._news.notify_all()

    @property
    def text(self) -> str:
        return "\n".join(self.lines)

    def wait_for(self, start: str, timeout: float = LIMIT_S) -> str:
        """The first line that starts so."""
        end = time.monotonic() + timeout
        with self._news:
            while True:
                for line in self.lines:
                    if line.startswith(start):
                        return line
                left = end - time.monotonic()
                assert left > 0 and not self._ended, f"no line {start!r} in:\n{self.text}"
                self._news.wait(left)

    def send(self, number: signal.Signals = signal.SIGTERM) -> None:
        self.process.send_signal(number)

    def end(self, timeout: float = LIMIT_S) -> int:
        """The exit code, once all lines are read."""
        try:
            code = self.process.wait(timeout)
        except subprocess.TimeoutExpired:
            self.process.kill()
            raise
        self._thread.join(10)
        return code


Starter = Callable[..., Watched]


@pytest.fixture
def start(tiny_data) -> Iterator[Starter]:
    """`start(workdir, "--config.x=1", fault="name", devices=2)`: a training run.

    With a fault the command runs by `tests.faults.sabotage`, which breaks what it names.
    """
    begun: list[Watched] = []

    def run(workdir: Path, *flags: str, fault: str = "", devices: int = 1) -> Watched:
        module = ["tests.faults.sabotage", fault] if fault else ["multimed_jax.main"]
        data = f"--config.data_dir={tiny_data}"
        arguments = ["--config", SHORT, data, "--workdir", str(workdir), *flags]
        begun.append(Watched([sys.executable, "-m", *module, *arguments], devices))
        return begun[-1]

    yield run
    for watched in begun:
        if watched.process.poll() is None:
            watched.process.kill()
            watched.process.wait()


@pytest.fixture(scope="session")
def whole(tiny_data, tmp_path_factory) -> Path:
    """The workdir of a run that nothing interrupted, on one device. Tests copy it to change it."""
    workdir = tmp_path_factory.mktemp("whole") / "run"
    data = f"--config.data_dir={tiny_data}"
    main = [sys.executable, "-m", "multimed_jax.main"]
    run = Watched([*main, "--config", SHORT, data, "--workdir", str(workdir)])
    assert run.end() == 0, run.text
    return workdir


def figures(workdir: Path) -> dict[tuple[int, str], float]:
    """(step, name) -> value of metrics.jsonl, rates left out."""
    lines = (workdir / "metrics.jsonl").read_text().splitlines()
    rows = [json.loads(line) for line in lines]
    return {
        (row["step"], row["name"]): row["value"]
        for row in rows
        if row["name"] not in ("steps_per_s", "tokens_per_s", "input_wait", "compilations")
    }


def steps_kept(workdir: Path) -> list[int]:
    """Steps that are complete: listed, as a restore would look for them."""
    lists = (workdir / "checkpoints" / "sha256").glob("*.json")
    return sorted(int(path.stem) for path in lists)
