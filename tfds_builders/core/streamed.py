"""Splits of sources that are generated: known without an index pass, so memory stays flat."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterator, Mapping
from typing import Any

from tfds_builders.core.ledger import Ledger
from tfds_builders.core.planning import Names
from tfds_builders.core.quarantine import Quarantine
from tfds_builders.core.records import SourceRecord


@dataclasses.dataclass(frozen=True)
class StreamedSplit:
    """One split of a source that knows every record's group and split without an index pass.

    Attributes:
        num_groups: number of different groups in the split.
        records: called with the number of a block; yields its records. No block depends on
            another, so workers of a Beam build make them apart: it must then be picklable, as a
            function of a module or a `functools.partial` of one is.
        num_blocks: how many blocks there are.
    """

    num_groups: int
    records: Callable[[int], Iterator[SourceRecord]]
    num_blocks: int = 1


@dataclasses.dataclass(frozen=True)
class Completer:
    """Makes a source's record whole: its ids and its unit.

    Attributes:
        unit: of the source's card.
        names: how ids leave the build.
    """

    unit: str
    names: Names

    def __call__(
        self,
        ledger: Ledger,
        split: str,
        source: SourceRecord,
        payload: Mapping[str, Any],
        group: str,
    ) -> tuple[str, dict[str, Any]]:
        """The record and its key; `ledger` counts it.

        The ledger sees the source's own ids, as the splits do: the content hash is the same
        whatever the key of `names` is.
        """
        ids = {"sample_id": source.sample_id, "group_id": group, "unit": self.unit}
        ledger.add(split, {**ids, **payload})
        name = self.names.sample(source.sample_id)
        written = {"sample_id": name, "group_id": self.names.group(group)}
        return name, {**ids, **written, **payload}


def facts_of(streamed: Mapping[str, StreamedSplit]) -> dict[str, Any]:
    """What `planning.make_plan` says of a source that is read, for one that is generated."""
    return {
        "num_groups": {split: part.num_groups for split, part in streamed.items()},
        "split_mode": "group",
        "quarantine": Quarantine().summary(0),
        "left_out": {},
        "duplicates": {},
    }
