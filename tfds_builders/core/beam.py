"""Builds as Beam pipelines: blocks of records are made and sorted apart, then shards are written.

    (split, block) -> write_block -> Written -> merge -> one Written --> save, for the driver
                                                              |
                                     (split, shard) -> write_shard: the records of that shard

Records never pass through the runner: `write_block` leaves sorted runs in the folder of the build
(`core.runs`), and `write_shard` reads from every run what its shard needs. So the memory of the
driver and of a worker does not grow with the number of records on any runner, and every worker has
to reach `--data_dir`. A run has a name of its own, so a block that a runner repeats does no harm:
only the runs that it reports are read. Order, shards and hashes are those of a plain build.

apache_beam is an extra: it is imported where a pipeline is wanted, never before.
"""

from __future__ import annotations

import contextlib
import dataclasses
import functools
import importlib
import importlib.util
import io
import json
import logging
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any

import numpy as np
import tensorflow_datasets as tfds
from etils import epath

from multimed_jax.types import UserError
from tfds_builders.core.ledger import Ledger
from tfds_builders.core.runs import NUM_BUCKETS, FileRun, RunWriter, Sorted, Table
from tfds_builders.core.shards import Output
from tfds_builders.core.streamed import Completer, StreamedSplit

Block = tuple[str, int]  # split, number
_DIRECT = "DirectRunner"
_OS_ERRORS = "OSError|PermissionError"  # a full disk, a folder that may not be written
_LOG_LEVEL = "default_sdk_harness_log_level"


@dataclasses.dataclass(frozen=True)
class Job:
    """What a worker needs.

    Attributes:
        parts: the splits of the source.
        complete: makes its records whole.
        ledger: an empty one, of the source's tasks.
        output: where records go.
    """

    parts: Mapping[str, StreamedSplit]
    complete: Completer
    ledger: Ledger
    output: Output


@dataclasses.dataclass(frozen=True)
class Written:
    """What some blocks left.

    Attributes:
        runs: of each split, the files.
        tables: of each split, rows and bytes by bucket.
        ledgers: of each block, the state of its ledger.
    """

    runs: Mapping[str, tuple[str, ...]]
    tables: Mapping[str, Table]
    ledgers: Mapping[Block, Mapping[str, Any]]

    def rows(self, split: str) -> Sorted:
        """All records of a split."""
        return Sorted([FileRun(path) for path in self.runs[split]], self.tables[split])


# -------------------------------------------------------------------------------- the driver


def is_wanted(download_config: Any) -> bool:
    """Whether the build is to run as a pipeline."""
    return bool(download_config.beam_options or download_config.beam_runner)


def check(download_config: Any, builder: Any, base: Any) -> None:
    """Raises UserError where a pipeline is wanted that cannot be.

    Args:
        download_config: of the build.
        builder: class of the source.
        base: the class that it inherits, which streams nothing and counts nothing.
    """
    if not is_wanted(download_config):
        return
    require()
    # What `record_written` counts in a worker would never reach the driver.
    counts = builder.record_written is not base.record_written
    if builder.stream_splits is base.stream_splits or counts:
        raise UserError(
            f"the source {builder.CARD.name!r} cannot be built by Beam: one process has to see "
            "all of its records; accepted: the same command without --beam_runner and "
            "--beam_pipeline_options"
        )
    if download_config.max_examples_per_split is not None:
        raise UserError(
            f"--max_examples_per_split {download_config.max_examples_per_split} does not go with "
            "Beam; accepted: one of the two"
        )


def require() -> None:
    """Raises UserError where apache_beam is not installed."""
    if importlib.util.find_spec("apache_beam") is None:
        raise UserError(
            "--beam_runner and --beam_pipeline_options need apache_beam, which is not installed; "
            "accepted: pip install 'multimed-jax[beam]'"
        )


def pipeline_options(runner: str | None, given: str | None) -> str | None:
    """The flags of a build as tfds wants them: one list, the runner in it; None without any.

    Raises:
        UserError: where apache_beam is missing, or an option is not one.
    """
    flags = [flag for flag in (given or "").split(",") if flag]
    if runner is not None:
        if any(flag.startswith("runner=") for flag in flags):
            raise UserError(
                f"--beam_runner {runner!r} and --beam_pipeline_options {given!r} both name a "
                "runner; accepted: one of the two"
            )
        flags.append(f"runner={runner}")
    if not flags:
        return None
    require()
    # Workers say of every step that it began; of an error they print what is raised here too.
    logging.getLogger("apache_beam").setLevel(logging.CRITICAL)
    if not any(flag.startswith(_LOG_LEVEL) for flag in flags):
        flags.append(f"{_LOG_LEVEL}=CRITICAL")
    _check_flags(flags)
    return ",".join(flags)


