"""From predictions to result rows: the steps that every evaluator shares."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable, Collection, Mapping, Sequence
from pathlib import Path
from typing import Any

import jax
import numpy as np
from jaxtyping import Bool, Float

from multimed_jax.evaluators.context import EvalContext, Predictions
from multimed_jax.metrics.baselines import majority_probabilities
from multimed_jax.metrics.classification import (
    METRICS,
    Statistic,
    classification_metrics,
    weighted_classification,
)
from multimed_jax.metrics.intervals import (
    Resampling,
    bootstrap_draws,
    make_resampling,
    percentile_interval,
    resampled,
)
from multimed_jax.metrics.result_row import MAJORITY, ResultRow
from multimed_jax.specs import BaselineInputs, TaskSpec
from multimed_jax.types import Record, UserError

# What the metadata of a dataset gives as a bound is an accuracy, unless `ceiling_metrics` says
# which other metric of the task it is.
CEILING_METRIC = "accuracy"


@dataclasses.dataclass(frozen=True)
class Measured:
    """The metrics of one predictor on some records, and their resamples."""

    values: Mapping[str, float]
    draws: Mapping[str, Float[np.ndarray, "resamples"]]


def resampling_for(context: EvalContext, predictions: Predictions) -> Resampling:
    """The resamples of these records, the same for every predictor of them."""
    return make_resampling(
        predictions.groups,
        resamples=context.config.eval.bootstrap,
        seed=context.config.seed,
        unit="sample" if predictions.source.interval_unit == "sample" else "group",
    )


def measure(
    task: TaskSpec,
    probabilities: np.ndarray,
    targets: np.ndarray,
    resampling: Resampling,
    names: Collection[str] | None = None,
) -> Measured:
    """The metrics of a task (all, or those in `names`), the primary one first."""
    values = task.metrics(probabilities, targets)
    if names is not None:
        values = {name: value for name, value in values.items() if name in names}
    order = sorted(values, key=lambda name: name != task.primary_metric)
    statistic = _statistic(task, probabilities, targets, values)
    draws = bootstrap_draws(statistic, resampling)
    return Measured(
        {name: float(values[name]) for name in order}, {name: draws[name] for name in order}
    )


def _statistic(
    task: TaskSpec, probabilities: np.ndarray, targets: np.ndarray, values: Mapping[str, float]
) -> Statistic:
    """The task's own weighted form, that of the common metrics of classes, else the slow one."""
    if task.statistic is not None:
        return task.statistic(probabilities, targets)
    is_classes = probabilities.ndim == 2 and targets.ndim == 1 and targets.dtype.kind in "iu"
    if is_classes and set(values) <= set(METRICS):
        known = classification_metrics(probabilities, targets)
        # A task may mean something else by the same name: its own figure decides.
        if all(math.isclose(known[k], v, abs_tol=1e-6) for k, v in values.items()):
            return weighted_classification(probabilities, targets, list(values))
    return resampled(task.metrics, probabilities, targets)


class _Measured(Sequence[Record]):
    """The records behind predictions, read one by one as they are asked for."""

    def __init__(self, source: Any, rows: np.ndarray):
        self._source = source
        self._rows = rows

    def __len__(self) -> int:
        return len(self._rows)

    def __getitem__(self, index: Any) -> Any:
        if isinstance(index, slice):
            return _Measured(self._source, self._rows[index])
        return self._source[int(self._rows[index])]


def trivial_predictors(
    context: EvalContext, split: str, predictions: Predictions
) -> dict[str, np.ndarray]:
    """What the task's baselines say of the same records, the trivial one first.

    Raises:
        UserError: where a task has neither baselines nor classes, or train has no record of it.
    """
    task = predictions.task
    if task.baselines is None:
        return {MAJORITY: majority(predictions)}
    name = predictions.source.name
    found = task.baselines(
        BaselineInputs(
            namespace=predictions.namespace,
            train=context.open_source(name, "train"),
            records=_Measured(context.open_source(name, split), predictions.rows),
        )
    )
    for baseline, values in found.items():
        assert len(values) == len(predictions.rows), f"{baseline} of {task.name} lost records"
    return dict(found)


