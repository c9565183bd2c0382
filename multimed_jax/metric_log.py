"""Figures over training steps: metrics.jsonl, TensorBoard files, and the terminal.

Of several processes one keeps the log; the others have a `SilentLog`.
"""

from __future__ import annotations

import json
import math
import os
import sys
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from tensorboardX.event_file_writer import EventsWriter
from tensorboardX.proto.event_pb2 import (  # made at import, so unknown to type checkers
    Event,  # pyright: ignore[reportAttributeAccessIssue]
    SessionLog,  # pyright: ignore[reportAttributeAccessIssue]
)
from tensorboardX.summary import scalar
from tqdm import tqdm


class MetricLog:
    """Appends {"step", "name", "value"} lines below `workdir`; a bar on a terminal, else lines.

    Lines of steps after `first_step` belong to a stretch that is about to be run again; they are
    dropped.
    """

    def __init__(self, workdir: Path, first_step: int, num_steps: int):
        path = workdir / "metrics.jsonl"
        kept = _lines_up_to(path, first_step)
        temporary = path.with_suffix(".tmp")
        temporary.write_text("".join(kept), encoding="utf-8")
        os.replace(temporary, path)
        self._file = path.open("a", encoding="utf-8")
        self._board = _Board(workdir / "tensorboard", first_step + 1)
        self._num_steps = num_steps
        self._bar = None
        if sys.stderr.isatty():
            self._bar = tqdm(total=num_steps, initial=first_step, unit="step", dynamic_ncols=True)

    def write(self, step: int, values: Mapping[str, float]) -> None:
        """Records the values of a step."""
        for name, value in values.items():
            stored = float(value) if math.isfinite(value) else None
            self._file.write(json.dumps({"step": step, "name": name, "value": stored}) + "\n")
            self._board.add(step, name, float(value))
        self._file.flush()
        self._board.flush()

    def advance(self, step: int) -> None:
        """Moves the bar."""
        if self._bar is not None:
            self._bar.update(step - self._bar.n)

    def say(self, text: str) -> None:
        """One line for the person who watches."""
        if self._bar is not None:
            self._bar.write(text, file=sys.stderr)
        else:
            print(text, file=sys.stderr, flush=True)

    def close(self) -> None:
        """Flushes and closes all files."""
        if self._bar is not None:
            self._bar.close()
        self._file.close()
        self._board.close()


class _Board:
    """TensorBoard's file of events, written where it is called.

    Its usual writer has a thread and a queue: where the thread dies of a full disk, the queue fills
    up and the run waits for it for good.
    """

    def __init__(self, folder: Path, purge_step: int):
        """Steps from `purge_step` on that an earlier stretch has written are hidden."""
        folder.mkdir(exist_ok=True)
        self._writer = EventsWriter(str(folder / "events"))
        self._write(purge_step, session_log=SessionLog(status=SessionLog.START))

    def add(self, step: int, name: str, value: float) -> None:
        """Adds a value."""
        self._write(step, summary=scalar(name, value))

    def flush(self) -> None:
        """Brings what was added to the disk."""
        self._writer.flush()

    def close(self) -> None:
        """Flushes and closes the file."""
        self._writer.close()

    def _write(self, step: int, **values: Any) -> None:
        self._writer.write_event(Event(wall_time=time.time(), step=step, **values))


class SilentLog:
    """Takes what a `MetricLog` takes, and keeps nothing."""

    def write(self, step: int, values: Mapping[str, float]) -> None:
        pass

    def advance(self, step: int) -> None:
        pass

    def say(self, text: str) -> None:
        pass

    def close(self) -> None:
        pass


def _lines_up_to(path: Path, step: int) -> list[str]:
    if not path.exists():
        return []
    kept = []
    for line in path.read_text(encoding="utf-8").splitlines(keepends=True):
        # A line cut short by a kill has no newline; the step it tells of is run again.
        if line.endswith("\n") and json.loads(line)["step"] <= step:
            kept.append(line)
    return kept
