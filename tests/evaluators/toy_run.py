"""A generated source with known predictions, in the shape that a trained run hands to evaluators.

Sixty patients with two studies each; "image" studies carry a vector, "note" studies another, and
visits carry both. The stand-in model reads the vectors that it may see, so hiding one costs.
"""

from __future__ import annotations

import dataclasses
from pathlib import Path

import numpy as np

from multimed_jax.config import (
    CheckpointConfig,
    DataConfig,
    EvalConfig,
    ModelConfig,
    OptimConfig,
    RunConfig,
    SourceConfig,
)
from multimed_jax.evaluators.context import EvalContext, Predictions
from multimed_jax.layers.decode_errors import DecodeError
from multimed_jax.metrics.classification import classification_metrics
from multimed_jax.specs import ModalitySpec, Namespace, SourceInfo, TaskSpec
from multimed_jax.types import Preview

SOURCE = "toy/small:1.0.0"
CLASSES = ("calm", "mixed", "wild")


@dataclasses.dataclass(frozen=True)
class NoOptions:
    pass


def make_modality(name: str, number: int, kind: str) -> ModalitySpec:
    def features(record, options):
        if record[name] == b"broken":
            raise DecodeError("an input is broken")
        return np.asarray(record[name], np.float32)

    def preview(record, options):
        values = features(record, options)
        if kind == "text":
            return Preview("text", f"note of {values[0]:.2f}")
        return Preview("bars", values, ("a", "b", "c"), "unit")

    return ModalitySpec(
        name=name,
        id=number,
        spec=f"tests.evaluators.toy_run:{name}",
        options=NoOptions(),
        make_streams=lambda options: (),
        count=lambda record, options: {f"{name}.toy": 1} if len(record[name]) else {},
        decode=lambda record, options, rng: {},
        make_tokenizer=lambda *_: None,
        features=features,
        preview=preview,
    )


def make_task(name: str = "state", metrics=classification_metrics) -> TaskSpec:
    return TaskSpec(
        name=name,
        spec=f"tests.evaluators.toy_run:{name}",
        target_shape=(),
        target_dtype="int32",
        make_head=lambda *_: None,
        loss_fn=lambda *_: None,  # pyright: ignore[reportArgumentType]
        predict=lambda *_: None,  # pyright: ignore[reportArgumentType]
        metrics=metrics,
        primary_metric="accuracy",
    )


def make_records(n: int, seed: int, kinds=("image", "note", "visit")) -> list[dict]:
    """Each vector tells one half of the class; records i and i + 1 share a patient."""
    rng = np.random.default_rng(seed)
    records = []
    for i in range(n):
        target = int(rng.integers(0, 3))
        kind = kinds[i % len(kinds)]
        vectors = {}
        for name, half in (("xray", target > 0), ("text", target > 1)):
            noise = rng.normal(size=3) * 0.4
            shown = kind == "visit" or (kind == "image") == (name == "xray")
            vectors[name] = (noise + 2.0 * half).tolist() if shown else []
        records.append(
            {
                "sample_id": f"record {i}".encode(),
                "group_id": f"{seed}-{i // 2}".encode(),
                "targets": {"state": target},
                **vectors,
            }
        )
    return records


def predict_one(record: dict, keep: frozenset[str] | None) -> np.ndarray | None:
    """Probabilities from the vectors that may be seen; None where there is none."""
    halves = {}
    for name in ("xray", "text"):
        if len(record[name]) and (keep is None or name in keep):
            halves[name] = 1 / (1 + np.exp(-4 * (np.mean(record[name]) - 1)))
    if not halves:
        return None
    above0 = halves["xray"] if "xray" in halves else 0.67
    above1 = halves["text"] if "text" in halves else 0.4
    scores = np.array([1 - above0, above0 * (1 - above1), above0 * above1])
    return scores / scores.sum()


def make_context(workdir: Path, **changes) -> EvalContext:
    """Changes: RunConfig fields, metadata, interval_unit, kinds, num_test, task, calls."""
    metadata = {"modalities": ["xray", "text"], "split_mode": "group"}
    metadata |= changes.pop("metadata", {})
    kinds = changes.pop("kinds", ("image", "note", "visit"))
    splits = {
        "train": make_records(300, 1, kinds),
        "test": make_records(changes.pop("num_test", 120), 2, kinds),
    }
    counts = np.bincount([r["targets"]["state"] for r in splits["train"]], minlength=3)
    info = SourceInfo(
        name=SOURCE,
        namespace="toy",
        class_names={"state": CLASSES},
        content_hash="00",
        interval_unit=changes.pop("interval_unit", "group"),
        metadata=metadata,
    )
    task = changes.pop("task", make_task())
    calls: list[frozenset[str] | None] = changes.pop("calls", [])

    def predict(split: str, keep: frozenset[str] | None) -> list[Predictions]:
        calls.append(keep)
        records = splits[split]
        found = {i: p for i, r in enumerate(records) if (p := predict_one(r, keep)) is not None}
        if not found:
            return []
        return [
            Predictions(
                source=info,
                task=task,
                namespace=Namespace("toy", CLASSES, tuple(int(c) for c in counts)),
                probabilities=np.stack(list(found.values())).astype(np.float32),
                targets=np.array([records[i]["targets"]["state"] for i in found], np.int32),
                rows=np.array(list(found)),
                groups=np.array([hash_of(records[i]["group_id"]) for i in found], np.uint64),
            )
        ]

    return EvalContext(
        config=make_config(task, **changes),
        step=70,
        config_hash="0123456789ab",
        workdir=workdir,
        predict=predict,
        open_source=lambda name, split: splits[split],
    )


def hash_of(group: bytes) -> int:
    return int.from_bytes(group.ljust(8)[:8], "little")


def make_config(task: TaskSpec, **changes) -> RunConfig:
    values = {
        "method": "multimodal_multitask",
        "data_dir": "data",
        "seed": 3,
        "num_steps": 70,
        "log_every_steps": 10,
        "modalities": (make_modality("xray", 3, "bars"), make_modality("text", 1, "text")),
        "tasks": (task,),
        "evals": (),
        "data": DataConfig((SourceConfig(SOURCE, 1.0),), 2, 2, 32, 16),
        "model": ModelConfig(8, 1, 2),
        "optim": OptimConfig({}, 0.0),
        "checkpoint": CheckpointConfig(10),
        "eval": EvalConfig(bootstrap=200),
    }
    return RunConfig(**(values | changes))
