"""Planning: which sample lies where in a window of packs, from sizes alone.

1. Deal: samples are dealt to the window's packs in turn, by length, so that every pack gets its
   part of every length and, nearly, of every kind; budgets then hold almost by themselves. (Dealing
   kind by kind was measured: no fuller, and up to four times slower.)
2. Fit: in all packs at once, the longest sample first, each goes to the row of its pack that it
   fits best.
3. What was left over, by a budget or by the rows, goes to the best fitting row of any pack, or to a
   new pack. Where many packs are opened so, the samples are dealt again to more of them.

Rows fitted over the whole window and grouped into packs afterwards fill worse: rows then hold
samples of one kind and length, and few of them share a pack's budgets.
"""

from __future__ import annotations

import dataclasses

import numpy as np
from jaxtyping import Bool, Int

from multimed_jax.data.layout import Layout, make_layout

__all__ = ["Layout", "PackPlan", "Samples", "make_layout", "plan_fill", "plan_window"]

# Packs that samples are dealt to hold this share of their token slots; best fit reaches more
# rarely, and what is left over fits worse.
_AIMED_FILL = 0.97
# Packs opened for what was left over, as a share of the others, that are accepted as they are.
_ACCEPTED_EXCESS = 0.01
_MAX_RETRIES = 3
_FEW = 32


@dataclasses.dataclass(frozen=True)
class Samples:
    """Samples that are planned together, or the segments of a pack.

    Attributes:
        source: index of the source.
        row: row of the source.
        draw: draw index, the key of all that is random about the sample.
        tokens: tokens of each stream that are shown (dropout and `keep` applied).
        has_target: tasks that the sample carries.
        present: modalities that the sample has before any dropout.
        split: whether its words and its other streams are two segments (side by side in a row).
        window: which window of a long record the sample shows, at evaluation.
    """

    source: Int[np.ndarray, "k"]
    row: Int[np.ndarray, "k"]
    draw: Int[np.ndarray, "k"]
    tokens: Int[np.ndarray, "k S"]
    has_target: Bool[np.ndarray, "k tasks"]
    present: Bool[np.ndarray, "k M"]
    split: Bool[np.ndarray, "k"]  # noqa: F821
    window: Int[np.ndarray, "k"]  # noqa: F821

    def take(self, index: np.ndarray | slice) -> Samples:
        """The samples at some indices, in that order."""
        fields = dataclasses.fields(self)
        return Samples(**{f.name: getattr(self, f.name)[index] for f in fields})

    def __len__(self) -> int:
        return len(self.source)


@dataclasses.dataclass(frozen=True)
class PackPlan:
    """The segments of one pack, in the order of their first tokens (by g, then start).

    Segment ids are 1 + the index here; the words of samples that are split have ids behind these.
    """

    samples: Samples
    g: Int[np.ndarray, "k"]  # row of the grid
    start: Int[np.ndarray, "k"]  # first token slot in that row

    @property
    def word_segment(self) -> Int[np.ndarray, "k"]:  # noqa: F821
        """Segment id of each sample's words."""
        own = 1 + np.arange(len(self.g))
        return np.where(self.samples.split, len(self.g) + np.cumsum(self.samples.split), own)


def plan_window(samples: Samples, layout: Layout, rng: np.random.Generator) -> list[PackPlan]:
    """Packs the samples of a window: every sample in exactly one pack.

    Args:
        samples: each has at least one token, fits a row and keeps the budgets of a pack.
        layout: shapes and budgets.
        rng: shuffles the packs of the window.
    """
    if not len(samples):
        return []
    pack, g, start = _fit(samples, layout)
    num_packs = int(pack.max()) + 1
    pack = rng.permutation(num_packs)[pack]
    order = np.lexsort((start, g, pack))
    ends = np.cumsum(np.bincount(pack, minlength=num_packs)).tolist()
    samples, g, start = samples.take(order), g[order], start[order]
    cuts = [slice(a, b) for a, b in zip([0, *ends[:-1]], ends, strict=True)]
    return [PackPlan(samples.take(cut), g[cut], start[cut]) for cut in cuts]


def plan_fill(plans: list[PackPlan], layout: Layout) -> dict[str, float]:
    """Used share of the token slots, and of each stream's slots, of some packs."""
    tokens = np.sum([plan.samples.tokens.sum(axis=0) for plan in plans], axis=0)
    fill = {"token": float(tokens.sum() / (len(plans) * layout.rows * layout.row_width))}
    for stream, used in zip(layout.streams, tokens, strict=True):
        slots = len(plans) * layout.stream_budgets[stream.name]
        fill[f"stream/{stream.name}"] = float(used / slots)
    return fill


