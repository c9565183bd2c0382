"""Builder of PMC-VQA: csv files of questions with four choices, and a folder of figures."""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import cast

import tensorflow_datasets as tfds

from multimed_jax.types import UserError
from tfds_builders.core.planning import DuplicatePolicy, SplitMode
from tfds_builders.core.quarantine import Quarantine
from tfds_builders.core.question_sets import Question, QuestionBuilder
from tfds_builders.core.records import Datasheet, SourceCard, UnreadableRecord
from tfds_builders.core.tables import read_csv

CHOICES = ("choice a", "choice b", "choice c", "choice d")
_COLUMNS = ("figure_path", "question", "answer", *CHOICES)
_ARTICLE = re.compile(r"PMC\d+", re.ASCII)
_LETTER = re.compile(r"\s*\(?([A-D])\)?\s*[:.)]\s*", re.ASCII)
# The page of the set spells the files of version 2 in two ways.
_TABLES = {1: "{}.csv", 2: "{}_2.csv"}
_OTHER_TABLES = {1: "{}.csv", 2: "{}2.csv"}
_FOLDERS = {1: ("images", "figures"), 2: ("images_2", "images2", "figures", "images")}


@dataclasses.dataclass(kw_only=True)
class PmcVqaConfig(tfds.core.BuilderConfig):
    """Which version, and how it is split.

    Attributes:
        edition: 1 has compound figures, 2 single pictures cut from them.
        official: keep the publisher's test part; else 70/15/15 by article.
    """

    edition: int = 1
    official: bool = False


class Builder(QuestionBuilder):
    """Questions with four choices about figures of articles."""

    VERSION = tfds.core.Version("1.0.0")
    BUILDER_CONFIGS = [
        PmcVqaConfig(name="v1", description="version 1, split 70/15/15 by article"),
        PmcVqaConfig(name="v2", edition=2, description="version 2, split 70/15/15 by article"),
        PmcVqaConfig(name="v1_official", official=True, description="the test part of test.csv"),
        PmcVqaConfig(
            name="v2_official", edition=2, official=True, description="the test part of test_2.csv"
        ),
    ]
    CARD = SourceCard(
        name="pmc_vqa",
        title="PMC-VQA: generated questions about figures of open-access articles",
        namespace="pmc_vqa",
        modalities=("pathology", "text"),
        tasks=("vqa",),
        publisher="Zhang, Wu, Zhao, Lin, Zhang, Wang, Xie (Hugging Face RadGenome/PMC-VQA)",
        homepage="https://huggingface.co/datasets/RadGenome/PMC-VQA",
        licence="CC BY-SA",
        licence_forbids="Passing it on under other terms, or without naming the authors.",
        how_to_obtain="download train.csv, test.csv and images.zip (version 2: train_2.csv, "
        "test_2.csv, images_2.zip) from the set's page and unpack the zip; --manual_dir is the "
        "folder that holds the csv files",
        citation="Zhang et al. PMC-VQA: Visual Instruction Tuning for Medical Visual Question "
        "Answering. arXiv:2305.10415, 2023.",
        group_key="article (PMC id of the figure); in the official configs the figure",
        unit="question",
        size="227,000 questions on 149,000 figures (20 GB)",
    )
    DATASHEET = Datasheet(
        collection="Figures of the open-access subset of PubMed Central; a language model wrote "
        "questions and choices from their captions.",
        labels="The choice that the language model named as right; a part of the test set "
        "(test_clean.csv) was checked by hand and is not told apart here.",
        personal_data="Figures can show patients as they were published.",
        consent="Unknown: it rests with the articles.",
        patients_separable="No: the group is the article, and two may report one patient.",
        known_biases="Some questions can be answered from the question alone; charts and diagrams "
        "are among the figures.",
        intended_use="Training of answering of questions about pictures.",
        unsuitable_use="Any clinical use; judging knowledge of one imaging method, because "
        "figures of all methods are mixed.",
    )
    EXPECTED_LAYOUT = "train.csv, test.csv and images/*.jpg (v2: train_2.csv, test_2.csv, images_2)"
    PICTURE_KEYS = ("pathology",)

    @property
    def _config(self) -> PmcVqaConfig:
        return cast(PmcVqaConfig, self.builder_config)

    def split_mode(self) -> SplitMode:
        """The publisher's test part in the official configs."""
        return "official" if self._config.official else "group"

    def duplicate_policy(self) -> DuplicatePolicy:
        """Figures that look alike unite their articles, except where the split is given."""
        return "leave_out" if self._config.official else "share_group"

    def questions(self, manual_dir: Path, quarantine: Quarantine) -> Iterator[Question]:
        """The questions by file, in its order."""
        edition = self._config.edition
        folder = next(
            (manual_dir / n for n in _FOLDERS[edition] if (manual_dir / n).is_dir()), None
        )
        if folder is None:
            raise UserError(
                f"the folder {manual_dir} has no folder {_FOLDERS[edition][0]!r} with the figures"
            )
        for split in ("train", "test"):
            path = manual_dir / _TABLES[edition].format(split)
            if not path.is_file():
                path = manual_dir / _OTHER_TABLES[edition].format(split)
            for number, row in enumerate(read_csv(path, _COLUMNS)):
                name = f"{split}/{number}"
                try:
                    yield self._question(name, row, folder, split)
                except UnreadableRecord as error:
                    quarantine.add(name, str(error))

    def _question(self, name: str, row: Mapping[str, str], folder: Path, split: str) -> Question:
        if any(column not in row for column in _COLUMNS):
            raise UnreadableRecord("is a row that is cut short")
        figure = Path(row["figure_path"].strip()).name
        article = _ARTICLE.match(figure)
        if article is None:
            raise UnreadableRecord("has a figure whose name starts with no PMC id")
        choices = tuple(_LETTER.sub("", row[column], count=1).strip() for column in CHOICES)
        return Question(
            name=name,
            group=figure if self._config.official else article[0],
            key="pathology",
            picture=folder / figure,
            picture_name=figure,
            text=row["question"].strip(),
            answer=_answer(row, choices),
            candidates=choices,
            split=split if self._config.official else None,
        )


def _answer(row: Mapping[str, str], choices: tuple[str, ...]) -> str:
    """The right choice: by the letter where one is given, else the choice that reads the same."""
    if len(set(choices)) < len(choices) or not all(choices):
        raise UnreadableRecord("has choices that are empty or equal")
    label = row["answer_label"].strip() if "answer_label" in row else row["answer"].strip()
    if len(label) == 1 and label in "ABCD":
        return choices["ABCD".index(label)]
    wanted = _LETTER.sub("", row["answer"], count=1).strip().casefold()
    for choice in choices:
        if choice.casefold() == wanted:
            return choice
    raise UnreadableRecord("has an answer that is none of its choices")
