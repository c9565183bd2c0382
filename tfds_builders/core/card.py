"""The dataset card: Croissant 1.0 metadata and a datasheet, written when a dataset is built."""

from __future__ import annotations

import dataclasses
import hashlib
import json
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import tensorflow_datasets as tfds

from multimed_jax.types import UserError
from tfds_builders.core.records import Datasheet, SourceCard

CARD_NAME = "dataset_card.json"
# Terms of Croissant 1.0 (https://docs.mlcommons.org/croissant/docs/croissant-spec.html, section
# "Appendix 1: JSON-LD context"); `mm` holds what Croissant has no term for.
_CONTEXT: dict[str, Any] = {
    "@language": "en",
    "@vocab": "https://schema.org/",
    "sc": "https://schema.org/",
    "cr": "http://mlcommons.org/croissant/",
    "rai": "http://mlcommons.org/croissant/RAI/",
    "dct": "http://purl.org/dc/terms/",
    "mm": "urn:multimed-jax:card:",
    "citeAs": "cr:citeAs",
    "column": "cr:column",
    "conformsTo": "dct:conformsTo",
    "data": {"@id": "cr:data", "@type": "@json"},
    "dataType": {"@id": "cr:dataType", "@type": "@vocab"},
    "examples": {"@id": "cr:examples", "@type": "@json"},
    "extract": "cr:extract",
    "field": "cr:field",
    "fileProperty": "cr:fileProperty",
    "fileObject": "cr:fileObject",
    "fileSet": "cr:fileSet",
    "format": "cr:format",
    "includes": "cr:includes",
    "isLiveDataset": "cr:isLiveDataset",
    "jsonPath": "cr:jsonPath",
    "key": "cr:key",
    "md5": "cr:md5",
    "parentField": "cr:parentField",
    "path": "cr:path",
    "recordSet": "cr:recordSet",
    "references": "cr:references",
    "regex": "cr:regex",
    "repeated": "cr:repeated",
    "replace": "cr:replace",
    "separator": "cr:separator",
    "source": "cr:source",
    "subField": "cr:subField",
    "transform": "cr:transform",
}


def check_datasheet(datasheet: Datasheet) -> None:
    """Raises UserError where an answer is empty, or is a "No" without its reason."""
    for name, answer in dataclasses.asdict(datasheet).items():
        reason = re.sub(r"^(no|none|n/a|unknown)\b[\s.,:;-]*", "", answer.strip(), flags=re.I)
        if len(reason) < 8:
            raise UserError(
                f"the datasheet's answer to {name!r} is {answer!r}; accepted: a sentence, and a "
                '"No" with its reason'
            )


def write_card(
    folder: Path,
    card: SourceCard,
    datasheet: Datasheet,
    info: tfds.core.DatasetInfo,
    metadata: Mapping[str, Any],
) -> None:
    """Writes `dataset_card.json` beside the finished shards in `folder`."""
    shards = sorted(path for path in folder.iterdir() if ".array_record" in path.name)
    document = make_card(card, datasheet, info, metadata, shards)
    (folder / CARD_NAME).write_text(json.dumps(document, indent=2, ensure_ascii=False) + "\n")


def make_card(
    card: SourceCard,
    datasheet: Datasheet,
    info: tfds.core.DatasetInfo,
    metadata: Mapping[str, Any],
    shards: list[Path],
) -> dict[str, Any]:
    """The card as a JSON-LD document."""
    splits = list(metadata["num_groups"])
    return {
        "@context": _CONTEXT,
        "@type": "sc:Dataset",
        "conformsTo": "http://mlcommons.org/croissant/1.0",
        "name": info.full_name.replace("/", "-").replace(":", "-"),
        "description": card.title,
        "license": card.licence,
        "url": card.homepage,
        "citeAs": card.citation,
        "version": str(info.version),
        "creator": {"@type": "sc:Organization", "name": card.publisher},
        "keywords": [*card.modalities, *card.tasks],
        "isLiveDataset": False,
        "distribution": [_file_object(path) for path in shards],
        "recordSet": [_record_set(info)],
        **{f"rai:{key}": value for key, value in _responsible_ai(datasheet).items()},
        "mm:datasheet": dataclasses.asdict(datasheet),
        "mm:licenceForbids": card.licence_forbids,
        "mm:howToObtain": card.how_to_obtain,
        "mm:unit": card.unit,
        "mm:groupKey": card.group_key,
        "mm:counts": {split: {card.unit: info.splits[split].num_examples} for split in info.splits},
        "mm:groups": {split: metadata["num_groups"][split] for split in splits},
        "mm:classCounts": {
            split: {
                task: dict(zip(metadata["class_names"][task], counts, strict=True))
                for task, counts in per_task.items()
            }
            for split, per_task in metadata["class_counts"].items()
        },
        "mm:splitMode": metadata["split_mode"],
        "mm:duplicatesWithinSplits": metadata["duplicates"],
        "mm:leftOut": metadata["left_out"],
        "mm:quarantine": metadata["quarantine"],
        "mm:contentHash": metadata["content_hash"],
    }


def _responsible_ai(datasheet: Datasheet) -> dict[str, str]:
    return {
        "dataCollection": datasheet.collection,
        "dataAnnotationProtocol": datasheet.labels,
        "personalSensitiveInformation": datasheet.personal_data,
        "dataBiases": datasheet.known_biases,
        "dataUseCases": datasheet.intended_use,
        "dataLimitations": datasheet.unsuitable_use,
    }


def _file_object(path: Path) -> dict[str, Any]:
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


def _record_set(info: tfds.core.DatasetInfo) -> dict[str, Any]:
    return {
        "@type": "cr:RecordSet",
        "@id": "records",
        "name": "records",
        "key": {"@id": "records/sample_id"},
        "field": list(_fields(info.features, "records")),
    }


def _fields(features: Any, prefix: str) -> list[dict[str, Any]]:
    fields = []
    for name, feature in features.items():
        path = f"{prefix}/{name}"
        if isinstance(feature, tfds.features.FeaturesDict):
            fields += _fields(feature, path)
            continue
        fields.append(
            {
                "@type": "cr:Field",
                "@id": path,
                "name": path,
                "description": f"{type(feature).__name__} of shape {feature.shape}",
                "dataType": _data_type(feature),
                "repeated": bool(feature.shape),
            }
        )
    return fields


def _data_type(feature: Any) -> str:
    kind = feature.np_dtype
    if isinstance(feature, tfds.features.Text) or str(kind) in ("object", "str"):
        return "sc:Text"
    return "sc:Float" if "float" in str(kind) else "sc:Integer"
