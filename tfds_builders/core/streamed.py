"""Sources that are generated: splits known without an index pass, so memory stays flat."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterator, Mapping
from typing import Any

from tfds_builders.core.quarantine import Quarantine
from tfds_builders.core.records import SourceRecord
from tfds_builders.core.runs import RunWriter
from tfds_builders.core.shards import Output
from tfds_builders.core.tally import Completer, Tally
from tfds_builders.core.written import Block, Written, leave_tally


@dataclasses.dataclass(frozen=True)
class StreamedSplit:
    """One split of a source that knows every record's group and split without an index pass.

    Attributes:
        num_groups: number of different groups in the split.
        records: called with the number of a block; yields its records. No block depends on
            another, so workers of a Beam build make them apart: it must then be picklable, as a
            function of a module or a `functools.partial` of one is.
        num_blocks: how many blocks there are.
    """

    num_groups: int
    records: Callable[[int], Iterator[SourceRecord]]
    num_blocks: int = 1


def facts_of(streamed: Mapping[str, StreamedSplit]) -> dict[str, Any]:
    """What `planning.make_plan` says of a source that is read, for one that is generated."""
    return {
        "num_groups": {split: part.num_groups for split, part in streamed.items()},
        "split_mode": "group",
        "quarantine": Quarantine().summary(0),
        "left_out": {},
        "duplicates": {},
    }


@dataclasses.dataclass(frozen=True)
class StreamedWork:
    """What a worker of a Beam build needs of a source that is generated.

    Attributes:
        parts: the splits of the source.
        complete: makes its records whole.
        tally: an empty one.
        output: where records go.
    """

    parts: Mapping[str, StreamedSplit]
    complete: Completer
    tally: Tally
    output: Output

    @property
    def splits(self) -> tuple[str, ...]:
        """Names of the splits."""
        return tuple(self.parts)

    @property
    def tasks(self) -> list[Block]:
        """What is worked on apart."""
        return self.counted

    @property
    def counted(self) -> list[Block]:
        """The blocks that leave a tally, in the order in which a plain build counts them."""
        return [(split, k) for split, part in self.parts.items() for k in range(part.num_blocks)]

    def write_block(self, block: Block) -> Written:
        """Makes the records of a block and leaves them as sorted runs."""
        split, number = block
        tally, encode = self.tally.empty(), self.output.encoder()
        runs = RunWriter(self.output.folder, salt=split)
        for source in self.parts[split].records(number):
            name, record = self.complete(tally, split, source, source.load(), source.group_id)
            runs.add(name, encode(name, record))
        leave_tally(self.output, block, tally)
        return Written({split: runs.files()}, {split: runs.table})
