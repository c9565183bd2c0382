"""Windows of samples before packing: drawn from the mixture, or every record of a split once.

(A window of draws, here, is what is planned together; a long record has windows of its own, which
`specs.Windows` describes: each is a sample.)
"""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence

import numpy as np
from jaxtyping import Bool, Int

from multimed_jax.config import RunConfig
from multimed_jax.data.layout import Layout
from multimed_jax.data.mixture import Mixture, hash_words, permute
from multimed_jax.data.packing import PackPlan, Samples, plan_window
from multimed_jax.data.sizes import Sizes
from multimed_jax.types import UserError

# Words that keep the random choices of one seed apart (1 and 2 are the mixture's).
_DROPOUT, _SHUFFLE, _LIMIT, _SPLIT = 3, 4, 5, 6


class TrainWindows:
    """Window w of the training order: draws w * window to (w + 1) * window, as packs."""

    def __init__(self, config: RunConfig, layout: Layout, sizes: Sequence[Sizes]):
        weights = [source.weight for source in config.data.sources]
        self._mixture = Mixture(sizes, weights, config.seed)
        self._config, self._layout, self._sizes = config, layout, sizes

    def plan(self, window: int) -> list[PackPlan]:
        """The packs of a window; a pure function of the config and the window."""
        size, seed = self._config.data.window, self._config.seed
        source, row, draw = self._mixture.draws(window * size, (window + 1) * size)
        samples = gather_samples(self._layout, self._sizes, source, row, draw)
        shown = drop_modalities(samples.present, draw, seed, self._config.data.modality_dropout)
        samples = show_modalities(samples, shown, self._layout)
        samples = split_pairs(samples, self._layout, seed, self._config.alignment.split_rate)
        return plan_window(samples, self._layout, window_generator(seed, window))


def plan_every_record(
    config: RunConfig,
    layout: Layout,
    sizes: Sequence[Sizes],
    keep: frozenset[str] | None = None,
    limit: int | None = None,
) -> list[PackPlan]:
    """Packs that hold every drawable record of a split once (`limit` records of each source).

    A record with windows is there once for each of them.

    Args:
        config: of the run.
        layout: of the run.
        sizes: of the split's records.
        keep: modalities that are shown; None shows all. Records that keep none are left out.
        limit: of each source; which records those are does not depend on the run's seed.

    Raises:
        UserError: where `keep` names a modality that is not configured.
    """
    kept = _kept_modalities(layout, keep)
    order = []
    for index, size in enumerate(sizes):
        rows = size.drawable_row(_limited(size.num_drawable, index, limit))
        present = modalities_of(layout, size.tokens[rows]) & kept
        rows = rows[present.any(axis=1)]
        number = size.windows[rows]
        window = np.arange(number.sum()) - np.repeat(np.cumsum(number) - number, number)
        rows = np.repeat(rows, number)
        # Sources run side by side at even paces, so that every window has its part of each.
        pace = (np.arange(len(rows)) + 0.5) / max(1, len(rows))
        order.append((np.full(len(rows), index), rows, window, pace))
    source, row, window, pace = (np.concatenate(column) for column in zip(*order, strict=True))
    by_pace = np.lexsort((source, pace))
    source, row, window = source[by_pace], row[by_pace], window[by_pace]
    samples = gather_samples(layout, sizes, source, row, np.arange(len(row)))
    samples = dataclasses.replace(samples, window=window)
    # What is not kept counts as absent, unlike what dropout hides.
    samples = show_modalities(samples, samples.present & kept, layout, hide=True)
    plans: list[PackPlan] = []
    for start in range(0, len(row), config.data.window):
        part = samples.take(slice(start, start + config.data.window))
        plans += plan_window(part, layout, window_generator(0, start))
    seen = [(plan.samples.source, plan.samples.row) for plan in plans]
    packed = np.concatenate([np.stack(pair, axis=1) for pair in seen] or [np.zeros((0, 2), int)])
    wanted = np.stack([source, row], axis=1)
    assert sorted(map(tuple, packed.tolist())) == sorted(map(tuple, wanted.tolist()))
    return plans


