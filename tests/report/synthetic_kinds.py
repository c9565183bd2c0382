"""Results of tasks that predict grades, labels, values or arrays, as the evaluators write them."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import numpy as np

from multimed_jax.config import EvalConfig
from multimed_jax.evaluators import samples, task_metrics
from multimed_jax.evaluators.context import EvalContext, Predictions
from multimed_jax.metrics import regression
from multimed_jax.results import write_rows
from multimed_jax.specs import Namespace, SourceInfo, TaskSpec
from multimed_jax.tasks import bone_age, radiographic, retinopathy
from multimed_jax.types import Preview
from tests.evaluators.toy_run import make_config, make_modality, make_task

SOURCE = "hands/native:1.0.0"
GRADES = ("none", "mild", "moderate", "severe", "proliferative")
FINDINGS = ("effusion", "cardiomegaly", "nodule", "edema <of lungs>", "never told")
CELLS = ("HSC", "B", "CD4 T", "CD8 T", "NK", "monocyte", "erythroid", "dendritic")
NUM_RECORDS = 240

LEVEL_FIGURES = {"pearson": regression.pearson, "mse": regression.mse}


def make_levels_task() -> TaskSpec:
    return dataclasses.replace(
        bone_age.SPEC,
        name="levels",
        metrics=lambda said, truth: regression.measured(LEVEL_FIGURES, said, truth),
        statistic=lambda said, truth: regression.weighted_regression(LEVEL_FIGURES, said, truth),
        primary_metric="pearson",
        lower_is_better=frozenset({"mse"}),
        baselines=lambda inputs: {"mean": np.ones((len(inputs.records), len(CELLS)))},
    )


def make_arrays_task() -> TaskSpec:
    def metrics(said, truth):
        return {"overlap": float(np.mean(np.abs(said - truth) < 0.5))}

    return dataclasses.replace(
        make_task("folds", metrics),
        target_shape=(6, 3, 3),
        target_dtype="float32",
        primary_metric="overlap",
        baselines=lambda inputs: {"helix": np.zeros((len(inputs.records), 6, 3, 3))},
    )


def _predictions(
    rng: np.random.Generator,
) -> list[tuple[TaskSpec, Namespace, np.ndarray, np.ndarray]]:
    n = NUM_RECORDS
    grades = rng.choice(5, n, p=[0.5, 0.15, 0.2, 0.1, 0.05])
    graded = np.exp(-np.abs(np.arange(5) - (grades + 0.9 * rng.normal(size=n))[:, None]))
    labels = (rng.random((n, 5)) < [0.4, 0.3, 0.1, 0.02, 0.3]).astype(np.int32)
    scores = 1 / (1 + np.exp(-(2 * labels - 1.6 + rng.normal(size=(n, 5)))))
    labels[rng.random((n, 5)) < 0.15] = -1
    labels[:, 4] = -1
    months = rng.normal(130, 40, (n, 1)).clip(4, 228)
    levels = rng.gamma(2, 1, (n, len(CELLS)))
    levels[rng.random(levels.shape) < 0.1] = np.nan
    told = np.nan_to_num(0.6 * levels) + 0.8 + 0.5 * rng.normal(size=levels.shape)
    arrays = rng.normal(size=(n, 6, 3, 3)).astype(np.float32)
    known = {"count": (500.0,) * 5, "sum": (200.0, 150.0, 50.0, 10.0, 0.0)}
    return [
        (
            retinopathy.SPEC,
            Namespace("hands", GRADES, (50, 15, 20, 10, 5)),
            graded / graded.sum(1, keepdims=True),
            grades.astype(np.int32),
        ),
        (
            radiographic.SPEC,
            Namespace("hands", FINDINGS, (200, 150, 50, 10, 0), known),
            scores,
            labels,
        ),
        (
            bone_age.SPEC,
            Namespace("hands", ("months",), ()),
            months + 14 * rng.normal(size=(n, 1)),
            months,
        ),
        (make_levels_task(), Namespace("hands", CELLS, ()), told, levels),
        (make_arrays_task(), Namespace("hands", (), ()), arrays + 0.3, arrays),
    ]


def _modalities():
    def image(record, options):
        y, x = np.mgrid[:80, :64] / 80
        distance = (x - 0.4) ** 2 + (y - 0.5) ** 2
        return Preview("image", (240 * np.exp(-distance / record["xray"][0])).astype(np.uint8))

    xray = dataclasses.replace(make_modality("xray", 3, "bars"), preview=image)
    return xray, make_modality("text", 1, "text")


def add_kinds(folder: Path, seed: int = 0, steps: int = 400, method: str = "multimodal") -> None:
    """Writes results, predictions and sheets of the five tasks into a run folder."""
    rng = np.random.default_rng(seed)
    records = [
        {
            "sample_id": f"hand {i}",
            "xray": [float(rng.uniform(0.02, 0.1))] * 3,
            "text": [float(i)] * 3,
            "targets": {"bone_age": np.array([rng.normal(130, 40)])},
        }
        for i in range(NUM_RECORDS)
    ]
    info = SourceInfo(
        name=SOURCE,
        namespace="hands",
        class_names={},
        content_hash="00",
        interval_unit="group",
        metadata={
            "modalities": ["xray", "text"],
            "ceilings": {"bone_age": 0.8, "retinopathy": 0.9},
            "ceiling_metrics": {"bone_age": "accuracy_within_12_months"},
        },
    )
    found = [
        Predictions(
            source=info,
            task=task,
            namespace=space,
            probabilities=said,
            targets=truth,
            rows=np.arange(NUM_RECORDS),
            groups=(np.arange(NUM_RECORDS) // 2).astype(np.uint64),
        )
        for task, space, said, truth in _predictions(rng)
    ]
    config = make_config(
        found[0].task,
        seed=seed,
        method=method,
        modalities=_modalities(),
        eval=EvalConfig(splits=("test",), bootstrap=50),
    )
    context = EvalContext(
        config=config,
        step=steps,
        config_hash="0123456789ab",
        workdir=folder,
        predict=lambda split, keep: found,
        open_source=lambda name, split: records,
    )
    write_rows(folder / "results.jsonl", task_metrics.SPEC.run(task_metrics.SPEC.options, context))
    sheets = samples.SPEC.with_options(per_modality=4)
    assert list(sheets.run(sheets.options, context)) == []
