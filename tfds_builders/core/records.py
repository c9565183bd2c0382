"""The nouns of a builder: the source's card, one record of it, and the key its audit compares."""

from __future__ import annotations

import dataclasses
import functools
import hashlib
import re
import struct
import unicodedata
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import Any

import numpy as np

from tfds_builders.core.quarantine import Quarantine

# Keys that the base builder writes into every record; a source never sets them itself.
BASE_KEYS = ("sample_id", "group_id", "unit")


class UnreadableRecord(Exception):
    """The payload of one record cannot be read; the base builder puts it into quarantine.

    The message is stored with the dataset: it names what is wrong, never a person.
    """


@dataclasses.dataclass(frozen=True)
class SourceCard:
    """What a source is, who publishes it and on which terms.

    Attributes:
        name: the builder's folder, such as "kermany_chest_xray".
        title: one line for people.
        namespace: names the label space; every config of a source shares it.
        modalities: canonical record keys, such as ("xray", "text").
        tasks: the targets its records carry.
        publisher: who publishes the original.
        homepage: where.
        licence: as its publisher states it ("not stated" where none is).
        licence_forbids: what one may not do with it, in a sentence.
        how_to_obtain: what a user downloads and unpacks for `--manual_dir`.
        citation: the paper to cite.
        group_key: what `group_id` is, such as "patient (second field of the file name)".
        unit: what one record is: "slice", "image", "trial", "cell", "document" or "visit".
        size: how much its publisher has, such as "3,662 photographs (10 GB)"; "not known" where no
            description says it. What was built is counted in the dataset card.
        restricted: whether the terms bind whoever uses the data (an agreement to sign, no use for
            profit): a build then wants `--accept_licence <name>`.
    """

    name: str
    title: str
    namespace: str
    modalities: tuple[str, ...]
    tasks: tuple[str, ...]
    publisher: str
    homepage: str
    licence: str
    licence_forbids: str
    how_to_obtain: str
    citation: str
    group_key: str
    unit: str
    size: str
    restricted: bool = False


@dataclasses.dataclass(frozen=True)
class Datasheet:
    """Answers that every dataset card must give. An answer "No" carries its reason.

    Attributes:
        collection: how and by whom the records were collected.
        labels: who labelled them and how far the labels can be trusted.
        personal_data: what could identify a person, and what the builder removes.
        consent: what is known of consent or ethics approval.
        patients_separable: whether records of one patient can be told apart from others.
        known_biases: what a model could learn instead of the disease.
        intended_use: what the dataset serves.
        unsuitable_use: what it must not be used for.
    """

    collection: str
    labels: str
    personal_data: str
    consent: str
    patients_separable: str
    known_biases: str
    intended_use: str
    unsuitable_use: str


@dataclasses.dataclass(frozen=True)
class AuditKey:
    """What the duplicate audit compares: an exact content hash and, for images, how it looks.

    Attributes:
        digest: SHA-256 of the content; equal digests are exact duplicates.
        perceptual: 64-bit perceptual hash of an image, None for other kinds.
        thumbnail: 32 x 32 grey levels (1,024 bytes) that confirm a near duplicate.
    """

    digest: bytes
    perceptual: int | None = None
    thumbnail: bytes | None = None


@dataclasses.dataclass(frozen=True)
class SourceRecord:
    """One record as a source yields it.

    Attributes:
        sample_id: unique in the dataset and stable, such as the path inside the source.
        group_id: what must stay in one split (patient, subject, number block).
        record: canonical keys without `sample_id`, `group_id` and `unit`, which the base adds.
            Where reading is costly give a function: it is called once, when the record is written.
        stratum: class label, for the class-stratified quotas of small sources; "" for none.
        fine_group_id: finer key for sources with fewer than three groups (run, block of slices).
        official_split: "train", "validation" or "test" by the publisher, None where it has none.
        audit: key of the duplicate audit, or a function that makes it (called in the index pass
            only); None takes part in no audit. Both functions may raise `UnreadableRecord`.
    """

    sample_id: str
    group_id: str
    record: Mapping[str, Any] | Callable[[], Mapping[str, Any]]
    stratum: str
    fine_group_id: str | None = None
    official_split: str | None = None
    audit: AuditKey | Callable[[], AuditKey] | None = None

    def load(self) -> Mapping[str, Any]:
        """The payload."""
        return self.record() if callable(self.record) else self.record

    def audit_key(self) -> AuditKey | None:
        """The audit key, made now where the source gave a function."""
        return self.audit() if callable(self.audit) else self.audit


