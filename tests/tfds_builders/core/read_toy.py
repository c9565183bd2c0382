"""A made-up source with all that makes a source that is read hard to share among workers."""

from __future__ import annotations

import functools
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np

from tests.tfds_builders.core.toy_source import ToySource
from tfds_builders.core.images import read_image
from tfds_builders.core.picture_records import film
from tfds_builders.core.quarantine import Quarantine
from tfds_builders.core.records import AuditKey, SourceItem, SourcePart, SourceRecord
from tfds_builders.core.tally import Counts


class ReadToy(ToySource, skip_registration=True):
    """Files `<split>-<patient>-<n>.jpg`: read late, by patient in parts where n is below 6.

    Class names and a number are learnt bit by bit, files `x-*` are put aside by the walk, a third
    is left out, levels are sums of floats, and answers are counted.
    """

    name = "toy_source"
    PRIVATE_IDS = ("sample_id", "group_id")
    MAX_BAD_RATE = 0.2
    LEARNT = ("_places",)

    def __init__(self, **kwargs: Any) -> None:
        self._classes: tuple[str, ...] = ()
        self._places: dict[str, int] = {}
        self.num_walked = 0
        super().__init__(**kwargs)

    def target_kinds(self) -> Any:
        return {"level": "values"}

    def class_names(self) -> dict[str, tuple[str, ...]]:
        return {"disease": self._classes, "level": ("a", "b")}

    def statistics(self) -> Counts:
        return Counts(functools.partial(_parity, self._classes))

    def extra_metadata(self) -> dict[str, Any]:
        counts = {key: dict(found) for key, found in self.written.counts.items()}
        return {"parities": counts, "walked": self.num_walked}

    def read_source(self, manual_dir: Path, quarantine: Quarantine) -> Iterator[SourceItem]:
        self.num_walked = 0
        if not self._places:
            names = sorted(path.name for path in manual_dir.glob("*.jpg"))
            self._places = {name: i for i, name in enumerate(names)}
        for path in sorted(manual_dir.glob("*.jpg")):
            self.num_walked += 1
            if path.name.startswith("x-"):
                quarantine.add(path.name, "has no patient")
                continue
            official, patient, number = path.stem.split("-")
            if int(number) % 9 == 8:
                quarantine.leave_out("ninth film")
                continue
            label = ("even", "odd")[int(number) % 2]
            if label not in self._classes:
                self._classes = (*self._classes, label)
            record = SourceRecord(
                sample_id=path.name,
                group_id=patient,
                record=functools.partial(self._record, path, label),
                stratum=label,
                official_split=official,
                audit=functools.partial(_audit, path),
            )
            if int(number) < 6:
                yield SourcePart(functools.partial(_part, record))
            else:
                yield record

    def _record(self, path: Path, label: str) -> Mapping[str, Any]:
        place = self._places[path.name]
        level = np.array([place / 7, np.nan if place % 3 else place * 1e5 + 0.1], np.float32)
        targets = {"disease": self._classes.index(label), "level": level}
        return {"xray": film(path).value, "targets": targets}


def _part(record: SourceRecord, quarantine: Quarantine) -> Iterator[SourceRecord]:
    if record.sample_id.endswith("-1.jpg"):
        quarantine.leave_out("first film of a part")
    yield record


def _audit(path: Path) -> AuditKey:
    return read_image(path).audit


def _parity(
    classes: tuple[str, ...], split: str, record: Mapping[str, Any]
) -> tuple[str, str] | None:
    label = classes[record["targets"]["disease"]]
    return (split, label) if record["xray"]["height"] else None
