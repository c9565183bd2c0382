"""Findings of an X-ray or CT: several labels, binary cross-entropy, uncertain ones masked."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from multimed_jax.layers.multilabel import (
    label_probabilities,
    make_label_head,
    masked_label_loss,
)
from multimed_jax.metrics.baselines import prevalence_probabilities
from multimed_jax.metrics.multilabel import label_metrics, weighted_labels
from multimed_jax.specs import WIDEST_NAMESPACE, BaselineInputs, TaskSpec
from multimed_jax.types import UserError


def baselines(inputs: BaselineInputs) -> Mapping[str, np.ndarray]:
    """The training share of each finding: its majority at 0.5, uninformed as a ranking.

    Raises:
        UserError: where the metadata of the source lack the counts.
    """
    stats = inputs.namespace.stats
    if not stats:
        raise UserError(
            f"the metadata of {inputs.namespace.name!r} count no findings of its training split, "
            "so there is no prevalence to compare with; build the dataset again"
        )
    shares = prevalence_probabilities(stats["count"], stats["sum"], len(inputs.records))
    return {"prevalence": shares}


SPEC = TaskSpec(
    name="radiographic",
    spec="multimed_jax.tasks.radiographic:SPEC",
    target_shape=(WIDEST_NAMESPACE,),
    target_dtype="int32",
    make_head=make_label_head,
    loss_fn=masked_label_loss,
    predict=label_probabilities,
    metrics=label_metrics,
    primary_metric="label_accuracy",
    statistic=weighted_labels,
    baselines=baselines,
)
