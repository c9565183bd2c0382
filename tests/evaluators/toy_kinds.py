"""The toy source predicted as labels, values, answers or arrays instead of classes."""

from __future__ import annotations

import dataclasses

import numpy as np

from multimed_jax.metrics.multilabel import label_metrics, weighted_labels
from multimed_jax.specs import WIDEST_NAMESPACE, Namespace, TaskSpec
from tests.evaluators.toy_run import make_task

FINDINGS = Namespace("toy", ("effusion", "nodule", "edema"), (40, 20, 10))
MONTHS = Namespace("toy", ("months",), ())
LEVELS = Namespace("toy", tuple("abcdefgh"), ())


def value_metrics(values: np.ndarray, targets: np.ndarray) -> dict[str, float]:
    error = np.abs(values - targets)
    return {"distance": float(error.mean()), "within": float((error < 12).mean())}


def weighted_values(values: np.ndarray, targets: np.ndarray):
    error = np.abs(values - targets)[:, 0]

    def statistic(weights):
        total = weights.sum(1)
        return {"distance": weights @ error / total, "within": weights @ (error < 12) / total}

    return statistic


def value_baselines(inputs) -> dict[str, np.ndarray]:
    """Reads train in full, and of the measured records a text that tells nothing."""
    known = [inputs.train[row]["targets"]["state"] for row in range(len(inputs.train))]
    rows = [[float(np.median(known))] for _ in inputs.records[:]]
    ids = [[float(len(record["sample_id"]))] for record in inputs.records]
    return {"median": np.array(rows), "of_the_name": np.array(ids)}


VALUES = dataclasses.replace(
    make_task(metrics=value_metrics),
    target_shape=(WIDEST_NAMESPACE,),
    target_dtype="float32",
    primary_metric="within",
    lower_is_better=frozenset({"distance"}),
    statistic=weighted_values,
    baselines=value_baselines,
)
LABELS = dataclasses.replace(
    make_task(metrics=label_metrics),
    target_shape=(WIDEST_NAMESPACE,),
    primary_metric="label_accuracy",
    statistic=weighted_labels,
    baselines=lambda inputs: {"prevalence": np.full((len(inputs.records), 3), 0.2)},
)
OTHER = dataclasses.replace(make_task(), target_shape=(4, 3, 3), target_dtype="float32")
ANSWER = dataclasses.replace(make_task(), target_shape=(4,))


def with_kind(context, task: TaskSpec, space: Namespace):
    """The toy's predictions turned into another kind: the probabilities carry the skill."""

    def predict(split, keep):
        out = []
        for found in context.predict(split, keep):
            sure = found.probabilities.max(1, keepdims=True)
            guess = found.probabilities.argmax(1)[:, None].astype(np.float32)
            if task is VALUES:
                said, truth = 60 * guess + 5 * sure, 60.0 * found.targets[:, None]
            elif task is LABELS:
                said = found.probabilities
                truth = np.eye(3, dtype=np.int32)[found.targets]
                truth[::7, 1] = -1
            elif task is ANSWER:
                said = np.tile(np.array([5, 7, -1, -1], np.int32), (len(guess), 1))
                truth = said
            else:
                said = np.zeros((len(guess), 4, 3, 3), np.float32)
                truth = said
            out.append(
                dataclasses.replace(
                    found, task=task, namespace=space, probabilities=said, targets=truth
                )
            )
        return out

    return dataclasses.replace(context, predict=predict)
