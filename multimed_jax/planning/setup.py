"""What a config would train on: the built data where they are, else a stated synthetic mixture."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from multimed_jax.config import RunConfig
from multimed_jax.data.layout import Layout, make_layout, stream_table
from multimed_jax.data.packing import plan_fill
from multimed_jax.data.sizes import Sizes, load_sizes
from multimed_jax.data.sources import DataSource, make_info, namespaces, open_source
from multimed_jax.data.windows import TrainWindows
from multimed_jax.model import ModelSpec
from multimed_jax.run import check_config, check_spec, fit_modalities
from multimed_jax.specs import ANSWERS, StreamSpec, TaskSpec
from multimed_jax.types import Record, UserError

# Without data: records and classes of the mixture that stands in, and windows that are planned.
SYNTHETIC_RECORDS = 4096
SYNTHETIC_CLASSES = 4
PLANNED_WINDOWS = 3


@dataclasses.dataclass(frozen=True)
class Planned:
    """A config made concrete, without a model.

    Attributes:
        config: of the run, with what modalities learn from the training split.
        spec: of the model.
        layout: shapes of a batch.
        fill: used share of token slots ("token") and of each stream's slots ("stream/<name>").
        tokens: useful tokens of a pack, mean.
        attended: mean over useful tokens of the tokens of their sample.
        data: where the sizes are from, in a sentence.
    """

    config: RunConfig
    spec: ModelSpec
    layout: Layout
    fill: Mapping[str, float]
    tokens: float
    attended: float
    data: str


def plan_data(config: RunConfig, workdir: Path) -> Planned:
    """Plans some windows of a run's training stream.

    Args:
        config: of the run.
        workdir: where sizes are written if the data's own folder is read-only.

    Raises:
        UserError: for a config that makes no sense, or data that do not fit it.
    """
    check_config(config)
    try:
        sources: Sequence[DataSource] = [
            open_source(s, config.data_dir, "train") for s in config.data.sources
        ]
    except UserError as error:
        said = (
            f"synthetic lengths, for the built data are not at hand ({error}): every sample shows "
            "one stream in turn, of a quarter to all of its longest length (max_parts, else half "
            f"a row), and each task has {SYNTHETIC_CLASSES} classes"
        )
        source = SyntheticSource(config)
        weight = dataclasses.replace(config.data.sources[0], weight=1.0)
        data = dataclasses.replace(config.data, sources=(weight,))
        config = dataclasses.replace(config, data=data)
        sources, sizes = [source], [source.sizes]
    else:
        config = fit_modalities(config, sources)
        sizes = [load_sizes(s, config.modalities, config.tasks, workdir) for s in sources]
        said = f"sizes of {sum(s.num_drawable for s in sizes)} built training records"
    layout = make_layout(config, sources, sizes)
    spaces = {task.name: namespaces(sources, task.name) for task in config.tasks}
    spec = ModelSpec(config.model, config.modalities, config.tasks, spaces, config.alignment)
    check_spec(spec)
    windows = TrainWindows(config, layout, sizes)
    plans = [plan for window in range(PLANNED_WINDOWS) for plan in windows.plan(window)]
    lengths = np.concatenate([plan.samples.tokens.sum(axis=1) for plan in plans]).astype(float)
    return Planned(
        config=config,
        spec=spec,
        layout=layout,
        fill=plan_fill(plans, layout),
        tokens=float(lengths.sum() / len(plans)),
        attended=float((lengths**2).sum() / lengths.sum()),
        data=said,
    )


class SyntheticSource:
    """Sizes of records that do not exist, for a plan without data; none of them can be read."""

    folder: Path | None = None
    split = "train"

    def __init__(self, config: RunConfig):
        self.tasks = tuple(task.name for task in config.tasks)
        names = {task: [f"class {c}" for c in range(SYNTHETIC_CLASSES)] for task in self.tasks}
        self.class_counts = dict.fromkeys(self.tasks, (SYNTHETIC_RECORDS,) * SYNTHETIC_CLASSES)
        self.train_class_counts = self.class_counts
        moments = {
            "count": [float(SYNTHETIC_RECORDS)] * SYNTHETIC_CLASSES,
            "sum": [0.0] * SYNTHETIC_CLASSES,
            "sum_squares": [float(SYNTHETIC_RECORDS)] * SYNTHETIC_CLASSES,
        }
        metadata: dict[str, Any] = {
            "namespace": "synthetic",
            "class_names": names,
            "content_hash": "0" * 16,
            "split_mode": "group",
            "target_stats": {"train": dict.fromkeys(self.tasks, moments)},
        }
        self.info = make_info("synthetic", metadata)
        streams, _ = stream_table(config.modalities)
        self.sizes = synthetic_sizes(streams, config.tasks, config.data.row_width)

    def __len__(self) -> int:
        return SYNTHETIC_RECORDS

    def __getitem__(self, row: int, /) -> Record:
        raise UserError(f"record {row} cannot be read: a plan without data has sizes alone")


def synthetic_sizes(
    streams: Sequence[StreamSpec], tasks: Sequence[TaskSpec], row_width: int
) -> Sizes:
    """Record i shows stream i mod S; it carries the tasks that read it, else the next other."""
    shown = [n for n, stream in enumerate(streams) if stream.kind != ANSWERS]
    answers = [n for n, stream in enumerate(streams) if stream.kind == ANSWERS]
    plain = [n for n, task in enumerate(tasks) if task.reads in ("", ANSWERS)]
    rng = np.random.default_rng(0)
    tokens = np.zeros((SYNTHETIC_RECORDS, len(streams)), np.int32)
    has_target = np.zeros((SYNTHETIC_RECORDS, len(tasks)), bool)
    for row in range(SYNTHETIC_RECORDS):
        s = shown[row % len(shown)]
        kind, longest = streams[s].kind, min(streams[s].max_parts or row_width // 2, row_width)
        tokens[row, s] = rng.integers(max(1, longest // 4), longest + 1)
        reading = [n for n, task in enumerate(tasks) if task.reads and task.reads == kind]
        if not reading and plain:
            reading = [plain[row // len(shown) % len(plain)]]
        has_target[row, reading] = True
        for n in answers:
            room = row_width - int(tokens[row].sum())
            if any(tasks[t].reads == ANSWERS for t in reading):
                tokens[row, n] = min(streams[n].max_parts, room)
    number = np.arange(SYNTHETIC_RECORDS, dtype=np.uint64)
    return Sizes(tokens, has_target, number, np.ones(SYNTHETIC_RECORDS, np.int32))