def gather_samples(
    layout: Layout,
    sizes: Sequence[Sizes],
    source: Int[np.ndarray, "k"],
    row: Int[np.ndarray, "k"],
    draw: Int[np.ndarray, "k"],
) -> Samples:
    """The samples at (source, row) with all their modalities."""
    tokens = np.empty((len(row), len(layout.streams)), np.int64)
    has_target = np.empty((len(row), len(layout.tasks)), bool)
    for index, size in enumerate(sizes):
        here = np.flatnonzero(source == index)
        tokens[here], has_target[here] = size.take(row[here])
    present = modalities_of(layout, tokens)
    whole, first = np.zeros(len(row), bool), np.zeros(len(row), np.int64)
    return Samples(source, row, draw, tokens, has_target, present, whole, first)


def modalities_of(layout: Layout, tokens: Int[np.ndarray, "k S"]) -> Bool[np.ndarray, "k M"]:
    """Which modalities have a token; the places of an answer are none."""
    member = np.array(layout.stream_modality)[:, None] == np.arange(len(layout.modality_names))
    return (tokens > 0) @ (member & ~np.array(layout.is_answers)[:, None])


def show_modalities(
    samples: Samples, shown: Bool[np.ndarray, "k M"], layout: Layout, *, hide: bool = False
) -> Samples:
    """The samples with only some modalities' tokens; `hide` makes the others absent, too."""
    visible = shown[:, list(layout.stream_modality)] | np.array(layout.is_answers)
    tokens = np.where(visible, samples.tokens, 0)
    present = samples.present & shown if hide else samples.present
    return dataclasses.replace(samples, tokens=tokens, present=present)


def split_pairs(samples: Samples, layout: Layout, seed: int, rate: float) -> Samples:
    """Makes two segments of some samples that show words beside other parts.

    A pure function of (seed, draw). A sample that asks for an answer stays whole: its question is
    no description of its image.
    """
    if rate == 0:
        return samples
    words = np.array(layout.is_words)
    pairs = samples.tokens[:, words].any(axis=1) & samples.tokens[:, ~words].any(axis=1)
    asks = [number for number, task in enumerate(layout.tasks) if task.generates]
    pairs &= ~samples.has_target[:, asks].any(axis=1)
    chance = (hash_words(seed, _SPLIT, samples.draw) >> np.uint64(11)).astype(np.float64) * 2.0**-53
    return dataclasses.replace(samples, split=pairs & (chance < rate))


def drop_modalities(
    present: Bool[np.ndarray, "k M"], draw: Int[np.ndarray, "k"], seed: int, rate: float
) -> Bool[np.ndarray, "k M"]:
    """Which modalities of a sample are shown: each is hidden with chance `rate`, never all.

    A pure function of (seed, draw). Samples of one modality are left alone.
    """
    if rate == 0:
        return present
    number = np.arange(present.shape[1])
    word = hash_words(seed, _DROPOUT, draw[:, None], number[None, :])
    chance = (word >> np.uint64(11)).astype(np.float64) * 2.0**-53
    chance = np.where(present, chance, -1.0)
    # The modality of the largest number stays: it is hidden only where all would be.
    last = number == chance.argmax(axis=1)[:, None]
    return present & ((chance >= rate) | last)


def window_generator(seed: int, window: int) -> np.random.Generator:
    """The generator that shuffles the packs of a window."""
    return np.random.default_rng(hash_words(seed, _SHUFFLE, window))


# ------------------------------------------------------------------------------- internals


def _kept_modalities(layout: Layout, keep: frozenset[str] | None) -> Bool[np.ndarray, "M"]:
    names = layout.modality_names
    for name in keep or ():
        if name not in names:
            raise UserError(f"no modality {name!r} is configured; accepted: {', '.join(names)}")
    return np.array([keep is None or name in keep for name in names])


def _limited(num: int, source: int, limit: int | None) -> Int[np.ndarray, "m"]:
    """Ascending indices of the records that a limit leaves."""
    if limit is None or limit >= num:
        return np.arange(num)
    key = np.broadcast_to(hash_words(_LIMIT, source), (limit,))
    return np.sort(permute(np.arange(limit), num, key))
