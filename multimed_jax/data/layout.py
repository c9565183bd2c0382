"""The static shapes of a run's batches: budgets from the mixture's mean shares."""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Mapping, Sequence
from typing import Protocol

import numpy as np
from jaxtyping import Float, Int

from multimed_jax.config import RunConfig
from multimed_jax.data.sizes import Sizes
from multimed_jax.data.sources import DataSource, namespaces
from multimed_jax.specs import (
    ANSWERS,
    READ_PARTS,
    WIDEST_NAMESPACE,
    WORDS,
    ModalitySpec,
    Namespace,
    StreamSpec,
    TaskSpec,
    read_stream,
)
from multimed_jax.types import UserError

_MULTIPLE = 8


class SizedSplit(Protocol):
    """A split whose records must fit the layout, too."""

    @property
    def sources(self) -> Sequence[DataSource]: ...

    @property
    def sizes(self) -> Sequence[Sizes]: ...


@dataclasses.dataclass(frozen=True)
class Layout:
    """Shapes of a batch; letters as in `types`.

    Attributes:
        streams: in the order of their ids (which count from 1).
        modality_names: in the order of `TargetSlots.modality_share`.
        stream_modality: index of each stream's modality.
        lanes: P.
        rows: G.
        row_width: T.
        stream_budgets: stream -> N.
        slot_budgets: task -> K.
        segments: S.
        target_shapes: task -> shape of one target.
    """

    streams: tuple[StreamSpec, ...]
    tasks: tuple[TaskSpec, ...]
    modality_names: tuple[str, ...]
    stream_modality: tuple[int, ...]
    lanes: int
    rows: int
    row_width: int
    stream_budgets: Mapping[str, int]
    slot_budgets: Mapping[str, int]
    segments: int
    target_shapes: Mapping[str, tuple[int, ...]]

    @property
    def is_words(self) -> tuple[bool, ...]:
        """Which streams hold words."""
        return tuple(stream.kind == WORDS for stream in self.streams)

    @property
    def is_answers(self) -> tuple[bool, ...]:
        """Which streams hold the places of answers."""
        return tuple(stream.kind == ANSWERS for stream in self.streams)

    @functools.cached_property
    def budgets(self) -> Int[np.ndarray, "D"]:
        """Budgets of a pack: of every stream, then of every task, then of segments."""
        streams = [self.stream_budgets[s.name] for s in self.streams]
        slots = [self.slot_budgets[t.name] for t in self.tasks]
        return np.array([*streams, *slots, self.segments], np.int64)

    def describe(self) -> str:
        """A table for the start of a run."""
        lines = [
            f"batch: {self.lanes} packs of {self.rows} rows x {self.row_width} tokens, "
            f"at most {self.segments} segments a pack",
            f"{'budget of a pack':<32}{'slots':>8}",
        ]
        for stream in self.streams:
            lines.append(f"{'stream ' + stream.name:<32}{self.stream_budgets[stream.name]:>8}")
        for task in self.tasks:
            lines.append(f"{'task ' + task.name:<32}{self.slot_budgets[task.name]:>8}")
        return "\n".join(lines)


def make_layout(
    config: RunConfig,
    sources: Sequence[DataSource],
    sizes: Sequence[Sizes],
    others: Sequence[SizedSplit] = (),
) -> Layout:
    """The layout of a run.

    Args:
        config: of the run.
        sources: training sources, in the order of `config.data.sources`.
        sizes: of their records.
        others: splits that are evaluated: their largest records must fit, too.

    Raises:
        UserError: for a source without a record to draw, a record longer than a row, or a task
            that no record carries.
    """
    data = config.data
    for key in ("lanes", "rows", "row_width", "window"):
        if getattr(data, key) < 1:
            raise UserError(f"config.data.{key} is {getattr(data, key)}; it must be at least 1")
    for source, size in zip(sources, sizes, strict=True):
        if not size.num_drawable:
            raise UserError(
                f"no record of source {source.info.name!r} has both a configured modality "
                f"({', '.join(m.name for m in config.modalities)}) and a configured task "
                f"({', '.join(t.name for t in config.tasks)}) that it is used for"
            )
    every = [*zip(sources, sizes, strict=True)]
    for split in others:
        every += zip(split.sources, split.sizes, strict=True)
    streams, stream_modality = stream_table(config.modalities)
    largest = np.max(
        [_largest(source, size, streams, data.row_width) for source, size in every], axis=0
    )
    # Budgets hold whole records: half a record more would stay unused.
    tokens, typical, targets, pairs = _means(config, sizes, streams, np.array(stream_modality))
    samples_per_pack = data.rows * data.row_width / tokens.sum()
    wanted = tokens * samples_per_pack * data.stream_slack
    whole = np.ceil(wanted / np.maximum(typical, 1)) * typical
    for task, mean in zip(config.tasks, targets, strict=True):
        if not mean:
            raise UserError(
                f"no record to draw carries the task {task.name!r}; leave it out of config.tasks "
                "or add a source that has it"
            )
    slack = samples_per_pack * data.stream_slack
    return Layout(
        streams=streams,
        tasks=config.tasks,
        modality_names=tuple(m.name for m in config.modalities),
        stream_modality=stream_modality,
        lanes=data.lanes,
        rows=data.rows,
        row_width=data.row_width,
        stream_budgets={
            s.name: _round_up(max(n, m)) for s, n, m in zip(streams, whole, largest, strict=True)
        },
        slot_budgets={
            t.name: _round_up(m * slack) for t, m in zip(config.tasks, targets, strict=True)
        },
        segments=_round_up(slack * (1 + config.alignment.split_rate * pairs)),
        target_shapes={
            task.name: target_shape(task, namespaces(sources, task.name), streams)
            for task in config.tasks
        },
    )


