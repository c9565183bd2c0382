"""Duplicates: equal content by hash, images that look the same by perceptual hash and thumbnail.

Medical images of one kind look alike, so a perceptual hash alone raises false alarms. A pair counts
as a near duplicate only where its hashes differ by at most `MAX_HAMMING` of 64 bits AND its 32 x 32
thumbnails correlate by at least `MIN_CORRELATION`.

How the two values were set: on 579 brain slices at 224 pixels 152 pairs lie within 8 bits and 21 of
them above 0.99. Of the pairs looked at by eye those from 0.992 on are one slice (re-encoded, scaled
or of other contrast), those from 0.980 to 0.986 mostly neighbouring slices of one patient, two of
them one slice of other contrast. So the audit finds copies; it misses strongly edited ones, and it
does not find patients. On 299 chest films equal files correlate at 1, all others below 0.951.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable, Iterator, Sequence

import numpy as np
from jaxtyping import Float, UInt64

from multimed_jax.types import UserError
from tfds_builders.core.records import AuditKey

MAX_HAMMING = 8
MIN_CORRELATION = 0.99
_ROWS_AT_ONCE = 256


@dataclasses.dataclass(frozen=True)
class Duplicate:
    """Two records (first < second, in record order) with the same content."""

    first: int
    second: int
    exact: bool


def find_duplicates(keys: Sequence[AuditKey | None]) -> list[Duplicate]:
    """All near-duplicate pairs, and the exact ones as links to the first record of each content."""
    found: list[Duplicate] = []
    first_of: dict[bytes, int] = {}
    images: list[int] = []
    for i, key in enumerate(keys):
        if key is None:
            continue
        if key.digest in first_of:
            # Its look is compared through the first record of the same content.
            found.append(Duplicate(first_of[key.digest], i, exact=True))
            continue
        first_of[key.digest] = i
        if key.perceptual is not None and key.thumbnail is not None:
            images.append(i)
    return found + _near_duplicates(keys, images)


def _near_duplicates(keys: Sequence[AuditKey | None], images: Sequence[int]) -> list[Duplicate]:
    if len(images) < 2:
        return []
    chosen = [key for key in (keys[i] for i in images) if key is not None]
    hashes = np.array([key.perceptual for key in chosen], np.uint64)
    found = []
    for rows, columns in close_pairs(hashes):
        for row, column in zip(rows, columns, strict=True):
            if correlation(chosen[row], chosen[column]) >= MIN_CORRELATION:
                found.append(Duplicate(images[row], images[column], exact=False))
    return found


def close_pairs(
    hashes: UInt64[np.ndarray, "n"],  # noqa: F821
) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """Rows and columns, row < column, of hashes that differ by at most `MAX_HAMMING` bits.

    All pairs are tried, a block of rows at a time: 100,000 images take a minute or two.
    """
    for start in range(0, len(hashes), _ROWS_AT_ONCE):
        block = hashes[start : start + _ROWS_AT_ONCE]
        distance = np.bitwise_count(block[:, None] ^ hashes[None, start:])
        rows, columns = np.nonzero(distance <= MAX_HAMMING)
        keep = columns > rows
        yield rows[keep] + start, columns[keep] + start


def correlation(a: AuditKey, b: AuditKey) -> float:
    """Normalised correlation of two thumbnails; images without contrast never match."""
    x, y = _centred(a), _centred(b)
    norm = float(np.linalg.norm(x) * np.linalg.norm(y))
    return float(x @ y) / norm if norm > 0 else 0.0


def _centred(key: AuditKey) -> Float[np.ndarray, "1024"]:
    assert key.thumbnail is not None
    pixels = np.frombuffer(key.thumbnail, np.uint8).astype(np.float64)
    return pixels - pixels.mean()


def twin_leaders(num_records: int, duplicates: Iterable[Duplicate]) -> list[int]:
    """For every record the first record (itself, or an earlier one) of its chain of duplicates."""
    leader = list(range(num_records))

    def root(i: int) -> int:
        while leader[i] != i:
            leader[i] = leader[leader[i]]
            i = leader[i]
        return i

    for pair in duplicates:
        low, high = sorted((root(pair.first), root(pair.second)))
        leader[high] = low
    return [root(i) for i in range(num_records)]


def adopt_twins(
    groups: Sequence[str], duplicates: Iterable[Duplicate], sample_ids: Sequence[str]
) -> list[str]:
    """Moves every copy into the group of one of its twins, so that twins share a split.

    It is the twin with the alphabetically first id, whatever order the source is read in.
    """
    leaders = twin_leaders(len(groups), duplicates)
    home: dict[int, int] = {}
    for i, leader in enumerate(leaders):
        if leader not in home or sample_ids[i] < sample_ids[home[leader]]:
            home[leader] = i
    return [groups[home[leader]] for leader in leaders]


def crossing(duplicates: Iterable[Duplicate], splits: Sequence[str]) -> list[Duplicate]:
    """The duplicates whose two records lie in different splits."""
    return [pair for pair in duplicates if splits[pair.first] != splits[pair.second]]


def refuse_leaks(
    duplicates: Iterable[Duplicate],
    sample_ids: Sequence[str],
    splits: Sequence[str],
) -> None:
    """Raises UserError that lists the duplicates across splits.

    A group never crosses splits, so a pair across splits is always of two groups.
    """
    leaks = crossing(duplicates, splits)
    if not leaks:
        return
    shown = "; ".join(
        f"{sample_ids[pair.first]} ({splits[pair.first]}) = "
        f"{sample_ids[pair.second]} ({splits[pair.second]}, "
        f"{'same content' if pair.exact else 'looks the same'})"
        for pair in leaks[:10]
    )
    more = f"; and {len(leaks) - 10} more" if len(leaks) > 10 else ""
    raise UserError(f"{len(leaks)} duplicate(s) across splits: {shown}{more}")


def copies_to_leave_out(duplicates: Iterable[Duplicate], splits: Sequence[str]) -> set[int]:
    """The records to drop so that no chain of duplicates lies in two splits.

    A chain stays where it matters most: in test, else in validation.
    """
    chains: dict[int, list[int]] = {}
    for i, leader in enumerate(twin_leaders(len(splits), duplicates)):
        chains.setdefault(leader, []).append(i)
    dropped: set[int] = set()
    for chain in chains.values():
        home = next(s for s in ("test", "validation", "train") if s in {splits[i] for i in chain})
        dropped.update(i for i in chain if splits[i] != home)
    return dropped


def count_within(duplicates: Iterable[Duplicate], splits: Sequence[str]) -> dict[str, int]:
    """Number of copies beside their first twin, per split."""
    leaders = twin_leaders(len(splits), duplicates)
    counts: dict[str, int] = {}
    for i, leader in enumerate(leaders):
        if leader != i:
            counts[splits[i]] = counts.get(splits[i], 0) + 1
    return counts
