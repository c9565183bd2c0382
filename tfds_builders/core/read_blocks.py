"""Beam builds of sources that are read: what workers do with a block, in both passes.

    walk (driver)    counts the items, learns class names
    index_block      audit keys, quarantine      -> 000012.index.json
    plan (driver)    splits, duplicates, leaks   -> 000012.plan.json
    write_block      records, prints, counts     -> runs, prints, tallies

The driver holds the strings and the audit key of each record, as in a plain build. A worker holds a
block's rows and the run at hand.
"""

from __future__ import annotations

import base64
import dataclasses
import functools
import io
import itertools
import sys
from collections.abc import Collection, Iterator, Mapping, Sequence
from typing import Any

from multimed_jax.types import UserError
from tfds_builders.core import fingerprints
from tfds_builders.core.fingerprints import Fingerprints, PrintLog
from tfds_builders.core.planning import Names, Plan, index_rows
from tfds_builders.core.quarantine import Quarantine
from tfds_builders.core.reading import CHANGED, Blocks, Source, Walk, opened
from tfds_builders.core.records import AuditKey, SourceRecord, UnreadableRecord, expand
from tfds_builders.core.runs import RunWriter
from tfds_builders.core.shards import Output
from tfds_builders.core.splits import SPLITS
from tfds_builders.core.tally import Completer, Tally
from tfds_builders.core.written import (
    Block,
    Written,
    leave,
    leave_json,
    leave_tally,
    read_json,
)


@dataclasses.dataclass(frozen=True)
class ReadWork:
    """What a worker of a Beam build needs of a source that is read.

    Attributes:
        source: how it is opened.
        blocks: of its items.
        complete: makes its records whole.
        tally: an empty one.
        output: where records go.
    """

    source: Source
    blocks: Blocks
    complete: Completer
    tally: Tally
    output: Output

    @property
    def splits(self) -> tuple[str, ...]:
        """Names of the splits."""
        return SPLITS

    @property
    def tasks(self) -> list[int]:
        """What is worked on apart."""
        return list(range(self.blocks.num_blocks))

    @property
    def counted(self) -> list[Block]:
        """The blocks that leave a tally, in the order in which a plain build counts them."""
        return [(split, number) for split in SPLITS for number in self.tasks]

    # ------------------------------------------------------------------------- the workers

    def index_block(self, number: int) -> None:
        """Reads the audit keys of a block, and leaves them with the strings of its records."""
        start, stop = self.blocks.bounds(number)
        walk_of = functools.partial(Walk, self.source, self.complete.names.sample)
        with opened(f"{self.source.token}-index", start, walk_of) as walk:
            found = expand(walk.items(start, stop), walk.quarantine)
            rows, keys = index_rows(found, walk.quarantine)
            if stop == self.blocks.num_items:
                walk.finish()
            items, left_out = walk.quarantine.take()
        content = {
            "items": items,
            "left_out": left_out,
            "rows": [_row_values(row) for row in rows],
            "keys": [_key_values(key) for key in keys],
        }
        leave_json(self.output.folder / f"{number:06d}.index.json", content)

    def write_block(self, block: int) -> Written:
        """Writes the records of a block as sorted runs, and leaves what it counted."""
        start, stop = self.blocks.bounds(block)
        plan: Plan = {
            name: (split, group)
            for name, split, group in read_json(self.output.folder / f"{block:06d}.plan.json")
        }
        encode = self.output.encoder()
        runs = {split: RunWriter(self.output.folder, salt=split) for split in SPLITS}
        tallies = {split: self.tally.empty() for split in SPLITS}
        prints = {split: PrintLog() for split in SPLITS}
        walk_of = functools.partial(Walk, self.source, class_names=self.tally.ledger.class_names)
        with opened(f"{self.source.token}-write", start, walk_of) as walk:
            missing = dict.fromkeys(plan)
            for source in expand(walk.items(start, stop), walk.quarantine):
                if source.sample_id not in missing:
                    continue  # unreadable, or a copy that is left out
                del missing[source.sample_id]
                split, group = plan[source.sample_id]
                payload = load(source, self.complete.names)
                name, record = self.complete(tallies[split], split, source, payload, group)
                prints[split].add(split, record, known_look(source))
                runs[split].add(name, encode(name, record))
            refuse_missing(missing, len(plan), self.complete.names)
        for split in SPLITS:
            leave_tally(self.output, (split, block), tallies[split])
            _leave_prints(self.output, (split, block), prints[split].fingerprints())
        files = {split: made.files() for split, made in runs.items()}
        return Written(files, {split: made.table for split, made in runs.items()})

    # -------------------------------------------------------------------------- the driver

    def read_index(
        self, quarantine: Quarantine
    ) -> tuple[list[SourceRecord], list[AuditKey | None], list[int]]:
        """Rows and audit keys of all blocks in order, and how many rows each block has."""
        rows: list[SourceRecord] = []
        keys: list[AuditKey | None] = []
        lengths = []
        for number in self.tasks:
            found = read_json(self.output.folder / f"{number:06d}.index.json")
            quarantine.include(found["items"], found["left_out"])
            rows.extend(_row(values) for values in found["rows"])
            keys.extend(_key(values) for values in found["keys"])
            lengths.append(len(found["rows"]))
        return rows, keys, lengths

    def leave_plan(self, rows: Sequence[SourceRecord], lengths: Sequence[int], plan: Plan) -> None:
        """Leaves for the workers the split and the group of the records of each block."""
        ids = iter(row.sample_id for row in rows)
        for number, length in enumerate(lengths):
            names = itertools.islice(ids, length)
            kept = [(name, *plan[name]) for name in names if name in plan]
            leave_json(self.output.folder / f"{number:06d}.plan.json", kept)

    def fingerprints(self) -> Fingerprints:
        """Those of all records, in the order of a plain build."""
        return fingerprints.together(self._prints())

    def _prints(self) -> Iterator[Fingerprints]:
        for split, number in self.counted:
            with (self.output.folder / _prints_name((split, number))).open("rb") as file:
                yield fingerprints.read(file)


