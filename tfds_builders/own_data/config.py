"""The config of `own_data`: which columns are what. Given as JSON, or as a file of YAML or JSON."""

from __future__ import annotations

import dataclasses
import json
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, cast

import tensorflow_datasets as tfds
import yaml

from multimed_jax.types import UserError
from tfds_builders.core.planning import DuplicatePolicy
from tfds_builders.core.records import Datasheet, SourceCard
from tfds_builders.core.targets import TargetKind
from tfds_builders.own_data.inputs import Input, check_choice, check_mapping, make_input

KINDS = ("class", "labels", "values", "coordinates")
POLICIES = ("fail", "merge_groups", "share_group", "leave_out")
ANSWER_TASK = "vqa"
FILE_SUFFIXES = (".yaml", ".yml", ".json")
_CARD_FIELDS = ("title", "publisher", "homepage", "licence", "licence_forbids", "citation", "unit")
_TARGET_KEYS = {
    "class": ("kind", "column", "names"),
    "labels": ("kind", "columns"),
    "values": ("kind", "columns"),
    "coordinates": ("kind", "file", "chain"),
}
_MAPPINGS = ("inputs", "targets", "answer", "card", "datasheet")
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.-]*", re.ASCII)
_TASK = re.compile(r"[a-z][a-z0-9_]*", re.ASCII)


@dataclasses.dataclass(frozen=True)
class Target:
    """One target of the records.

    Attributes:
        kind: see `core.targets`; "answer" has its columns in `OwnDataConfig.answer`.
        columns: of the table: of a class one, of labels and values one each; of coordinates
            that with a structure file, and that with its chain where one is named.
        names: classes in order, () those that occur; of labels and values the columns.
    """

    kind: TargetKind
    columns: tuple[str, ...]
    names: tuple[str, ...] = ()


@dataclasses.dataclass(kw_only=True)
class OwnDataConfig(tfds.core.BuilderConfig):
    """Which columns are what; a field that is left out has the value given here.

    Attributes:
        namespace: names the label space and salts the split; "" takes the config's name.
        table: csv or tsv file below the manual folder; "" where the columns are those of the
            h5ad file's obs.
        sample_id: column of the record's id; of an h5ad file without a table "" is the cell's name.
        group_id: column of what must not cross splits (patient, subject, donor).
        fine_group_id: column of a finer key, needed under three groups; "" for none.
        split: column with "train", "validation" or "test"; "" splits 70/15/15 by group.
        inputs: modality -> where its values are, see `inputs.Input`.
        targets: task -> {kind, column(s), names}, see `Target`.
        answer: {"text": column, "candidates": column}; the second may be left out.
        candidate_separator: between the candidates of a cell.
        sex, age_years, site, organ, cell_type: columns of these values; "" for none.
        private_ids: "sample_id", "group_id" or both, where they may name people: they leave the
            build as keyed hashes.
        on_duplicates: see `MedicalBuilder.ON_DUPLICATES`.
        card: of `SourceCard`: title, publisher, homepage, licence, licence_forbids, citation, unit.
        datasheet: sentences of `Datasheet` that the builder cannot know.
    """

    namespace: str = ""
    table: str = "samples.csv"
    sample_id: str = "sample_id"
    group_id: str = "group_id"
    fine_group_id: str = ""
    split: str = ""
    inputs: Mapping[str, Any] = dataclasses.field(default_factory=dict)
    targets: Mapping[str, Any] = dataclasses.field(default_factory=dict)
    answer: Mapping[str, str] = dataclasses.field(default_factory=dict)
    candidate_separator: str = "|"
    sex: str = ""
    age_years: str = ""
    site: str = ""
    organ: str = ""
    cell_type: str = ""
    private_ids: Sequence[str] = ()
    on_duplicates: DuplicatePolicy = "fail"
    card: Mapping[str, str] = dataclasses.field(default_factory=dict)
    datasheet: Mapping[str, str] = dataclasses.field(default_factory=dict)

    def __new__(cls, **given: Any) -> OwnDataConfig:
        """Raises UserError for a field that does not exist, with the nearest that does."""
        check_mapping("a config of own_data", given, [f.name for f in dataclasses.fields(cls)])
        return super().__new__(cls)

    def __post_init__(self) -> None:
        """Raises UserError for a value that is not accepted."""
        if not isinstance(self.name, str) or not _NAME.fullmatch(self.name):
            raise UserError(
                f"a config of own_data has the name {self.name!r}; accepted: letters, digits, "
                "'_', '-' and '.'"
            )
        for field in self.__annotations__:
            value = getattr(self, field)
            if field == "private_ids":
                continue
            wanted = Mapping if field in _MAPPINGS else str
            if not isinstance(value, wanted):
                kind = "mapping of names" if wanted is Mapping else "text"
                raise UserError(f"{field} of own_data is {value!r}; accepted: a {kind}")
        self.namespace = self.namespace or self.name
        if not self.inputs:
            raise UserError("a config of own_data has no inputs; accepted: {modality: {...}}")
        for name in self.private_ids:
            check_choice("private_ids of own_data", name, ("sample_id", "group_id"))
        check_choice("on_duplicates of own_data", self.on_duplicates, POLICIES)
        check_mapping("answer of own_data", self.answer, ("text", "candidates"))
        check_mapping("card of own_data", self.card, _CARD_FIELDS)
        names = [field.name for field in dataclasses.fields(Datasheet)]
        check_mapping("datasheet of own_data", self.datasheet, names)
        self.chosen_inputs = tuple(make_input(name, given) for name, given in self.inputs.items())
        self.chosen_targets = {task: _target(task, given) for task, given in self.targets.items()}
        self._check_answer()
        self._check_table()

    def _check_answer(self) -> None:
        if not self.answer:
            return
        if "text" not in self.answer or "text" not in self.inputs:
            raise UserError(
                "answer of own_data needs its column `text`, and inputs.text for the question"
            )
        if ANSWER_TASK in self.chosen_targets:
            raise UserError(f"own_data has targets.{ANSWER_TASK} and answer; accepted: one of them")
        if not self.candidate_separator:
            raise UserError("candidate_separator of own_data is empty; accepted: any text")
        self.chosen_targets[ANSWER_TASK] = Target("answer", ())

    def _check_table(self) -> None:
        from_file = [made.h5ad for made in self.chosen_inputs if made.h5ad]
        if not self.table and not from_file:
            raise UserError("own_data has no table; accepted: one, or inputs.scrna.h5ad")
        if not self.group_id or (self.table and not self.sample_id):
            raise UserError("own_data lacks sample_id or group_id; accepted: names of columns")
        task = next(
            (t for t, made in self.chosen_targets.items() if made.kind == "coordinates"), ""
        )
        if task and "protein" not in self.inputs:
            raise UserError(f"targets.{task} of own_data are coordinates and need inputs.protein")

    @property
    def columns(self) -> tuple[str, ...]:
        """Every column of the table that is read, once."""
        return tuple(
            dict.fromkeys(
                name
                for name in (
                    self.sample_id,
                    self.group_id,
                    self.fine_group_id,
                    self.split,
                    *(name for made in self.chosen_inputs for name in made.columns),
                    *(name for made in self.chosen_targets.values() for name in made.columns),
                    *self.answer.values(),
                    *self.described.values(),
                )
                if name
            )
        )

    @property
    def described(self) -> dict[str, str]:
        """Record key -> column of what is known of the person or the sample."""
        keys = ("sex", "age_years", "site", "organ", "cell_type")
        return {key: getattr(self, key) for key in keys if getattr(self, key)}

    @property
    def input(self) -> dict[str, Input]:
        """The inputs by modality."""
        return {made.modality: made for made in self.chosen_inputs}

    def describe(self, card: SourceCard) -> SourceCard:
        """The source's card with what this config says of it."""
        return dataclasses.replace(
            card,
            namespace=self.namespace,
            modalities=tuple(self.inputs),
            tasks=tuple(self.chosen_targets),
            group_key=f"column `{self.group_id}`",
            **self.card,
        )


