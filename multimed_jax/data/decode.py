"""From a planned segment to its decoded record: streams and targets."""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Callable, Mapping, Sequence

import numpy as np

from multimed_jax.data.decoded_cache import DecodedRecords, decode_record
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
    decoded: Sequence[DecodedRecords] | None = None  # of each source, where they are kept

    def __call__(self, job: tuple[PackPlan, int]) -> Decoded | str:
        """The decoded record, or the reason why it cannot be decoded."""
        plan, index = job
        source, row = self.sources[plan.samples.source[index]], int(plan.samples.row[index])
        where = self.name(job)
        counts = plan.samples.tokens[index].tolist()
        planned = {s.name: n for s, n in zip(self.layout.streams, counts, strict=True) if n}
        try:
            read = functools.cache(lambda: source[row])
            streams = self._streams(job, planned, read)
        except DecodeError as error:
            return str(error)
        except Exception as error:
            error.add_note(f"while reading {where}")
            raise
        found = {name: len(parts) for name, parts in streams.items()}
        carried = [
            t for t, has in zip(self.tasks, plan.samples.has_target[index], strict=True) if has
        ]
        targets = self._targets(job, carried, streams, read)
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

    def _kept(self, job: tuple[PackPlan, int]) -> tuple[DecodedRecords | None, int]:
        """What is kept of the record's source, and its row there."""
        plan, index = job
        kept = None if self.decoded is None else self.decoded[plan.samples.source[index]]
        return kept, int(plan.samples.row[index])

    def _targets(
        self,
        job: tuple[PackPlan, int],
        carried: Sequence[TaskSpec],
        streams: Mapping[str, Parts],
        read: Callable[[], Record],
    ) -> dict[str, np.ndarray | None]:
        kept, row = self._kept(job)
        plain = [task for task in carried if not task.reads]
        if kept is None or not plain:
            targets = {task.name: read_target(read(), task) for task in plain}
        else:
            targets = dict(kept.targets(row, plain, read))
        for task in carried:
            if task.reads:
                name = read_stream(task, self.layout.streams).name
                # Hidden by dropout or `keep`: the head then reads nothing, and the target stays
                # whole.
                parts = streams[name] if name in streams else None
                targets[task.name] = read_target(read(), task, parts)
        return targets

    def _streams(
        self, job: tuple[PackPlan, int], planned: Mapping[str, int], read: Callable[[], Record]
    ) -> dict[str, Parts]:
        plan, index = job
        draw, window = int(plan.samples.draw[index]), int(plan.samples.window[index])
        kept, row = self._kept(job)
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
            if kept is None:
                found = decode_record(modality, read(), window, rng)
            else:
                found = kept.streams(modality, row, window, rng, read)
            streams |= {name: found[name] for name in names if name in found}
        return streams
