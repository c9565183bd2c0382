"""Built datasets compared with each other: what one trains on must not be what another tests on.

Two records are linked where a print of theirs is equal, where two images look the same by the rule
of `audit`, or where two protein chains are identical to `MIN_IDENTITY`. A link across splits is a
leak, within one dataset and between two, but for configs of one source: they are versions of the
same records, never trained and tested crosswise. What a builder's `ALIASES` name is expected to
hold the same records, and those in one split are counted apart; across splits they leak as well.
"""

from __future__ import annotations

import dataclasses
import re
from collections import defaultdict
from collections.abc import Iterator, Sequence
from itertools import combinations, product
from pathlib import Path
from typing import Any

import numpy as np
import tensorflow_datasets as tfds
from jaxtyping import Float32

from multimed_jax.types import UserError
from tfds_builders.core import fingerprints
from tfds_builders.core.audit import MIN_CORRELATION, close_pairs
from tfds_builders.core.fingerprints import KINDS, Fingerprints, PrintLog
from tfds_builders.core.similar_chains import similar_pairs

MIN_IDENTITY = 0.9
# Correlation of thumbnails without what is smooth over 5 x 5 of their pixels. Photographs of 390
# retinas, all bright discs, hold pairs of different eyes above `audit.MIN_CORRELATION`, none of
# them above 0.964 in detail; copies of retinas, brain slices and chest films that were encoded
# again at quality 30, halved or brought to 224 pixels stay above 0.978.
MIN_DETAIL = 0.97
SHOWN_LEAKS = 50
_PAIRS_AT_ONCE = 4096
Place = tuple[int, str]  # dataset and split


@dataclasses.dataclass(frozen=True)
class Built:
    """A finished dataset and its prints.

    Attributes:
        name: source, or source/config.
        prints: of its records.
        aliases: sources whose records it declares to hold.
    """

    name: str
    prints: Fingerprints
    aliases: frozenset[str] = frozenset()

    @property
    def source(self) -> str:
        """The builder's name."""
        return self.name.partition("/")[0]


@dataclasses.dataclass(frozen=True)
class Link:
    """One content in two places.

    Attributes:
        first: dataset, split and sample id of one record that has it.
        second: of another.
        how: "same content", "looks the same" or the identity.
        declared: whether the datasets are versions of one another, or name each other as aliases
            and have it in one split.
    """

    first: tuple[str, str, str]
    second: tuple[str, str, str]
    how: str
    declared: bool

    @property
    def leaks(self) -> bool:
        """Whether one is trained on and the other is not, or is not meant to be."""
        return not self.declared and self.first[1] != self.second[1]

    def __str__(self) -> str:
        places = (f"{name} {split} {sample}" for name, split, sample in (self.first, self.second))
        return f"{' = '.join(places)} ({self.how})"


# ----------------------------------------------------------------------------- the datasets


def find_built(data_dir: Path, names: Sequence[str]) -> list[Path]:
    """Folders of the newest version of every dataset, or of those named (`source[/config]`).

    Raises:
        UserError: where there is none, or a name has none.
    """
    newest: dict[str, Path] = {}
    for info in sorted(
        [*data_dir.glob("*/*/dataset_info.json"), *data_dir.glob("*/*/*/dataset_info.json")]
    ):
        folder = info.parent
        if not re.fullmatch(r"\d+\.\d+\.\d+", folder.name, re.ASCII):
            continue  # half-written
        name = folder.parent.relative_to(data_dir).as_posix()
        if name not in newest or _version(newest[name]) < _version(folder):
            newest[name] = folder
    if not newest:
        raise UserError(f"there is no built dataset in {data_dir}")
    for name in names:
        if not any(found == name or found.startswith(f"{name}/") for found in newest):
            raise UserError(
                f"there is no built dataset {name!r} in {data_dir}; accepted: {', '.join(newest)}"
            )
    return [
        folder
        for found, folder in newest.items()
        if not names or any(found == name or found.startswith(f"{name}/") for name in names)
    ]


def _version(folder: Path) -> tuple[int, ...]:
    return tuple(map(int, folder.name.split(".")))


def read_built(folder: Path, data_dir: Path) -> Built | None:
    """A dataset's prints, made from its records where it was built without; None if generated."""
    builder: Any = tfds.builder_from_directory(folder)
    metadata: dict[str, Any] = dict(builder.info.metadata or {})
    if "generated" in metadata and metadata["generated"]:
        return None
    prints = fingerprints.load(folder)
    if prints is None:
        log = PrintLog()
        for split in builder.info.splits:
            source: Any = builder.as_data_source(split)
            for i in range(len(source)):
                log.add(split, _as_text(source[i]))
        prints = log.fingerprints()
    aliases = frozenset(metadata["aliases"]) if "aliases" in metadata else frozenset()
    return Built("/".join(folder.relative_to(data_dir).parts[:-1]), prints, aliases)


def _as_text(record: dict[str, Any]) -> dict[str, Any]:
    names = {key: record[key].decode() for key in ("sample_id", "group_id")}
    return {**record, **names}


# ------------------------------------------------------------------------------- the links


def find_links(built: Sequence[Built]) -> Iterator[Link]:
    """All links between datasets, and those across splits within one."""
    contents = _contents(built)
    places = list(contents.values())
    for holders in places:
        yield from _join(built, combinations(holders.items(), 2), "same content")
    looks = _looks(built, list(contents))
    for i, j in _alike(*looks[1:]):
        pair = product(places[looks[0][i]].items(), places[looks[0][j]].items())
        yield from _join(built, pair, "looks the same")
    chains = {key: residues for b in built for key, residues in _chains(b)}
    keys = list(chains)
    for i, j, identity in similar_pairs([chains[key] for key in keys], MIN_IDENTITY):
        if identity < 1 or chains[keys[i]] != chains[keys[j]]:
            pair = product(contents[keys[i]].items(), contents[keys[j]].items())
            yield from _join(built, pair, f"{identity:.0%} identical")


