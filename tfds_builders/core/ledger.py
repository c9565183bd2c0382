"""What was written to a dataset, counted while it is written: memory does not grow with records."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from typing import Any

import numpy as np

from tfds_builders.core.records import SourceCard, record_digest
from tfds_builders.core.splits import SPLITS
from tfds_builders.core.targets import (
    ClassNames,
    Kinds,
    TargetCounts,
    TargetKind,
    check_target,
    kind_of,
)

_MODULUS = 2**256


class Ledger:
    """Counts and content hash of the records written so far.

    The content hash is that of the multiset of (split, record) pairs: digests are added modulo
    2^256, which gives the same figure in any order without keeping or sorting them.
    """

    def __init__(self, class_names: ClassNames, kinds: Kinds) -> None:
        self.class_names = dict(class_names)
        self.kinds: dict[str, TargetKind] = {task: kind_of(task, kinds) for task in class_names}
        self.num_records: dict[str, int] = dict.fromkeys(SPLITS, 0)
        self._counts = {
            split: {
                task: TargetCounts(self.kinds[task], names) for task, names in class_names.items()
            }
            for split in SPLITS
        }
        self._sum = 0

    @property
    def class_counts(self) -> dict[str, dict[str, list[int]]]:
        """Split -> task -> records per class (of labels: positives)."""
        return {
            split: {task: counts.class_counts for task, counts in per_task.items()}
            for split, per_task in self._counts.items()
        }

    @property
    def target_stats(self) -> dict[str, dict[str, dict[str, list[float]]]]:
        """Split -> task -> sums by column, of labels and values."""
        return {
            split: {task: counts.stats() for task, counts in per_task.items() if counts.stats()}
            for split, per_task in self._counts.items()
        }

    def add(self, split: str, record: Mapping[str, Any]) -> None:
        """Counts one record.

        Raises:
            ValueError: where the record's targets are not those that the builder declares.
        """
        targets = record["targets"]
        stored = {task for task, kind in self.kinds.items() if kind != "answer"}
        if set(targets) != stored:
            raise ValueError(
                f"record {record['sample_id']!r} has targets {sorted(targets)}, the builder "
                f"declares {sorted(stored)}"
            )
        for task in stored:
            where = f"record {record['sample_id']!r}, task {task!r},"
            check_target(targets[task], self.kinds[task], self.class_names[task], where)
            self._counts[split][task].add(targets[task])
        self.num_records[split] += 1
        digest = hashlib.sha256(split.encode() + record_digest(record)).digest()
        self._sum = (self._sum + int.from_bytes(digest, "big")) % _MODULUS

    def empty(self) -> Ledger:
        """A ledger of the same tasks that has counted nothing."""
        return Ledger(self.class_names, self.kinds)

    def state(self) -> dict[str, Any]:
        """What was counted, in values that JSON keeps; `include` takes it."""
        return {
            "num_records": dict(self.num_records),
            "counts": {
                split: {task: counts.state() for task, counts in per_task.items()}
                for split, per_task in self._counts.items()
            },
            "sum": self._sum,
        }

    def include(self, state: Mapping[str, Any]) -> None:
        """Counts what another ledger did; of sums the last digits follow the order of calls."""
        for split in SPLITS:
            self.num_records[split] += state["num_records"][split]
            for task, counts in self._counts[split].items():
                counts.include(state["counts"][split][task])
        self._sum = (self._sum + state["sum"]) % _MODULUS

    def content_hash(self) -> str:
        """64 hex digits of all records and their splits."""
        counts = np.array([self.num_records[split] for split in SPLITS], "<i8").tobytes()
        return hashlib.sha256(counts + self._sum.to_bytes(32, "big")).hexdigest()


def described(
    card: SourceCard, class_names: ClassNames, kinds: Kinds, ledger: Ledger
) -> dict[str, Any]:
    """The metadata of a dataset that follow from its card and from what was written."""
    return {
        "namespace": card.namespace,
        "class_names": {task: list(names) for task, names in class_names.items()},
        "class_counts": ledger.class_counts,
        "target_kinds": {task: kind_of(task, kinds) for task in class_names},
        "target_stats": ledger.target_stats,
        "unit": card.unit,
        "licence": card.licence,
        "group_key": card.group_key,
        "modalities": list(card.modalities),
        "tasks": list(card.tasks),
        "content_hash": ledger.content_hash(),
        "ceilings": {},
    }
