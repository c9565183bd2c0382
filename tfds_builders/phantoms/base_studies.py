"""The four studies of every config: brain slice, chest visit, EEG trial, cell."""

from __future__ import annotations

from typing import Any

import numpy as np

from tfds_builders.phantoms import eeg, mri, scrna, text, xray
from tfds_builders.phantoms.patient import CELL_ORGANS, CLASS_NAMES, Patients
from tfds_builders.phantoms.study import Item, Study, cell, image


def class_item(
    patients: Patients, row: int, task: str, unit: str, organ: str, values: dict[str, Any]
) -> Item:
    """The item of a study whose target is a class of `CLASS_NAMES`."""
    label = int(patients.labels[task][row])
    return Item(unit, organ, values, label, CLASS_NAMES[task][label])


def class_study(name: str, modalities: tuple[str, ...], task: str, items: Any) -> Study:
    """A study whose target is a class of `CLASS_NAMES`."""
    return Study(name, modalities, task, "class", CLASS_NAMES[task], items)


def _slices(patients: Patients) -> list[Item]:
    return [
        class_item(patients, row, "tumor", "slice", "brain", {"mri": image(view, mri.SPACING_MM)})
        for row, view in enumerate(mri.render(patients))
    ]


def _visits(patients: Patients) -> list[Item]:
    views, notes = xray.render(patients), text.render(patients)
    values = [
        {"xray": image(view, xray.SPACING_MM), "text": {"text": note}}
        for view, note in zip(views, notes, strict=True)
    ]
    return [class_item(patients, i, "disease", "visit", "lung", v) for i, v in enumerate(values)]


def _trials(patients: Patients) -> list[Item]:
    trials = eeg.render(patients)
    values = [{"eeg": _trial(trial)} for trial in trials]
    return [class_item(patients, i, "motor", "trial", "brain", v) for i, v in enumerate(values)]


def _cells(patients: Patients) -> list[Item]:
    out = []
    for row, counts in enumerate(scrna.render(patients)):
        kind = CLASS_NAMES["cell_type"][patients.labels["cell_type"][row]]
        values = {"scrna": cell(counts), "cell_type": kind}
        organ = CELL_ORGANS[patients.cell_organ[row]]
        out.append(class_item(patients, row, "cell_type", "cell", organ, values))
    return out


def _trial(signal_uv: np.ndarray) -> dict[str, Any]:
    return {
        "signal_uv": signal_uv,
        "rate_hz": np.float32(eeg.RATE_HZ),
        "electrode_xyz": eeg.ELECTRODE_XYZ,
        "channel_names": list(eeg.CHANNELS),
    }


STUDIES = (
    class_study("mri", ("mri",), "tumor", _slices),
    class_study("visit", ("xray", "text"), "disease", _visits),
    class_study("eeg", ("eeg",), "motor", _trials),
    class_study("cell", ("scrna",), "cell_type", _cells),
)
