"""Who goes where: 70/15/15 by group, one rule for every source (PROTOCOLS, "Splits").

mode "group", 30 groups or more   hash of the group; a group's split never depends on the others
mode "group", 3 to 29 groups      groups in hash order fill class-stratified quotas
mode "group", fewer than 3        the same rules on a finer key; labelled `within_group`
mode "stratified"                 the quotas at any number of groups, for a source whose groups
                                  each hold one class: a hash of a few dozen can leave so few of a
                                  class in test that no interval of any model excludes chance
mode "official"                   the publisher's split; validation is cut from its training
                                  groups by hash where it publishes none
"""

from __future__ import annotations

import dataclasses
import hashlib
from collections import Counter
from collections.abc import Callable, Iterable, Sequence

import numpy as np

from multimed_jax.types import UserError

SPLITS = ("train", "validation", "test")
FRACTIONS = (0.70, 0.15, 0.15)
MIN_HASH_GROUPS = 30
MIN_GROUPS = 3
MODES = ("group", "stratified", "official")


@dataclasses.dataclass(frozen=True)
class SplitAssignment:
    """The split of every record.

    Attributes:
        splits: "train", "validation" or "test", in record order.
        groups: the group that was kept whole: `group_id`, or the finer key in `within_group`.
        split_mode: "group", "within_group" or "official".
    """

    splits: tuple[str, ...]
    groups: tuple[str, ...]
    split_mode: str


def hash_fraction(group: str, seed_salt: str) -> float:
    """A number in [0, 1) that depends on the group and the salt only."""
    digest = hashlib.sha256(f"{seed_salt}\x1f{group}".encode()).digest()
    return int.from_bytes(digest[:6], "big") / 2**48


def hash_split(group: str, seed_salt: str) -> str:
    """The split of a group by its hash alone: 70 % train, 15 % validation, 15 % test."""
    fraction = hash_fraction(group, seed_salt)
    if fraction < FRACTIONS[0]:
        return "train"
    return "validation" if fraction < FRACTIONS[0] + FRACTIONS[1] else "test"


def assign_splits(
    groups: Sequence[str],
    strata: Sequence[str],
    fine_groups: Sequence[str | None],
    official: Sequence[str | None],
    mode: str,
    seed_salt: str,
    show: Callable[[str], str] = str,
) -> SplitAssignment:
    """Assigns every record to a split so that no group lies in two.

    Args:
        groups: group of each record.
        strata: class label of each record, for the quotas of small sources.
        fine_groups: finer key of each record, needed where there are fewer than three groups.
        official: the publisher's split of each record, needed in official mode.
        mode: one of `MODES`.
        seed_salt: the source's namespace, so that all its configs split alike.
        show: how a message names a group.

    Raises:
        UserError: for another mode; where official mode lacks a split or a group crosses splits
            (the groups are listed); where a small source has no finer key or too few of them.
    """
    if mode not in MODES:
        raise UserError(f"split mode is {mode!r}; accepted: {', '.join(MODES)}")
    if mode == "official":
        splits = _official(groups, official, seed_salt, show)
        return SplitAssignment(tuple(splits), tuple(groups), "official")
    if len(set(groups)) >= MIN_GROUPS:
        rule = _fill_quotas if mode == "stratified" else _table
        table = rule(groups, strata, seed_salt)
        return SplitAssignment(tuple(table[g] for g in groups), tuple(groups), "group")
    finer = [fine for fine in fine_groups if fine is not None]
    if len(finer) != len(groups) or len(set(finer)) < MIN_GROUPS:
        raise UserError(
            f"the source has {len(set(groups))} group(s) and {len(set(finer))} finer key(s); "
            f"splitting needs at least {MIN_GROUPS} of one of them"
        )
    table = _table(finer, strata, seed_salt)
    return SplitAssignment(tuple(table[g] for g in finer), tuple(finer), "within_group")


