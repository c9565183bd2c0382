"""Studies with records of at most 1 kB, to build very many: a brief EEG trial, a DNA window alone.

Both are cut from the study of the full size, with the same forward model, task and label.
"""

from __future__ import annotations

import numpy as np

from tfds_builders.phantoms import eeg, genomics
from tfds_builders.phantoms.base_studies import class_item, class_study
from tfds_builders.phantoms.ceilings import expression_of_windows
from tfds_builders.phantoms.patient import CLASS_NAMES, Patients
from tfds_builders.phantoms.study import Item, Study

# Half a second, every second sample: 16 samples of 8 channels are 512 bytes.
BRIEF_SAMPLES, BRIEF_STEP = 16, 2


def _brief_trials(patients: Patients) -> list[Item]:
    trials = eeg.render(patients)[:, : BRIEF_SAMPLES * BRIEF_STEP : BRIEF_STEP]
    shared = {
        "rate_hz": np.float32(eeg.RATE_HZ / BRIEF_STEP),
        "electrode_xyz": eeg.ELECTRODE_XYZ,
        "channel_names": list(eeg.CHANNELS),
    }
    return [
        class_item(patients, row, "motor", "trial", "brain", {"eeg": {"signal_uv": cut, **shared}})
        for row, cut in enumerate(np.ascontiguousarray(trials))
    ]


def _windows(patients: Patients) -> list[Item]:
    nobody = np.zeros(len(patients.sex), np.int64)
    levels = genomics.targets(patients, with_cell=nobody)
    return [
        Item("gene", "", {"genomics": {"sequence": window, "site": -1}}, levels[row])
        for row, window in enumerate(genomics.render(patients))
    ]


STUDIES = (
    class_study("brief", ("eeg",), "motor", _brief_trials),
    Study(
        "window",
        ("genomics",),
        "expression",
        "values",
        CLASS_NAMES["cell_type"],
        _windows,
        ceiling=expression_of_windows(),
    ),
)
