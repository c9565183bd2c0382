"""What the tasks of one class per sample share: a leaf per source, its loss inside its classes."""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Callable, Sequence
from typing import Any

import jax
import numpy as np
from flax import nnx
from jaxtyping import Array, Float

from multimed_jax.layers.heads import (
    NamespacedClassifier,
    namespaced_cross_entropy,
    namespaced_probabilities,
)
from multimed_jax.layers.ordinal import (
    NamespacedOrdinal,
    namespaced_grade_probabilities,
    namespaced_ordinal_loss,
)
from multimed_jax.specs import Namespace, TaskSpec
from multimed_jax.types import TargetSlots

Metrics = Callable[[np.ndarray, np.ndarray], dict[str, float]]


def make_classification_task(
    name: str,
    spec: str,
    metrics: Metrics,
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


@dataclasses.dataclass(frozen=True)
class GradeOptions:
    """How a task of grades reads its classes.

    Attributes:
        ordered: whether the classes of every source are grades in the order of their names, for
            one CORAL leaf per source (with two classes that is logistic regression); False gives
            each class a direction of its own, for classes without an order.
    """

    ordered: bool = True


def make_graded_task(
    name: str,
    spec: str,
    metrics: Metrics,
    statistic: Callable[[np.ndarray, np.ndarray], Any] | None = None,
    lower_is_better: frozenset[str] = frozenset(),
) -> TaskSpec:
    """The spec of a task whose classes are grades in order, with `GradeOptions`.

    Args:
        name: as of `make_classification_task`.
        spec: as of `make_classification_task`.
        metrics: as of `make_classification_task`.
        statistic: see `TaskSpec`.
        lower_is_better: see `TaskSpec`.
    """
    return _graded_task(name, spec, metrics, statistic, lower_is_better, GradeOptions())


# The same arguments give the same object, so that a stored spec comes back as an equal one.
@functools.cache
def _graded_task(
    name: str,
    spec: str,
    metrics: Metrics,
    statistic: Callable[[np.ndarray, np.ndarray], Any] | None,
    lower_is_better: frozenset[str],
    options: GradeOptions,
) -> TaskSpec:
    def remake(changed: GradeOptions) -> TaskSpec:
        return _graded_task(name, spec, metrics, statistic, lower_is_better, changed)

    task = make_classification_task(name, spec, metrics)
    if options.ordered:
        task = dataclasses.replace(
            task,
            make_head=NamespacedOrdinal,
            loss_fn=namespaced_ordinal_loss,
            predict=namespaced_grade_probabilities,
        )
    return dataclasses.replace(
        task, statistic=statistic, lower_is_better=lower_is_better, options=options, remake=remake
    )
