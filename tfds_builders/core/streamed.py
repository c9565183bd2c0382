"""Splits of sources that are generated: known without an index pass, so memory stays flat."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterator, Mapping
from typing import Any

from tfds_builders.core.quarantine import Quarantine
from tfds_builders.core.records import SourceRecord


@dataclasses.dataclass(frozen=True)
class StreamedSplit:
    """One split of a source that knows every record's group and split without an index pass.

    Attributes:
        num_groups: number of different groups in the split.
        records: called once; yields the split's records.
    """

    num_groups: int
    records: Callable[[], Iterator[SourceRecord]]


def facts_of(streamed: Mapping[str, StreamedSplit]) -> dict[str, Any]:
    """What `planning.make_plan` says of a source that is read, for one that is generated."""
    return {
        "num_groups": {split: part.num_groups for split, part in streamed.items()},
        "split_mode": "group",
        "quarantine": Quarantine().summary(0),
        "left_out": {},
        "duplicates": {},
    }
