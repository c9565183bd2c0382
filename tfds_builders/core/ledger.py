"""What was written to a dataset, counted while it is written: memory does not grow with records."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from typing import Any

import numpy as np

from tfds_builders.core.records import record_digest
from tfds_builders.core.splits import SPLITS

_MODULUS = 2**256


class Ledger:
    """Counts and content hash of the records written so far.

    The content hash is that of the multiset of (split, record) pairs: digests are added modulo
    2^256, which gives the same figure in any order without keeping or sorting them.
    """

    def __init__(self, class_names: Mapping[str, tuple[str, ...]]) -> None:
        self.class_names = dict(class_names)
        self.num_records: dict[str, int] = dict.fromkeys(SPLITS, 0)
        self.class_counts: dict[str, dict[str, list[int]]] = {
            split: {task: [0] * len(names) for task, names in class_names.items()}
            for split in SPLITS
        }
        self._sum = 0

    def add(self, split: str, record: Mapping[str, Any]) -> None:
        """Counts one record.

        Raises:
            ValueError: where the record's targets are not those of the builder's class names.
        """
        targets = record["targets"]
        if set(targets) != set(self.class_names):
            raise ValueError(
                f"record {record['sample_id']!r} has targets {sorted(targets)}, the builder "
                f"declares {sorted(self.class_names)}"
            )
        for task, names in self.class_names.items():
            value = int(targets[task])
            if not -1 <= value < len(names):
                raise ValueError(
                    f"record {record['sample_id']!r} has class {value} for {task!r}; accepted: "
                    f"-1 to {len(names) - 1}"
                )
            if value >= 0:
                self.class_counts[split][task][value] += 1
        self.num_records[split] += 1
        digest = hashlib.sha256(split.encode() + record_digest(record)).digest()
        self._sum = (self._sum + int.from_bytes(digest, "big")) % _MODULUS

    def content_hash(self) -> str:
        """64 hex digits of all records and their splits."""
        counts = np.array([self.num_records[split] for split in SPLITS], "<i8").tobytes()
        return hashlib.sha256(counts + self._sum.to_bytes(32, "big")).hexdigest()
