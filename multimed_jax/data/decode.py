"""From a planned segment to its decoded record: streams and targets."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence

import numpy as np

from multimed_jax.data.layout import Layout
from multimed_jax.data.packing import PackPlan
from multimed_jax.data.sizes import read_target
from multimed_jax.data.sources import DataSource
from multimed_jax.layers.decode_errors import DecodeError
from multimed_jax.specs import ModalitySpec, TaskSpec, read_stream
from multimed_jax.types import Parts, Record, UserError


@dataclasses.dataclass(frozen=True)
class Decoded:
    """What a record gives to its segment."""

    streams: Mapping[str, Parts]
    targets: Mapping[str, np.ndarray]


@dataclasses.dataclass(frozen=True)
class Decoder:
    """Reads and decodes the record of one segment of a plan."""

    layout: Layout
    sources: Sequence[DataSource]
    modalities: Sequence[ModalitySpec]
    tasks: Sequence[TaskSpec]
    seed: int
    train: bool

    def __call__(self, job: tuple[PackPlan, int]) -> Decoded | str:
        """The decoded record, or the reason why it cannot be decoded."""
        plan, index = job
        source, row = self.sources[plan.samples.source[index]], int(plan.samples.row[index])
        where = self.name(job)
        counts = plan.samples.tokens[index].tolist()
        planned = {s.name: n for s, n in zip(self.layout.streams, counts, strict=True) if n}
        try:
            record = source[row]
            samples = plan.samples
            streams = self._streams(
                record, planned, int(samples.draw[index]), int(samples.window[index])
            )
        except DecodeError as error:
            return str(error)
        except Exception as error:
            error.add_note(f"while reading {where}")
            raise
        found = {name: len(parts.parts) for name, parts in streams.items()}
        carried = [
            t for t, has in zip(self.tasks, plan.samples.has_target[index], strict=True) if has
        ]
        targets = {task.name: self._target(record, task, streams) for task in carried}
        if found != planned or any(value is None for value in targets.values()):
            raise UserError(
                f"{where} has tokens {found} where its sizes say {planned} (targets: "
                f"{', '.join(targets)}): its sizes are stale, delete them"
            )
        return Decoded(streams, {k: v for k, v in targets.items() if v is not None})

    def name(self, job: tuple[PackPlan, int]) -> str:
        """Which record a job reads, for a sentence."""
        plan, index = job
        source = self.sources[plan.samples.source[index]]
        row = int(plan.samples.row[index])
        return f"record {row} of {source.info.name!r} split {source.split!r}"

    def _target(
        self, record: Record, task: TaskSpec, streams: Mapping[str, Parts]
    ) -> np.ndarray | None:
        if not task.reads:
            return read_target(record, task)
        name = read_stream(task, self.layout.streams).name
        # Hidden by dropout or `keep`: the head then reads nothing, and the target stays whole.
        return read_target(record, task, streams[name] if name in streams else None)

    def _streams(
        self, record: Record, planned: Mapping[str, int], draw: int, window: int
    ) -> dict[str, Parts]:
        streams: dict[str, Parts] = {}
        for modality in self.modalities:
            names = [stream.name for stream in modality.streams if stream.name in planned]
            if not names:
                continue
            rng = None
            if self.train:
                # Philox: other words in key or counter give independent streams.
                key = np.array([self.seed & 0xFFFFFFFFFFFFFFFF, draw], np.uint64)
                counter = np.array([0, 0, 0, modality.id], np.uint64)
                rng = np.random.Generator(np.random.Philox(key=key, counter=counter))
            if modality.windows is not None and not self.train:
                number = modality.windows.count(record, modality.options)
                found = modality.windows.decode(record, modality.options, window % number)
            else:
                found = modality.decode(record, modality.options, rng)
            streams |= {name: found[name] for name in names if name in found}
        return streams
