"""From plans to a Batch: read, decode, and lay out the parts, targets and grids of packs."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import Executor

import numpy as np
from jaxtyping import Bool

from multimed_jax.data.buffers import Buffers
from multimed_jax.data.decode import Decoded, Decoder
from multimed_jax.data.layout import Layout
from multimed_jax.data.packing import PackPlan
from multimed_jax.data.readers import Readers
from multimed_jax.data.sources import DataSource
from multimed_jax.specs import ModalitySpec, Namespace, TaskSpec
from multimed_jax.types import Batch, StreamBatch, TargetSlots, TokenGrid


def read_records(
    plans: Sequence[PackPlan | None], decoder: Decoder, pool: Executor | Readers | None
) -> Iterator[Decoded | str]:
    """What `assemble` lays out: every planned record in order, or why it cannot be decoded.

    A pool begins at once; without one each record is read when it is asked for.
    """
    jobs = [(plan, i) for plan in plans if plan is not None for i in range(len(plan.g))]
    return iter(pool.map(decoder, jobs) if pool else map(decoder, jobs))


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
    pool: Executor | Readers | None = None,
    on_undecodable: Callable[[int, int, str], None] = lambda source, row, reason: None,
    records: Iterator[Decoded | str] | None = None,
    buffers: Buffers | None = None,
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
        records: of `read_records`, where it was called before.
        buffers: give the memory of the parts; None takes new.

    Raises:
        UserError: where a record cannot be read, or does not have the size that was planned.
    """
    decoder = Decoder(layout, sources, modalities, tasks, seed, train)
    decoded = read_records(plans, decoder, pool) if records is None else records
    batch = _new_batch(layout, cursor, buffers or Buffers())
    for p, plan in enumerate(plans):
        if plan is None:
            for stream in batch.streams.values():
                stream.parts[p] = 0
            continue
        segments: list[Decoded | None] = []
        for source, row in zip(plan.samples.source, plan.samples.row, strict=True):
            found = next(decoded)
            if isinstance(found, str):
                on_undecodable(int(source), int(row), found)
            segments.append(None if isinstance(found, str) else found)
        good = np.array([segment is not None for segment in segments])
        _lay_tokens(batch, p, plan, segments, layout)
        _lay_parts(batch, p, plan, segments, layout)
        _lay_partners(batch, p, plan, good)
        for number, task in enumerate(tasks):
            index_of = [_namespace_index(source, namespaces[task.name]) for source in sources]
            _lay_targets(batch.targets[task.name], p, plan, segments, number, task, index_of)
    return batch


def empty_batch(layout: Layout, cursor: np.ndarray) -> Batch:
    """A batch of padding, one pack for each row of `cursor`."""
    batch = _new_batch(layout, cursor, Buffers())
    for stream in batch.streams.values():
        stream.parts[...] = 0
    return batch


# ------------------------------------------------------------------------------- internals


def _new_batch(layout: Layout, cursor: np.ndarray, buffers: Buffers) -> Batch:
    """A batch of padding, but for the values of the parts, which are not set."""
    packs = len(cursor)
    grid = (packs, layout.rows, layout.row_width)
    streams, targets = {}, {}
    for stream in layout.streams:
        slots = (packs, layout.stream_budgets[stream.name])
        streams[stream.name] = StreamBatch(
            parts=buffers.empty((*slots, *stream.patch_shape), stream.dtype),
            coords=np.zeros((*slots, stream.num_axes), np.float32),
            segment=np.zeros(slots, np.int32),
            item=np.zeros(slots, np.int32),
        )
    for task in layout.tasks:
        slots = (packs, layout.slot_budgets[task.name])
        targets[task.name] = TargetSlots(
            segment=np.zeros(slots, np.int32),
            value=np.zeros((*slots, *layout.target_shapes[task.name]), task.target_dtype),
            weight=np.zeros(slots, np.float32),
            namespace=np.zeros(slots, np.int32),
            modality_share=np.zeros((*slots, len(layout.modality_names)), np.float32),
        )
    return Batch(
        grids=(TokenGrid(*(np.zeros(grid, np.int32) for _ in range(5))),),
        streams=streams,
        targets=targets,
        record=np.full((packs, layout.segments, 2), -1, np.int32),
        partner=np.zeros((packs, layout.segments), np.int32),
        cursor=cursor,
    )


