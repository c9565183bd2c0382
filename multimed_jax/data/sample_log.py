"""Which records were trained on: `samples.jsonl` of the run folder, for audits.

    {"step": 7, "lane": 0, "source": "phantoms/tiny", "rows": [12, 80, 3]}

A line for each step, lane and source, rows in the order of their segments. A row counts the records
of the source's train split as the built dataset stores them; with the dataset's content hash, which
the manifest holds, it names a record for good. The lines depend neither on devices, processes and
threads nor on stops: a stretch that is run again replaces its lines.
"""

from __future__ import annotations

import json
import os
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from multimed_jax.types import Batch, UserError


class SampleLog:
    """Appends the records of each step; of several processes, each has a file of its own lanes."""

    def __init__(
        self,
        workdir: Path,
        first_step: int,
        sources: Sequence[str],
        lanes: Sequence[int],
        process: int = 0,
        num_processes: int = 1,
    ):
        """Opens the log of a stretch of training.

        Args:
            workdir: of the run.
            first_step: steps that are already finished; lines of later ones are dropped.
            sources: names, in the order of the config.
            lanes: which lanes the packs of this process's batches are.
            process: index of this process.
            num_processes: of the job.
        """
        for path in _files(workdir):
            # Process 0 also clears up after processes that this stretch no longer has.
            number = _number(path)
            if number == process or (process == 0 and number >= num_processes):
                _cut(path, first_step)
        self._sources, self._lanes = tuple(sources), tuple(lanes)
        name = "samples.jsonl" if process == 0 else f"samples-{process}.jsonl"
        self._file = (workdir / name).open("a", encoding="utf-8")

    def write(self, step: int, batch: Batch) -> None:
        """Adds the records whose segments a batch shows; undecodable ones show none."""
        record, partner = np.asarray(batch.record), np.asarray(batch.partner)
        # The two halves of a sample that alignment has split are one record.
        segment = np.arange(1, record.shape[1] + 1)
        shown = (record[..., 0] >= 0) & ((partner == 0) | (segment < partner))
        for place, lane in enumerate(self._lanes):
            source, row = record[place][shown[place]].T
            for number in np.unique(source).tolist():
                line = {
                    "step": step,
                    "lane": lane,
                    "source": self._sources[number],
                    "rows": row[source == number].tolist(),
                }
                self._file.write(json.dumps(line) + "\n")
        self._file.flush()

    def close(self) -> None:
        self._file.close()


def read_samples(workdir: Path) -> list[dict[str, Any]]:
    """All lines of a run, of every process, by step, lane and source.

    Raises:
        UserError: where the run logged none.
    """
    files = _files(workdir)
    if not files:
        raise UserError(
            f"{workdir} holds no samples.jsonl; it is written with config.data.log_samples=True"
        )
    lines = [json.loads(line) for path in files for line in _whole_lines(path)]
    return sorted(lines, key=lambda line: (line["step"], line["lane"], line["source"]))


def _files(workdir: Path) -> list[Path]:
    return sorted(workdir.glob("samples*.jsonl"))


def _number(path: Path) -> int:
    return int(path.stem.partition("-")[2] or 0)


def _cut(path: Path, step: int) -> None:
    temporary = path.with_suffix(".tmp")
    with temporary.open("w", encoding="utf-8") as file:
        file.writelines(line for line in _whole_lines(path) if json.loads(line)["step"] <= step)
    os.replace(temporary, path)


def _whole_lines(path: Path) -> Iterator[str]:
    """Lines that end: one cut short by a kill tells of a step that is run again."""
    with path.open(encoding="utf-8") as file:
        yield from (line for line in file if line.endswith("\n"))
