"""From the index of a source to the split and group of every record, duplicates settled."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterable, Sequence
from typing import Any, Literal

from multimed_jax.types import UserError
from tfds_builders.core import audit
from tfds_builders.core.quarantine import Quarantine
from tfds_builders.core.records import AuditKey, SourceCard, SourceRecord, UnreadableRecord
from tfds_builders.core.splits import assign_splits, count_groups, merge_groups

SplitMode = Literal["group", "stratified", "official"]
DuplicatePolicy = Literal["fail", "merge_groups", "share_group", "leave_out"]

# What the index pass hands to the writing pass: sample id -> (split, group).
Plan = dict[str, tuple[str, str]]


@dataclasses.dataclass(frozen=True)
class Names:
    """How ids of the source leave the build: in records, messages and quarantine.

    Splits follow the ids of the source itself, so they do not depend on anyone's key.

    Attributes:
        sample: sample id -> what is written.
        group: group id -> what is written.
    """

    sample: Callable[[str], str] = str
    group: Callable[[str], str] = str


def index_rows(
    sources: Iterable[SourceRecord], quarantine: Quarantine
) -> tuple[list[SourceRecord], list[AuditKey | None]]:
    """The readable records without payload, and their audit keys; the others go to quarantine."""
    rows: list[SourceRecord] = []
    keys: list[AuditKey | None] = []
    for source in sources:
        try:
            keys.append(source.audit_key())
        except UnreadableRecord as error:
            quarantine.add(source.sample_id, str(error))
            continue
        # The payload and the audit stay behind: only the row's few strings are kept.
        rows.append(dataclasses.replace(source, record={}, audit=None))
    return rows, keys


def make_plan(
    rows: Sequence[SourceRecord],
    keys: Sequence[AuditKey | None],
    quarantine: Quarantine,
    mode: SplitMode,
    policy: DuplicatePolicy,
    card: SourceCard,
    names: Names | None = None,
) -> tuple[Plan, dict[str, Any]]:
    """The plan, and the metadata entries that follow from it.

    Args:
        rows: the readable records, without payload.
        keys: their audit keys.
        quarantine: of the index pass; copies left out by `policy` are counted in it.
        mode: see `splits.assign_splits`.
        policy: see `MedicalBuilder.ON_DUPLICATES`.
        card: of the source; its namespace salts the hash.
        names: how messages name records and groups; as the source does where it is None.

    Raises:
        UserError: where an id occurs twice, a group or a duplicate lies in two splits, or a split
            stays empty.
    """
    names = names or Names()
    ids = [row.sample_id for row in rows]
    _refuse_repeated_ids(ids, names)
    duplicates = audit.find_duplicates(keys)
    groups = [row.group_id for row in rows]
    if policy == "share_group":
        groups = audit.adopt_twins(groups, duplicates, ids)
    elif policy == "merge_groups":
        groups = merge_groups(groups, [(d.first, d.second) for d in duplicates])
    assignment = assign_splits(
        groups,
        [row.stratum for row in rows],
        [row.fine_group_id for row in rows],
        [row.official_split for row in rows],
        mode,
        card.namespace,
        names.group,
    )
    dropped: set[int] = set()
    if policy == "leave_out":
        dropped = audit.copies_to_leave_out(duplicates, assignment.splits)
        for _ in dropped:
            quarantine.leave_out("copy of a record in another split")
    kept = [d for d in duplicates if not {d.first, d.second} & dropped]
    audit.refuse_leaks(kept, [names.sample(name) for name in ids], assignment.splits)
    plan = {
        ids[i]: (assignment.splits[i], assignment.groups[i])
        for i in range(len(rows))
        if i not in dropped
    }
    facts = {
        "num_groups": _filled_splits(plan, card.name),
        "split_mode": assignment.split_mode,
        "quarantine": quarantine.summary(len(rows)),
        "left_out": dict(sorted(quarantine.left_out.items())),
        "duplicates": audit.count_within(kept, assignment.splits),
    }
    return plan, facts


def _filled_splits(plan: Plan, name: str) -> dict[str, int]:
    where = list(plan.values())
    num_groups = count_groups([group for _, group in where], [split for split, _ in where])
    for split, number in num_groups.items():
        if number == 0:
            raise UserError(
                f"the split {split!r} of {name} is empty ({len(plan)} records in "
                f"{sum(num_groups.values())} groups)"
            )
    return num_groups


def _refuse_repeated_ids(ids: Sequence[str], names: Names) -> None:
    seen: set[str] = set()
    for name in ids:
        if name in seen:
            raise UserError(f"the record id {names.sample(name)!r} occurs twice in the source")
        seen.add(name)
