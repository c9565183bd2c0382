"""Exact token counts of every record, known before any record of a batch is read.

A sidecar is made by one pass over the finished shards in on-disk order, and memory-mapped:

    <dataset>[/<config>]/sizes-<content hash>-<spec hash>/<split>/tokens.npy  int32  [n, streams]
                                                                 has_target.npy bool [n, tasks]
                                                                 group.npy    uint64 [n]
                                                                 windows.npy  int32  [n]
                                                                 summary-<used>/

`size_summary` tells what a summary holds. The spec hash covers the modalities' options and the
tasks, so a change of geometry makes another.
"""

from __future__ import annotations

import dataclasses
import functools
import hashlib
import json
import os
import shutil
import time
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from absl import logging
from jaxtyping import Bool, Int, Int32, UInt64

from multimed_jax.config_io import to_json
from multimed_jax.data.size_summary import Summary, let_go, open_summary, summarise
from multimed_jax.data.sources import DataSource
from multimed_jax.layers.decode_errors import DecodeError
from multimed_jax.specs import ModalitySpec, TaskSpec
from multimed_jax.types import Parts, Record, UserError

_NUM_CHECKED = 4  # places, two records each: opening a shard of many records takes milliseconds
_POLL_S = 0.2


@dataclasses.dataclass(frozen=True)
class Sizes:
    """Sizes of the records of one split, in on-disk order.

    Attributes:
        tokens: tokens of each stream, in the order of the configured modalities' streams.
        has_target: whether the record carries each configured task that its source is used for.
        group: first 8 bytes of the SHA-256 of the record's group_id.
        windows: samples that the record makes at evaluation (`specs.Windows`), mostly 1.
        stored: the summary, where it lies in files.
    """

    tokens: Int32[np.ndarray, "n S"]
    has_target: Bool[np.ndarray, "n tasks"]
    group: UInt64[np.ndarray, "n"]
    windows: Int32[np.ndarray, "n"]
    stored: Summary | None = None

    @functools.cached_property
    def summary(self) -> Summary:
        """Of all records."""
        return self.stored or summarise(self.tokens, self.has_target)

    @property
    def rows(self) -> Int[np.ndarray, "m"] | None:
        """Rows that have a token and a target; None where all have (and no memory is spent)."""
        return self.summary.rows

    @property
    def num_drawable(self) -> int:
        return len(self.tokens) if self.rows is None else len(self.rows)

    @property
    def num_skipped(self) -> int:
        """Records without a token of a configured modality or a target of a configured task."""
        return len(self.tokens) - self.num_drawable

    def drawable_row(self, index: Int[np.ndarray, "k"]) -> Int[np.ndarray, "k"]:
        """The row of the index-th drawable record."""
        return index if self.rows is None else self.rows[index]

    def take(
        self, rows: Int[np.ndarray, "k"]
    ) -> tuple[Int32[np.ndarray, "k S"], Bool[np.ndarray, "k tasks"]]:
        """Tokens and targets of some records; no page of a large sidecar stays mapped."""
        found = self.tokens[rows], self.has_target[rows]
        let_go(self.tokens, self.has_target, self.rows)
        return found


def load_sizes(
    source: DataSource,
    modalities: Sequence[ModalitySpec],
    tasks: Sequence[TaskSpec],
    workdir: str | Path,
    *,
    process_index: int = 0,
    timeout_s: float = 3600.0,
) -> Sizes:
    """The sizes of a source's records; counts them where no sidecar is there yet.

    Process 0 writes beside the dataset's version folder, or in `workdir/sizes` where that is
    read-only; the others wait.

    Raises:
        UserError: where the sidecar does not fit the records, a label lies outside its classes, or
            process 0 did not finish within `timeout_s`.
    """
    name = f"sizes-{source.info.content_hash[:16]}-{spec_hash(modalities, tasks)}"
    folders = [Path(workdir) / "sizes" / name / source.split]
    if source.folder is not None:
        folders.insert(0, source.folder.parent / name / source.split)
    folder = next((f for f in folders if f.is_dir()), None)
    if folder is None and process_index == 0:
        folder = _write(source, modalities, tasks, folders)
    deadline = time.monotonic() + timeout_s
    while folder is None:
        if time.monotonic() > deadline:
            raise UserError(
                f"process {process_index} waited {timeout_s:.0f} s for the sizes of "
                f"{source.info.name!r}, which process 0 writes to {folders[-1]}"
            )
        time.sleep(_POLL_S)
        folder = next((f for f in folders if f.is_dir()), None)
    sizes = _load(folder)
    _check(source, modalities, tasks, sizes, folder)
    let_go(sizes.tokens, sizes.has_target, sizes.group, sizes.windows)
    used = np.array([task.name in source.tasks for task in tasks])
    summary = open_summary(folder, sizes.tokens, sizes.has_target, used, process_index == 0)
    targets = sizes.has_target if summary.has_target is None else summary.has_target
    sizes = dataclasses.replace(sizes, has_target=targets, stored=summary)
    if sizes.num_skipped:
        logging.info(
            "%s %s: %d of %d records have no token of a configured modality or no target of a "
            "configured task and are skipped",
            source.info.name,
            source.split,
            sizes.num_skipped,
            len(sizes.tokens),
        )
    return sizes


def spec_hash(modalities: Sequence[ModalitySpec], tasks: Sequence[TaskSpec]) -> str:
    """12 hex digits of all that the columns and counts depend on."""
    values = [
        [[m.spec, to_json(m.options), [s.name for s in m.streams]] for m in modalities],
        [[t.name, t.target_dtype, list(t.target_shape), to_json(t)] for t in tasks],
    ]
    return hashlib.sha256(json.dumps(values, sort_keys=True).encode()).hexdigest()[:12]


