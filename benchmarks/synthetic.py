"""The kinds of `shapes` as modalities, tasks, a source and batches of the trainer itself."""

from __future__ import annotations

import dataclasses
import hashlib
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx

from benchmarks.shapes import KINDS, Kind, Shape, padded_widths
from multimed_jax.config import (
    CheckpointConfig,
    DataConfig,
    ModelConfig,
    OptimConfig,
    RunConfig,
    ScheduleConfig,
    SourceConfig,
)
from multimed_jax.data.assemble import assemble
from multimed_jax.data.layout import Layout, make_layout
from multimed_jax.data.packing import PackPlan, Samples, plan_window
from multimed_jax.data.sizes import Sizes, load_sizes
from multimed_jax.data.sources import make_info, namespaces
from multimed_jax.data.windows import gather_samples
from multimed_jax.model import ModelSpec
from multimed_jax.specs import READ_PARTS, ModalitySpec, StreamSpec, TaskSpec
from multimed_jax.types import Batch, Parts, Preview, TokenGrid


@dataclasses.dataclass(frozen=True)
class NoOptions:
    """These modalities have none."""


def make_modality(number: int, kind: Kind) -> ModalitySpec:
    """Records hold {name: {"parts": [n, ...]}}; one row is one token."""
    stream_name = f"{kind.name}.tokens"
    numbers = kind.features or (2 if kind.valued else 0)
    dtype = "float32" if numbers else "int32"

    class Tokenizer(nnx.Module):
        def __init__(self, stream, d_model, options, rngs):
            if kind.features:
                self.project = nnx.Linear(kind.features, d_model, rngs=rngs)
            else:
                self.embed = nnx.Embed(kind.vocabulary, d_model, rngs=rngs)
            if kind.valued:
                self.value = nnx.Linear(1, d_model, rngs=rngs)

        def __call__(self, stream):
            if kind.features:
                return self.project(stream.parts)
            if kind.valued:
                ids = stream.parts[..., 0].astype(jnp.int32)
                return self.embed(ids) + self.value(stream.parts[..., 1:])
            return self.embed(stream.parts)

    def decode(record, options, rng):
        parts = record[kind.name]["parts"] if kind.name in record else np.zeros((0,))
        n = len(parts)
        place = np.arange(n, dtype=np.float32)[:, None]
        return {stream_name: Parts(parts, place, np.zeros(n, np.int32))} if n else {}

    return ModalitySpec(
        name=kind.name,
        id=number,
        spec=f"benchmarks.synthetic:{kind.name}",
        options=NoOptions(),
        make_streams=lambda options: (
            StreamSpec(
                stream_name,
                kind.name,
                (numbers,) if numbers else (),
                1,
                dtype,
                kind=kind.name,
                max_parts=kind.longest,
            ),
        ),
        count=lambda record, options: (
            {stream_name: len(record[kind.name]["parts"])} if kind.name in record else {}
        ),
        decode=decode,
        make_tokenizer=Tokenizer,
        features=lambda record, options: np.zeros(1, np.float32),
        preview=lambda record, options: Preview("bars", np.zeros(1, np.float32)),
    )


def make_task(kind: Kind) -> TaskSpec:
    """Softmax cross-entropy, or a squared error, of each sample or of each of its tokens."""

    class TokenHead(nnx.Module):
        def __init__(self, d_model, rngs):
            self.project = nnx.Linear(d_model, kind.classes, rngs=rngs)

        def __call__(self, states, read):
            return self.project(read.states.astype(jnp.float32))

    def make_head(d_model, spaces, rngs):
        if kind.each:
            return TokenHead(d_model, rngs)
        return nnx.Linear(d_model, kind.classes, rngs=rngs)

    def loss(outputs, slots, spaces):
        if kind.valued:
            known = jnp.isfinite(slots.value)
            error = jnp.square(outputs[..., 0] - jnp.where(known, slots.value, 0.0))
        else:
            known = slots.value >= 0
            logp = jax.nn.log_softmax(outputs, axis=-1)
            index = jnp.maximum(slots.value, 0)[..., None]
            error = -jnp.take_along_axis(logp, index, axis=-1)[..., 0]
        if not kind.each:
            return error
        return (error * known).sum(-1) / jnp.maximum(known.sum(-1), 1)

    def read_target(record, parts):
        targets = record["targets"]
        return targets[kind.name] if kind.name in targets else None

    return TaskSpec(
        name=kind.name,
        spec=f"benchmarks.synthetic:{kind.name}",
        target_shape=(READ_PARTS,) if kind.each else (),
        target_dtype="float32" if kind.valued else "int32",
        make_head=make_head,
        loss_fn=loss,
        predict=lambda outputs, slots, spaces: outputs,
        metrics=lambda predictions, targets: {"none": 0.0},
        primary_metric="none",
        read_target=read_target,
        reads=kind.name if kind.each else "",
    )


