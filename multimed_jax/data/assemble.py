"""From plans to a Batch: read, decode, and lay out the parts, targets and grids of packs."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import Executor

import numpy as np

from multimed_jax.data.layout import Layout
from multimed_jax.data.packing import PackPlan
from multimed_jax.data.sizes import read_target
from multimed_jax.data.sources import DataSource
from multimed_jax.layers.decode_errors import DecodeError
from multimed_jax.types import (
    Batch,
    ModalitySpec,
    Namespace,
    Parts,
    Record,
    StreamBatch,
    TargetSlots,
    TaskSpec,
    TokenGrid,
    UserError,
)


@dataclasses.dataclass(frozen=True)
class Decoded:
    """What a record gives to its segment."""

    streams: Mapping[str, Parts]
    targets: Mapping[str, np.ndarray]


def assemble(
    plans: Sequence[PackPlan | None],
    layout: Layout,
    sources: Sequence[DataSource],
    modalities: Sequence[ModalitySpec],
    tasks: Sequence[TaskSpec],
    namespaces: Mapping[str, Sequence[Namespace]],
    *,
    seed: int,
    train: bool,
    cursor: np.ndarray,
    pool: Executor | None = None,
    on_undecodable: Callable[[int, int, str], None] = lambda source, row, reason: None,
) -> Batch:
    """The batch of one pack for each lane; None gives a pack of padding.

    Dropped and masked modalities are those that the plan shows no token of.

    Args:
        plans: one pack for each lane.
        layout: of the run.
        sources: that the plans' source indices count.
        modalities: of the run.
        tasks: of the run.
        namespaces: of each task.
        seed: of the run; with a sample's draw index it fixes what decoders choose at random.
        train: False decodes without a generator.
        cursor: goes into the batch as it is.
        pool: reads and decodes; None does so here. The batch does not depend on it.
        on_undecodable: told (source, row, reason) of every record whose slots stay padding.

    Raises:
        UserError: where a record cannot be read, or does not have the size that was planned.
    """
    decoder = _Decoder(layout, sources, modalities, tasks, seed, train)
    jobs = [(plan, i) for plan in plans if plan is not None for i in range(len(plan.g))]
    decoded = iter(pool.map(decoder, jobs) if pool else map(decoder, jobs))
    batch = empty_batch(layout, cursor)
    for p, plan in enumerate(plans):
        if plan is None:
            continue
        segments: list[Decoded | None] = []
        for source, row in zip(plan.samples.source, plan.samples.row, strict=True):
            found = next(decoded)
            if isinstance(found, str):
                on_undecodable(int(source), int(row), found)
            segments.append(None if isinstance(found, str) else found)
        good = np.array([segment is not None for segment in segments])
        _lay_tokens(batch, p, plan, good)
        _lay_parts(batch, p, plan, segments, layout)
        for number, task in enumerate(tasks):
            index_of = [_namespace_index(source, namespaces[task.name]) for source in sources]
            _lay_targets(batch.targets[task.name], p, plan, segments, number, task, index_of)
        pairs = np.stack([plan.samples.source, plan.samples.row], axis=1)
        batch.record[p, : len(good)] = np.where(good[:, None], pairs, -1)
    return batch


def empty_batch(layout: Layout, cursor: np.ndarray) -> Batch:
    """A batch of padding, one pack for each row of `cursor`."""
    packs = len(cursor)
    grid = (packs, layout.rows, layout.row_width)
    streams, targets = {}, {}
    for stream in layout.streams:
        slots = (packs, layout.stream_budgets[stream.name])
        streams[stream.name] = StreamBatch(
            parts=np.zeros((*slots, *stream.patch_shape), stream.dtype),
            coords=np.zeros((*slots, stream.num_axes), np.float32),
            segment=np.zeros(slots, np.int32),
            item=np.zeros(slots, np.int32),
        )
    for task in layout.tasks:
        slots = (packs, layout.slot_budgets[task.name])
        targets[task.name] = TargetSlots(
            segment=np.zeros(slots, np.int32),
            value=np.zeros((*slots, *task.target_shape), task.target_dtype),
            weight=np.zeros(slots, np.float32),
            namespace=np.zeros(slots, np.int32),
            modality_share=np.zeros((*slots, len(layout.modality_names)), np.float32),
        )
    return Batch(
        grids=(TokenGrid(*(np.zeros(grid, np.int32) for _ in range(4))),),
        streams=streams,
        targets=targets,
        record=np.full((packs, layout.segments, 2), -1, np.int32),
        cursor=cursor,
    )


# ------------------------------------------------------------------------------- internals


@dataclasses.dataclass(frozen=True)
class _Decoder:
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
        where = f"record {row} of {source.info.name!r}"
        record = source[row]
        counts = plan.samples.tokens[index].tolist()
        planned = {s.name: n for s, n in zip(self.layout.streams, counts, strict=True) if n}
        try:
            streams = self._streams(record, planned, int(plan.samples.draw[index]))
        except DecodeError as error:
            return str(error)
        except Exception as error:
            error.add_note(f"while decoding {where}")
            raise
        found = {name: len(parts.parts) for name, parts in streams.items()}
        carried = [
            t for t, has in zip(self.tasks, plan.samples.has_target[index], strict=True) if has
        ]
        targets = {task.name: read_target(record, task) for task in carried}
        if found != planned or any(value is None for value in targets.values()):
            raise UserError(
                f"{where} has tokens {found} where its sizes say {planned} (targets: "
                f"{', '.join(targets)}): its sizes are stale, delete them"
            )
        return Decoded(streams, {k: v for k, v in targets.items() if v is not None})

    def _streams(self, record: Record, planned: Mapping[str, int], draw: int) -> dict[str, Parts]:
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
            found = modality.decode(record, modality.options, rng)
            streams |= {name: found[name] for name in names if name in found}
        return streams


def _lay_tokens(batch: Batch, p: int, plan: PackPlan, good: np.ndarray) -> None:
    tokens = plan.samples.tokens
    num_segments, num_streams = tokens.shape
    total = tokens.sum(axis=1)
    first = np.repeat(np.cumsum(total) - total, total)
    position = np.arange(total.sum()) - first
    segment = np.repeat(np.arange(num_segments), total)
    stream = np.repeat(np.tile(np.arange(num_streams), num_segments), tokens.reshape(-1))
    part = np.empty(len(stream), np.int64)
    for s in range(num_streams):
        here = stream == s
        part[here] = np.arange(here.sum())
    shown = good[segment]
    grid = batch.grids[0]
    where = p, plan.g[segment][shown], (plan.start[segment] + position)[shown]
    grid.stream_ids[where] = stream[shown] + 1
    grid.segment_ids[where] = segment[shown] + 1
    grid.positions[where] = position[shown]
    grid.stream_index[where] = part[shown]


def _lay_parts(
    batch: Batch, p: int, plan: PackPlan, segments: Sequence[Decoded | None], layout: Layout
) -> None:
    for s, stream in enumerate(layout.streams):
        out = batch.streams[stream.name]
        ends = np.cumsum(plan.samples.tokens[:, s]).tolist()
        items = 0
        for i, (begin, end) in enumerate(zip([0, *ends[:-1]], ends, strict=True)):
            segment = segments[i]
            if begin == end or segment is None:
                continue
            found = segment.streams[stream.name]
            out.parts[p, begin:end] = found.parts
            out.coords[p, begin:end] = found.coords
            out.segment[p, begin:end] = i + 1
            out.item[p, begin:end] = found.item + (items + 1)
            items += int(found.item.max()) + 1


def _lay_targets(
    out: TargetSlots,
    p: int,
    plan: PackPlan,
    segments: Sequence[Decoded | None],
    number: int,
    task: TaskSpec,
    index_of: Sequence[int],
) -> None:
    carriers = np.flatnonzero(plan.samples.has_target[:, number])
    for k, i in enumerate(carriers.tolist()):
        segment = segments[i]
        if segment is None:
            continue
        present = plan.samples.present[i]
        out.segment[p, k] = i + 1
        out.value[p, k] = segment.targets[task.name]
        out.weight[p, k] = 1.0
        out.namespace[p, k] = index_of[int(plan.samples.source[i])]
        out.modality_share[p, k] = present / present.sum()


def _namespace_index(source: DataSource, namespaces: Sequence[Namespace]) -> int:
    names = [namespace.name for namespace in namespaces]
    return names.index(source.info.namespace) if source.info.namespace in names else -1
