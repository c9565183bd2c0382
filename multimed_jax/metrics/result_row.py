"""One measured figure, with everything without which it would mean nothing."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Iterable

from multimed_jax.types import UserError

# Columns that say what was measured; the others say what came out.
_IDENTITY = (
    "method",
    "seed",
    "dataset",
    "task",
    "split",
    "protocol",
    "metric",
    "baseline_name",
    "checkpoint",
    "config_hash",
)
UNITS = ("group", "sample")

# Prefix of the better of the modalities that a combination has, by itself.
BEST_SINGLE = "best_single:"
# The trivial predictor of tasks that name none of their own.
MAJORITY = "majority"
# Known optimum of a simulated source: a bound to come close to, not a predictor to beat.
CEILING = "bayes"


@dataclasses.dataclass(frozen=True)
class ResultRow:
    """A figure beside one baseline.

    Attributes:
        method: of the run, such as "multimodal_multitask".
        seed: of the run.
        dataset: source name as in the config.
        task: task name.
        split: "validation", "test", ...
        protocol: "full"; "within_group" where splits share groups; "keep:text+xray" where only
            those modalities were shown; "site:a" where only records of that site count.
        metric: name of the figure.
        value: of the model.
        n: records behind it.
        groups: groups behind it.
        interval: of the value.
        interval_unit: what the bootstrap drew, "group" or "sample".
        baseline: the figure of the other predictor.
        baseline_name: of the other predictor.
        difference: value - baseline.
        difference_interval: paired, on the same records.
        checkpoint: training steps behind the parameters.
        config_hash: of the run.
        higher_is_better: False for an error, such as a distance.
        trivial: whether the baseline is the task's trivial predictor.

    Raises:
        UserError: where a figure is missing or not finite, n or groups is under 1, an interval is
            upside down, or the baseline has no name.
    """

    method: str
    seed: int
    dataset: str
    task: str
    split: str
    protocol: str
    metric: str
    value: float
    n: int
    groups: int
    interval: tuple[float, float]
    interval_unit: str
    baseline: float
    baseline_name: str
    difference: float
    difference_interval: tuple[float, float]
    checkpoint: int
    config_hash: str
    # Stores written before these columns hold figures of which higher is better.
    higher_is_better: bool = True
    trivial: bool = False

    def __post_init__(self) -> None:
        where = f"result {self.dataset}, {self.task}, {self.metric}"
        for name in ("value", "baseline", "difference"):
            if not _is_finite(getattr(self, name)):
                raise UserError(f"{where}: {name} is {getattr(self, name)!r}, not a finite number")
        for name in ("interval", "difference_interval"):
            bounds = getattr(self, name)
            if (
                not isinstance(bounds, tuple)
                or len(bounds) != 2
                or not all(map(_is_finite, bounds))
                or bounds[0] > bounds[1]
            ):
                raise UserError(f"{where}: {name} is {bounds!r}, not (low, high)")
        for name in ("n", "groups"):
            if not isinstance(getattr(self, name), int) or getattr(self, name) < 1:
                raise UserError(f"{where}: {name} is {getattr(self, name)!r}, not at least 1")
        if not self.baseline_name:
            raise UserError(f"{where}: the baseline has no name")
        if self.interval_unit not in UNITS:
            raise UserError(
                f"{where}: interval_unit is {self.interval_unit!r}; accepted: {', '.join(UNITS)}"
            )

    @property
    def identity(self) -> tuple[object, ...]:
        """What was measured: two rows of the same identity are the same figure."""
        return tuple(getattr(self, name) for name in _IDENTITY)

    @property
    def beats(self) -> bool:
        """Whether the paired interval of the difference excludes 0 on the better side."""
        low, high = self.difference_interval
        return low > 0.0 if self.higher_is_better else high < 0.0

    @property
    def is_trivial(self) -> bool:
        """Whether the baseline is the trivial predictor, in older stores as well."""
        return self.trivial or self.baseline_name == MAJORITY

    @property
    def label(self) -> str:
        """The metric, marked where lower is better."""
        return self.metric if self.higher_is_better else f"{self.metric} (lower is better)"

    @property
    def is_ceiling(self) -> bool:
        """Whether the baseline is a bound rather than a predictor."""
        return self.baseline_name == CEILING


def _is_finite(value: object) -> bool:
    return isinstance(value, (int, float)) and math.isfinite(value)


def grouped_rows(rows: Iterable[ResultRow]) -> list[ResultRow]:
    """All that is known of a (dataset, task) together, in the order in which it was first met."""
    groups: dict[tuple[str, str], dict[tuple[str, str, str], list[ResultRow]]] = {}
    for row in rows:
        places = groups.setdefault((row.dataset, row.task), {})
        places.setdefault((row.split, row.protocol, row.metric), []).append(row)
    return [row for places in groups.values() for found in places.values() for row in found]


def primary_rows(rows: Iterable[ResultRow]) -> list[ResultRow]:
    """The rows of the primary metric of each (dataset, task).

    Evaluators yield a task's primary metric before its others, so it is the first one met.
    """
    rows = list(rows)
    primary: dict[tuple[str, str], str] = {}
    for row in rows:
        primary.setdefault((row.dataset, row.task), row.metric)
    return [row for row in rows if primary[row.dataset, row.task] == row.metric]
