"""The primary metric by what a record says of itself: sex, age, site.

    config.evals = (..., subgroups.SPEC.with_options(fields=("sex", "age_years", "site")))

One row for each value of a field beside each of the task's baselines, on the records that have it:

    protocol           records
    site:hospital_a    those whose `site` is "hospital_a"
    age_years:40-64    ages from 40 to below 65, by `age_edges_years`

A record that does not say is in no subgroup; a subgroup of fewer than `min_records` has no figure.
Groups of a subgroup are those of its records, so a figure of one group alone has an interval over
its records.
"""

from __future__ import annotations

import dataclasses
import functools
import logging
import math
from collections.abc import Iterator
from typing import Any

import numpy as np

from multimed_jax.config import EvaluatorSpec
from multimed_jax.evaluators.context import EvalContext, Predictions
from multimed_jax.evaluators.measured import (
    make_row,
    measure,
    resampling_for,
    select,
    trivial_predictors,
)
from multimed_jax.metrics.result_row import ResultRow
from multimed_jax.types import UserError

log = logging.getLogger(__name__)

AGE = "age_years"


@dataclasses.dataclass(frozen=True)
class SubgroupsOptions:
    """What divides the records.

    Attributes:
        fields: of the records: texts, whole numbers, or `age_years`.
        age_edges_years: where one band of ages ends and the next begins.
        min_records: a smaller subgroup has no figure.
    """

    fields: tuple[str, ...] = ("sex", AGE, "site")
    age_edges_years: tuple[float, ...] = (18.0, 40.0, 65.0)
    min_records: int = 10

    def __post_init__(self) -> None:
        """Raises UserError for no field, edges that do not rise, or no record at all."""
        if not self.fields or self.min_records < 1:
            raise UserError(
                f"subgroups has fields {self.fields} and min_records {self.min_records}; accepted: "
                "at least one name, at least 1"
            )
        if any(
            b <= a for a, b in zip(self.age_edges_years, self.age_edges_years[1:], strict=False)
        ):
            raise UserError(
                f"subgroups.age_edges_years is {self.age_edges_years}; accepted: rising ages"
            )


def run(options: SubgroupsOptions, context: EvalContext) -> Iterator[ResultRow]:
    """Yields the rows of each split, (source, task), field and value, in that order.

    Raises:
        UserError: for a field that no record of any source has.
    """
    seen: set[str] = set()
    for split in context.config.eval.splits:
        for predictions in context.predict(split, None):
            yield from _rows(options, context, split, predictions, seen)
    for field in options.fields:
        if field not in seen:
            raise UserError(
                f"subgroups.fields has {field!r}, which no record that is measured has; accepted: "
                "fields of the built records, such as 'sex', 'age_years' and 'site'"
            )


def _rows(
    options: SubgroupsOptions,
    context: EvalContext,
    split: str,
    predictions: Predictions,
    seen: set[str],
) -> Iterator[ResultRow]:
    values = _values(options, context.open_source(predictions.source.name, split), predictions)
    seen.update(values)
    if not values:
        return
    task, metric = predictions.task, predictions.task.primary_metric
    trivial = trivial_predictors(context, split, predictions)
    for field, of_records in values.items():
        for value in sorted(set(of_records) - {""}):
            chosen = np.array([other == value for other in of_records])
            if chosen.sum() < options.min_records:
                log.info(
                    "%s: %d records of %s %s are too few", task.name, chosen.sum(), field, value
                )
                continue
            some = select(predictions, chosen)
            resampling = resampling_for(context, some)
            measured = functools.partial(
                measure, task, targets=some.targets, resampling=resampling, names=[metric]
            )
            ours = measured(probabilities=some.probabilities)
            for number, (name, baseline) in enumerate(trivial.items()):
                yield make_row(
                    context,
                    some,
                    resampling,
                    split=split,
                    metric=metric,
                    ours=ours,
                    baseline=measured(probabilities=baseline[chosen]),
                    baseline_name=name,
                    trivial=number == 0,
                    part=f"{field}:{value}",
                )


def _values(
    options: SubgroupsOptions, records: Any, predictions: Predictions
) -> dict[str, list[str]]:
    """Field -> the subgroup of each record, "" where it does not say; fields it has alone."""
    found: dict[str, list[str]] = {}
    for row in predictions.rows:
        record = records[int(row)]
        for field in options.fields:
            if field in record:
                found.setdefault(field, []).append(_subgroup(field, record[field], options))
    return found


def _subgroup(field: str, value: Any, options: SubgroupsOptions) -> str:
    if field == AGE:
        return _age_band(float(value), options.age_edges_years)
    if isinstance(value, np.ndarray):
        value = value.item()
    text = value.decode("utf-8") if isinstance(value, bytes) else str(value)
    return text.replace(" ", "_")


def _age_band(age: float, edges: tuple[float, ...]) -> str:
    if not math.isfinite(age):
        return ""
    index = int(np.searchsorted(edges, age, side="right"))
    if index == 0:
        return f"below_{edges[0]:g}" if edges else "all"
    if index == len(edges):
        return f"from_{edges[-1]:g}"
    return f"{edges[index - 1]:g}-{edges[index] - 1:g}"


SPEC = EvaluatorSpec(
    name="subgroups",
    spec="multimed_jax.evaluators.subgroups:SPEC",
    options=SubgroupsOptions(),
    run=run,
)
