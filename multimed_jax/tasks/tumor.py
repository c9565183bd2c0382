"""Tumor type of a brain MRI slice (glioma, meningioma, pituitary, none): cross-entropy."""

from __future__ import annotations

from collections.abc import Sequence

import jax
import numpy as np
from flax import nnx
from jaxtyping import Array, Float, Int

from multimed_jax.layers.heads import (
    NamespacedClassifier,
    namespaced_cross_entropy,
    namespaced_probabilities,
)
from multimed_jax.metrics.classification import classification_metrics
from multimed_jax.types import Namespace, TargetSlots, TaskSpec

METRICS = ("accuracy", "macro_f1")


def make_head(
    d_model: int, namespaces: Sequence[Namespace], rngs: nnx.Rngs
) -> NamespacedClassifier:
    """One linear leaf per source."""
    return NamespacedClassifier(d_model, namespaces, rngs)


def loss_fn(
    outputs: Float[Array, "P K C"], slots: TargetSlots, namespaces: Sequence[Namespace]
) -> Float[jax.Array, "P K"]:
    """Cross-entropy of each slot inside its namespace."""
    return namespaced_cross_entropy(outputs, slots, namespaces)


def metrics(
    predictions: Float[np.ndarray, "n C"],
    targets: Int[np.ndarray, "n"],
) -> dict[str, float]:
    """The figures that are reported for the task, from class probabilities of one namespace."""
    values = classification_metrics(predictions, targets)
    return {name: values[name] for name in METRICS}


SPEC = TaskSpec(
    name="tumor",
    spec="multimed_jax.tasks.tumor:SPEC",
    target_shape=(),
    target_dtype="int32",
    make_head=make_head,
    loss_fn=loss_fn,
    predict=namespaced_probabilities,
    metrics=metrics,
    primary_metric="accuracy",
)
