"""Built datasets as random-access records, read without TensorFlow."""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Protocol

from multimed_jax.config import SourceConfig
from multimed_jax.data.shards import ShardedRecords
from multimed_jax.specs import Namespace, SourceInfo
from multimed_jax.types import Record, UserError

_NAME = re.compile(
    r"(?P<dataset>[A-Za-z]\w*)(/(?P<config>[\w.\-]+))?(:(?P<version>\d+\.\d+\.\d+))?"
)
_VERSION = re.compile(r"\d+\.\d+\.\d+")
# What `tfds_builders` writes into a dataset's metadata and the package cannot do without.
_REQUIRED_METADATA = tuple(
    "namespace class_names class_counts content_hash split_mode tasks".split()
)

ClassCounts = Mapping[str, tuple[int, ...]]


class DataSource(Protocol):
    """Random-access records of one split of one dataset."""

    @property
    def info(self) -> SourceInfo: ...

    @property
    def split(self) -> str: ...

    @property
    def folder(self) -> Path | None:
        """The dataset's version folder; None where the records are not in files."""
        ...

    @property
    def tasks(self) -> tuple[str, ...]: ...  # whose targets are used

    @property
    def class_counts(self) -> ClassCounts:
        """Records per class of this split, by task."""
        ...

    @property
    def train_class_counts(self) -> ClassCounts: ...

    def __len__(self) -> int: ...

    def __getitem__(self, row: int, /) -> Record: ...


@dataclasses.dataclass(frozen=True)
class BuiltSource:
    """A split of a dataset that `tfds_builders` wrote."""

    info: SourceInfo
    split: str
    folder: Path | None
    tasks: tuple[str, ...]
    class_counts: ClassCounts
    train_class_counts: ClassCounts
    records: Any = dataclasses.field(repr=False)

    def __len__(self) -> int:
        return len(self.records)

    def __getitem__(self, row: int, /) -> Record:
        """The record in on-disk order. Raises UserError where its shard is damaged."""
        try:
            record = self.records[row]
            # A shard cut at a block's end (64 KiB) reads as empty records, without an error.
            if record["sample_id"] is None:
                raise ValueError("the record is empty")
        except (OSError, RuntimeError, ValueError, IndexError) as error:
            raise UserError(
                f"record {row} of {self.info.name!r} split {self.split!r} cannot be read "
                f"(is a shard damaged? build it again): {' '.join(str(error).split())}"
            ) from error
        return record


def open_source(config: SourceConfig, data_dir: str, split: str) -> BuiltSource:
    """Opens one split of a built dataset.

    Args:
        config: its name is "dataset", "dataset/config" or "dataset/config:1.0.0". The newest
            version is taken where none is named, and the only config where there is one.
        data_dir: folder that the builders wrote to.
        split: such as "train".

    Raises:
        UserError: where the name cannot be parsed, or the folder, dataset, config, version or
            split is not there (the sentence lists what is), or the split is empty, or a task of
            `config.tasks` is not among the dataset's.
    """
    import tensorflow_datasets as tfds  # seconds to import: only those who open files pay

    folder = find_dataset(config.name, data_dir)
    try:
        builder: Any = tfds.builder_from_directory(str(folder))
    except (OSError, ValueError, KeyError, AttributeError, ImportError) as error:
        raise UserError(
            f"the dataset of source {config.name!r} cannot be opened (build it again): "
            f"{' '.join(str(error).split())}"
        ) from error
    metadata = dict(builder.info.metadata or {})
    absent = [key for key in _REQUIRED_METADATA if key not in metadata]
    if absent:
        raise UserError(
            f"the metadata of source {config.name!r} lacks {', '.join(absent)}; build it with "
            "`python -m tfds_builders build`"
        )
    splits = {name: info.num_examples for name, info in builder.info.splits.items()}
    if split not in splits:
        raise _missing("split", split, f"source {config.name!r}", splits)
    if not splits[split]:
        raise UserError(f"split {split!r} of source {config.name!r} holds no records")
    tasks = _used_tasks(config, metadata)
    return BuiltSource(
        info=make_info(config.name, metadata),
        split=split,
        folder=folder,
        tasks=tasks,
        class_counts=_counts(metadata, split),
        train_class_counts=_counts(metadata, "train"),
        records=_records(builder, split),
    )


def make_info(name: str, metadata: Mapping[str, Any]) -> SourceInfo:
    """The `SourceInfo` of a dataset's metadata."""
    return SourceInfo(
        name=name,
        namespace=metadata["namespace"],
        class_names={task: tuple(names) for task, names in metadata["class_names"].items()},
        content_hash=metadata["content_hash"],
        interval_unit="sample" if metadata["split_mode"] == "within_group" else "group",
        metadata=metadata,
    )


