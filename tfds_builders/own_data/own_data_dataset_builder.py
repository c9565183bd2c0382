"""Builder of a lab's own data: one table, any modality, any target."""

from __future__ import annotations

import functools
from collections.abc import Iterator
from pathlib import Path
from typing import Any, cast

import numpy as np
import tensorflow_datasets as tfds

from multimed_jax.types import UserError
from tfds_builders.core.base import MedicalBuilder
from tfds_builders.core.features import answer_features
from tfds_builders.core.planning import DuplicatePolicy, SplitMode
from tfds_builders.core.quarantine import Quarantine
from tfds_builders.core.records import AuditKey, Datasheet, SourceCard, SourceRecord, bytes_audit
from tfds_builders.core.targets import TargetKind
from tfds_builders.own_data.backbones import read_backbone
from tfds_builders.own_data.config import FILE_SUFFIXES, OwnDataConfig, read_config
from tfds_builders.own_data.expression import CellReader, rows_of_obs
from tfds_builders.own_data.inputs import Input
from tfds_builders.own_data.pictures import CtReader, MriVolumeReader, PictureReader, TileReader
from tfds_builders.own_data.readers import Reader
from tfds_builders.own_data.sequences import SequenceReader, TextReader
from tfds_builders.own_data.signals import SignalReader
from tfds_builders.own_data.table import Cutter, Sample, cell, read_rows

_READERS: dict[str, type[Any]] = {
    "oct": PictureReader,
    "xray": PictureReader,
    "mri": PictureReader,
    "ct": CtReader,
    "pathology": TileReader,
    "eeg": SignalReader,
    "genomics": SequenceReader,
    "scrna": CellReader,
    "protein": SequenceReader,
    "text": TextReader,
}
_TEXT = tfds.features.Text
_EXAMPLE_TASKS = {"oct": "disease", "xray": "disease", "mri": "tumor", "pathology": "breast"}


