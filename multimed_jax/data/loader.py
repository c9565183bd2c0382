"""Streams of batches through Grain: endless for training, every record once for evaluation.

The data state is `Batch.cursor`, for each lane the (window, pack) that it consumes next: lane p
consumes the packs of windows p, p + P, p + 2P, ... in turn. It depends neither on the number of
processes and threads nor on what was assembled ahead.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import grain
import numpy as np
from absl import logging
from jaxtyping import Int

from multimed_jax.config import RunConfig
from multimed_jax.data.assemble import assemble, read_records
from multimed_jax.data.buffers import Buffers
from multimed_jax.data.decode import Decoded, Decoder
from multimed_jax.data.decoded_cache import open_decoded
from multimed_jax.data.layout import Layout
from multimed_jax.data.packing import PackPlan
from multimed_jax.data.readers import Readers
from multimed_jax.data.sizes import Sizes
from multimed_jax.data.sources import DataSource
from multimed_jax.data.windows import TrainWindows, plan_every_record
from multimed_jax.specs import Namespace
from multimed_jax.types import Batch, UserError

Plans = tuple[list[PackPlan | None], np.ndarray]  # one pack for each lane, the cursor after them
# And the records, which threads are reading.
_Reading = tuple[list[PackPlan | None], np.ndarray, Iterator[Decoded | str]]


def batch_fill(batch: Batch, layout: Layout) -> dict[str, float]:
    """Used share of the token slots ("token") and of each stream's slots ("stream/<name>")."""
    grids = [np.asarray(grid.segment_ids) for grid in batch.grids]
    used = sum(int((grid > 0).sum()) for grid in grids)
    fill = {"token": used / sum(grid.size for grid in grids)}
    for stream in layout.streams:
        segment = np.asarray(batch.streams[stream.name].segment)
        fill[f"stream/{stream.name}"] = float((segment > 0).mean())
    return fill


class _Loader:
    """What both loaders share: threads that read, records that cannot be decoded, prefetching."""

    def __init__(
        self,
        config: RunConfig,
        layout: Layout,
        sources: Sequence[DataSource],
        namespaces: Mapping[str, Sequence[Namespace]],
        *,
        train: bool,
    ):
        self._config, self._layout, self._sources = config, layout, sources
        self._namespaces, self._train = namespaces, train
        self._undecodable: dict[tuple[str, int], str] = {}
        data = config.data
        self._readers = Readers(data.threads, data.read_timeout_s) if data.threads > 0 else None
        self._buffers = Buffers()
        self._decoded = open_decoded(config, sources, train=train)

    @property
    def quarantined(self) -> int:
        """Different records met so far that could not be decoded; their slots were padding."""
        return len(self._undecodable)

    @property
    def quarantine(self) -> Mapping[tuple[str, int], str]:
        """(source name, row) -> reason, of the records that could not be decoded."""
        return dict(self._undecodable)

    def _note(self, source: int, row: int, reason: str) -> None:
        key = (self._sources[source].info.name, row)
        if key not in self._undecodable:
            logging.warning("record %d of %s cannot be decoded: %s", row, key[0], reason)
        self._undecodable[key] = reason

    def _read(self, element: Plans) -> _Reading:
        plans, cursor = element
        config = self._config
        decoder = Decoder(
            self._layout,
            self._sources,
            config.modalities,
            config.tasks,
            config.seed,
            self._train,
            self._decoded,
        )
        return plans, cursor, read_records(plans, decoder, self._readers)

    def _assemble(self, element: _Reading) -> Batch:
        plans, cursor, records = element
        return assemble(
            plans,
            self._layout,
            self._sources,
            self._config.modalities,
            self._config.tasks,
            self._namespaces,
            seed=self._config.seed,
            train=self._train,
            cursor=cursor,
            pool=self._readers,
            on_undecodable=self._note,
            records=records,
            buffers=self._buffers,
        )

    def _stream(self, plans: grain.IterDataset[Plans]) -> grain.DatasetIterator[Batch]:
        """Assembles ahead in a thread of its own.

        Another one plans, and has the records of the next batch read while this one is laid out.
        """
        reading = plans.map(self._read)
        if self._readers is not None and self._config.data.prefetch:
            reading = grain.experimental.ThreadPrefetchIterDataset(reading, prefetch_buffer_size=1)
        batches = reading.map(self._assemble)
        prefetched = grain.experimental.ThreadPrefetchIterDataset(
            batches, prefetch_buffer_size=self._config.data.prefetch
        )
        return iter(prefetched)

    def close(self) -> None:
        """Ends the threads that read."""
        self._buffers.close()
        if self._readers is not None:
            self._readers.close()