def find_dataset(name: str, data_dir: str) -> Path:
    """The version folder of a source name. Raises UserError that lists what is there."""
    match = _NAME.fullmatch(name)
    if match is None:
        raise UserError(
            f"source name {name!r} cannot be parsed; accepted: 'dataset', 'dataset/config' or "
            "'dataset/config:1.0.0'"
        )
    root = Path(data_dir)
    if not root.is_dir():
        raise UserError(f"config.data_dir {data_dir!r} is not a folder")
    dataset = root / match["dataset"]
    if not dataset.is_dir():
        found = [child.name for child in root.iterdir() if _versions(child) or _configs(child)]
        raise _missing("dataset", match["dataset"], f"config.data_dir {data_dir!r}", found)
    folder = _config_folder(dataset, match["config"], name)
    versions = _versions(folder)
    if match["version"] is None:
        if not versions:
            raise UserError(f"source {name!r} has no finished version; build it")
        return folder / versions[-1]
    if match["version"] not in versions:
        raise _missing("version", match["version"], f"source {name!r}", versions)
    return folder / match["version"]


def namespaces(sources: Sequence[DataSource], task: str) -> tuple[Namespace, ...]:
    """The label spaces of a task over the sources that carry it, sorted by name.

    Sources that share a namespace share a head leaf; their training counts are summed.

    Raises:
        UserError: where two sources share a namespace but not its class names.
    """
    merged: dict[str, tuple[str, Namespace]] = {}
    for source in sources:
        if task not in source.tasks:
            continue
        info = source.info
        names = info.class_names[task] if task in info.class_names else ()
        counts = source.train_class_counts[task] if task in source.train_class_counts else ()
        stats = _train_stats(info, task)
        if info.namespace in merged:
            other, old = merged[info.namespace]
            if old.class_names != names:
                raise UserError(
                    f"sources {other!r} and {info.name!r} share the namespace {info.namespace!r} "
                    f"but not the classes of task {task!r}: {', '.join(old.class_names)} against "
                    f"{', '.join(names)}"
                )
            counts = _added(old.class_counts, counts)
            stats = {name: _added(old.stats[name], sums) for name, sums in stats.items()}
        merged[info.namespace] = (info.name, Namespace(info.namespace, names, counts, stats))
    return tuple(merged[name][1] for name in sorted(merged))


# ------------------------------------------------------------------------------- internals


def _records(builder: Any, split: str) -> Any:
    if builder.info.file_format is None or builder.info.file_format.value != "array_record":
        return builder.as_data_source(split)
    parse = builder.info.features.deserialize_example_np
    return ShardedRecords(builder.info.splits[split].file_instructions, parse)


def _added(first: tuple[Any, ...], second: tuple[Any, ...]) -> tuple[Any, ...]:
    return tuple(a + b for a, b in zip(first, second, strict=True))


def _train_stats(info: SourceInfo, task: str) -> dict[str, tuple[float, ...]]:
    """Sums of a task's targets by column over train; empty where the task has classes."""
    stats = info.metadata["target_stats"] if "target_stats" in info.metadata else {}
    per_task = stats["train"] if "train" in stats else {}
    columns = per_task[task] if task in per_task else {}
    return {name: tuple(float(v) for v in values) for name, values in columns.items()}


def _missing(kind: str, value: str, where: str, found: Any) -> UserError:
    listed = ", ".join(sorted(found)) or "none"
    return UserError(f"{where} has no {kind} {value!r}; there: {listed}")


def _versions(folder: Path) -> list[str]:
    """Finished versions, oldest first. An unfinished build has another name."""
    if not folder.is_dir():
        return []
    found = [child.name for child in folder.iterdir() if _VERSION.fullmatch(child.name)]
    return sorted(found, key=lambda version: tuple(map(int, version.split("."))))


def _configs(folder: Path) -> list[str]:
    if not folder.is_dir():
        return []
    return sorted(child.name for child in folder.iterdir() if _versions(child))


def _config_folder(dataset: Path, config: str | None, name: str) -> Path:
    configs = _configs(dataset)
    if config is not None:
        if config not in configs:
            raise _missing("config", config, f"dataset {dataset.name!r}", configs)
        return dataset / config
    if _versions(dataset) or not configs:
        return dataset
    if len(configs) > 1:
        raise UserError(
            f"source {name!r} must name one of the configs of {dataset.name!r}: "
            + ", ".join(f"{dataset.name}/{config}" for config in configs)
        )
    return dataset / configs[0]


def _used_tasks(config: SourceConfig, metadata: Mapping[str, Any]) -> tuple[str, ...]:
    carried = tuple(metadata["tasks"])
    for task in config.tasks:
        if task not in carried:
            raise _missing("task", task, f"source {config.name!r}", carried)
    return config.tasks or carried


def _counts(metadata: Mapping[str, Any], split: str) -> ClassCounts:
    counts = metadata["class_counts"]
    per_task = counts[split] if split in counts else {}
    return {task: tuple(int(c) for c in values) for task, values in per_task.items()}
