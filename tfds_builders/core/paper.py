"""What the MultiMed paper cites, as far as it is known to be a source that is built here."""

from __future__ import annotations

import dataclasses

# Source: Mo and Liang, "MultiMed: Massively Multimodal and Multitask Medical Understanding".
TASKS = (
    "disease",
    "tumor",
    "breast",
    "radiographic",
    "bone_age",
    "retinopathy",
    "motor",
    "cell_type",
    "expression",
    "structure",
    "vqa",
)


@dataclasses.dataclass(frozen=True)
class PaperCitation:
    """That a builder reads the very source behind a figure of the paper.

    Attributes:
        task: one of `TASKS`, for which the builder has its labels.
        cited: the modality and count that the paper lists.
        really: what the source behind that count is.
    """

    task: str
    cited: str
    really: str