# ------------------------------------------------------------------- what plain builds do too


def refuse_missing(missing: Collection[str], number: int, names: Names) -> None:
    """Raises UserError where records that the index pass found did not come again.

    Args:
        missing: their ids.
        number: of all that were found.
        names: how the message names them.
    """
    if missing:
        raise UserError(
            f"{CHANGED}: {len(missing)} of {number} records are no longer where they were, first "
            f"{names.sample(next(iter(missing)))}"
        )


def load(source: SourceRecord, names: Names) -> Mapping[str, Any]:
    """The payload of a record that the index pass has read."""
    try:
        return source.load()
    except UnreadableRecord as error:
        name = names.sample(source.sample_id)
        raise UserError(f"{name} could be read at first and no longer: {error}") from error


def known_look(source: SourceRecord) -> AuditKey | None:
    """The audit key of a record where it is known, which saves decoding."""
    return source.audit if isinstance(source.audit, AuditKey) else None


# ------------------------------------------------------------------------------ on the disk


def _row_values(row: SourceRecord) -> list[str | None]:
    return [row.sample_id, row.group_id, row.stratum, row.fine_group_id, row.official_split]


def _row(values: Sequence[Any]) -> SourceRecord:
    sample, group, stratum, fine, official = values
    # Groups, strata and splits recur: one string for all of their records.
    return SourceRecord(
        sample_id=sample,
        group_id=sys.intern(group),
        record={},
        stratum=sys.intern(stratum),
        fine_group_id=None if fine is None else sys.intern(fine),
        official_split=None if official is None else sys.intern(official),
    )


def _key_values(key: AuditKey | None) -> list[Any] | None:
    if key is None:
        return None
    thumbnail = None if key.thumbnail is None else base64.b64encode(key.thumbnail).decode()
    return [key.digest.hex(), key.perceptual, thumbnail]


def _key(values: Sequence[Any] | None) -> AuditKey | None:
    if values is None:
        return None
    digest, perceptual, thumbnail = values
    return AuditKey(
        bytes.fromhex(digest),
        perceptual,
        None if thumbnail is None else base64.b64decode(thumbnail),
    )


def _prints_name(block: Block) -> str:
    return f"{block[0]}-{block[1]:06d}.prints.npz"


def _leave_prints(output: Output, block: Block, prints: Fingerprints) -> None:
    content = io.BytesIO()
    fingerprints.write(prints, content)
    leave(output.folder / _prints_name(block), content.getvalue())