def target_shape(
    task: TaskSpec, spaces: Sequence[Namespace], streams: Sequence[StreamSpec]
) -> tuple[int, ...]:
    """Shape of one target of a task in this run."""
    sizes = {WIDEST_NAMESPACE: max((len(space.class_names) for space in spaces), default=0)}
    if task.reads:
        sizes[READ_PARTS] = read_stream(task, streams).max_parts
    return tuple(sizes[n] if n in sizes else n for n in task.target_shape)


def stream_table(
    modalities: Sequence[ModalitySpec],
) -> tuple[tuple[StreamSpec, ...], tuple[int, ...]]:
    """All streams in order, and the index of each one's modality."""
    pairs = [(stream, m) for m, spec in enumerate(modalities) for stream in spec.streams]
    return tuple(stream for stream, _ in pairs), tuple(m for _, m in pairs)


# ------------------------------------------------------------------------------- internals


def _round_up(value: float) -> int:
    return max(1, int(np.ceil(value / _MULTIPLE - 1e-9))) * _MULTIPLE


def _largest(
    source: DataSource, size: Sizes, streams: tuple[StreamSpec, ...], row_width: int
) -> Int[np.ndarray, "S"]:
    """Most tokens of each stream in one record; refuses a record that no row can hold."""
    largest, longest, (row, *_) = size.summary.largest
    total = int(longest.sum())
    if total > row_width:
        stream = streams[int(longest.argmax())].name
        raise UserError(
            f"record {row} of source {source.info.name!r} split {source.split!r} has "
            f"{total} tokens (most of them in stream {stream!r}); config.data.row_width "
            f"accepts at most {row_width}: widen the rows or cut the input by the modality's "
            "options"
        )
    return largest.astype(np.int64)


def _means(
    config: RunConfig,
    sizes: Sequence[Sizes],
    streams: Sequence[StreamSpec],
    stream_modality: Int[np.ndarray, "S"],
) -> tuple[Float[np.ndarray, "S"], Float[np.ndarray, "S"], Float[np.ndarray, "tasks"], float]:
    """Means over the draws of the mixture, modality dropout taken into account.

    Returns:
        Tokens by stream; tokens of the records that have the stream; number of targets by task;
        share of records that have words and something else.
    """
    weights = np.array([source.weight for source in config.data.sources])
    weights = weights / weights.sum()
    tokens, having, targets, pairs = [], [], [], []
    words = np.array([stream.kind == WORDS for stream in streams])
    for size in sizes:
        count = size.summary.sampled_tokens.astype(np.float64)
        member = stream_modality[:, None] == np.arange(len(config.modalities))
        present = (count @ member) > 0
        p = config.data.modality_dropout
        number = present.sum(axis=1)
        # Of several, each stays with 1 - p, and one of them returns where all would be hidden.
        kept = np.where(number > 1, 1 - p + p**number / np.maximum(number, 1), 1.0)
        tokens.append((count * kept[:, None]).mean(axis=0))
        having.append(((count > 0) * kept[:, None]).mean(axis=0))
        targets.append(size.summary.sampled_has_target.mean(axis=0))
        pairs.append((count[:, words].any(axis=1) & count[:, ~words].any(axis=1)).mean())
    mean = weights @ np.array(tokens)
    share = weights @ np.array(having)
    typical = mean / np.maximum(share, 1e-12)
    return mean, typical, weights @ np.array(targets), float(weights @ np.array(pairs))