@dataclasses.dataclass(frozen=True)
class SourcePart:
    """A part of the source whose records become known when it is read: a file of several.

    `read_source` yields it in their place where reading is costly, so that the workers of a Beam
    build read the parts; `read_source` itself then stays quick.

    Attributes:
        records: called with the quarantine of the pass; yields the records of the part. It may not
            change what the builder knows of the source: workers call it, the driver does not.
    """

    records: Callable[[Quarantine], Iterator[SourceRecord]]


SourceItem = SourceRecord | SourcePart


def expand(items: Iterable[SourceItem], quarantine: Quarantine) -> Iterator[SourceRecord]:
    """The records of a source, those of its parts too."""
    for item in items:
        if isinstance(item, SourcePart):
            yield from item.records(quarantine)
        else:
            yield item


def bytes_audit(content: bytes) -> AuditKey:
    """Exact audit key of raw bytes."""
    return AuditKey(hashlib.sha256(content).digest())


def array_audit(values: np.ndarray) -> AuditKey:
    """Exact audit key of an array's dtype, shape and values."""
    values = np.ascontiguousarray(values)
    head = f"{values.dtype.str}{values.shape}".encode()
    return AuditKey(hashlib.sha256(head + values.tobytes()).digest())


def text_audit(text: str) -> AuditKey:
    """Audit key of text or a sequence: case, accents' encoding and white space do not count."""
    normal = unicodedata.normalize("NFKC", text).casefold()
    return bytes_audit(re.sub(r"\s+", " ", normal).strip().encode())


def record_digest(record: Mapping[str, Any]) -> bytes:
    """SHA-256 of a record's keys and values, independent of the order of keys."""
    hasher = hashlib.sha256()
    _feed(hasher.update, record)
    return hasher.digest()


def _feed(update: Callable[[bytes], None], value: Any) -> None:
    # Every value is preceded by a type tag and its length, so no two structures look alike. The
    # commonest types come first, by identity: a record of 1 kB has forty values.
    kind = type(value)
    if kind is str:
        update(_fed_text(value))
    elif kind is np.ndarray:
        _feed_array(update, value)
    elif kind is dict or isinstance(value, Mapping):
        update(b"m" + struct.pack("<q", len(value)))
        for key in sorted(value):
            update(_fed_key(key))
            _feed(update, value[key])
    elif isinstance(value, str):
        update(_fed_text(value))
    elif isinstance(value, bytes):
        update(b"b" + struct.pack("<q", len(value)) + value)
    elif isinstance(value, (np.ndarray, np.generic)):
        _feed_array(update, value)
    elif isinstance(value, (bool, int)):
        update(b"i" + str(int(value)).encode() + b";")
    elif isinstance(value, float):
        update(b"f" + struct.pack("<d", value))
    elif isinstance(value, Sequence):
        update(b"l" + struct.pack("<q", len(value)))
        for item in value:
            _feed(update, item)
    elif value is None:
        update(b"n")
    else:
        raise TypeError(f"a record holds a value of type {type(value).__name__}")


def _feed_array(update: Callable[[bytes], None], value: Any) -> None:
    array = np.ascontiguousarray(value)
    update(b"a" + f"{array.dtype.str}{np.shape(value)}".encode() + array.tobytes())


def _fed_text(text: str) -> bytes:
    raw = text.encode()
    return b"s" + struct.pack("<q", len(raw)) + raw


_fed_key = functools.lru_cache(maxsize=1024)(_fed_text)