# ------------------------------------------------------------------------------- internals


def _fit(samples: Samples, layout: Layout) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """(pack, row in the pack, first slot in the row) of every sample."""
    total = samples.tokens.sum(axis=1)
    segments = 1 + samples.split[:, None]
    use = np.concatenate([samples.tokens, samples.has_target, segments], axis=1).astype(np.int64)
    bound = (use.sum(axis=0) / layout.budgets).max()
    full = total.sum() / (layout.rows * layout.row_width)
    number = int(np.ceil(max(bound - 1e-9, full / _AIMED_FILL)))
    best = _fill(use, total, number, layout)
    for _ in range(_MAX_RETRIES):
        if len(best.left) <= number * (1 + _ACCEPTED_EXCESS):
            break
        # Packs that are opened late hold what was left over, mostly of one kind: deal to more.
        number = (number + len(best.left) + 1) // 2
        best = min(best, _fill(use, total, number, layout), key=lambda packs: len(packs.left))
    fewest = int(np.ceil(max(bound, full) - 1e-9))
    if fewest < len(best.left) <= _FEW:
        # One pack of few is a large share of a window: it may do with less slack.
        best = min(best, _fill(use, total, fewest, layout), key=lambda packs: len(packs.left))
    # A pack can go without a sample: number the others.
    return np.unique(best.pack, return_inverse=True)[1], best.g, best.start


def _fill(
    use: Int[np.ndarray, "k D"], total: Int[np.ndarray, "k"], number: int, layout: Layout
) -> _OpenPacks:
    packs = _OpenPacks(use, total, number, layout)
    for hand in _deal(total, number):
        packs.place_hand(hand)
    left_over = np.flatnonzero(packs.pack < 0)
    for i in left_over[np.argsort(-total[left_over], kind="stable")].tolist():
        packs.place(i)
    return packs


def _deal(total: Int[np.ndarray, "k"], packs: int) -> list[Int[np.ndarray, "packs"]]:
    """Deals samples to packs, so that each pack has its part of every length.

    Returns:
        Hands: one sample for each pack (-1 for none), the longest first.
    """
    order = np.argsort(-total, kind="stable")
    filled = np.concatenate([order, np.full(-len(order) % packs, -1)])
    return list(filled.reshape(-1, packs))


class _OpenPacks:
    """The packs of a window while they are being filled."""

    def __init__(
        self,
        use: Int[np.ndarray, "k D"],
        total: Int[np.ndarray, "k"],
        number: int,
        layout: Layout,
    ):
        self.layout, self.use, self.total = layout, use, total
        self.left = np.tile(layout.budgets, (number, 1))
        self.free = np.full((number, layout.rows), layout.row_width)
        # Where each sample lies; -1 while it lies nowhere.
        self.pack, self.g, self.start = (np.full(len(use), -1) for _ in range(3))

    def place_hand(self, hand: Int[np.ndarray, "packs"]) -> None:
        """Gives every pack its sample, in the row that it fits best; or leaves it over."""
        use = np.where(hand[:, None] >= 0, self.use[hand], 0)
        need = np.where(hand >= 0, self.total[hand], self.layout.row_width + 1)
        fits = (self.left >= use).all(axis=1, keepdims=True) & (self.free >= need[:, None])
        waste = np.where(fits, self.free, self.layout.row_width + 1)
        row = waste.argmin(axis=1)
        pack = np.flatnonzero(fits.any(axis=1))
        self._put(hand[pack], pack, row[pack])

    def place(self, i: int) -> None:
        """Puts a sample that was left over where it fits best in any pack, or in a new one."""
        fits = (self.left >= self.use[i]).all(axis=1, keepdims=True) & (self.free >= self.total[i])
        waste = np.where(fits, self.free, self.layout.row_width + 1)
        best = int(waste.argmin())
        if waste.flat[best] > self.layout.row_width:
            best = self.free.size
            self.left = np.concatenate([self.left, self.layout.budgets[None]])
            fresh = np.full((1, self.layout.rows), self.layout.row_width)
            self.free = np.concatenate([self.free, fresh])
        pack, row = divmod(best, self.layout.rows)
        self._put(np.array([i]), np.array([pack]), np.array([row]))

    def _put(self, i: np.ndarray, pack: np.ndarray, row: np.ndarray) -> None:
        self.pack[i], self.g[i] = pack, row
        self.start[i] = self.layout.row_width - self.free[pack, row]
        self.free[pack, row] -= self.total[i]
        self.left[pack] -= self.use[i]
