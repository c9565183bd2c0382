"""All studies of a patient as records."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np
from jaxtyping import Int

from tfds_builders.core.records import SourceRecord
from tfds_builders.core.targets import missing_target
from tfds_builders.phantoms import base_studies, more_studies, small_studies
from tfds_builders.phantoms.patient import SEXES, SITES, Patients, make_patients, patient_id
from tfds_builders.phantoms.study import EMPTY, Item, Study

BLOCK = 256  # patients rendered together; what they are does not depend on it
STUDIES: Mapping[str, Study] = {
    study.name: study for study in (*base_studies.STUDIES, *more_studies.STUDIES)
}
SMALL: Mapping[str, Study] = {study.name: study for study in small_studies.STUDIES}
BASE = tuple(study.name for study in base_studies.STUDIES)


def study_of(name: str) -> Study:
    """The study of this name: of `STUDIES`, or of `SMALL`."""
    return STUDIES[name] if name in STUDIES else SMALL[name]


def modalities_of(chosen: Sequence[Study]) -> tuple[str, ...]:
    """Every modality of the studies once, in the order in which they appear."""
    return tuple(dict.fromkeys(name for study in chosen for name in study.modalities))


def stream(
    seed: int, indices: Int[np.ndarray, "N"], names: Sequence[str] = BASE
) -> Iterator[SourceRecord]:
    """The records of the patients `indices`, patient by patient, of the studies `names`."""
    chosen = [study_of(name) for name in names]
    blank = _blank(chosen)
    for start in range(0, len(indices), BLOCK):
        patients = make_patients(seed, indices[start : start + BLOCK])
        made = [study.items(patients) for study in chosen]
        for row in range(len(patients.draws.patients)):
            for study, items in zip(chosen, made, strict=True):
                yield _record(patients, row, study, items[row], blank)


def _blank(chosen: Sequence[Study]) -> dict[str, Any]:
    """A record without any modality, answer or target."""
    blank = {name: EMPTY[name] for name in modalities_of(chosen)}
    if any(study.kind == "answer" for study in chosen):
        blank["answer"] = EMPTY["answer"]
    targets = {s.task: missing_target(s.kind, s.names) for s in chosen if s.kind != "answer"}
    return {**blank, "targets": targets}


def _record(
    patients: Patients, row: int, study: Study, item: Item, blank: dict[str, Any]
) -> SourceRecord:
    group = patient_id(int(patients.draws.patients[row]))
    known = {} if study.kind == "answer" else {study.task: item.target}
    record = {
        **blank,
        "unit": item.unit,
        "targets": {**blank["targets"], **known},
        "sex": SEXES[patients.sex[row]],
        "age_years": np.float32(patients.age_years[row] if item.tells_age else np.nan),
        "site": SITES[patients.site[row]],
        "organ": item.organ,
        "cell_type": "",
        **item.values,
    }
    return SourceRecord(f"{group}-{study.name}", group, record, item.stratum)