def _contents(built: Sequence[Built]) -> dict[tuple[int, bytes], dict[Place, str]]:
    """Content -> the places that hold it, each with one sample id."""
    contents: dict[tuple[int, bytes], dict[Place, str]] = defaultdict(dict)
    for number, one in enumerate(built):
        prints = one.prints
        for row, kind, digest in zip(prints.row, prints.kind, prints.digest, strict=True):
            sample, _, split = prints.records[row]
            contents[int(kind), digest.tobytes()].setdefault((number, split), sample)
    return contents


def _looks(
    built: Sequence[Built], keys: list[tuple[int, bytes]]
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Of every content that has a look: its number among all, its hash and its thumbnail."""
    number = {key: i for i, key in enumerate(keys)}
    seen: dict[int, tuple[np.uint64, np.ndarray]] = {}
    for one in built:
        p = one.prints
        for at, perceptual, thumbnail in zip(p.looks, p.perceptual, p.thumbnails, strict=True):
            seen.setdefault(
                number[int(p.kind[at]), p.digest[at].tobytes()], (perceptual, thumbnail)
            )
    hashes = np.array([look[0] for look in seen.values()], np.uint64)
    thumbnails = np.array([look[1] for look in seen.values()], np.uint8).reshape(-1, 1024)
    return np.array(list(seen), np.int64), hashes, thumbnails


def _alike(hashes: np.ndarray, thumbnails: np.ndarray) -> Iterator[tuple[int, int]]:
    """Pairs that look the same: by the two limits of `audit`, and in detail."""
    for rows, columns in close_pairs(hashes):
        for at in range(0, len(rows), _PAIRS_AT_ONCE):
            i, j = rows[at : at + _PAIRS_AT_ONCE], columns[at : at + _PAIRS_AT_ONCE]
            x, y = (thumbnails[side].astype(np.float32).reshape(-1, 32, 32) for side in (i, j))
            keep = _correlations(x, y) >= MIN_CORRELATION
            keep[keep] = _correlations(_detail(x[keep]), _detail(y[keep])) >= MIN_DETAIL
            yield from zip(i[keep].tolist(), j[keep].tolist(), strict=True)


def _detail(x: Float32[np.ndarray, "n 32 32"]) -> Float32[np.ndarray, "n 32 32"]:
    padded = np.pad(x, ((0, 0), (2, 2), (2, 2)), mode="edge")
    shifted = (padded[:, i : i + 32, j : j + 32] for i, j in product(range(5), repeat=2))
    return x - sum(shifted, np.zeros_like(x)) / 25


def _correlations(
    x: Float32[np.ndarray, "n 32 32"], y: Float32[np.ndarray, "n 32 32"]
) -> Float32[np.ndarray, "n"]:
    """Of each pair; 0 where one has no contrast."""
    x, y = (side - side.mean(axis=(1, 2), keepdims=True) for side in (x, y))
    norm = np.sqrt((x**2).sum(axis=(1, 2)) * (y**2).sum(axis=(1, 2)))
    return (x * y).sum(axis=(1, 2)) / np.maximum(norm, 1e-6)


def _chains(one: Built) -> Iterator[tuple[tuple[int, bytes], str]]:
    for at, residues in one.prints.chains.items():
        yield (KINDS.index("residues"), one.prints.digest[at].tobytes()), residues


def _join(built: Sequence[Built], pairs: Any, how: str) -> Iterator[Link]:
    for ((a, split_a), sample_a), ((b, split_b), sample_b) in pairs:
        # Within a dataset and a split copies are nobody's leak.
        if (a, split_a) != (b, split_b):
            yield Link(
                (built[a].name, split_a, sample_a),
                (built[b].name, split_b, sample_b),
                how,
                a != b and _declared(built[a], built[b], split_a == split_b),
            )


def _declared(a: Built, b: Built, in_one_split: bool) -> bool:
    if a.source == b.source:
        return True
    aliases = {a.name, a.source} & b.aliases or {b.name, b.source} & a.aliases
    return in_one_split and bool(aliases)


# ------------------------------------------------------------------------------ the report


def report(built: Sequence[Built], links: Sequence[Link]) -> tuple[str, int]:
    """The audit as text, and the number of leaks."""
    lines = [f"{'dataset':32} {'records':>8} {'prints':>8}"]
    for one in built:
        lines.append(f"{one.name:32} {len(one.prints.records):8} {len(one.prints.row):8}")
    counts: dict[tuple[str, str], list[int]] = defaultdict(lambda: [0, 0, 0])
    for link in links:
        kind = 2 if link.leaks else 1 if link.declared else 0
        counts[link.first[0], link.second[0]][kind] += 1
    for (first, second), (same, declared, leaks) in sorted(counts.items()):
        what = f"within {first}" if first == second else f"{first} ~ {second}"
        lines.append(f"{what}: {same} in one split, {declared} declared, {leaks} across splits")
    leaking = [link for link in links if link.leaks]
    lines += [f"leak: {link}" for link in leaking[:SHOWN_LEAKS]]
    if len(leaking) > SHOWN_LEAKS:
        lines.append(f"and {len(leaking) - SHOWN_LEAKS} more")
    if not leaking:
        lines.append("no leak was found")
    return "\n".join(lines), len(leaking)
