"""Percentile bootstrap intervals over groups, and paired differences of two predictors.

Records of one group (a patient, a donor) resemble each other, so whole groups are drawn. Under
`MIN_GROUPS` groups the spread between groups cannot be estimated: records are drawn instead, and
the interval says so (`unit` is "sample"). It is then too narrow for a new group.

    groups    a a a b c c            a resample is a vector of weights per record:
    drawn     c, a, c       ->       1 1 1 0 2 2
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterator
from typing import Literal

import numpy as np
from jaxtyping import Float, Int, Shaped

from multimed_jax.metrics.classification import Statistic

MIN_GROUPS = 10
_BLOCK_CELLS = 1 << 21  # weights held at once: 16 MiB as float64

Unit = Literal["group", "sample"]


@dataclasses.dataclass(frozen=True)
class Interval:
    """A percentile interval; `unit` is what was drawn, a "group" or a "sample"."""

    low: float
    high: float
    unit: Unit

    @property
    def beats(self) -> bool:
        """Whether an interval of a difference excludes 0 from below."""
        return self.low > 0.0


@dataclasses.dataclass(frozen=True)
class Resampling:
    """A fixed series of resamples of the same records: equal for every predictor and metric.

    Attributes:
        cluster: which drawn unit each record belongs to, from 0.
        num_clusters: number of drawn units.
        num_groups: number of groups, whatever is drawn.
        unit: what is drawn.
        resamples: how many resamples.
        seed: of the draws.
    """

    cluster: Int[np.ndarray, "n"]
    num_clusters: int
    num_groups: int
    unit: Unit
    resamples: int
    seed: int

    def weights(self) -> Iterator[Int[np.ndarray, "B n"]]:
        """Blocks of resamples: how often each record was drawn."""
        rng = np.random.default_rng(self.seed)
        widest = max(len(self.cluster), self.num_clusters)
        block = max(1, min(self.resamples, _BLOCK_CELLS // widest))
        for start in range(0, self.resamples, block):
            size = min(block, self.resamples - start)
            drawn = rng.integers(0, self.num_clusters, (size, self.num_clusters))
            drawn += np.arange(size)[:, None] * self.num_clusters
            counts = np.bincount(drawn.ravel(), minlength=size * self.num_clusters)
            yield counts.reshape(size, self.num_clusters)[:, self.cluster]


def make_resampling(
    groups: Shaped[np.ndarray, "n"],
    *,
    resamples: int = 1000,
    seed: int = 0,
    unit: Unit = "group",
) -> Resampling:
    """Resamples of records in `groups`.

    Args:
        groups: group of each record, as any value that compares.
        resamples: how many.
        seed: of the draws; the same seed gives the same resamples.
        unit: "group", which falls back to "sample" under `MIN_GROUPS` groups; or "sample".

    Raises:
        ValueError: where there is no record or no resample.
    """
    if not len(groups) or resamples < 1:
        raise ValueError(f"cannot draw {resamples} resamples of {len(groups)} records")
    distinct, cluster = np.unique(groups, return_inverse=True)
    num_groups = len(distinct)
    if unit == "group" and num_groups >= MIN_GROUPS:
        return Resampling(cluster.reshape(-1), num_groups, num_groups, "group", resamples, seed)
    records = np.arange(len(groups))
    return Resampling(records, len(groups), num_groups, "sample", resamples, seed)


def bootstrap_draws(
    statistic: Statistic, resampling: Resampling
) -> dict[str, Float[np.ndarray, "resamples"]]:
    """The metrics of every resample."""
    blocks = [statistic(weights) for weights in resampling.weights()]
    return {name: np.concatenate([block[name] for block in blocks]) for name in blocks[0]}


def percentile_interval(
    draws: Float[np.ndarray, "resamples"],
    confidence: float,
    unit: Unit,
) -> Interval:
    """The central `confidence` share of the draws (linear between order statistics)."""
    tail = (1.0 - confidence) / 2.0
    low, high = np.quantile(draws, [tail, 1.0 - tail])
    return Interval(float(low), float(high), unit)


def bootstrap_interval(
    statistic: Statistic,
    groups: Shaped[np.ndarray, "n"],
    *,
    resamples: int = 1000,
    confidence: float = 0.95,
    seed: int = 0,
    unit: Unit = "group",
) -> dict[str, Interval]:
    """Intervals of every metric of `statistic`; arguments as in `make_resampling`."""
    resampling = make_resampling(groups, resamples=resamples, seed=seed, unit=unit)
    draws = bootstrap_draws(statistic, resampling)
    return {
        name: percentile_interval(values, confidence, resampling.unit)
        for name, values in draws.items()
    }


def paired_bootstrap(
    ours: Statistic,
    theirs: Statistic,
    groups: Shaped[np.ndarray, "n"],
    *,
    resamples: int = 1000,
    confidence: float = 0.95,
    seed: int = 0,
    unit: Unit = "group",
) -> dict[str, Interval]:
    """Intervals of `ours - theirs`, two predictors of the same records in the same order."""
    resampling = make_resampling(groups, resamples=resamples, seed=seed, unit=unit)
    first, second = bootstrap_draws(ours, resampling), bootstrap_draws(theirs, resampling)
    return {
        name: percentile_interval(first[name] - second[name], confidence, resampling.unit)
        for name in first
    }


def resampled(
    metrics: Callable[[np.ndarray, np.ndarray], dict[str, float]],
    predictions: Shaped[np.ndarray, "n ..."],
    targets: Shaped[np.ndarray, "n ..."],
) -> Statistic:
    """Makes a statistic of metrics that know no weights, by repeating the records: slow."""

    def statistic(weights: np.ndarray) -> dict[str, np.ndarray]:
        rows = [np.repeat(np.arange(len(targets)), w) for w in weights]
        values = [metrics(predictions[r], targets[r]) for r in rows]
        return {name: np.array([v[name] for v in values]) for name in values[0]}

    return statistic
