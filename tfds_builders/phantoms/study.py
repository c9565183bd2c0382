"""What a study is: the modalities and targets that its records have, and how they are made."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np

from tfds_builders.core.targets import TargetKind
from tfds_builders.phantoms import eeg, rasters, scrna
from tfds_builders.phantoms.patient import Patients

NO_IMAGE = {
    "encoded": b"",
    "height": 0,
    "width": 0,
    "spacing_mm": np.zeros(2, np.float32),
}
# A record that lacks a modality has it empty.
EMPTY: Mapping[str, Any] = {
    "oct": NO_IMAGE,
    "ct": {"hu": np.zeros((0, 0, 0), np.int16), "spacing_mm": np.zeros(3, np.float32)},
    "mri": NO_IMAGE,
    "xray": NO_IMAGE,
    "pathology": {
        "tiles": [],
        "heights": np.zeros(0, np.int32),
        "widths": np.zeros(0, np.int32),
        "microns_per_pixel": np.float32(0),
    },
    "eeg": {
        "signal_uv": np.zeros((0, len(eeg.CHANNELS)), np.float32),
        "rate_hz": np.float32(0),
        "electrode_xyz": np.full((len(eeg.CHANNELS), 3), np.nan, np.float32),
        "channel_names": [],
    },
    "genomics": {"sequence": "", "site": -1},
    "scrna": {"gene_keys": np.zeros(0, np.int32), "values": np.zeros(0, np.float32), "unit": ""},
    "protein": {"sequence": ""},
    "text": {"text": ""},
    "answer": {"text": "", "candidates": []},
}


@dataclasses.dataclass(frozen=True)
class Item:
    """The record of one patient's study, without what the patient adds.

    Attributes:
        unit: what the record is, such as "slice".
        organ: "" where it has none.
        values: canonical keys; modalities, `answer`, `cell_type`.
        target: of the study's task; None where `values` holds the answer.
        stratum: class of the record, "" where the task has none.
        tells_age: False where the patient's age in years would contradict the study.
    """

    unit: str
    organ: str
    values: Mapping[str, Any]
    target: Any
    stratum: str = ""
    tells_age: bool = True


@dataclasses.dataclass(frozen=True)
class Study:
    """One study of every patient.

    Attributes:
        name: suffix of its sample ids.
        modalities: canonical names of what its records hold.
        task: whose target its records carry.
        kind: of that target.
        names: classes, labels or columns of that target.
        items: the records of a block of patients, one each.
        ceiling: where it is not that of the task (`ceilings.py`).
    """

    name: str
    modalities: tuple[str, ...]
    task: str
    kind: TargetKind
    names: tuple[str, ...]
    items: Callable[[Patients], list[Item]]
    ceiling: float | None = None


def image(pixels: np.ndarray, spacing_mm: float) -> dict[str, Any]:
    """A record's image: PNG, sizes, spacing."""
    return {
        "encoded": rasters.to_png(pixels),
        "height": pixels.shape[0],
        "width": pixels.shape[1],
        "spacing_mm": np.full(2, spacing_mm, np.float32),
    }


def cell(counts: np.ndarray) -> dict[str, Any]:
    """A record's cell: the genes of `scrna.PANEL` that were counted."""
    present = np.flatnonzero(counts)
    return {
        "gene_keys": scrna.panel_keys()[present],
        "values": counts[present].astype(np.float32),
        "unit": "counts",
    }
