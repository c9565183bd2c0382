"""What a build counts of the records it writes, block by block, so that workers can count apart.

A sum of a dataset is the sum over its blocks in their order, of each block over its records. Plain
builds and Beam builds have the same blocks, so sums agree to the last digit.
"""

from __future__ import annotations

import collections
import dataclasses
from collections.abc import Callable, Mapping
from typing import Any, Protocol, Self

from tfds_builders.core.ledger import Ledger
from tfds_builders.core.planning import Names
from tfds_builders.core.records import SourceRecord


class Statistics(Protocol):
    """Figures over written records, for `MedicalBuilder.extra_metadata`.

    Workers of a Beam build get a copy of an empty one, so it must be picklable.
    """

    def add(self, split: str, record: Mapping[str, Any]) -> None:
        """Counts one record as it is written."""
        ...

    def empty(self) -> Self:
        """One of the same kind that has counted nothing."""
        ...

    def state(self) -> Any:
        """What was counted, in values that JSON keeps; `include` takes it."""
        ...

    def include(self, state: Any) -> None:
        """Counts what another one did, after all that was counted so far."""
        ...


class NoStatistics:
    """Those of a source that needs none."""

    def add(self, split: str, record: Mapping[str, Any]) -> None:
        """Counts nothing."""

    def empty(self) -> Self:
        """Itself."""
        return self

    def state(self) -> None:
        """Nothing."""

    def include(self, state: None) -> None:
        """Counts nothing."""


class Counts:
    """How often each value occurs under each key.

    Attributes:
        counts: key -> value -> number; keys and values as they first came.
    """

    def __init__(self, pick: Callable[[str, Mapping[str, Any]], tuple[str, str] | None]) -> None:
        """`pick` gives the key and the value of a split's record, None for one not counted.

        It is a function of a module or a `functools.partial` of one, so that it can be pickled.
        """
        self._pick = pick
        self.counts: dict[str, collections.Counter[str]] = {}

    def add(self, split: str, record: Mapping[str, Any]) -> None:
        """Counts one record."""
        found = self._pick(split, record)
        if found is not None:
            self.counts.setdefault(found[0], collections.Counter())[found[1]] += 1

    def empty(self) -> Self:
        """One that picks alike."""
        return type(self)(self._pick)

    def state(self) -> dict[str, dict[str, int]]:
        """The counts."""
        return {key: dict(counts) for key, counts in self.counts.items()}

    def include(self, state: Mapping[str, Mapping[str, int]]) -> None:
        """Adds counts."""
        for key, counts in state.items():
            self.counts.setdefault(key, collections.Counter()).update(counts)


@dataclasses.dataclass(frozen=True)
class Tally:
    """All that is counted of written records.

    Attributes:
        ledger: counts and content hash.
        statistics: of the source's own.
    """

    ledger: Ledger
    statistics: Statistics

    def empty(self) -> Tally:
        """A tally of the same tasks that has counted nothing."""
        return Tally(self.ledger.empty(), self.statistics.empty())

    def state(self) -> dict[str, Any]:
        """What was counted, in values that JSON keeps; `include` takes it."""
        return {"ledger": self.ledger.state(), "statistics": self.statistics.state()}

    def include(self, state: Mapping[str, Any]) -> None:
        """Counts what another tally did."""
        self.ledger.include(state["ledger"])
        self.statistics.include(state["statistics"])


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
        tally: Tally,
        split: str,
        source: SourceRecord,
        payload: Mapping[str, Any],
        group: str,
    ) -> tuple[str, dict[str, Any]]:
        """The record and its key; `tally` counts it.

        The ledger sees the source's own ids, as the splits do: the content hash is the same
        whatever the key of `names` is.
        """
        ids = {"sample_id": source.sample_id, "group_id": group, "unit": self.unit}
        tally.ledger.add(split, {**ids, **payload})
        name = self.names.sample(source.sample_id)
        written = {"sample_id": name, "group_id": self.names.group(group)}
        record = {**ids, **written, **payload}
        tally.statistics.add(split, record)
        return name, record