class TrainLoader(_Loader):
    """The endless training stream; an iterator of `Batch`.

    Args:
        config: of the run.
        layout: of the run.
        sources: training sources, in the order of `config.data.sources`.
        sizes: of their records.
        namespaces: task -> label spaces.
        cursor: data state [P, 2] to go on from (`Batch.cursor` of all lanes); None starts anew.
        lanes: the lanes that this process plans and reads; None is all of them.

    Raises:
        UserError: for a cursor of another number of lanes, or of other data.
    """

    def __init__(
        self,
        config: RunConfig,
        layout: Layout,
        sources: Sequence[DataSource],
        sizes: Sequence[Sizes],
        namespaces: Mapping[str, Sequence[Namespace]],
        cursor: Int[np.ndarray, "P 2"] | None = None,
        lanes: range | None = None,
    ):
        super().__init__(config, layout, sources, namespaces, train=True)
        if cursor is None:
            cursor = np.stack([np.arange(layout.lanes), np.zeros(layout.lanes, int)], axis=1)
        if cursor.shape != (layout.lanes, 2):
            raise UserError(
                f"the data state has shape {cursor.shape}; config.data.lanes is {layout.lanes}, "
                f"which needs {(layout.lanes, 2)}"
            )
        mine = range(layout.lanes) if lanes is None else lanes
        windows = TrainWindows(config, layout, sizes)
        plans = _LanePlans(windows, cursor[mine.start : mine.stop : mine.step], layout.lanes)
        self._batches = self._stream(plans)

    def __iter__(self) -> Iterator[Batch]:
        return self

    def __next__(self) -> Batch:
        return next(self._batches)

    def close(self) -> None:
        super().close()  # first: nothing that is assembled ahead is waited for
        self._batches.close()


class EvalLoader(_Loader):
    """Every record of a split exactly once; each `iter` starts anew.

    Args:
        config: of the run.
        layout: of the run (made with this split among its `others`).
        sources: of the split, in the order of `config.data.sources`.
        sizes: of their records.
        namespaces: task -> label spaces.
        keep: modalities that are shown; records that keep none of theirs are left out.
        limit: at most this many records of each source.
        lanes: the lanes that this process reads; None is all of them.

    Raises:
        UserError: where `keep` names a modality that is not configured.
    """

    def __init__(
        self,
        config: RunConfig,
        layout: Layout,
        sources: Sequence[DataSource],
        sizes: Sequence[Sizes],
        namespaces: Mapping[str, Sequence[Namespace]],
        keep: frozenset[str] | None = None,
        limit: int | None = None,
        lanes: range | None = None,
    ):
        super().__init__(config, layout, sources, namespaces, train=False)
        plans: list[PackPlan | None] = list(plan_every_record(config, layout, sizes, keep, limit))
        self.num_records = sum(len(plan.g) for plan in plans if plan is not None)
        plans += [None] * (-len(plans) % layout.lanes)
        mine = list(range(layout.lanes) if lanes is None else lanes)
        self._steps: list[Plans] = []
        for first in range(0, len(plans), layout.lanes):
            step = [plans[first + lane] for lane in mine]
            cursor = np.stack([np.zeros(len(mine), int), np.full(len(mine), first)], axis=1)
            self._steps.append((step, cursor))

    def __len__(self) -> int:
        """Number of batches."""
        return len(self._steps)

    def __iter__(self) -> Iterator[Batch]:
        steps = grain.MapDataset.source(self._steps)
        return self._stream(steps.to_iter_dataset(grain.ReadOptions(num_threads=0)))


class _LanePlans(grain.IterDataset[Plans]):
    """The next pack of each lane, forever."""

    def __init__(self, windows: TrainWindows, cursor: np.ndarray, lanes: int):
        super().__init__()
        self._windows, self._cursor, self._lanes = windows, cursor, lanes

    def __iter__(self) -> grain.DatasetIterator[Plans]:
        return _LanePlansIterator(self._windows, self._cursor, self._lanes)


class _LanePlansIterator(grain.DatasetIterator[Plans]):
    """Keeps the plan of the window that each lane is in."""

    def __init__(self, windows: TrainWindows, cursor: np.ndarray, lanes: int):
        super().__init__()
        self._windows, self._lanes = windows, lanes
        self._cursor = np.array(cursor, np.int64)
        self._planned: dict[int, tuple[int, list[PackPlan]]] = {}

    def __next__(self) -> Plans:
        plans: list[PackPlan | None] = []
        for lane, (window, pack) in enumerate(self._cursor.tolist()):
            if lane not in self._planned or self._planned[lane][0] != window:
                self._planned[lane] = (window, self._windows.plan(window))
            packs = self._planned[lane][1]
            if not 0 <= pack < len(packs):
                raise UserError(
                    f"the data state names pack {pack} of window {window}, which has {len(packs)} "
                    "packs; it belongs to another config or to other data"
                )
            plans.append(packs[pack])
            last = pack + 1 == len(packs)
            self._cursor[lane] = (window + self._lanes, 0) if last else (window, pack + 1)
        return plans, self._cursor.copy()

    def get_state(self) -> dict[str, Any]:
        return {"cursor": self._cursor.tolist()}

    def set_state(self, state: dict[str, Any]) -> None:
        self._cursor = np.array(state["cursor"], np.int64)
        self._planned = {}