MODALITIES = tuple(make_modality(90 + i, kind) for i, kind in enumerate(KINDS))
TASKS = tuple(make_task(kind) for kind in KINDS)


class SyntheticSource:
    """Records of given lengths, kind after kind, with values of a fixed seed."""

    folder: Path | None = None
    split = "train"
    tasks = tuple(kind.name for kind in KINDS)

    def __init__(self, lengths: dict[str, np.ndarray]):
        self._rows = [(kind, int(n)) for kind in KINDS for n in lengths[kind.name]]
        self.class_counts = {kind.name: (1,) * kind.classes for kind in KINDS}
        self.train_class_counts = self.class_counts
        metadata = {
            "namespace": "synthetic",
            "class_names": {k.name: [str(c) for c in range(k.classes)] for k in KINDS},
            "content_hash": hashlib.sha256(repr(self._rows).encode()).hexdigest(),
            "split_mode": "group",
        }
        self.info = make_info("synthetic", metadata)

    def __len__(self) -> int:
        return len(self._rows)

    def __getitem__(self, row: int, /) -> dict[str, Any]:
        kind, n = self._rows[row]
        rng = np.random.default_rng(row)
        if kind.features:
            parts = rng.standard_normal((n, kind.features), np.float32)
        else:
            parts = rng.integers(0, kind.vocabulary, n).astype(np.int32)
        if kind.valued:
            values = rng.standard_normal(n).astype(np.float32)
            parts = np.stack([parts.astype(np.float32), values], axis=1)
            target = values
        else:
            shape = (n,) if kind.each else ()
            target = rng.integers(0, kind.classes, shape).astype(np.int32)
        return {
            "sample_id": f"{row}",
            "group_id": f"{row}",
            kind.name: {"parts": parts},
            "targets": {kind.name: target},
        }


@dataclasses.dataclass(frozen=True)
class Problem:
    """One step's samples, as the trainer sees them."""

    config: RunConfig
    source: SyntheticSource
    sizes: Sizes
    samples: Samples
    lengths: dict[str, np.ndarray]

    @property
    def spec(self) -> ModelSpec:
        spaces = {task.name: namespaces([self.source], task.name) for task in TASKS}
        return ModelSpec(self.config.model, MODALITIES, TASKS, spaces)


def make_problem(
    lengths: dict[str, np.ndarray],
    shape: Shape,
    workdir: Path,
    *,
    dtype: str = "float32",
    attention: str = "auto",
    scan: bool = False,
) -> Problem:
    """The samples of a step, whose sizes are counted into `workdir`."""
    source = SyntheticSource(lengths)
    constant = ScheduleConfig("constant", 1e-4)
    config = RunConfig(
        method="benchmark",
        data_dir="",
        seed=0,
        num_steps=1000,
        log_every_steps=1,
        modalities=MODALITIES,
        tasks=TASKS,
        evals=(),
        data=DataConfig((SourceConfig("synthetic", 1.0),), lanes=1, rows=1, row_width=1, window=1),
        model=ModelConfig(
            d_model=shape.width,
            num_layers=shape.layers,
            num_heads=shape.heads,
            mlp_ratio=shape.mlp,
            dtype=dtype,  # type: ignore[arg-type]
            attention=attention,  # type: ignore[arg-type]
            scan_layers=scan,
        ),
        optim=OptimConfig(
            {group: constant for group in ("tokenizers", "trunk", "heads")}, weight_decay=0.05
        ),
        checkpoint=CheckpointConfig(every_steps=1000),
    )
    sizes = load_sizes(source, MODALITIES, TASKS, workdir)
    layout = _layout(config, source, sizes, rows=1, width=max(n.max() for n in lengths.values()))
    every = np.arange(len(source))
    samples = gather_samples(layout, [sizes], np.zeros(len(source), int), every, every)
    return Problem(config, source, sizes, samples, lengths)


