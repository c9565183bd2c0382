"""Sets of questions about pictures: what a builder of one yields, and the records made of it.

A picture goes to the record key of its kind. CT slices that are published as JPEG have lost their
Hounsfield units, so they cannot be `ct`; they are kept as slices of arbitrary intensity under
`mri`, the only key that promises no unit, and the metadata count them.
"""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any, ClassVar, Literal

import numpy as np
import tensorflow_datasets as tfds

from tfds_builders.core.base import MedicalBuilder
from tfds_builders.core.features import (
    answer_features,
    image_features,
    pathology_features,
    text_features,
)
from tfds_builders.core.images import ImageFile, decode_image
from tfds_builders.core.quarantine import Quarantine
from tfds_builders.core.records import AuditKey, SourceRecord, UnreadableRecord, bytes_audit
from tfds_builders.core.tally import Counts

PictureKey = Literal["xray", "mri", "pathology"]
YES_NO = ("yes", "no")
_EMPTY: Mapping[str, Any] = {
    "pathology": {
        "tiles": [],
        "heights": np.zeros(0, np.int32),
        "widths": np.zeros(0, np.int32),
        "microns_per_pixel": np.float32(0),
    },
    "xray": {"encoded": b"", "height": 0, "width": 0, "spacing_mm": np.zeros(2, np.float32)},
    "mri": {"encoded": b"", "height": 0, "width": 0, "spacing_mm": np.zeros(2, np.float32)},
}


@dataclasses.dataclass(frozen=True)
class Question:
    """A question about a picture.

    Attributes:
        name: unique in the source.
        group: what must not cross splits: the picture, or the article it comes from.
        key: record key of the picture.
        picture: its file, or a function that gives the file's bytes.
        picture_name: equal for questions about one picture.
        text: the question.
        answer: its answer.
        candidates: the answers to choose from; none for an open question.
        kind: of the question, as the source names it.
        organ: "" where the source does not say.
        split: the publisher's, None where it is not used.
        lost_scale: whether the picture is a CT slice without its Hounsfield units.
    """

    name: str
    group: str
    key: PictureKey
    picture: Path | Callable[[], bytes]
    picture_name: str
    text: str
    answer: str
    candidates: tuple[str, ...] = ()
    kind: str = ""
    organ: str = ""
    split: str | None = None
    lost_scale: bool = False


class QuestionBuilder(MedicalBuilder, skip_registration=True):
    """Base of sets of questions: a subclass sets `PICTURE_KEYS` and yields `questions`."""

    PICTURE_KEYS: ClassVar[tuple[PictureKey, ...]]

    def __init__(self, **kwargs: Any) -> None:
        """Slices without their scale are counted while the source is walked."""
        self._num_lost_scale = 0
        super().__init__(**kwargs)

    def questions(self, manual_dir: Path, quarantine: Quarantine) -> Iterator[Question]:
        """The questions in the order of the source. Raises UserError for a missing file."""
        raise NotImplementedError

    def record_features(self) -> dict[str, Any]:
        """A picture, a question and its answer."""
        made: dict[str, Any] = {
            key: pathology_features() if key == "pathology" else image_features()
            for key in self.PICTURE_KEYS
        }
        return {
            **made,
            "text": text_features(),
            "answer": answer_features(),
            "question_type": tfds.features.Text(),
            "organ": tfds.features.Text(),
        }

    def target_kinds(self) -> dict[str, Any]:
        """The answer stands in the record."""
        return {"vqa": "answer"}

    def class_names(self) -> dict[str, tuple[str, ...]]:
        """Answers are text."""
        return {"vqa": ()}

    def statistics(self) -> Counts:
        """The answers of closed questions by split."""
        return Counts(_closed_answer)

    def extra_metadata(self) -> dict[str, Any]:
        """The most frequent answers of closed questions, and CT slices without their scale."""
        return {
            "closed_answers": {
                split: dict(counts.most_common(20)) for split, counts in self.written.counts.items()
            },
            "questions_about_ct_without_hounsfield_units": self._num_lost_scale,
        }

    def read_source(self, manual_dir: Path, quarantine: Quarantine) -> Iterator[SourceRecord]:
        """Yields the questions whose picture decodes."""
        seen: set[str] = set()
        self._num_lost_scale = 0
        for question in self.questions(manual_dir, quarantine):
            if not (question.text and question.answer):
                quarantine.leave_out("question without text or answer")
                continue
            self._num_lost_scale += question.lost_scale
            yield SourceRecord(
                sample_id=question.name,
                group_id=question.group,
                record=functools.partial(self._record, question),
                stratum=question.kind,
                official_split=question.split,
                audit=functools.partial(_audit, question, question.picture_name in seen),
            )
            seen.add(question.picture_name)

    def _record(self, question: Question) -> dict[str, Any]:
        pictures = {key: _EMPTY[key] for key in self.PICTURE_KEYS}
        return {
            **pictures,
            question.key: _value(question.key, _image(question)),
            "text": {"text": question.text},
            "answer": {"text": question.answer, "candidates": list(question.candidates)},
            "question_type": question.kind,
            "organ": question.organ,
            "targets": {},
        }


def closed_candidates(answer: str, given: tuple[str, ...] = ()) -> tuple[str, tuple[str, ...]]:
    """The answer in the spelling of its candidates, and these; "yes" and "no" without others."""
    for candidate in given or YES_NO:
        if candidate.casefold() == answer.strip().casefold():
            return candidate, given or YES_NO
    return answer.strip(), ()


def _image(question: Question) -> ImageFile:
    if callable(question.picture):
        return decode_image(question.picture())
    try:
        return decode_image(question.picture.read_bytes())
    except OSError as error:
        raise UnreadableRecord(f"cannot be opened ({error.strerror})") from error


def _closed_answer(split: str, record: Mapping[str, Any]) -> tuple[str, str] | None:
    return (split, record["answer"]["text"]) if record["answer"]["candidates"] else None


def _value(key: str, image: ImageFile) -> dict[str, Any]:
    if key != "pathology":
        return image.value()
    return {
        "tiles": [image.encoded],
        "heights": np.array([image.height], np.int32),
        "widths": np.array([image.width], np.int32),
        "microns_per_pixel": np.float32(0),
    }


def _audit(question: Question, seen: bool) -> AuditKey:
    image = _image(question)
    # The questions about a picture share it by design: the first stands for the picture, the
    # others for themselves.
    return bytes_audit(image.audit.digest + question.text.encode()) if seen else image.audit
