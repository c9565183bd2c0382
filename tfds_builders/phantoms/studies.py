"""The four studies of a patient as records: brain slice, chest visit, EEG trial, cell."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
from jaxtyping import Int

from tfds_builders.core.records import SourceRecord
from tfds_builders.phantoms import eeg, mri, rasters, scrna, text, xray
from tfds_builders.phantoms.patient import (
    CELL_ORGANS,
    CLASS_NAMES,
    SEXES,
    SITES,
    Patients,
    make_patients,
    patient_id,
)

BLOCK = 256  # patients rendered together; what they are does not depend on it
NO_IMAGE = {
    "encoded": b"",
    "height": 0,
    "width": 0,
    "spacing_mm": np.zeros(2, np.float32),
}
# A record that lacks a modality has it empty.
EMPTY: dict[str, Any] = {
    "mri": NO_IMAGE,
    "xray": NO_IMAGE,
    "eeg": {
        "signal_uv": np.zeros((0, len(eeg.CHANNELS)), np.float32),
        "rate_hz": np.float32(0),
        "electrode_xyz": np.full((len(eeg.CHANNELS), 3), np.nan, np.float32),
        "channel_names": [],
    },
    "scrna": {"gene_keys": np.zeros(0, np.int32), "values": np.zeros(0, np.float32), "unit": ""},
    "text": {"text": ""},
}


def stream(seed: int, indices: Int[np.ndarray, "N"]) -> Iterator[SourceRecord]:
    """All records of the patients `indices`, patient by patient."""
    for start in range(0, len(indices), BLOCK):
        yield from _block(make_patients(seed, indices[start : start + BLOCK]))


def _block(patients: Patients) -> Iterator[SourceRecord]:
    slices, views, notes = mri.render(patients), xray.render(patients), text.render(patients)
    trials, counts = eeg.render(patients), scrna.render(patients)
    cell_types = CLASS_NAMES["cell_type"]
    for row in range(len(patients.draws.patients)):
        cell_type = cell_types[patients.labels["cell_type"][row]]
        cell_organ = CELL_ORGANS[patients.cell_organ[row]]
        view = _image(views[row], xray.SPACING_MM)
        visit = {"xray": view, "text": {"text": notes[row]}}
        brain_slice = {"mri": _image(slices[row], mri.SPACING_MM)}
        yield _record(patients, row, "mri", "slice", "tumor", brain_slice, "brain")
        yield _record(patients, row, "visit", "visit", "disease", visit, "lung")
        yield _record(patients, row, "eeg", "trial", "motor", {"eeg": _trial(trials[row])}, "brain")
        cell = {"scrna": _cell(counts[row]), "cell_type": cell_type}
        yield _record(patients, row, "cell", "cell", "cell_type", cell, cell_organ)


def _record(
    patients: Patients,
    row: int,
    suffix: str,
    unit: str,
    task: str,
    values: dict[str, Any],
    organ: str,
) -> SourceRecord:
    label = int(patients.labels[task][row])
    group = patient_id(int(patients.draws.patients[row]))
    record = {
        **EMPTY,
        "unit": unit,
        "targets": {**dict.fromkeys(CLASS_NAMES, -1), task: label},
        "sex": SEXES[patients.sex[row]],
        "age_years": np.float32(patients.age_years[row]),
        "site": SITES[patients.site[row]],
        "organ": organ,
        "cell_type": "",
        **values,
    }
    return SourceRecord(f"{group}-{suffix}", group, record, CLASS_NAMES[task][label])


def _image(image: np.ndarray, spacing_mm: float) -> dict[str, Any]:
    return {
        "encoded": rasters.to_png(image),
        "height": image.shape[0],
        "width": image.shape[1],
        "spacing_mm": np.full(2, spacing_mm, np.float32),
    }


def _trial(signal_uv: np.ndarray) -> dict[str, Any]:
    return {
        "signal_uv": signal_uv,
        "rate_hz": np.float32(eeg.RATE_HZ),
        "electrode_xyz": eeg.ELECTRODE_XYZ,
        "channel_names": list(eeg.CHANNELS),
    }


def _cell(counts: np.ndarray) -> dict[str, Any]:
    present = np.flatnonzero(counts)
    return {
        "gene_keys": scrna.panel_keys()[present],
        "values": counts[present].astype(np.float32),
        "unit": "counts",
    }
