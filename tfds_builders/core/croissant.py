"""`croissant.json`: a dataset described in Croissant 1.0, for catalogues and their validators.

Croissant reads tables and folders, not array_record: the shards are listed with their hashes, and
the fields say what a record holds; to read one use the dataset's folder as docs/data.md has it.
Source: https://docs.mlcommons.org/croissant/docs/croissant-spec.html, version 1.0, sections
"Dataset-level information", "Resources", "RecordSets" and "Appendix 1: JSON-LD context".
"""

from __future__ import annotations

import datetime
import hashlib
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import tensorflow_datasets as tfds

from tfds_builders.core.records import Datasheet, SourceCard

CROISSANT_NAME = "croissant.json"
_SHARDS = "shards"
_RECORDS = "records"
_CR_TERMS = (
    "citeAs column equivalentProperty extract field fileProperty fileObject fileSet format "
    "includes isLiveDataset jsonPath key md5 parentField path recordSet references regex repeated "
    "replace samplingRate separator source subField transform"
).split()
CONTEXT: dict[str, Any] = {
    "@language": "en",
    "@vocab": "https://schema.org/",
    "sc": "https://schema.org/",
    "cr": "http://mlcommons.org/croissant/",
    "rai": "http://mlcommons.org/croissant/RAI/",
    "dct": "http://purl.org/dc/terms/",
    "conformsTo": "dct:conformsTo",
    "data": {"@id": "cr:data", "@type": "@json"},
    "dataType": {"@id": "cr:dataType", "@type": "@vocab"},
    "examples": {"@id": "cr:examples", "@type": "@json"},
    **{name: f"cr:{name}" for name in _CR_TERMS},
}


def make_croissant(
    card: SourceCard,
    datasheet: Datasheet,
    info: tfds.core.DatasetInfo,
    metadata: Mapping[str, Any],
    shards: Sequence[Path],
) -> dict[str, Any]:
    """The description as a JSON-LD document."""
    return {
        "@context": CONTEXT,
        "@type": "sc:Dataset",
        "conformsTo": "http://mlcommons.org/croissant/1.0",
        "name": info.full_name.replace("/", "-").replace(":", "-"),
        "description": _description(card, info, metadata),
        "license": card.licence,
        "usageInfo": card.licence_forbids,
        "url": card.homepage,
        "citeAs": card.citation,
        "version": str(info.version),
        "datePublished": datetime.datetime.now(datetime.UTC).date().isoformat(),
        "creator": {"@type": "sc:Organization", "name": card.publisher},
        "publisher": {"@type": "sc:Organization", "name": card.publisher},
        "keywords": [*card.modalities, *card.tasks],
        "isLiveDataset": False,
        **{f"rai:{key}": value for key, value in responsible_ai(datasheet).items()},
        "distribution": [*map(file_object, shards), _file_set(shards)],
        "recordSet": [_record_set(info)],
    }


def responsible_ai(datasheet: Datasheet) -> dict[str, str]:
    """The datasheet in the terms of Croissant RAI 1.0."""
    return {
        "dataCollection": datasheet.collection,
        "dataAnnotationProtocol": datasheet.labels,
        "personalSensitiveInformation": f"{datasheet.personal_data} {datasheet.consent}",
        "dataBiases": datasheet.known_biases,
        "dataUseCases": datasheet.intended_use,
        "dataLimitations": datasheet.unsuitable_use,
    }


def file_object(path: Path) -> dict[str, Any]:
    """A shard with its size and hash."""
    with path.open("rb") as shard:
        digest = hashlib.file_digest(shard, "sha256").hexdigest()
    return {
        "@type": "cr:FileObject",
        "@id": path.name,
        "name": path.name,
        "contentUrl": path.name,
        "contentSize": f"{path.stat().st_size} B",
        "encodingFormat": "application/octet-stream",
        "sha256": digest,
    }


def _description(card: SourceCard, info: tfds.core.DatasetInfo, metadata: Mapping[str, Any]) -> str:
    counts = "; ".join(
        f"{split}: {info.splits[split].num_examples} x {card.unit} of "
        f"{metadata['num_groups'][split]} groups"
        for split in info.splits
    )
    return f"{card.title}. {counts}. Grouped by {card.group_key}."


def _file_set(shards: Sequence[Path]) -> dict[str, Any]:
    return {
        "@type": "cr:FileSet",
        "@id": _SHARDS,
        "name": _SHARDS,
        "containedIn": [{"@id": path.name} for path in shards],
        "includes": "*.array_record-*",
        "encodingFormat": "application/octet-stream",
    }


def _record_set(info: tfds.core.DatasetInfo) -> dict[str, Any]:
    return {
        "@type": "cr:RecordSet",
        "@id": _RECORDS,
        "name": _RECORDS,
        "key": {"@id": f"{_RECORDS}/sample_id"},
        "field": list(_fields(info.features, _RECORDS)),
    }


def _fields(features: Any, prefix: str) -> Iterator[dict[str, Any]]:
    for name, feature in features.items():
        path = f"{prefix}/{name}"
        if isinstance(feature, tfds.features.FeaturesDict):
            yield from _fields(feature, path)
            continue
        yield {
            "@type": "cr:Field",
            "@id": path,
            "name": path,
            "description": f"{type(feature).__name__} of shape {feature.shape}",
            "dataType": _data_type(feature),
            "repeated": bool(feature.shape),
            "source": {
                "fileSet": {"@id": _SHARDS},
                "extract": {"column": path.partition("/")[2]},
            },
        }


def _data_type(feature: Any) -> str:
    kind = feature.np_dtype
    if isinstance(feature, tfds.features.Text) or str(kind) in ("object", "str"):
        return "sc:Text"
    return "sc:Float" if "float" in str(kind) else "sc:Integer"
