"""Builder of VQA-RAD: one JSON file and a folder of JPEG files."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import tensorflow_datasets as tfds

from tfds_builders.core.json_tables import read_json
from tfds_builders.core.planning import DuplicatePolicy, SplitMode
from tfds_builders.core.quarantine import Quarantine
from tfds_builders.core.question_sets import (
    PictureKey,
    Question,
    QuestionBuilder,
    closed_candidates,
)
from tfds_builders.core.records import Datasheet, SourceCard

TABLE = "VQA_RAD Dataset Public.json"
PICTURES = "VQA_RAD Image Folder"
_KEYS = (
    "qid",
    "phrase_type",
    "image_case_url",
    "image_name",
    "image_organ",
    "question",
    "question_type",
    "answer",
    "answer_type",
)
# Chest pictures are films; heads are CT or MR, abdomens CT, all published as JPEG.
_ORGANS: dict[str, tuple[str, PictureKey]] = {
    "CHEST": ("chest", "xray"),
    "HEAD": ("head", "mri"),
    "ABD": ("abdomen", "mri"),
}


class Builder(QuestionBuilder):
    """Questions about films of the chest and slices of head and abdomen."""

    VERSION = tfds.core.Version("1.0.0")
    BUILDER_CONFIGS = [
        tfds.core.BuilderConfig(name="cases", description="split 70/15/15 by MedPix case"),
        tfds.core.BuilderConfig(
            name="official",
            description="test_freeform and test_para held out, as published figures are: the test "
            "part asks about pictures of the training part",
        ),
    ]
    CARD = SourceCard(
        name="vqa_rad",
        title="VQA-RAD: questions of clinicians about radiological pictures",
        namespace="vqa_rad",
        modalities=("xray", "mri", "text"),
        tasks=("vqa",),
        publisher="Lau, Gayen, Ben Abacha, Demner-Fushman (OSF 89kps)",
        homepage="https://osf.io/89kps/",
        licence="CC0 1.0",
        licence_forbids="Nothing.",
        how_to_obtain=f"download {TABLE!r} and {PICTURES!r} from osf.io/89kps; --manual_dir is the "
        "folder that holds both",
        citation="Lau et al. A dataset of clinically generated visual questions and answers about "
        "radiology images. Scientific Data 5, 180251, 2018.",
        group_key="MedPix case (image_case_url); in config official the question",
        unit="question",
        size="2,248 questions on 315 pictures (0.1 GB)",
    )
    DATASHEET = Datasheet(
        collection="Clinical trainees asked questions about 315 pictures of MedPix; part of them "
        "were rephrased.",
        labels="Answers of the trainees, partly checked by a second one.",
        personal_data="No identifiers: pictures of a teaching collection and words about them.",
        consent="Unknown: it rests with the cases of MedPix.",
        patients_separable="By case, and one case is taken for one patient.",
        known_biases="Most closed questions are answered by yes or no; a picture is chosen because "
        "something can be asked about it.",
        intended_use="Development and comparison of answering of questions about pictures.",
        unsuitable_use="Any clinical use; with config official, claims about unseen pictures.",
    )
    EXPECTED_LAYOUT = f"{TABLE} and {PICTURES}/synpic*.jpg"
    PICTURE_KEYS = ("xray", "mri")

    def split_mode(self) -> SplitMode:
        """The publisher's test part in config `official`."""
        return "official" if self._is_official() else "group"

    def duplicate_policy(self) -> DuplicatePolicy:
        """Pictures that look alike unite their cases, except where the split is given."""
        return "leave_out" if self._is_official() else "merge_groups"

    def questions(self, manual_dir: Path, quarantine: Quarantine) -> Iterator[Question]:
        """The questions in the order of the file."""
        for row in read_json(manual_dir / TABLE, _KEYS):
            organ = row["image_organ"].upper()
            if organ not in _ORGANS:
                quarantine.add(row["qid"], f"has the organ {organ!r}; accepted: {[*_ORGANS]}")
                continue
            closed = row["answer_type"].upper() == "CLOSED"
            answer, candidates = closed_candidates(row["answer"]) if closed else (row["answer"], ())
            test = row["phrase_type"].lower().startswith("test")
            yield Question(
                name=f"q{row['qid']}",
                group=f"q{row['qid']}"
                if self._is_official()
                else row["image_case_url"] or row["image_name"],
                key=_ORGANS[organ][1],
                picture=manual_dir / PICTURES / Path(row["image_name"]).name,
                picture_name=row["image_name"],
                text=row["question"],
                answer=answer,
                candidates=candidates,
                kind=row["question_type"],
                organ=_ORGANS[organ][0],
                split=("test" if test else "train") if self._is_official() else None,
                lost_scale=organ == "ABD",
            )

    def _is_official(self) -> bool:
        assert self.builder_config is not None
        return self.builder_config.name == "official"
