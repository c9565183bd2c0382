"""What a finished dataset keeps of its records so that others can be compared with it.

A record has one print for each thing that must not be trained on in one place and tested on in
another: each image, each slice of a volume, a sequence, a trial, a cell, or its text where it has
nothing else. They are taken from the record as it is written, so two sources with one content have
equal prints, whatever their files were. `fingerprints.npz` lies beside the shards; a dataset
without it is read to make them.

What makes no print: blank slices, silent signals, bases all unknown, texts of a few words.
"""

from __future__ import annotations

import dataclasses
import hashlib
import json
import zipfile
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import IO, Any

import numpy as np
from jaxtyping import Int32, UInt8, UInt64
from PIL import Image

from multimed_jax.types import UserError
from tfds_builders.core.images import look_of, make_thumbnail, perceptual_hash
from tfds_builders.core.records import AuditKey, UnreadableRecord, text_audit

FILE_NAME = "fingerprints.npz"
KINDS = ("image", "slice", "bases", "residues", "signal", "cell", "text")
_DIGEST = 16
# Shorter texts (templates, questions) are alike without being copies.
_MIN_WORDS, _MIN_LETTERS = 20, 20
# A bag is recognised by a part of its tiles, a record of a thousand prints by all the more.
_MAX_TILES = 64
_KEPT_LOOKS = 256
_HU_WINDOW = (-1000.0, 1000.0)
_COMPLEMENT = bytes.maketrans(b"ACGT", b"TGCA")


@dataclasses.dataclass(frozen=True)
class Print:
    """One content: its kind, the hash of what it is, and of images how it looks."""

    kind: str
    digest: bytes
    perceptual: int | None = None
    thumbnail: bytes | None = None
    residues: str = ""


@dataclasses.dataclass(frozen=True)
class Fingerprints:
    """The prints of a dataset.

    Attributes:
        records: (sample id, group id, split) of each record.
        row: record of each print.
        kind: index into `KINDS` of each print.
        digest: 16 bytes of each print.
        looks: prints that have a look.
        perceptual: of those.
        thumbnails: of those.
        chains: residues of each protein, by print.
    """

    records: tuple[tuple[str, str, str], ...]
    row: Int32[np.ndarray, "n"]
    kind: UInt8[np.ndarray, "n"]
    digest: UInt8[np.ndarray, "n 16"]
    looks: Int32[np.ndarray, "m"]
    perceptual: UInt64[np.ndarray, "m"]
    thumbnails: UInt8[np.ndarray, "m 1024"]
    chains: Mapping[int, str]


class PrintLog:
    """Collects the prints of the records of one build; about a kilobyte for each image."""

    def __init__(self) -> None:
        self._records: list[tuple[str, str, str]] = []
        self._prints: list[tuple[int, Print]] = []
        self._looks: dict[bytes, AuditKey] = {}

    def add(self, split: str, record: Mapping[str, Any], known: AuditKey | None = None) -> None:
        """Takes the prints of a record; `known` saves decoding an image a second time.

        So do the latest images: of several questions on one, or several views of a patient.
        """
        row = len(self._records)
        self._records.append((str(record["sample_id"]), str(record["group_id"]), split))
        if known is not None and known.perceptual is not None:
            self._looks[known.digest] = known
        self._prints.extend((row, found) for found in prints_of(record, self._looks))
        while len(self._looks) > _KEPT_LOOKS:
            del self._looks[next(iter(self._looks))]

    def fingerprints(self) -> Fingerprints:
        """All of them."""
        prints = [found for _, found in self._prints]
        looks = [i for i, p in enumerate(prints) if p.perceptual is not None]
        thumbnails = b"".join(prints[i].thumbnail or b"" for i in looks)
        return Fingerprints(
            records=tuple(self._records),
            row=np.array([row for row, _ in self._prints], np.int32),
            kind=np.array([KINDS.index(p.kind) for p in prints], np.uint8),
            digest=np.frombuffer(b"".join(p.digest for p in prints), np.uint8).reshape(-1, _DIGEST),
            looks=np.array(looks, np.int32),
            perceptual=np.array([prints[i].perceptual for i in looks], np.uint64),
            thumbnails=np.frombuffer(thumbnails, np.uint8).reshape(-1, 1024),
            chains={i: p.residues for i, p in enumerate(prints) if p.residues},
        )


def save(prints: Fingerprints, folder: Path) -> None:
    """Writes `fingerprints.npz` into a dataset's folder."""
    with (folder / FILE_NAME).open("wb") as file:
        write(prints, file)


def write(prints: Fingerprints, file: IO[bytes]) -> None:
    """Writes fingerprints to an open file."""
    arrays = {
        field.name: getattr(prints, field.name)
        for field in dataclasses.fields(prints)
        if field.name not in ("records", "chains")
    }
    texts = {"records": prints.records, "chains": {str(k): v for k, v in prints.chains.items()}}
    for name, value in texts.items():
        arrays[name] = np.frombuffer(json.dumps(value).encode(), np.uint8)
    np.savez_compressed(file, allow_pickle=False, **arrays)


def load(folder: Path) -> Fingerprints | None:
    """The fingerprints of a dataset, None where it was built without.

    Raises:
        UserError: where the file is damaged.
    """
    path = folder / FILE_NAME
    if not path.is_file():
        return None
    try:
        with path.open("rb") as file:
            return read(file)
    except (OSError, ValueError, KeyError, EOFError, zipfile.BadZipFile) as error:
        raise UserError(
            f"the file {path} is damaged ({type(error).__name__}); build the dataset again"
        ) from None