def group_hash(group_id: str | bytes) -> int:
    """First 8 bytes (big-endian) of the SHA-256 of a group_id."""
    text = group_id if isinstance(group_id, bytes) else group_id.encode()
    return int.from_bytes(hashlib.sha256(text).digest()[:8], "big")


def read_target(record: Record, task: TaskSpec, parts: Parts | None = None) -> np.ndarray | None:
    """The record's target of a task, or None where it has none (all of it -1 or NaN).

    `parts` are those of the stream that the task's head reads, once they are decoded.
    """
    if task.read_target is not None:
        return task.read_target(record, parts)
    targets = record["targets"] if "targets" in record else {}
    if task.name not in targets or targets[task.name] is None:
        return None
    value = np.asarray(targets[task.name], task.target_dtype)
    if np.issubdtype(value.dtype, np.integer):
        return None if (value < 0).all() else value
    return None if np.isnan(value).all() else value


# ------------------------------------------------------------------------------- internals


@dataclasses.dataclass(frozen=True)
class _RecordSize:
    """What the sidecar says of one record."""

    tokens: list[int]
    has_target: list[bool]
    group: int
    windows: int


def _count(
    source: DataSource, row: int, modalities: Sequence[ModalitySpec], tasks: Sequence[TaskSpec]
) -> _RecordSize:
    record = source[row]
    tokens, targets, windows = [], [], 1
    for modality in modalities:
        try:
            counts = modality.count(record, modality.options)
            if counts and modality.windows is not None:
                windows = max(windows, modality.windows.count(record, modality.options))
        except DecodeError as error:
            logging.warning("%s row %d is not read: %s", source.info.name, row, error)
            counts = {}
        tokens += [counts[s.name] if s.name in counts else 0 for s in modality.streams]
    for task in tasks:
        value = read_target(record, task)
        targets.append(value is not None)
        names = source.info.class_names[task.name] if task.name in source.info.class_names else ()
        if value is not None and value.ndim == 0 and names and int(value) >= len(names):
            raise UserError(
                f"record {row} of {source.info.name!r} has class {int(value)} of task "
                f"{task.name!r}, which has {len(names)} classes"
            )
    return _RecordSize(tokens, targets, group_hash(record["group_id"]), windows)


def _write(
    source: DataSource,
    modalities: Sequence[ModalitySpec],
    tasks: Sequence[TaskSpec],
    folders: Sequence[Path],
) -> Path:
    """Counts every record into the first folder that can be made; visible only when complete."""
    folder, temporary = _make_temporary(folders)
    num_streams = sum(len(m.streams) for m in modalities)
    logging.info("counting the tokens of %d records of %s", len(source), source.info.name)
    try:
        n, create = len(source), np.lib.format.open_memmap
        tokens = create(temporary / "tokens.npy", "w+", np.int32, (n, num_streams))
        has_target = create(temporary / "has_target.npy", "w+", np.bool_, (n, len(tasks)))
        group = create(temporary / "group.npy", "w+", np.uint64, (n,))
        windows = create(temporary / "windows.npy", "w+", np.int32, (n,))
        for row in range(n):
            size = _count(source, row, modalities, tasks)
            tokens[row], has_target[row] = size.tokens, size.has_target
            group[row], windows[row] = size.group, size.windows
        for array in (tokens, has_target, group, windows):
            array.flush()
        try:
            os.rename(temporary, folder)
        except OSError:
            if not folder.is_dir():  # otherwise another run finished first: its sizes serve
                raise
    finally:
        shutil.rmtree(temporary, ignore_errors=True)
    return folder


def _make_temporary(folders: Sequence[Path]) -> tuple[Path, Path]:
    for folder in folders:
        temporary = folder.with_name(f".{folder.name}-{os.getpid()}")
        try:
            temporary.mkdir(parents=True)
        except OSError as error:
            logging.info("sizes cannot be written to %s: %s", folder, error)
            continue
        return folder, temporary
    raise UserError(f"sizes can be written to none of: {', '.join(map(str, folders))}")


def _load(folder: Path) -> Sizes:
    try:
        arrays = [
            np.load(folder / f"{name}.npy", mmap_mode="r", allow_pickle=False)
            for name in ("tokens", "has_target", "group", "windows")
        ]
    except (OSError, ValueError) as error:
        raise UserError(f"the sizes in {folder} cannot be read ({error}); delete them") from error
    return Sizes(*arrays)


def _check(source, modalities, tasks, sizes: Sizes, folder: Path) -> None:
    """Counts a few rows again: a sidecar of other shards, or in another order, does not match."""
    n = len(source)
    lengths = {len(a) for a in (sizes.tokens, sizes.has_target, sizes.group, sizes.windows)}
    if lengths != {n}:
        raise UserError(
            f"the sizes in {folder} are stale: they are of {len(sizes.tokens)} records, "
            f"{source.info.name!r} has {n}; delete them"
        )
    pairs, rng = (n + 1) // 2, np.random.default_rng(n)
    chosen = sorted(rng.choice(pairs, size=min(pairs, _NUM_CHECKED), replace=False).tolist())
    for row in (row for pair in chosen for row in (2 * pair, 2 * pair + 1) if row < n):
        stored = _RecordSize(
            sizes.tokens[row].tolist(),
            sizes.has_target[row].tolist(),
            int(sizes.group[row]),
            int(sizes.windows[row]),
        )
        if stored != _count(source, row, modalities, tasks):
            raise UserError(
                f"the sizes in {folder} are stale: row {row} of {source.info.name!r} does not "
                "match its record; delete them"
            )