def packed_batch(problem: Problem, widths: Sequence[int], packs: int = 1) -> Batch:
    """All samples in packs of as few rows as the planner needs, for each of some row widths.

    A sample goes to the narrowest rows that hold it. Budgets are those of the trainer: the mean
    shares times the slack of the config.

    Args:
        problem: the samples.
        widths: of rows.
        packs: how many; more than one have rows of one width.
    """
    total = problem.samples.tokens.sum(axis=1)
    if packs > 1:
        (width,) = widths
        plans, layout = _packs(problem, width, packs)
        return _assembled(problem, plans, layout)
    edges = [0, *sorted(widths)]
    if total.max() > edges[-1]:
        raise ValueError(f"the longest sample has {total.max()} tokens, the rows {edges[-1]}")
    rows = -(-int(total.sum()) // edges[-1])
    budgets = _layout(problem.config, problem.source, problem.sizes, rows, edges[-1])
    plans, layouts = [], []
    for low, high in zip(edges, edges[1:], strict=False):
        chosen = np.flatnonzero((total > low) & (total <= high))
        if len(chosen):
            plan, layout = _one_pack(problem.samples.take(chosen), budgets, high)
            plans.append(plan)
            layouts.append(layout)
    return _rows_of_widths(problem, plans, layouts)


def padded_batch(problem: Problem) -> Batch:
    """The same samples as one padded grid per kind: a row each, as wide as the longest needs."""
    count = len(problem.samples)
    widths = padded_widths(problem.lengths)
    widest = max(widths.values())
    layout = _layout(problem.config, problem.source, problem.sizes, rows=count, width=widest)
    budgets = {f"{name}.tokens": len(n) * widths[name] for name, n in problem.lengths.items()}
    slots = {name: len(n) for name, n in problem.lengths.items()}
    layout = dataclasses.replace(layout, stream_budgets=budgets, slot_budgets=slots, segments=count)
    every = np.arange(count)
    plan = PackPlan(problem.samples, every, np.zeros(count, int))
    batch = _assembled(problem, [plan], layout)
    grids, at = [], 0
    for name, lengths in problem.lengths.items():
        rows, width = slice(at, at + len(lengths)), widths[name]
        grids.append(jax.tree.map(lambda a, r=rows, w=width: a[:, r, :w], batch.grids[0]))
        at += len(lengths)
    return dataclasses.replace(batch, grids=tuple(grids))


def fill_of(batch: Batch) -> tuple[float, float]:
    """Used share of the token slots, and of the part slots of all streams."""
    used = sum(int((np.asarray(g.segment_ids) > 0).sum()) for g in batch.grids)
    slots = sum(g.segment_ids.size for g in batch.grids)
    parts = sum(s.segment.size for s in batch.streams.values())
    return used / slots, used / parts


# ------------------------------------------------------------------------------- internals


def _layout(config: RunConfig, source: SyntheticSource, sizes: Sizes, rows: int, width: int):
    data = dataclasses.replace(config.data, rows=rows, row_width=int(width), window=len(source))
    return make_layout(dataclasses.replace(config, data=data), [source], [sizes])


def _one_pack(samples: Samples, budgets: Layout, width: int) -> tuple[PackPlan, Layout]:
    """The samples in one pack of as few rows of a width as the planner manages."""
    rows = -(-int(samples.tokens.sum()) // width)
    while True:
        layout = dataclasses.replace(budgets, rows=rows, row_width=width)
        plans = plan_window(samples, layout, np.random.default_rng(0))
        if len(plans) == 1:
            return plans[0], layout
        rows += 1


def _packs(problem: Problem, width: int, number: int) -> tuple[list[PackPlan], Layout]:
    """All samples in a number of packs, of as few rows as some orders of the samples allow."""
    fewest = -(-int(problem.samples.tokens.sum()) // (width * number))
    for rows in range(fewest, fewest + 3):
        layout = _layout(problem.config, problem.source, problem.sizes, rows, width)
        for seed in range(30):
            plans = plan_window(problem.samples, layout, np.random.default_rng(seed))
            if len(plans) == number:
                return plans, layout
    held = f"{number} packs of rows of {width}"
    raise ValueError(f"{len(problem.samples)} samples do not fill {held}")


def _assembled(problem: Problem, plans: Sequence[PackPlan], layout: Layout) -> Batch:
    spaces = problem.spec.namespaces
    return assemble(
        plans,
        layout,
        [problem.source],
        MODALITIES,
        TASKS,
        spaces,
        seed=0,
        train=True,
        cursor=np.zeros((len(plans), 2), np.int64),
    )


def _rows_of_widths(problem: Problem, plans: list[PackPlan], layouts: list[Layout]) -> Batch:
    """One pack whose rows have several widths: assembled as rows of the widest, then cut apart."""
    rows = [layout.rows for layout in layouts]
    joined = Samples(
        *(
            np.concatenate([getattr(plan.samples, field.name) for plan in plans])
            for field in dataclasses.fields(Samples)
        )
    )
    g = np.concatenate([plan.g + sum(rows[:i]) for i, plan in enumerate(plans)])
    start = np.concatenate([plan.start for plan in plans])
    layout = dataclasses.replace(layouts[-1], rows=sum(rows))
    batch = _assembled(problem, [PackPlan(joined, g, start)], layout)
    grids: list[TokenGrid] = []
    at = 0
    for number, part in zip(rows, layouts, strict=True):
        cut = slice(at, at + number)
        grids.append(jax.tree.map(lambda a, c=cut, w=part.row_width: a[:, c, :w], batch.grids[0]))
        at += number
    return dataclasses.replace(batch, grids=tuple(grids))