def _lay_tokens(
    batch: Batch, p: int, plan: PackPlan, segments: Sequence[Decoded | None], layout: Layout
) -> None:
    tokens = plan.samples.tokens
    num_segments, num_streams = tokens.shape
    total = tokens.sum(axis=1)
    first = np.repeat(np.cumsum(total) - total, total)
    position = np.arange(total.sum()) - first
    sample = np.repeat(np.arange(num_segments), total)
    stream = np.repeat(np.tile(np.arange(num_streams), num_segments), tokens.reshape(-1))
    part = np.empty(len(stream), np.int64)
    for s in range(num_streams):
        here = stream == s
        part[here] = np.arange(here.sum())
    is_words = np.array(layout.is_words)[stream]
    segment = np.where(is_words, plan.word_segment[sample], sample + 1)
    shown = np.array([found is not None for found in segments])[sample]
    grid = batch.grids[0]
    where = p, plan.g[sample][shown], (plan.start[sample] + position)[shown]
    grid.stream_ids[where] = stream[shown] + 1
    grid.segment_ids[where] = segment[shown]
    grid.positions[where] = position[shown]
    grid.stream_index[where] = part[shown]
    runs = tokens.reshape(-1)
    place = np.arange(len(stream)) - np.repeat(np.cumsum(runs) - runs, runs) + 1
    grid.order[where] = np.where(np.array(layout.is_answers)[stream], place, 0)[shown]


def _lay_parts(
    batch: Batch, p: int, plan: PackPlan, segments: Sequence[Decoded | None], layout: Layout
) -> None:
    words = plan.word_segment
    for s, stream in enumerate(layout.streams):
        out = batch.streams[stream.name]
        ends = np.cumsum(plan.samples.tokens[:, s]).tolist()
        items = 0
        for i, (begin, end) in enumerate(zip([0, *ends[:-1]], ends, strict=True)):
            segment = segments[i]
            if begin == end or segment is None:
                out.parts[p, begin:end] = 0
                continue
            found = segment.streams[stream.name]
            found.write(out.parts[p, begin:end])
            out.coords[p, begin:end] = found.coords
            out.segment[p, begin:end] = words[i] if layout.is_words[s] else i + 1
            out.item[p, begin:end] = found.item + (items + 1)
            items += int(found.item.max()) + 1
        out.parts[p, ends[-1] if ends else 0 :] = 0


def _lay_partners(batch: Batch, p: int, plan: PackPlan, good: Bool[np.ndarray, "k"]) -> None:
    """Writes which record each segment shows, and its other half."""
    own = np.arange(1, len(good) + 1)
    pairs = np.stack([plan.samples.source, plan.samples.row], axis=1)
    for segment, partner in ((own, plan.word_segment), (plan.word_segment, own)):
        batch.record[p, segment[good] - 1] = pairs[good]
        halved = good & plan.samples.split
        batch.partner[p, segment[halved] - 1] = partner[halved]


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
        _write_padded(out.value[p], k, segment.targets[task.name])
        out.weight[p, k] = 1.0
        out.namespace[p, k] = index_of[int(plan.samples.source[i])]
        out.modality_share[p, k] = present / present.sum()


def _write_padded(out: np.ndarray, k: int, value: np.ndarray) -> None:
    """Writes a target that may be smaller than its slot; the rest is not known (-1 or NaN)."""
    if out.ndim > 1:
        out[k] = -1 if np.issubdtype(out.dtype, np.integer) else np.nan
    value = value[tuple(slice(n) for n in out.shape[1:])]
    out[(k, *(slice(n) for n in value.shape))] = value


def _namespace_index(source: DataSource, namespaces: Sequence[Namespace]) -> int:
    names = [namespace.name for namespace in namespaces]
    return names.index(source.info.namespace) if source.info.namespace in names else -1
