"""Builder of SLAKE: three JSON files and a folder for each picture."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import tensorflow_datasets as tfds

from multimed_jax.types import UserError
from tfds_builders.core.json_tables import read_json
from tfds_builders.core.quarantine import Quarantine
from tfds_builders.core.question_sets import (
    PictureKey,
    Question,
    QuestionBuilder,
    closed_candidates,
)
from tfds_builders.core.records import Datasheet, SourceCard

_KEYS = (
    "qid",
    "img_name",
    "question",
    "answer",
    "q_lang",
    "location",
    "modality",
    "answer_type",
    "content_type",
)
_FILES = {
    "train": ("train.json",),
    "validation": ("validate.json", "validation.json"),
    "test": ("test.json",),
}
_PICTURES: dict[str, PictureKey] = {"x-ray": "xray", "mri": "mri", "ct": "mri"}


class Builder(QuestionBuilder):
    """Questions about films and slices, with the publisher's split by picture."""

    VERSION = tfds.core.Version("1.0.0")
    BUILDER_CONFIGS = [
        tfds.core.BuilderConfig(name="en", description="the questions in English"),
        tfds.core.BuilderConfig(name="zh", description="the questions in Chinese"),
        tfds.core.BuilderConfig(name="both", description="the questions in both languages"),
    ]
    CARD = SourceCard(
        name="slake",
        title="SLAKE: questions about radiological pictures in English and Chinese",
        namespace="slake",
        modalities=("xray", "mri", "text"),
        tasks=("vqa",),
        publisher="Liu, Zhan, Xu, Ma, Yang, Wu (The Hong Kong Polytechnic University)",
        homepage="https://www.med-vqa.com/slake/",
        licence="CC BY 4.0",
        licence_forbids="Use without naming the authors.",
        how_to_obtain="download Slake1.0 from med-vqa.com/slake (or its copy on Hugging Face, "
        "BoKelvin/SLAKE) and unpack imgs.zip; --manual_dir is the folder that holds train.json",
        citation="Liu et al. SLAKE: A Semantically-Labeled Knowledge-Enhanced Dataset for Medical "
        "Visual Question Answering. ISBI 2021. arXiv:2102.09542",
        group_key="picture (img_name)",
        unit="question",
        size="some 14,000 questions on 642 pictures (0.2 GB)",
    )
    DATASHEET = Datasheet(
        collection="642 pictures of public radiological sets; questions from templates that "
        "physicians chose, and questions that need a fact beside the picture.",
        labels="Answers of physicians.",
        personal_data="No identifiers: pictures of public sets and words about them.",
        consent="Unknown: it rests with the sets the pictures were taken from.",
        patients_separable="No: the group is the picture, and two may show one patient.",
        known_biases="Templates repeat, so the most frequent answer of a question scores high.",
        intended_use="Development and comparison of answering of questions about pictures.",
        unsuitable_use="Any clinical use.",
    )
    EXPECTED_LAYOUT = "{train,validate,test}.json and imgs/xmlab*/source.jpg"
    SPLIT_MODE = "official"
    ON_DUPLICATES = "leave_out"
    PICTURE_KEYS = ("xray", "mri")

    def questions(self, manual_dir: Path, quarantine: Quarantine) -> Iterator[Question]:
        """The questions by split, in the order of the files."""
        assert self.builder_config is not None
        language = self.builder_config.name
        for split, names in _FILES.items():
            path = next((manual_dir / n for n in names if (manual_dir / n).is_file()), None)
            if path is None:
                raise UserError(f"the folder {manual_dir} has no {' or '.join(names)}")
            for row in read_json(path, _KEYS):
                name = f"{split}/{row['qid']}"
                if language not in ("both", row["q_lang"]):
                    quarantine.leave_out(f"question in the language {row['q_lang']!r}")
                    continue
                kind = row["modality"].lower()
                if kind not in _PICTURES:
                    quarantine.add(name, "has a modality that is none of X-Ray, MRI, CT")
                    continue
                closed = row["answer_type"].upper() == "CLOSED"
                answer = row["answer"]
                answer, candidates = closed_candidates(answer) if closed else (answer, ())
                yield Question(
                    name=name,
                    group=row["img_name"],
                    key=_PICTURES[kind],
                    picture=manual_dir / "imgs" / _inside(row["img_name"]),
                    picture_name=row["img_name"],
                    text=row["question"],
                    answer=answer,
                    candidates=candidates,
                    kind=row["content_type"],
                    organ=row["location"].lower(),
                    split=split,
                    lost_scale=kind == "ct",
                )


def _inside(name: str) -> Path:
    """The folder and file of a picture; never a place outside of `imgs`."""
    return Path(*[part for part in Path(name).parts[-2:] if part not in ("..", "/")])
