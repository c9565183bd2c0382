"""Builder of PathVQA from parquet files, where each row holds a picture, a question, an answer."""

from __future__ import annotations

import functools
import hashlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import tensorflow_datasets as tfds

from multimed_jax.types import UserError
from tfds_builders.core.planning import DuplicatePolicy, SplitMode
from tfds_builders.core.quarantine import Quarantine
from tfds_builders.core.question_sets import Question, QuestionBuilder, closed_candidates
from tfds_builders.core.records import Datasheet, SourceCard
from tfds_builders.core.splits import SPLITS

_COLUMNS = ("image", "question", "answer")
_ROWS_AT_ONCE = 64


class Builder(QuestionBuilder):
    """Questions about pictures of pathology, closed and open."""

    VERSION = tfds.core.Version("1.0.0")
    BUILDER_CONFIGS = [
        tfds.core.BuilderConfig(name="pictures", description="split 70/15/15 by picture"),
        tfds.core.BuilderConfig(
            name="official", description="the publisher's train, validation and test parts"
        ),
    ]
    CARD = SourceCard(
        name="path_vqa",
        title="PathVQA: questions about pictures of pathology textbooks",
        namespace="path_vqa",
        modalities=("pathology", "text"),
        tasks=("vqa",),
        publisher="He, Zhang, Mou, Xing, Xie (UC San Diego); parquet files of Hugging Face "
        "flaviagiammarino/path-vqa",
        homepage="https://huggingface.co/datasets/flaviagiammarino/path-vqa",
        licence="MIT, as stated on the set's page",
        licence_forbids="Passing it on without the licence text; the pictures come from textbooks.",
        how_to_obtain="download the folder data (train-*.parquet, validation-*.parquet, "
        "test-*.parquet) of flaviagiammarino/path-vqa; --manual_dir is the folder that holds data. "
        "The pickle files of the first publication are not read: unpickling runs code",
        citation="He et al. PathVQA: 30000+ Questions for Medical Visual Question Answering. "
        "arXiv:2003.10286, 2020.",
        group_key="picture (hash of its file)",
        unit="question",
        size="32,799 questions on 5,004 pictures",
    )
    DATASHEET = Datasheet(
        collection="Figures and captions of two pathology textbooks and of PEIR; questions were "
        "made from the captions by rules and checked by hand.",
        labels="Words of the captions.",
        personal_data="No identifiers: teaching pictures and words about them.",
        consent="Unknown: it rests with the books and the library the pictures come from.",
        patients_separable="No: the group is the picture, and two may show one patient.",
        known_biases="Half of the questions are answered by yes or no; rules leave clumsy "
        "questions, and stain and magnification go along with the organ.",
        intended_use="Development and comparison of answering of questions about pictures.",
        unsuitable_use="Any clinical use.",
    )
    EXPECTED_LAYOUT = "data/{train,validation,test}-*.parquet with image, question, answer"
    PICTURE_KEYS = ("pathology",)

    def split_mode(self) -> SplitMode:
        """The publisher's parts in config `official`."""
        return "official" if self._is_official() else "group"

    def duplicate_policy(self) -> DuplicatePolicy:
        """Pictures that look alike share a group, except where the split is given."""
        return "leave_out" if self._is_official() else "share_group"

    def questions(self, manual_dir: Path, quarantine: Quarantine) -> Iterator[Question]:
        """The questions by split and file, in its order."""
        inner = manual_dir / "data"
        folder = inner if inner.is_dir() else manual_dir
        for split in SPLITS:
            paths = sorted(folder.glob(f"{split}-*.parquet"))
            if not paths:
                raise UserError(f"the folder {folder} has no {split}-*.parquet")
            rows = (row for path in paths for row in _read(path))
            for number, row in enumerate(rows):
                name = f"{split}/{number}"
                picture = row["image"]
                content = picture["bytes"] if isinstance(picture, dict) else picture
                if not content:
                    quarantine.add(name, "has no picture")
                    continue
                answer, candidates = closed_candidates(row["answer"] or "")
                digest = hashlib.sha256(content).hexdigest()[:16]
                yield Question(
                    name=name,
                    group=digest,
                    key="pathology",
                    picture=functools.partial(bytes, content),
                    picture_name=digest,
                    text=(row["question"] or "").strip(),
                    answer=answer,
                    candidates=candidates,
                    kind="closed" if candidates else "open",
                    split=split if self._is_official() else None,
                )

    def _is_official(self) -> bool:
        assert self.builder_config is not None
        return self.builder_config.name == "official"


def _read(path: Path) -> Iterator[dict[str, Any]]:
    """The rows of a parquet file. Raises UserError where it is damaged or lacks a column."""
    try:
        import pyarrow as pa
        import pyarrow.parquet as pq
    except ImportError:
        raise UserError(
            "reading parquet files needs pyarrow, which is not installed: pip install pyarrow"
        ) from None
    try:
        with pq.ParquetFile(path) as file:
            missing = [name for name in _COLUMNS if name not in file.schema_arrow.names]
            if missing:
                raise UserError(
                    f"the file {path} has no column {missing[0]!r}; it has: "
                    f"{', '.join(file.schema_arrow.names)}"
                )
            for batch in file.iter_batches(batch_size=_ROWS_AT_ONCE, columns=list(_COLUMNS)):
                yield from batch.to_pylist()
    except (pa.ArrowException, OSError) as error:
        raise UserError(f"the file {path} is damaged: {str(error)[:80]}") from error