def _target(task: Any, given: Any) -> Target:
    if not isinstance(task, str) or not _TASK.fullmatch(task):
        raise UserError(f"a target of own_data is {task!r}; accepted: a name such as 'disease'")
    where = f"targets.{task} of own_data"
    check_mapping(
        where, given, dict.fromkeys(key for keys in _TARGET_KEYS.values() for key in keys)
    )
    kind = given["kind"] if "kind" in given else ""
    check_choice(f"{where}.kind", kind, KINDS)
    check_mapping(where, given, _TARGET_KEYS[kind])
    needed = {"class": "column", "coordinates": "file"}.get(kind, "columns")
    if needed not in given:
        raise UserError(f"{where} has no {needed!r}; accepted: {', '.join(_TARGET_KEYS[kind])}")
    if kind == "coordinates":
        return Target("coordinates", tuple(given[k] for k in ("file", "chain") if k in given))
    if kind == "class":
        names = _names(f"{where}.names", given["names"]) if "names" in given else ()
        return Target("class", _names(f"{where}.column", [given["column"]]), names)
    columns = _names(f"{where}.columns", given["columns"])
    return Target(cast(TargetKind, kind), columns, columns)


def _names(where: str, given: Any) -> tuple[str, ...]:
    # A list in YAML turns grades such as 0 to 4 into numbers.
    fit = isinstance(given, (list, tuple)) and given
    names = tuple(str(name) for name in given) if fit else ()
    if not names or len(set(names)) < len(names) or not all(names):
        raise UserError(f"{where} is {given!r}; accepted: a list of names, each once")
    return names


def read_config(path: Path) -> OwnDataConfig:
    """The config in a file of YAML or JSON.

    Raises:
        UserError: the file is missing or does not parse, or a field is unknown or wrong.
    """
    try:
        text = path.read_text("utf-8")
        given = json.loads(text) if path.suffix == ".json" else yaml.safe_load(text)
    except OSError as error:
        raise UserError(f"the config {path} cannot be read: {error.strerror}") from error
    except (ValueError, yaml.YAMLError) as error:
        reason = " ".join(str(error).split())[:120]
        raise UserError(f"the config {path} does not parse: {reason}") from error
    if not isinstance(given, Mapping):
        raise UserError(f"the config {path} holds no fields; accepted: `name: ...`, `inputs: ...`")
    return OwnDataConfig(**{str(key): value for key, value in given.items()})
