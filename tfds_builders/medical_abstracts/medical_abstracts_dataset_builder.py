"""Builder of the Medical Abstracts corpus: `medical_tc_{train,test,labels}.csv`."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import tensorflow_datasets as tfds

from multimed_jax.types import UserError
from tfds_builders.core.base import DuplicatePolicy, MedicalBuilder, SplitMode
from tfds_builders.core.features import text_features
from tfds_builders.core.quarantine import Quarantine
from tfds_builders.core.records import Datasheet, SourceCard, SourceRecord, text_audit
from tfds_builders.core.tables import read_csv

# As medical_tc_labels.csv names them; condition_label counts from 1.
CLASSES = (
    "neoplasms",
    "digestive system diseases",
    "nervous system diseases",
    "cardiovascular diseases",
    "general pathological conditions",
)
LABELS_FILE = "medical_tc_labels.csv"
# Both files of the publisher; a copy may lack the first.
FILES = {"train": "medical_tc_train.csv", "test": "medical_tc_test.csv"}


def check_labels(path: Path) -> None:
    """Raises UserError where the file's labels are not the five that this builder knows."""
    rows = read_csv(path, ("condition_label", "condition_name"))
    there = {
        row["condition_label"].strip(): row["condition_name"].strip().lower()
        for row in rows
        if "condition_name" in row
    }
    known = {str(i): name for i, name in enumerate(CLASSES, start=1)}
    if there != known:
        shown = ", ".join(f"{label} {name}" for label, name in there.items()) or "none"
        accepted = ", ".join(f"{label} {name}" for label, name in known.items())
        raise UserError(f"the file {path} has the labels {shown}; accepted: {accepted}")


class Builder(MedicalBuilder):
    """Abstracts with one of five patient conditions."""

    VERSION = tfds.core.Version("1.0.0")
    BUILDER_CONFIGS = [
        tfds.core.BuilderConfig(
            name="grouped", description="Split by text, over all files that are there."
        ),
        tfds.core.BuilderConfig(
            name="official",
            description="The published train and test files; train abstracts that recur in test "
            "are left out.",
        ),
    ]
    CARD = SourceCard(
        name="medical_abstracts",
        title="Medical Abstracts TC Corpus: abstracts of five patient conditions",
        namespace="medical_abstracts",
        modalities=("text",),
        tasks=("disease",),
        publisher="Schopf, Braun, Matthes (TU Munich, sebis)",
        homepage="https://github.com/sebischair/Medical-Abstracts-TC-Corpus",
        licence="CC BY-SA 3.0",
        licence_forbids="Sharing a changed copy under other terms, or without naming the authors.",
        how_to_obtain="download github.com/sebischair/Medical-Abstracts-TC-Corpus; --manual_dir is "
        "the folder that holds medical_tc_labels.csv, medical_tc_test.csv and, where there, "
        "medical_tc_train.csv",
        citation="Schopf, Braun, Matthes. Evaluating Unsupervised Text Classification: Zero-shot "
        "and Similarity-based Approaches. NLPIR 2022. doi:10.1145/3582768.3582795",
        group_key="normalised text (identical abstracts are one group)",
        unit="document",
        size="14,438 abstracts",
    )
    DATASHEET = Datasheet(
        collection="Abstracts of the medical literature, collected and published as two csv files.",
        labels="One condition per row as published; identical abstracts recur under other labels, "
        "so no classifier reaches 1.",
        personal_data="No records of patients: published abstracts, though case reports describe "
        "single unnamed persons.",
        consent="Not applicable to published abstracts; the corpus states nothing beyond its "
        "licence.",
        patients_separable="No: a document is about a study, not a person.",
        known_biases="The fifth class is a mixture of conditions; repeats make the labels partly "
        "multi-label; the language is that of English journals.",
        intended_use="Development and testing of text classification.",
        unsuitable_use="Diagnosis, triage or any decision on a person.",
    )
    EXPECTED_LAYOUT = "medical_tc_{labels,test,train}.csv"

    def split_mode(self) -> SplitMode:
        """Official only where the config asks for it."""
        return "official" if self._is_official else "group"

    def duplicate_policy(self) -> DuplicatePolicy:
        """In group mode equal texts share a group; the published files share abstracts."""
        return "leave_out" if self._is_official else "fail"

    @property
    def _is_official(self) -> bool:
        return self.builder_config is not None and self.builder_config.name == "official"

    def record_features(self) -> dict[str, Any]:
        """One abstract."""
        return {"text": text_features()}

    def class_names(self) -> dict[str, tuple[str, ...]]:
        """The five conditions."""
        return {"disease": CLASSES}

    def read_source(self, manual_dir: Path, quarantine: Quarantine) -> Iterator[SourceRecord]:
        """Yields the abstracts of train (where there) and test, by row."""
        check_labels(manual_dir / LABELS_FILE)
        for side, name in FILES.items():
            path = manual_dir / name
            if side == "train" and not path.is_file():
                if self._is_official:
                    raise UserError(
                        f"the config 'official' needs {' and '.join(FILES.values())}; "
                        f"{path} does not exist"
                    )
                continue
            yield from _read_side(path, side, self._is_official, quarantine)


def _read_side(
    path: Path, side: str, is_official: bool, quarantine: Quarantine
) -> Iterator[SourceRecord]:
    rows = read_csv(path, ("condition_label", "medical_abstract"))
    if not rows:
        raise UserError(f"the file {path} holds no abstracts below its header")
    labels = {str(i): i - 1 for i in range(1, len(CLASSES) + 1)}
    for number, row in enumerate(rows, start=1):
        sample_id = f"{side}/{number:05d}"
        text = row["medical_abstract"].strip() if "medical_abstract" in row else ""
        label = row["condition_label"].strip()
        if not text:
            quarantine.add(sample_id, "the abstract is empty")
            continue
        if label not in labels:
            quarantine.add(sample_id, f"has the label {label!r}; accepted: {', '.join(labels)}")
            continue
        audit = text_audit(text)
        group = audit.digest.hex()[:16]
        yield SourceRecord(
            sample_id=sample_id,
            # The published files share texts: officially a group is a text within one file.
            group_id=f"{side}-{group}" if is_official else group,
            record={"text": {"text": text}, "targets": {"disease": labels[label]}},
            stratum=CLASSES[labels[label]],
            official_split=side,
            audit=audit,
        )
