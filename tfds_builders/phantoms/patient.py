"""The latent patient: what all forward models of a patient share, drawn from (seed, index).

    label  --channel-->  presentation  --forward model-->  record

The label of a task is what the record is filed under. The presentation is what the forward model
draws: a small share of patients presents atypically, as another class. Given the presentation the
record is independent of the label, so the channel alone sets the ceiling (`ceilings.py`).
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping

import numpy as np
from jaxtyping import Float, Int

from tfds_builders.phantoms.draws import Draws

CLASS_NAMES: Mapping[str, tuple[str, ...]] = {
    "tumor": ("glioma", "meningioma", "notumor", "pituitary"),
    # In bits (shadow, cough): 00, 01, 10, 11.
    "disease": ("no_finding", "copd", "effusion", "pneumonia"),
    "motor": ("left_fist", "right_fist", "both_fists", "both_feet"),
    # Neighbours (0, 1), (2, 3), (4, 5) are the siblings that are mistaken for each other.
    "cell_type": ("t_cell", "nk_cell", "b_cell", "plasma_cell", "monocyte", "dendritic_cell"),
    # Grades: a presentation is off by one at most.
    "retinopathy": ("none", "mild", "moderate", "severe", "proliferative"),
    "breast": ("benign", "malignant"),
}
SEXES = ("female", "male")
SITES = ("site_a", "site_b", "site_c")
CELL_ORGANS = ("blood", "bone_marrow", "lung", "lymph_node")
NUM_SEVERITIES = 3


def even_channel(num_classes: int, typical: float) -> Float[np.ndarray, "Y Z"]:
    """p(presentation z | label y): the label's own with `typical`, the others alike."""
    channel = np.full((num_classes, num_classes), (1 - typical) / (num_classes - 1))
    np.fill_diagonal(channel, typical)
    return channel


def sibling_channel(num_classes: int, typical: float, sibling: float) -> Float[np.ndarray, "Y Z"]:
    """As `even_channel`, but the sibling (2k, 2k+1) takes `sibling` of the rest."""
    others = (1 - typical - sibling) / (num_classes - 2)
    channel = np.full((num_classes, num_classes), others)
    for label in range(num_classes):
        channel[label, label] = typical
        channel[label, label ^ 1] = sibling
    return channel


def two_factor_channel(typical: float) -> Float[np.ndarray, "Y Z"]:
    """Four classes as two bits, each of which presents truly with `typical`, independently."""
    bit = even_channel(2, typical)
    return np.kron(bit, bit)


def neighbour_channel(num_classes: int, typical: float) -> Float[np.ndarray, "Y Z"]:
    """Grades: the rest of `typical` is shared by the grades one below and one above."""
    grades = np.arange(num_classes)
    near = (np.abs(grades[:, None] - grades) == 1).astype(np.float64)
    return typical * np.eye(num_classes) + (1 - typical) * near / near.sum(axis=1, keepdims=True)


# Rows sum to 1; labels are drawn uniformly.
CHANNELS: Mapping[str, Float[np.ndarray, "Y Z"]] = {
    "tumor": even_channel(4, 0.87),
    "disease": two_factor_channel(0.94),
    "motor": even_channel(4, 0.84),
    "cell_type": sibling_channel(6, 0.86, 0.10),
    "retinopathy": neighbour_channel(5, 0.82),
    "breast": even_channel(2, 0.86),
}


@dataclasses.dataclass(frozen=True)
class Patients:
    """A block of B patients, one array entry each.

    Attributes:
        draws: further random numbers of the same patients, for the forward models.
        sex: index into `SEXES`.
        age_years: 20 to 89.
        site: index into `SITES`; shifts the grey level of images.
        severity: 0, 1 or 2; scales lesions, shadows and inflammation, and words in the note.
        cell_organ: index into `CELL_ORGANS`, where the cell was taken.
        labels: task -> class index.
        presentations: task -> class index that the forward models draw.
    """

    draws: Draws
    sex: Int[np.ndarray, "B"]
    age_years: Int[np.ndarray, "B"]
    site: Int[np.ndarray, "B"]
    severity: Int[np.ndarray, "B"]
    cell_organ: Int[np.ndarray, "B"]
    labels: Mapping[str, Int[np.ndarray, "B"]]
    presentations: Mapping[str, Int[np.ndarray, "B"]]

    @property
    def shadow(self) -> Int[np.ndarray, "B"]:
        """1 where the X-ray shows a shadow: the first bit of the disease presentation."""
        return self.presentations["disease"] >> 1

    @property
    def cough(self) -> Int[np.ndarray, "B"]:
        """1 where the note tells of a productive cough: the second bit."""
        return self.presentations["disease"] & 1


def make_patients(seed: int, indices: Int[np.ndarray, "B"]) -> Patients:
    """The patients `indices` of the dataset `seed`; each depends on its own index only."""
    draws = Draws(seed, indices)
    labels = {
        task: draws.choice(f"label/{task}", len(names)) for task, names in CLASS_NAMES.items()
    }
    return Patients(
        draws=draws,
        sex=draws.choice("sex", len(SEXES)),
        age_years=20 + draws.choice("age", 70),
        site=draws.choice("site", len(SITES)),
        severity=draws.choice("severity", NUM_SEVERITIES),
        cell_organ=draws.choice("cell_organ", len(CELL_ORGANS)),
        labels=labels,
        presentations={task: _present(draws, task, label) for task, label in labels.items()},
    )


def _present(draws: Draws, task: str, label: Int[np.ndarray, "B"]) -> np.ndarray:
    cumulative = np.cumsum(CHANNELS[task], axis=1)[label]
    uniform = draws.uniform(f"presentation/{task}", 1)
    # The last bound is 1 up to rounding; leaving it out keeps every index in range.
    return (uniform >= cumulative[:, :-1]).sum(axis=1)


def patient_id(index: int) -> str:
    """The group id of patient `index`."""
    return f"p{index:08d}"
