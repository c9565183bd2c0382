"""Keeps decoded records in files, so that each is decoded once and not in every epoch.

Kept is what does not depend on chance: where a modality has a `Preparation`, what that prepares
(augmenting comes after it); otherwise its parts, where decoding them drew nothing from the
generator. Random crops, choices of tiles and long records' further windows are decoded each time.
Targets that are read from the record alone are kept beside it, so that a record of which everything
is kept is not read at all.

A table is named by what it holds: the content hash of the dataset, the split, the modality with its
options (or the tasks), training or evaluation, and the versions that decode. So a change of any of
them decodes anew, into another table; old ones stay until they are deleted.
"""

from __future__ import annotations

import hashlib
import json
import re
import sys
from collections.abc import Callable, Mapping, Sequence
from importlib import metadata
from pathlib import Path
from typing import Any

import numpy as np

from multimed_jax.config import RunConfig
from multimed_jax.config_io import to_json
from multimed_jax.data.kept_arrays import Arrays, KeptArrays, KeptFolder
from multimed_jax.data.sizes import read_target
from multimed_jax.data.sources import DataSource
from multimed_jax.specs import ModalitySpec, TaskSpec
from multimed_jax.types import Parts, Record

# Raised when the same versions decode to other values, or entries change their meaning.
_FORMAT = 1
_PREPARED, _PARTS, _TARGETS = "prepared", "parts", "targets"
_FIELDS = ("parts", "coords", "item")


def decode_record(
    modality: ModalitySpec, record: Record, window: int, rng: np.random.Generator | None
) -> dict[str, Parts]:
    """The parts of one view: drawn where there is a generator (training), else of a window."""
    if modality.windows is None or rng is not None:
        return modality.decode(record, modality.options, rng)
    number = modality.windows.count(record, modality.options)
    return modality.windows.decode(record, modality.options, window % number)


def open_decoded(
    config: RunConfig, sources: Sequence[DataSource], *, train: bool
) -> tuple[DecodedRecords, ...] | None:
    """What is kept of each source's records; None where the config keeps nothing.

    Raises:
        UserError: where `config.data.decoded_cache` cannot be used.
    """
    data = config.data
    if not data.decoded_cache:
        return None
    folder = KeptFolder(data.decoded_cache, data.decoded_cache_gib)
    return tuple(
        DecodedRecords(folder, source, config.modalities, config.tasks, train=train)
        for source in sources
    )


class DecodedRecords:
    """Streams and targets of one split, decoded or as they were kept."""

    def __init__(
        self,
        folder: KeptFolder,
        source: DataSource,
        modalities: Sequence[ModalitySpec],
        tasks: Sequence[TaskSpec],
        *,
        train: bool,
    ):
        place = re.sub(r"\W", "_", f"{source.info.content_hash}-{source.split}")
        self._tables = {}
        for modality in modalities:
            values = [modality.spec, _code(modality), to_json(modality.options), train, _versions()]
            name = f"{place}/{modality.name}-{_hash(values)}"
            self._tables[modality.name] = KeptArrays(folder, name, len(source))
        values = [[task.name, to_json(task)] for task in tasks]
        name = f"{place}/{_TARGETS}-{_hash([values, list(source.tasks), _versions()])}"
        self._targets = KeptArrays(folder, name, len(source))

    def streams(
        self,
        modality: ModalitySpec,
        row: int,
        window: int,
        rng: np.random.Generator | None,
        read: Callable[[], Record],
    ) -> dict[str, Parts]:
        """As `decode_record`. `read` gives the record, and is called where it is needed."""
        table, options = self._tables[modality.name], modality.options
        found = table.get(row)
        if found is not None and found[0] == _PARTS:
            return _to_parts(found[1])
        if modality.preparation is not None:
            prepared = found[1] if found is not None else None
            if prepared is None:
                prepared = modality.preparation.prepare(read(), options)
                if prepared is not None:
                    table.put(row, _PREPARED, prepared)
            if prepared is not None:
                return modality.preparation.finish(prepared, options, rng)
        record, before = read(), _state(rng)
        streams = decode_record(modality, record, window, rng)
        windows = modality.windows if rng is None else None
        whole = windows is None or windows.count(record, options) == 1
        if whole and before == _state(rng):
            table.put(row, _PARTS, _to_arrays(streams))
        return streams

    def targets(
        self, row: int, tasks: Sequence[TaskSpec], read: Callable[[], Record]
    ) -> Mapping[str, np.ndarray | None]:
        """The targets of the tasks that a record carries, none of which reads parts."""
        found = self._targets.get(row)
        if found is not None:
            return {task.name: found[1][task.name] for task in tasks}
        values = {task.name: read_target(read(), task) for task in tasks}
        known = {name: value for name, value in values.items() if value is not None}
        if len(known) == len(values):
            self._targets.put(row, _TARGETS, known)
        return values


# ------------------------------------------------------------------------------- internals


def _hash(values: Any) -> str:
    return hashlib.sha256(json.dumps(values, sort_keys=True).encode()).hexdigest()[:16]


def _code(modality: ModalitySpec) -> str:
    """Digest of the file where the modality lives; it may be one of the user's own."""
    module = sys.modules.get(modality.spec.split(":")[0])
    file = None if module is None else module.__file__
    return "" if file is None else hashlib.sha256(Path(file).read_bytes()).hexdigest()


def _versions() -> list[Any]:
    return [_FORMAT, *(metadata.version(name) for name in ("multimed_jax", "pillow", "numpy"))]


def _state(rng: np.random.Generator | None) -> Any:
    """Equal before and after what draws nothing."""
    return None if rng is None else repr(rng.bit_generator.state)


def _to_arrays(streams: Mapping[str, Parts]) -> Arrays:
    return {
        f"{name}/{field}": np.asarray(getattr(parts, field))
        for name, parts in streams.items()
        for field in _FIELDS
    }


def _to_parts(arrays: Arrays) -> dict[str, Parts]:
    names = dict.fromkeys(key.rsplit("/", 1)[0] for key in arrays)
    return {name: Parts(*(arrays[f"{name}/{field}"] for field in _FIELDS)) for name in names}
