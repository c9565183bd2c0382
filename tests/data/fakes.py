"""Sources in memory, and a run over them: toy modalities "a" and "b", one or two tasks."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from multimed_jax.config import (
    CheckpointConfig,
    DataConfig,
    ModelConfig,
    OptimConfig,
    RunConfig,
    SourceConfig,
)
from multimed_jax.data.sizes import Sizes, load_sizes
from multimed_jax.data.sources import DataSource, make_info, namespaces
from multimed_jax.specs import ModalitySpec, TaskSpec
from multimed_jax.types import Batch
from tests.toy import make_toy_modality, make_toy_task

A, B = make_toy_modality("a", 91, axes=2), make_toy_modality("b", 92)
TOY, OTHER = make_toy_task("toy"), make_toy_task("other")


class FakeSource:
    """Records made from their row alone. Part values tell source, row, modality and index."""

    folder: Path | None = None

    def __init__(
        self,
        name: str,
        lengths: Mapping[str, Any],
        *,
        tasks: tuple[str, ...] = ("toy",),
        labels: Sequence[int] | None = None,
        split: str = "train",
        number: int = 0,
    ):
        n = len(next(iter(lengths.values())))
        self.split, self.tasks, self.number, self._lengths = split, tasks, number, lengths
        self.labels = np.arange(n) % 3 if labels is None else np.asarray(labels)
        counts = tuple(int((self.labels == c).sum()) for c in range(3))
        self.class_counts = self.train_class_counts = {task: counts for task in tasks}
        self.info = make_info(
            name,
            {
                "namespace": name,
                "class_names": {task: ["x", "y", "z"] for task in tasks},
                "content_hash": f"{name}{split}".encode().hex().ljust(16, "0"),
                "split_mode": "group",
            },
        )

    def __len__(self) -> int:
        return len(self.labels)

    def __getitem__(self, row: int, /) -> dict[str, Any]:
        record: dict[str, Any] = {
            "sample_id": f"{self.info.name}-{row}".encode(),
            "group_id": f"{self.info.name}-g{row // 2}".encode(),
            "targets": {task: np.int32(self.labels[row]) for task in self.tasks},
        }
        for name, lengths in self._lengths.items():
            record[name] = {"values": self.parts(row, name, int(lengths[row]))}
        return record

    def parts(self, row: int, modality: str, n: int) -> np.ndarray:
        """Row i is (source and row, modality, i)."""
        out = np.empty((n, 3), np.float32)
        out[:, 0], out[:, 1] = self.number * 10_000 + row, "ab".index(modality)
        out[:, 2] = np.arange(n)
        return out


@dataclasses.dataclass(frozen=True)
class Setup:
    """A config, its sources and their sizes."""

    config: RunConfig
    sources: tuple[DataSource, ...]
    sizes: tuple[Sizes, ...]

    @property
    def namespaces(self):
        return {task.name: namespaces(self.sources, task.name) for task in self.config.tasks}


def make_config(
    sources: Sequence[DataSource],
    *,
    weights: Sequence[float] | None = None,
    modalities: tuple[ModalitySpec, ...] = (A, B),
    tasks: tuple[TaskSpec, ...] = (TOY,),
    seed: int = 7,
    **data: Any,
) -> RunConfig:
    """A run over some sources; `data` changes fields of its DataConfig."""
    weights = [1.0] * len(sources) if weights is None else weights
    values: dict[str, Any] = dict(lanes=4, rows=2, row_width=32, window=64, threads=0) | data
    return RunConfig(
        method="test",
        data_dir="",
        seed=seed,
        num_steps=1,
        log_every_steps=1,
        modalities=modalities,
        tasks=tasks,
        evals=(),
        data=DataConfig(
            sources=tuple(
                SourceConfig(s.info.name, w) for s, w in zip(sources, weights, strict=True)
            ),
            **values,
        ),
        model=ModelConfig(d_model=8, num_layers=1, num_heads=1),
        optim=OptimConfig(learning_rate={}, weight_decay=0.0),
        checkpoint=CheckpointConfig(every_steps=1),
    )


def make_setup(sources: Sequence[DataSource], workdir: Path, **changes: Any) -> Setup:
    """A run over some sources, with the sizes of their records."""
    config = make_config(sources, **changes)
    sizes = tuple(load_sizes(s, config.modalities, config.tasks, workdir) for s in sources)
    return Setup(config, tuple(sources), sizes)


def toy_sources(split: str = "train", scale: int = 1) -> list[FakeSource]:
    """Three sources: 37 x a, 23 x b, 11 with both (some lacking one of them)."""
    rng = np.random.default_rng(len(split))
    n = [37 * scale, 23 * scale, 11 * scale]
    both = {"a": rng.integers(1, 9, n[2]), "b": rng.integers(0, 6, n[2])}
    return [
        FakeSource("one", {"a": rng.integers(3, 12, n[0])}, split=split, number=1),
        FakeSource("two", {"b": rng.integers(1, 20, n[1])}, split=split, number=2),
        FakeSource("three", both, split=split, number=3),
    ]


def assert_same(x: Batch, y: Batch) -> None:
    """Bit for bit."""
    import jax

    left, right = jax.tree.leaves(x), jax.tree.leaves(y)
    assert len(left) == len(right)
    for a, b in zip(left, right, strict=True):
        assert a.dtype == b.dtype
        np.testing.assert_array_equal(a, b)


def records_of(batch: Batch) -> list[tuple[int, int]]:
    """(source, row) of every segment, in order."""
    pairs = np.asarray(batch.record).reshape(-1, 2)
    return [(int(s), int(r)) for s, r in pairs if s >= 0]
