"""What the tasks of one class per sample share: a leaf per source, cross-entropy inside it."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import jax
import numpy as np
from flax import nnx
from jaxtyping import Array, Float

from multimed_jax.layers.heads import (
    NamespacedClassifier,
    namespaced_cross_entropy,
    namespaced_probabilities,
)
from multimed_jax.types import Namespace, TargetSlots, TaskSpec


def make_classification_task(
    name: str,
    spec: str,
    metrics: Callable[[np.ndarray, np.ndarray], dict[str, float]],
    logit_adjustment: float = 0.0,
) -> TaskSpec:
    """The spec of a task whose target is a class index inside the source's namespace.

    Args:
        name: of the task; the record holds its target at record["targets"][name].
        spec: where the module keeps the result, `module:SPEC`.
        metrics: (class probabilities [n, C] of one namespace, targets [n]) -> figures, with
            "accuracy" among them, the primary one.
        logit_adjustment: tau of Menon et al. 2021, see `NamespacedClassifier`.
    """

    def make_head(
        d_model: int, namespaces: Sequence[Namespace], rngs: nnx.Rngs
    ) -> NamespacedClassifier:
        return NamespacedClassifier(d_model, namespaces, rngs, logit_adjustment=logit_adjustment)

    def loss_fn(
        outputs: Float[Array, "P K C"], slots: TargetSlots, namespaces: Sequence[Namespace]
    ) -> Float[jax.Array, "P K"]:
        return namespaced_cross_entropy(outputs, slots, namespaces)

    return TaskSpec(
        name=name,
        spec=spec,
        target_shape=(),
        target_dtype="int32",
        make_head=make_head,
        loss_fn=loss_fn,
        predict=namespaced_probabilities,
        metrics=metrics,
        primary_metric="accuracy",
    )
