"""Disease of an X-ray, OCT, CT or text record: the union of the sources' classes by namespace.

The loss is logit-adjusted cross-entropy (Menon et al. 2021): the head's leaves learn scores free of
the class frequencies of the source, to which the log frequencies of training are added. Predictions
are the sum, that is the posterior under the frequencies of training: accuracy is the primary metric
and this posterior maximises it. Balanced accuracy is reported for the same predictions.
"""

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

METRICS = ("accuracy", "balanced_accuracy", "macro_f1", "auroc", "sensitivity", "specificity")

# Tau of the paper; 1 is the value for which it proves consistency (its theorem 1).
LOGIT_ADJUSTMENT = 1.0


def make_head(
    d_model: int, namespaces: Sequence[Namespace], rngs: nnx.Rngs
) -> NamespacedClassifier:
    """One linear leaf per source, with the log class frequencies added."""
    return NamespacedClassifier(d_model, namespaces, rngs, logit_adjustment=LOGIT_ADJUSTMENT)


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
    name="disease",
    spec="multimed_jax.tasks.disease:SPEC",
    target_shape=(),
    target_dtype="int32",
    make_head=make_head,
    loss_fn=loss_fn,
    predict=namespaced_probabilities,
    metrics=metrics,
    primary_metric="accuracy",
)
