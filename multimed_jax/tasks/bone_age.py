"""Skeletal age of a hand X-ray in months: L1 on z-scored months.

The target has one column, months. An age is right within 12 months, which makes the paper's
accuracy of it; the mean error in months says more and stands beside it. Sex matters to the reading
of a hand: it comes in as text, where the source has it.
"""

from __future__ import annotations

import functools
from collections.abc import Mapping

import numpy as np

from multimed_jax.layers.regression import (
    NamespacedRegressor,
    regression_loss,
    regression_values,
)
from multimed_jax.metrics.regression import mae, measured, pearson, weighted_regression, within
from multimed_jax.specs import WIDEST_NAMESPACE, BaselineInputs, TaskSpec
from multimed_jax.types import UserError

NAME = "bone_age"
# Source: the column of the MultiMed paper is an accuracy; docs fix its tolerance.
TOLERANCE_MONTHS = 12.0
FIGURES = {
    "accuracy_within_12_months": within(TOLERANCE_MONTHS),
    "mae_months": mae,
    "pearson": pearson,
}
# A median of so many training records is within a fraction of a month of that of all.
MAX_TRAIN_RECORDS = 4000


def baselines(inputs: BaselineInputs) -> Mapping[str, np.ndarray]:
    """Two constants: the training median, and the age that most training records lie around.

    The median has the least mean error of all constants, the other one the most training records
    within the tolerance.

    Raises:
        UserError: where no training record has an age.
    """
    months = _training_months(inputs)
    shape = (len(inputs.records), 1)
    return {
        "median": np.full(shape, np.median(months)),
        "best_constant": np.full(shape, _fullest_window(months)),
    }


def _training_months(inputs: BaselineInputs) -> np.ndarray:
    """Known ages of at most `MAX_TRAIN_RECORDS` training records, evenly spread, sorted."""
    step = -(-len(inputs.train) // MAX_TRAIN_RECORDS) or 1
    found = [
        np.asarray(inputs.train[row]["targets"][NAME], np.float64)
        for row in range(0, len(inputs.train), step)
    ]
    months = np.concatenate([np.zeros(0), *(value.reshape(-1) for value in found)])
    months = np.sort(months[np.isfinite(months)])
    if not len(months):
        raise UserError(
            f"no training record of {inputs.namespace.name!r} has a target of {NAME!r}, so it has "
            "no median to compare with"
        )
    return months


def _fullest_window(months: np.ndarray) -> float:
    """The middle of the window of twice the tolerance that holds most of the sorted values."""
    ends = np.searchsorted(months, months + 2 * TOLERANCE_MONTHS, side="right")
    first = int(np.argmax(ends - np.arange(len(months))))
    return float((months[first] + months[ends[first] - 1]) / 2)


SPEC = TaskSpec(
    name=NAME,
    spec="multimed_jax.tasks.bone_age:SPEC",
    target_shape=(WIDEST_NAMESPACE,),
    target_dtype="float32",
    make_head=NamespacedRegressor,
    loss_fn=functools.partial(regression_loss, kind="l1"),
    predict=regression_values,
    metrics=functools.partial(measured, FIGURES),
    primary_metric="accuracy_within_12_months",
    lower_is_better=frozenset({"mae_months"}),
    statistic=functools.partial(weighted_regression, FIGURES),
    baselines=baselines,
)