def majority(predictions: Predictions) -> Float[np.ndarray, "n C"]:
    """What the majority predictor says of the same records.

    Raises:
        UserError: for a task without classes, which needs a baseline of its own.
    """
    namespace = predictions.namespace
    if predictions.kind != "classes":
        raise UserError(
            f"task {predictions.task.name!r} has no classes in {namespace.name!r}, so it has no "
            "majority baseline; its spec must name `baselines`"
        )
    if not sum(namespace.class_counts):
        raise UserError(
            f"source {predictions.source.name!r} has no training record of "
            f"{predictions.task.name!r}, so it has no majority baseline"
        )
    return majority_probabilities(namespace.class_counts, len(predictions.targets))


def make_row(
    context: EvalContext,
    predictions: Predictions,
    resampling: Resampling,
    *,
    split: str,
    metric: str,
    ours: Measured,
    baseline: Measured | float,
    baseline_name: str,
    trivial: bool = False,
    keep: Collection[str] | None = None,
    part: str | None = None,
) -> ResultRow:
    """One figure beside one baseline; a number as baseline is a constant of every resample."""
    if isinstance(baseline, Measured):
        theirs, drawn = baseline.values[metric], baseline.draws[metric]
    else:
        theirs = drawn = baseline
    confidence = context.config.eval.confidence
    unit = resampling.unit
    own = percentile_interval(ours.draws[metric], confidence, unit)
    difference = percentile_interval(ours.draws[metric] - drawn, confidence, unit)
    return ResultRow(
        method=context.config.method,
        seed=context.config.seed,
        dataset=predictions.source.name,
        task=predictions.task.name,
        split=split,
        protocol=protocol(predictions, keep, part),
        metric=metric,
        value=ours.values[metric],
        n=len(predictions.targets),
        groups=resampling.num_groups,
        interval=(own.low, own.high),
        interval_unit=unit,
        baseline=theirs,
        baseline_name=baseline_name,
        difference=ours.values[metric] - theirs,
        difference_interval=(difference.low, difference.high),
        checkpoint=context.step,
        config_hash=context.config_hash,
        higher_is_better=metric not in predictions.task.lower_is_better,
        trivial=trivial,
    )


def ceiling_metric(predictions: Predictions) -> str:
    """The metric that the metadata's ceilings of the task are of."""
    named = task_metadata(predictions, "ceiling_metrics")
    return CEILING_METRIC if named is None else str(named)


def task_metadata(predictions: Predictions, key: str) -> Any | None:
    """What the source's metadata says of the task under an optional key, such as "ceilings"."""
    metadata = predictions.source.metadata
    per_task = metadata[key] if key in metadata else {}
    return per_task[predictions.task.name] if predictions.task.name in per_task else None


def protocol(
    predictions: Predictions, keep: Collection[str] | None = None, part: str | None = None
) -> str:
    """How the figure was made: "full", "keep:text", "site:a", and whether groups are shared."""
    # Only splits that share groups ask for intervals over samples.
    parts = ["within_group"] if predictions.source.interval_unit == "sample" else []
    if keep is not None:
        parts.append("keep:" + "+".join(sorted(keep)))
    if part is not None:
        parts.append(part)
    return " ".join(parts) or "full"


def select(predictions: Predictions, chosen: Bool[np.ndarray, "n"]) -> Predictions:
    """The same predictions for some of the records."""
    return dataclasses.replace(
        predictions,
        probabilities=predictions.probabilities[chosen],
        targets=predictions.targets[chosen],
        rows=predictions.rows[chosen],
        groups=predictions.groups[chosen],
    )


def modalities_of(context: EvalContext, predictions: Predictions) -> list[str]:
    """The configured modalities that the source may have, in the config's order."""
    names = [spec.name for spec in context.config.modalities]
    metadata = predictions.source.metadata
    if "modalities" not in metadata:
        return names
    return [name for name in names if name in metadata["modalities"]]


def file_stem(predictions: Predictions) -> str:
    """File name of a (source, task) below `eval/`: "brain_tumor_mri_native_1.0.0--tumor"."""
    source = predictions.source.name.replace("/", "_").replace(":", "_")
    return f"{source}--{predictions.task.name}"


def write_whole(path: Path, write: Callable[[Path], None]) -> None:
    """Lets `write` fill a temporary file that then takes the place of `path` in one step.

    Every process of a run has the same to write: process 0 does.
    """
    if jax.process_index() != 0:
        return
    path.parent.mkdir(parents=True, exist_ok=True)
    # The ending stays last: NumPy appends .npz to any other.
    temporary = path.with_name(f".tmp-{path.name}")
    try:
        write(temporary)
        temporary.replace(path)
    finally:
        temporary.unlink(missing_ok=True)
