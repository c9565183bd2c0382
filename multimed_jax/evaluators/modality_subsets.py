"""What each combination of modalities is worth: the same model with the others hidden at test.

For every (source, task) whose records carry at least two modalities, on the complete cases (records
that have them all), so that every subset is measured on the same records:

    protocol         baseline
    keep:xray        the task's trivial one
    keep:text        the task's trivial one
    keep:text+xray   the same, and best_single:<name>, the better of the two above (paired)

The difference of the last row is the synergy S(AB) - max(S(A), S(B)). The better single is chosen
on the measured records, which flatters it: a synergy is stated too low rather than too high.

Where the metadata states the optimum of a subset (`subset_ceilings`), a row says how far it is.
Up to four modalities all subsets are shown; beyond that singles, pairs, all but one, and all.
"""

from __future__ import annotations

import dataclasses
import functools
import itertools
from collections.abc import Iterator, Sequence

import numpy as np

from multimed_jax.config import EvaluatorSpec
from multimed_jax.evaluators.context import EvalContext, Predictions
from multimed_jax.evaluators.measured import (
    Measured,
    ceiling_metric,
    make_row,
    measure,
    modalities_of,
    resampling_for,
    select,
    task_metadata,
    trivial_predictors,
)
from multimed_jax.metrics.result_row import BEST_SINGLE, CEILING, ResultRow

MAX_EXHAUSTIVE = 4


@dataclasses.dataclass(frozen=True)
class ModalitySubsetsOptions:
    """No options."""


def run(options: ModalitySubsetsOptions, context: EvalContext) -> Iterator[ResultRow]:
    """Yields the rows of each split, (source, task) and subset, of the primary metric."""
    for split in context.config.eval.splits:
        for everything in context.predict(split, None):
            names = modalities_of(context, everything)
            if len(names) >= 2:
                yield from _rows(context, split, everything, names)


def _rows(
    context: EvalContext, split: str, everything: Predictions, names: Sequence[str]
) -> Iterator[ResultRow]:
    singles = {
        name: found
        for name in names
        if (found := _with_only(context, split, everything, (name,))) is not None
    }
    if len(singles) < 2:
        return
    rows = functools.reduce(np.intersect1d, [single.rows for single in singles.values()])
    if not len(rows):
        return
    measured: dict[tuple[str, ...], Measured] = {}
    metric = everything.task.primary_metric
    complete = select(everything, np.isin(everything.rows, rows))
    # The records are the same for every subset, so their trivial predictions are as well.
    trivial_name, trivial = next(iter(trivial_predictors(context, split, complete).items()))
    ceilings = task_metadata(everything, "subset_ceilings") or {}
    for keep in subsets(tuple(singles)):
        # These records have no other modality: hiding none is what `everything` already is.
        hides = len(keep) < len(singles)
        found = _with_only(context, split, everything, keep) if hides else complete
        assert found is not None, "a subset lost the records of its own modality"
        found = select(found, np.isin(found.rows, rows))
        assert np.array_equal(found.rows, rows), "subsets must share their records"
        resampling = resampling_for(context, found)
        measure_one = functools.partial(
            measure, found.task, targets=found.targets, resampling=resampling, names=[metric]
        )
        measured[keep] = measure_one(probabilities=found.probabilities)
        baselines: dict[str, Measured | float] = {trivial_name: measure_one(probabilities=trivial)}
        if len(keep) > 1:
            best = max(keep, key=lambda name: measured[name,].values[metric])
            baselines[f"{BEST_SINGLE}{best}"] = measured[best,]
        name = "+".join(sorted(keep))
        if name in ceilings and metric == ceiling_metric(found):
            baselines[CEILING] = float(ceilings[name])
        for name, baseline in baselines.items():
            yield make_row(
                context,
                found,
                resampling,
                split=split,
                metric=metric,
                ours=measured[keep],
                baseline=baseline,
                baseline_name=name,
                trivial=name == trivial_name,
                keep=keep,
            )


def subsets(names: Sequence[str]) -> list[tuple[str, ...]]:
    """Non-empty subsets, smaller ones first: all of them up to `MAX_EXHAUSTIVE` names."""
    count = len(names)
    sizes = range(1, count + 1)
    if count > MAX_EXHAUSTIVE:
        sizes = sorted({1, 2, count - 1, count})
    return [keep for size in sizes for keep in itertools.combinations(names, size)]


def _with_only(
    context: EvalContext, split: str, like: Predictions, keep: Sequence[str]
) -> Predictions | None:
    """The predictions of the same (source, task) with only `keep`; None where no record has it."""
    for found in context.predict(split, frozenset(keep)):
        if found.source.name == like.source.name and found.task.name == like.task.name:
            return found
    return None


SPEC = EvaluatorSpec(
    name="modality_subsets",
    spec="multimed_jax.evaluators.modality_subsets:SPEC",
    options=ModalitySubsetsOptions(),
    run=run,
)
