"""One build of a source: in this process, or by the workers of a Beam pipeline, to the same files.

plain       index pass over all records | plan | one writing pass for each split
by Beam     walk | index pass by block  | plan | writing pass by block, all splits at once
"""

from __future__ import annotations

import contextlib
import itertools
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from multimed_jax.types import UserError
from tfds_builders.core import beam, fingerprints
from tfds_builders.core.card import how_to_obtain
from tfds_builders.core.fingerprints import PrintLog
from tfds_builders.core.ledger import Ledger, described
from tfds_builders.core.planning import Names, Plan, index_rows, make_plan
from tfds_builders.core.quarantine import Quarantine
from tfds_builders.core.read_blocks import ReadWork, known_look, load, refuse_missing
from tfds_builders.core.reading import Blocks, Counted, Source
from tfds_builders.core.records import AuditKey, SourceRecord, expand
from tfds_builders.core.shards import Output, write_splits
from tfds_builders.core.splits import SPLITS
from tfds_builders.core.streamed import StreamedSplit, StreamedWork, facts_of
from tfds_builders.core.tally import Completer, Tally

Example = dict[str, Any]


class Build:
    """The state of a build, and its steps.

    Attributes:
        tally: of what was written.
    """

    tally: Tally

    def __init__(
        self,
        builder: Any,
        names: Names,
        streamed: Mapping[str, StreamedSplit] | None,
        manual_dir: Path,
    ) -> None:
        """Begins one.

        Args:
            builder: of the source, a `MedicalBuilder`.
            names: how ids leave the build.
            streamed: the splits of a source that is generated.
            manual_dir: what `read_source` gets of one that is read.
        """
        self._builder = builder
        self._names = names
        self._streamed = streamed
        self._manual_dir = manual_dir
        self._complete = Completer(builder.CARD.unit, names)
        self._prints = PrintLog()
        self._facts = {} if streamed is None else facts_of(streamed)

    def generators(self) -> dict[str, Iterator[tuple[str, Example]]]:
        """Of each split, names and records, for a build in this process."""
        if self._streamed is not None:
            self.tally = self._new_tally()
            return {split: self._stream(split, part) for split, part in self._streamed.items()}
        quarantine = Quarantine(self._names.sample)
        items = Counted(self._walk(quarantine))
        plan = self._plan(*index_rows(expand(items, quarantine), quarantine), quarantine)
        self.tally = self._new_tally()
        blocks = Blocks(items.number)
        return {split: self._read(split, plan, blocks) for split in SPLITS}

    def write(self, download_config: Any) -> list[Any]:
        """Writes all splits, and the fingerprints of a source that is read."""
        if beam.is_wanted(download_config):
            return self._write_by_beam(download_config)
        generators = self.generators()
        output = Output.of(self._builder, generators, download_config)
        infos = write_splits(generators, output, download_config.max_examples_per_split)
        if self._streamed is None:
            fingerprints.save(self._prints.fingerprints(), Path(self._builder.data_dir))
        return infos

    def metadata(self) -> dict[str, Any]:
        """What a finished build says of its records."""
        builder = self._builder
        return {
            **described(
                builder.CARD, builder.class_names(), builder.target_kinds(), self.tally.ledger
            ),
            "aliases": list(builder.ALIASES),
            "generated": self._streamed is not None,
            **self._facts,
        }

    # ----------------------------------------------------------------------------- by Beam

    def _write_by_beam(self, download_config: Any) -> list[Any]:
        output = Output.of(self._builder, self._streamed or SPLITS, download_config)
        output.folder.mkdir(parents=True, exist_ok=True)
        if self._streamed is not None:
            self.tally = self._new_tally()
            work = StreamedWork(self._streamed, self._complete, self.tally.empty(), output)
            infos = beam.write_splits(work, self.tally, download_config)
        else:
            work = self._index_by_beam(output, download_config)
            infos = beam.write_splits(work, self.tally, download_config)
            fingerprints.save(work.fingerprints(), Path(self._builder.data_dir))
        output.folder.rmtree()
        return infos

    def _index_by_beam(self, output: Output, download_config: Any) -> ReadWork:
        items = Counted(self._walk(Quarantine()))  # workers put aside what it puts aside
        items.walk()
        self.tally = self._new_tally()
        source = Source.of(self._builder, self._manual_dir, output)
        blocks = Blocks(items.number)
        work = ReadWork(source, blocks, self._complete, self.tally.empty(), output)
        beam.index(work, download_config)
        quarantine = Quarantine(self._names.sample)
        rows, keys, lengths = work.read_index(quarantine)
        work.leave_plan(rows, lengths, self._plan(rows, keys, quarantine))
        return work

    # ----------------------------------------------------------------- before and after both

    def _walk(self, quarantine: Quarantine) -> Iterator[Any]:
        return self._builder.read_source(self._manual_dir, quarantine)

    def _new_tally(self) -> Tally:
        ledger = Ledger(self._builder.class_names(), self._builder.target_kinds())
        return Tally(ledger, self._builder.statistics())

    def _plan(
        self, rows: list[SourceRecord], keys: list[AuditKey | None], quarantine: Quarantine
    ) -> Plan:
        builder = self._builder
        quarantine.check(len(rows), builder.MAX_BAD_RATE)
        if not rows:
            raise UserError(
                f"no records found under {self._manual_dir}; expected layout: "
                f"{builder.EXPECTED_LAYOUT}; {how_to_obtain(builder)}"
            )
        how = builder.split_mode(), builder.duplicate_policy()
        plan, self._facts = make_plan(rows, keys, quarantine, *how, builder.CARD, self._names)
        return plan

    # ---------------------------------------------------------------- writing, in this process

    def _read(self, split: str, plan: Plan, blocks: Blocks) -> Iterator[tuple[str, Example]]:
        quarantine = Quarantine()  # the index pass has already counted what cannot be read
        items = self._walk(quarantine)
        missing = dict.fromkeys(name for name, where in plan.items() if where[0] == split)
        number = len(missing)
        for block in range(blocks.num_blocks):
            start, stop = blocks.bounds(block)
            with self._counting() as tally:
                for source in expand(itertools.islice(items, stop - start), quarantine):
                    if source.sample_id not in missing:
                        continue
                    del missing[source.sample_id]
                    payload = load(source, self._names)
                    group = plan[source.sample_id][1]
                    name, record = self._complete(tally, split, source, payload, group)
                    self._prints.add(split, record, known_look(source))
                    yield name, record
        for _ in items:
            pass  # a builder may learn something to the end of its walk
        refuse_missing(missing, number, self._names)

    def _stream(self, split: str, part: StreamedSplit) -> Iterator[tuple[str, Example]]:
        for block in range(part.num_blocks):
            with self._counting() as tally:
                for source in part.records(block):
                    payload = load(source, self._names)
                    yield self._complete(tally, split, source, payload, source.group_id)

    @contextlib.contextmanager
    def _counting(self) -> Iterator[Tally]:
        # By block, as the workers of a Beam build count, so that sums agree to the last digit; and
        # also where `--max_examples_per_split` ends the records of a block.
        tally = self.tally.empty()
        try:
            yield tally
        finally:
            self.tally.include(tally.state())