def read(file: IO[bytes]) -> Fingerprints:
    """The fingerprints of an open file; errors as of `numpy.load` and JSON."""
    with np.load(file, allow_pickle=False) as arrays:
        values: dict[str, Any] = {
            field.name: arrays[field.name] for field in dataclasses.fields(Fingerprints)
        }
    records, chains = (json.loads(values[k].tobytes()) for k in ("records", "chains"))
    values["records"] = tuple((str(s), str(g), str(where)) for s, g, where in records)
    values["chains"] = {int(k): str(v) for k, v in chains.items()}
    return Fingerprints(**values)


def together(parts: Iterable[Fingerprints]) -> Fingerprints:
    """The fingerprints of several parts of a dataset, in their order, as those of one."""
    parts = [PrintLog().fingerprints(), *parts]
    rows = np.cumsum([0, *(len(part.records) for part in parts)])
    prints = np.cumsum([0, *(len(part.row) for part in parts)])
    return Fingerprints(
        records=tuple(record for part in parts for record in part.records),
        row=_joined([p.row + k for p, k in zip(parts, rows, strict=False)], np.int32),
        kind=_joined([part.kind for part in parts], np.uint8),
        digest=_joined([part.digest for part in parts], np.uint8),
        looks=_joined([p.looks + k for p, k in zip(parts, prints, strict=False)], np.int32),
        perceptual=_joined([part.perceptual for part in parts], np.uint64),
        thumbnails=_joined([part.thumbnails for part in parts], np.uint8),
        chains={
            int(k) + i: v
            for part, k in zip(parts, prints, strict=False)
            for i, v in part.chains.items()
        },
    )


def _joined(arrays: Sequence[np.ndarray], dtype: Any) -> np.ndarray:
    return np.concatenate(arrays).astype(dtype)


# ------------------------------------------------------------------------- of one record


def prints_of(
    record: Mapping[str, Any], looks: dict[bytes, AuditKey] | None = None
) -> Iterator[Print]:
    """The prints of a record with canonical keys; what does not decode makes none.

    Args:
        record: as it is written, or read back.
        looks: audit keys of images that are known by their digest; those made here are added.
    """
    looks = {} if looks is None else looks
    found = False
    for key, value in record.items():
        if isinstance(value, Mapping):
            for one in _value_prints(key, value, looks):
                found = True
                yield one
    text = record["text"]["text"] if "text" in record and not found else ""
    if len(_str(text).split()) >= _MIN_WORDS:
        yield Print("text", text_audit(_str(text)).digest[:_DIGEST])


def _value_prints(
    key: str, value: Mapping[str, Any], looks: dict[bytes, AuditKey]
) -> Iterator[Print]:
    if "encoded" in value:
        yield from _image_prints(value["encoded"], looks)
    elif "tiles" in value:
        tiles = list(value["tiles"])
        for i in (
            sorted(set(np.linspace(0, len(tiles) - 1, _MAX_TILES).astype(int))) if tiles else []
        ):
            yield from _image_prints(tiles[i], looks)
    elif "hu" in value or "voxels" in value:
        yield from _slice_prints(value)
    elif "signal_uv" in value:
        signal = np.ascontiguousarray(value["signal_uv"], "<f4")
        if signal.size and np.ptp(signal) > 0:
            yield Print("signal", _digest(str(signal.shape).encode() + signal.tobytes()))
    elif "gene_keys" in value:
        keys, levels = np.asarray(value["gene_keys"], "<i4"), np.asarray(value["values"], "<f4")
        if len(keys):
            order = np.argsort(keys, kind="stable")
            yield Print("cell", _digest(keys[order].tobytes() + levels[order].tobytes()))
    elif "site" in value and "sequence" in value:
        bases = _str(value["sequence"]).upper().encode("ascii", "replace")
        if len(bases) - bases.count(b"N") >= _MIN_LETTERS:
            # A window of the other strand is the same window.
            yield Print("bases", _digest(min(bases, bases.translate(_COMPLEMENT)[::-1])))
    elif "sequence" in value:
        residues = _str(value["sequence"]).upper()
        if len(residues) - residues.count("X") >= _MIN_LETTERS:
            yield Print("residues", _digest(residues.encode()), residues=residues)


def _image_prints(encoded: bytes, looks: dict[bytes, AuditKey]) -> Iterator[Print]:
    if not len(encoded):
        return
    full = hashlib.sha256(encoded).digest()
    if full not in looks:
        try:
            looks[full] = look_of(encoded)
        except UnreadableRecord:
            return
    look = looks[full]
    yield Print("image", full[:_DIGEST], look.perceptual, look.thumbnail)


def _slice_prints(value: Mapping[str, Any]) -> Iterator[Print]:
    in_hu = "hu" in value
    voxels = np.asarray(value["hu" if in_hu else "voxels"])
    for plane in voxels:
        low, high = _HU_WINDOW if in_hu else (float(plane.min()), float(plane.max()))
        if plane.min() == plane.max():
            continue
        grey = np.clip((plane.astype(np.float64) - low) / (high - low), 0, 1) * 255
        image = Image.fromarray(np.rint(grey).astype(np.uint8))
        stored = np.ascontiguousarray(plane, "<i2" if in_hu else "<f4")
        yield Print(
            "slice",
            _digest(f"{stored.dtype.str}{stored.shape}".encode() + stored.tobytes()),
            perceptual_hash(image),
            make_thumbnail(image),
        )


def _digest(content: bytes) -> bytes:
    return hashlib.sha256(content).digest()[:_DIGEST]


def _str(value: str | bytes) -> str:
    return value.decode("utf-8", "replace") if isinstance(value, bytes) else str(value)