def _table(groups: Sequence[str], strata: Sequence[str], seed_salt: str) -> dict[str, str]:
    names = sorted(set(groups))
    if len(names) >= MIN_HASH_GROUPS:
        table = {name: hash_split(name, seed_salt) for name in names}
        # With few more than 30 groups the hash can leave a split empty (1.5 % of sources at 30).
        if set(table.values()) == set(SPLITS):
            return table
    return _fill_quotas(groups, strata, seed_salt)


def _fill_quotas(groups: Sequence[str], strata: Sequence[str], seed_salt: str) -> dict[str, str]:
    """Groups in hash order, each to the split whose class quotas it brings closest to their due."""
    classes = {name: k for k, name in enumerate(sorted(set(strata)))}
    counts = {name: np.zeros(len(classes)) for name in groups}
    for group, stratum in zip(groups, strata, strict=True):
        counts[group][classes[stratum]] += 1
    total = sum(counts.values(), np.zeros(len(classes)))
    # Shares of each class still due to each split, [split, class].
    due = np.outer(FRACTIONS, np.ones(len(classes)))
    order = sorted(counts, key=lambda name: (hash_fraction(name, seed_salt), name))
    empty = list(range(len(SPLITS)))
    table: dict[str, str] = {}
    for position, name in enumerate(order):
        share = counts[name] / total
        gain = (2 * due * share - share**2).sum(axis=1)
        must_fill = len(order) - position == len(empty)
        open_splits = empty if must_fill else range(len(SPLITS))
        best = max(open_splits, key=lambda split: (gain[split], -split))
        table[name] = SPLITS[best]
        due[best] -= share
        if best in empty:
            empty.remove(best)
    return table


def _official(
    groups: Sequence[str],
    official: Sequence[str | None],
    seed_salt: str,
    show: Callable[[str], str],
) -> list[str]:
    for split in official:
        if split not in SPLITS:
            raise UserError(
                f"official split mode met the split {split!r}; accepted: {', '.join(SPLITS)}"
            )
    refuse_crossing_groups(groups, [str(split) for split in official], show)
    if "validation" in official:
        return [str(split) for split in official]
    cut = FRACTIONS[1] / (FRACTIONS[0] + FRACTIONS[1])
    moved = {g for g in groups if hash_fraction(g, seed_salt) < cut}
    return [
        "validation" if split == "train" and group in moved else str(split)
        for group, split in zip(groups, official, strict=True)
    ]


def refuse_crossing_groups(
    groups: Sequence[str], splits: Sequence[str], show: Callable[[str], str] = str
) -> None:
    """Raises UserError that lists the groups lying in more than one split."""
    seen: dict[str, set[str]] = {}
    for group, split in zip(groups, splits, strict=True):
        seen.setdefault(group, set()).add(split)
    crossing = sorted(group for group, where in seen.items() if len(where) > 1)
    if crossing:
        shown = "; ".join(f"{show(g)} in {' and '.join(sorted(seen[g]))}" for g in crossing[:10])
        more = f"; and {len(crossing) - 10} more" if len(crossing) > 10 else ""
        raise UserError(f"{len(crossing)} group(s) lie in more than one split: {shown}{more}")


def merge_groups(groups: Sequence[str], pairs: Iterable[tuple[int, int]]) -> list[str]:
    """Unites whole groups whose records `pairs` links (union-find).

    Every record of a united group gets the alphabetically first of its names. Fit for patient
    groups; number blocks of a source without patients would chain up into one huge group, where
    `audit.adopt_twins` moves the copies alone.
    """
    parent = {name: name for name in groups}

    def root(name: str) -> str:
        while parent[name] != name:
            parent[name] = parent[parent[name]]
            name = parent[name]
        return name

    for i, j in pairs:
        first, second = sorted((root(groups[i]), root(groups[j])))
        parent[second] = first
    return [root(name) for name in groups]


def count_groups(groups: Sequence[str], splits: Sequence[str]) -> dict[str, int]:
    """Number of different groups per split."""
    unique = Counter(split for _, split in set(zip(groups, splits, strict=True)))
    return {split: unique[split] for split in SPLITS}
