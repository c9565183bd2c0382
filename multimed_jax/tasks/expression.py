"""Expression of a DNA element or gene in each cell type: values, one column per cell type.

Targets are levels in the source's unit (log1p counts, or log2 RNA/DNA of a reporter assay), NaN
where not measured. Loss: squared error of z-scored columns, or half the Poisson deviance for levels
that count. Primary metric: Pearson correlation across the elements of a cell type, mean over cell
types. Where records know at least three cell types, the correlation across these is reported too
("pearson_across_cells"): it asks where an element is active, not how active it is on the whole.
The trivial baseline is the training mean of each cell type, whose correlation across elements is 0.
"""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Sequence
from typing import Literal

import jax
import numpy as np
from jaxtyping import Float

from multimed_jax.layers.regression import (
    NamespacedRegressor,
    regression_loss,
    regression_values,
    training_mean,
)
from multimed_jax.metrics.classification import Statistic
from multimed_jax.metrics.regression import (
    Figure,
    has_columns,
    measured,
    mse,
    pearson,
    pearson_across_columns,
    spearman,
    weighted_regression,
)
from multimed_jax.specs import WIDEST_NAMESPACE, BaselineInputs, Namespace, TaskSpec
from multimed_jax.types import TargetSlots, UserError

NAME = "expression"
LOSSES = ("mse", "poisson")


@dataclasses.dataclass(frozen=True)
class ExpressionOptions:
    """The loss: "mse", or "poisson" where every target of the run is a level of at least 0."""

    loss: Literal["mse", "poisson"] = "mse"

    def __post_init__(self):
        """Raises UserError for another loss."""
        if self.loss not in LOSSES:
            raise UserError(f"task {NAME!r} has loss {self.loss!r}; accepted: {', '.join(LOSSES)}")


def _figures(targets: Float[np.ndarray, "n C"]) -> dict[str, Figure]:
    figures: dict[str, Figure] = {"pearson": pearson, "spearman": spearman, "mse": mse}
    if has_columns(targets).any():
        figures["pearson_across_cells"] = pearson_across_columns
    return figures


def metrics(
    predictions: Float[np.ndarray, "n C"], targets: Float[np.ndarray, "n C"]
) -> dict[str, float]:
    """See the module's docstring."""
    return measured(_figures(targets), predictions, targets)


def statistic(
    predictions: Float[np.ndarray, "n C"], targets: Float[np.ndarray, "n C"]
) -> Statistic:
    """The same figures for resamples by weight."""
    return weighted_regression(_figures(targets), predictions, targets)


def baselines(inputs: BaselineInputs) -> dict[str, np.ndarray]:
    """The training mean of each column."""
    return {"mean": training_mean(inputs)}


@functools.cache
def make_spec(options: ExpressionOptions) -> TaskSpec:
    """The spec with these options, one object for each: a stored spec equals the loaded one."""

    def loss_fn(
        outputs: Float[jax.Array, "P K C"], slots: TargetSlots, namespaces: Sequence[Namespace]
    ) -> Float[jax.Array, "P K"]:
        return regression_loss(outputs, slots, namespaces, options.loss)

    def predict(
        outputs: Float[jax.Array, "P K C"], slots: TargetSlots, namespaces: Sequence[Namespace]
    ) -> Float[jax.Array, "P K C"]:
        return regression_values(outputs, slots, namespaces, options.loss)

    return TaskSpec(
        name=NAME,
        spec="multimed_jax.tasks.expression:SPEC",
        target_shape=(WIDEST_NAMESPACE,),
        target_dtype="float32",
        make_head=NamespacedRegressor,
        loss_fn=loss_fn,
        predict=predict,
        metrics=metrics,
        primary_metric="pearson",
        lower_is_better=frozenset({"mse"}),
        statistic=statistic,
        baselines=baselines,
        options=options,
        remake=make_spec,
    )


SPEC = make_spec(ExpressionOptions())