def _check_flags(flags: Sequence[str]) -> None:
    options_of = importlib.import_module("apache_beam.options.pipeline_options")
    runners = importlib.import_module("apache_beam.runners.runner")

    usage = io.StringIO()
    try:
        with contextlib.redirect_stderr(usage):
            options = options_of.PipelineOptions([f"--{flag}" for flag in flags])
            known = options.get_all_options()
    except SystemExit:
        reason = usage.getvalue().strip().splitlines()[-1].split("error: ")[-1]
        raise UserError(f"--beam_pipeline_options: {reason}") from None
    runner = options.view_as(options_of.StandardOptions).runner
    try:
        runners.create_runner(runner or _DIRECT)
    except (ValueError, ImportError, AttributeError) as error:
        raise UserError(f"Beam has no runner {runner!r}: {str(error).splitlines()[0]}") from error
    # Other runners have options that Beam itself does not know.
    for flag in flags if runner in (None, _DIRECT) else ():
        if flag.split("=")[0] not in known:
            raise UserError(
                f"Beam has no option {flag!r} for the Direct runner; accepted, among others: "
                "direct_num_workers=N, direct_running_mode=multi_processing"
            )


def write_splits(job: Job, ledger: Ledger, download_config: Any) -> list[tfds.core.SplitInfo]:
    """Writes all splits by a pipeline; `ledger` counts their records.

    Raises:
        UserError: where a worker met what a user can mend.
    """
    folder = job.output.folder
    folder.mkdir(parents=True, exist_ok=True)
    summary = folder / "summary.json"
    try:
        _run(job, summary, download_config)
    except Exception as error:
        sentence = _sentence(error)
        if sentence is None:
            raise
        raise UserError(sentence) from error
    found = json.loads(summary.read_text())
    for state in found["ledgers"]:
        ledger.include(state)
    infos = [job.output.split_info(split, *found["sizes"][split]) for split in job.parts]
    folder.rmtree()
    return infos


def _run(job: Job, summary: epath.Path, download_config: Any) -> None:
    beam = importlib.import_module("apache_beam")
    options_of = importlib.import_module("apache_beam.options.pipeline_options")
    options = download_config.beam_options or options_of.PipelineOptions([])
    types = options.view_as(options_of.TypeOptions)
    # Else the Direct runner first fetches a program over the network, to run pipelines with it.
    types.allow_unsafe_triggers = True
    # As tfds sets it: Beam's own reading of annotations misses some of these.
    types.pipeline_type_check = False
    blocks = [(split, k) for split, part in job.parts.items() for k in range(part.num_blocks)]
    with beam.Pipeline(runner=download_config.beam_runner, options=options) as pipeline:
        written = (
            pipeline
            | "Blocks" >> beam.Create(blocks)
            | "SpreadBlocks" >> beam.Reshuffle()
            | "WriteBlock" >> beam.Map(functools.partial(write_block, job))
            | "Merge" >> beam.CombineGlobally(merge)
        )
        _ = written | "Save" >> beam.Map(functools.partial(save, str(summary)))
        _ = (
            written
            | "Shards" >> beam.FlatMap(functools.partial(shards, job))
            | "SpreadShards" >> beam.Reshuffle()
            | "WriteShard"
            >> beam.Map(
                functools.partial(write_shard, job), written=beam.pvalue.AsSingleton(written)
            )
        )


def _sentence(error: Exception) -> str | None:
    """What a worker said of an error that a user can mend; some runners hand on its text alone."""
    text = f"UserError: {error}" if isinstance(error, UserError) else str(error)
    found = re.search(rf"^(?:\S*\.)?(?:UserError|{_OS_ERRORS}): (.+)$", text, re.MULTILINE)
    return found[1].split(" [while running ")[0] if found else None


# ------------------------------------------------------------------------------- the workers


def write_block(job: Job, block: Block) -> Written:
    """Makes the records of a block and leaves them as sorted runs."""
    split, number = block
    ledger, encode = job.ledger.empty(), job.output.encoder()
    runs = RunWriter(job.output.folder, salt=split)
    for source in job.parts[split].records(number):
        name, record = job.complete(ledger, split, source, source.load(), source.group_id)
        runs.add(name, encode(name, record))
    return Written({split: runs.files()}, {split: runs.table}, {block: ledger.state()})


def merge(parts: Iterable[Written]) -> Written:
    """What all of them left together."""
    runs: dict[str, tuple[str, ...]] = {}
    tables: dict[str, Table] = {}
    ledgers: dict[Block, Mapping[str, Any]] = {}
    for part in parts:
        for split, table in part.tables.items():
            runs[split] = (*runs.get(split, ()), *part.runs[split])
            tables[split] = tables.get(split, np.zeros((NUM_BUCKETS, 2), np.int64)) + table
        ledgers.update(part.ledgers)
    return Written(runs, tables, ledgers)


def save(path: str, written: Written) -> None:
    """Leaves for the driver what it needs: sizes of splits, and ledgers in the order of blocks."""
    rows = {split: written.rows(split) for split in written.tables}
    content = {
        "sizes": {split: (found.num_records, found.num_bytes) for split, found in rows.items()},
        "ledgers": [written.ledgers[block] for block in sorted(written.ledgers)],
    }
    epath.Path(path).write_text(json.dumps(content))


def shards(job: Job, written: Written) -> Iterator[tuple[str, int]]:
    """Split and index of every shard."""
    for split in job.parts:
        rows = written.rows(split)
        number = job.output.num_shards(split, rows.num_records, rows.num_bytes)
        yield from ((split, index) for index in range(number))


def write_shard(job: Job, shard: tuple[str, int], written: Written) -> None:
    """Writes one shard."""
    split, index = shard
    job.output.write_shard(split, index, written.rows(split))