class Builder(MedicalBuilder):
    """Records of a table that a config describes."""

    VERSION = tfds.core.Version("1.0.0")
    BUILDER_CONFIGS = [
        OwnDataConfig(
            name=modality,
            description=f"{modality}: samples.csv with sample_id, group_id, file, label ({task})",
            inputs={modality: {"file": "file"}},
            targets={task: {"kind": "class", "column": "label"}},
        )
        for modality, task in _EXAMPLE_TASKS.items()
    ]
    CARD = SourceCard(
        name="own_data",
        title="A table of your own",
        namespace="own_data",
        modalities=tuple(_READERS),
        tasks=(),
        publisher="whoever collected the data",
        homepage="",
        licence="not stated",
        licence_forbids="What whoever collected the data forbids.",
        how_to_obtain="a folder with a table (csv or tsv) and the files it names; the config says "
        "which columns are what (docs/own_data.md)",
        citation="",
        group_key="a column of the table",
        unit="sample",
        size="yours",
    )
    DATASHEET = Datasheet(
        collection="Not known to the builder; the config's `datasheet` can say it.",
        labels="Columns of the table; who set them is not known to the builder.",
        personal_data="Columns that the config does not name are not read; ids, paths in ids and "
        "free text are stored as they are.",
        consent="Not known to the builder; the config's `datasheet` can say it.",
        patients_separable="By the column that the config names as group.",
        known_biases="Not known to the builder; the config's `datasheet` can say it.",
        intended_use="Training and measuring on data of one's own.",
        unsuitable_use="Any claim that the collection of the data does not support.",
    )
    EXPECTED_LAYOUT = "the table of the config (samples.csv) and the files that its columns name"

    def __init__(self, **kwargs: Any) -> None:
        """The classes become known while the table is read."""
        self._task_names: dict[str, tuple[str, ...]] = {}
        self._samples: list[Sample] = []
        super().__init__(**kwargs)

    @property
    def _config(self) -> OwnDataConfig:
        return cast(OwnDataConfig, self.builder_config)

    @functools.cached_property
    def _readers(self) -> dict[str, Reader]:
        burned_in = self.options.accept_burned_in
        return {made.modality: _reader(made, burned_in) for made in self._config.chosen_inputs}

    def _info(self) -> tfds.core.DatasetInfo:
        # The card and the datasheet tell what the config does.
        vars(self)["CARD"] = self._config.describe(type(self).CARD)
        vars(self)["PRIVATE_IDS"] = tuple(self._config.private_ids)
        said = {**vars(type(self).DATASHEET), **self._config.datasheet}
        vars(self)["DATASHEET"] = Datasheet(**said)
        return super()._info()

    @classmethod
    def get_builder_config(cls, name: str, version: Any = None) -> tfds.core.BuilderConfig | None:
        """A config by its name, or the path of a file that holds one."""
        if isinstance(name, str) and name.endswith(FILE_SUFFIXES):
            return read_config(Path(name).expanduser())
        return super().get_builder_config(name, version)

    def record_features(self) -> dict[str, Any]:
        """The modalities of the config, the answer, and what the table says of each sample."""
        made: dict[str, Any] = {name: reader.features() for name, reader in self._readers.items()}
        if self._config.answer:
            made["answer"] = answer_features()
        for key in self._config.described:
            made[key] = tfds.features.Scalar(np.float32) if key == "age_years" else _TEXT()
        return made

    def target_kinds(self) -> dict[str, TargetKind]:
        """As the config says."""
        return {task: target.kind for task, target in self._config.chosen_targets.items()}

    def class_names(self) -> dict[str, tuple[str, ...]]:
        """The names of the config, else the classes that occur in the table."""
        targets = self._config.chosen_targets
        return {
            t: self._task_names[t] if t in self._task_names else made.names
            for t, made in targets.items()
        }

    def split_mode(self) -> SplitMode:
        """The table's split, where the config names its column."""
        return "official" if self._config.split else "group"

    def duplicate_policy(self) -> DuplicatePolicy:
        """As the config says."""
        return self._config.on_duplicates

    def read_source(self, manual_dir: Path, quarantine: Quarantine) -> Iterator[SourceRecord]:
        """Yields the samples in the order of the table."""
        if not self._samples:
            self._samples = self._read_table(manual_dir)
        seen: set[tuple[str, ...]] = set()
        for sample in self._samples:
            if not any(reader.present(sample) for reader in self._readers.values()):
                raise UserError(
                    f"a row of the table has none of the modalities {', '.join(self._readers)}; "
                    "accepted: at least one"
                )
            looked_at = tuple(cell(sample.rows[0], name) for name in self._looked_at)
            yield SourceRecord(
                sample_id=sample.sample_id,
                group_id=sample.group_id,
                fine_group_id=sample.fine_group_id,
                official_split=sample.split,
                record=functools.partial(self._record, manual_dir, sample),
                stratum=sample.stratum,
                audit=functools.partial(self._audit, manual_dir, sample, looked_at in seen),
            )
            if any(looked_at):
                seen.add(looked_at)

    @property
    def _looked_at(self) -> list[str]:
        """Where questions are asked, the columns that name what they are asked about."""
        others = [made for made in self._config.chosen_inputs if made.modality != "text"]
        return [made.file for made in others if made.file] if self._config.answer else []

    def _read_table(self, manual_dir: Path) -> list[Sample]:
        config = self._config
        if config.table:
            rows, where = read_rows(manual_dir, config), f"the file {manual_dir / config.table}"
        else:
            source = cast(CellReader, self._readers["scrna"]).open(manual_dir)
            rows, where = rows_of_obs(source, config), "obs"
            if not config.sample_id:
                rows = [{**row, "": name} for row, name in zip(rows, source.names, strict=True)]
        if not rows:
            raise UserError(f"{where} has no rows; accepted: one for each sample")
        cutter = Cutter(config, rows, where)
        self._task_names = cutter.names
        return cutter.samples(rows)

    def _values(self, manual_dir: Path, sample: Sample) -> dict[str, Any]:
        return {
            name: reader.read(manual_dir, sample)
            for name, reader in self._readers.items()
            if reader.present(sample)
        }

    def _audit(self, manual_dir: Path, sample: Sample, seen: bool) -> AuditKey:
        # Everything is decoded now, so that what cannot be read is found before the splits are.
        values = self._values(manual_dir, sample)
        self._backbones(manual_dir, sample, values)
        # Records are compared by their first modality. Several questions about one picture share
        # it by design: the first stands for the picture, the others for themselves.
        order = [name for name in self._readers if name in values]
        if self._config.answer:
            order.sort(key=lambda name: name == "text")
        key = self._readers[order[0]].audit(values[order[0]])
        if seen and "text" in values:
            return bytes_audit(key.digest + values["text"]["text"].encode())
        return key

    def _record(self, manual_dir: Path, sample: Sample) -> dict[str, Any]:
        values = self._values(manual_dir, sample)
        backbones = self._backbones(manual_dir, sample, values)
        made: dict[str, Any] = {
            name: values[name] if name in values else reader.empty()
            for name, reader in self._readers.items()
        }
        if self._config.answer:
            made["answer"] = self._answer(sample)
        return {**made, **sample.described, "targets": {**sample.targets, **backbones}}

    def _answer(self, sample: Sample) -> dict[str, Any]:
        columns, row = self._config.answer, sample.rows[0]
        listed = cell(row, columns["candidates"]) if "candidates" in columns else ""
        parts = [part.strip() for part in listed.split(self._config.candidate_separator)]
        candidates = [part for part in parts if part]
        text = cell(row, columns["text"])
        if candidates and text and text not in candidates:
            raise UserError(
                f"an answer of the table is {text!r}; accepted: one of its candidates, "
                f"{', '.join(candidates)}"
            )
        return {"text": text, "candidates": candidates}

    def _backbones(
        self, manual_dir: Path, sample: Sample, values: dict[str, Any]
    ) -> dict[str, np.ndarray]:
        sequence = values["protein"]["sequence"] if "protein" in values else ""
        return {
            task: read_backbone(manual_dir, sample, target, sequence)
            for task, target in self._config.chosen_targets.items()
            if target.kind == "coordinates"
        }


def _reader(given: Input, accept_burned_in: bool) -> Reader:
    if given.form == "volume":
        return MriVolumeReader(given, accept_burned_in)
    if given.modality == "ct":
        return CtReader(given, accept_burned_in)
    return _READERS[given.modality](given)
