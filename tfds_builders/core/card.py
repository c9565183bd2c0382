"""The dataset card: what was built, in units, on which terms, and the datasheet's answers.

`dataset_card.json` is the Croissant description with what Croissant has no term for, below `mm:`;
`croissant.json` is the description alone.
"""

from __future__ import annotations

import dataclasses
import json
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import tensorflow_datasets as tfds

from multimed_jax.types import UserError
from tfds_builders.core.croissant import CONTEXT, CROISSANT_NAME, make_croissant
from tfds_builders.core.records import Datasheet, SourceCard

CARD_NAME = "dataset_card.json"


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
    """Writes both files beside the finished shards in `folder`."""
    shards = sorted(path for path in folder.iterdir() if ".array_record" in path.name)
    described = make_croissant(card, datasheet, info, metadata, shards)
    documents = {
        CROISSANT_NAME: described,
        CARD_NAME: _with_terms(described, _card_terms(card, datasheet, info, metadata)),
    }
    for name, document in documents.items():
        text = json.dumps(document, indent=2, ensure_ascii=False)
        (folder / name).write_text(f"{text}\n", encoding="utf-8")


def _with_terms(described: Mapping[str, Any], terms: Mapping[str, Any]) -> dict[str, Any]:
    # Plain JSON, not nodes of a graph: some readers of JSON-LD get lost in nameless nodes.
    plain = {term: {"@id": term, "@type": "@json"} for term in terms}
    context = {**CONTEXT, "mm": "urn:multimed-jax:card:", **plain}
    return {**described, "@context": context, **terms}


def _card_terms(
    card: SourceCard,
    datasheet: Datasheet,
    info: tfds.core.DatasetInfo,
    metadata: Mapping[str, Any],
) -> dict[str, Any]:
    names = metadata["class_names"]
    return {
        "mm:datasheet": dataclasses.asdict(datasheet),
        "mm:licenceForbids": card.licence_forbids,
        "mm:licenceRestricts": card.restricted,
        "mm:howToObtain": card.how_to_obtain,
        "mm:unit": card.unit,
        "mm:groupKey": card.group_key,
        "mm:counts": {split: {card.unit: info.splits[split].num_examples} for split in info.splits},
        "mm:groups": dict(metadata["num_groups"]),
        "mm:classCounts": {
            split: {
                task: dict(zip(names[task], counts, strict=True))
                for task, counts in per_task.items()
            }
            for split, per_task in metadata["class_counts"].items()
        },
        "mm:splitMode": metadata["split_mode"],
        "mm:duplicatesWithinSplits": metadata["duplicates"],
        "mm:leftOut": metadata["left_out"],
        "mm:quarantine": metadata["quarantine"],
        "mm:aliases": metadata["aliases"],
        "mm:contentHash": metadata["content_hash"],
    }


def how_to_obtain(builder: Any) -> str:
    """The end of a sentence that says what is missing of a builder's source."""
    return f"to obtain it: {builder.MANUAL_INSTRUCTIONS or builder.CARD.how_to_obtain}"
