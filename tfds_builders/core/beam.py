"""Builds as Beam pipelines: blocks of records are made and sorted apart, then shards are written.

    a source that is read first:  block -> index_block; then the driver makes the plan

    block -> write_block -> Written -> merge -> one Written --> save, for the driver
                                                    |
                          (split, shard) -> write_shard: the records of that shard

Records never pass through the runner: `write_block` leaves sorted runs in the folder of the build
(`core.runs`), and `write_shard` reads from every run what its shard needs. So the memory of a
worker does not grow with the number of records on any runner, nor does the driver's beyond what
planning holds of each record of a source that is read (`core.read_blocks`); every worker has to
reach `--data_dir`, and the source. A run has a name of its own, so a block that a runner repeats
does no harm: only the runs that it reports are read. Order, shards and hashes are those of a plain
build.

apache_beam is an extra: it is imported where a pipeline is wanted, never before.
"""

from __future__ import annotations

import contextlib
import functools
import importlib
import importlib.util
import io
import logging
import re
from collections.abc import Iterator, Sequence
from typing import Any, Protocol

import tensorflow_datasets as tfds

from multimed_jax.types import UserError
from tfds_builders.core.read_blocks import ReadWork
from tfds_builders.core.reading import close_walks
from tfds_builders.core.shards import Output
from tfds_builders.core.tally import Tally
from tfds_builders.core.written import (
    Block,
    Written,
    include_tallies,
    merge,
    read_json,
    save,
    shards,
    write_shard,
)

_DIRECT = "DirectRunner"
_OS_ERRORS = "OSError|PermissionError"  # a full disk, a folder that may not be written
_LOG_LEVEL = "default_sdk_harness_log_level"


class Work(Protocol):
    """What a pipeline asks of a kind of source; workers get a copy."""

    @property
    def splits(self) -> tuple[str, ...]:
        """Names of the splits."""
        ...

    @property
    def output(self) -> Output:
        """Where records go."""
        ...

    @property
    def tasks(self) -> Sequence[Any]:
        """The blocks: what `write_block` is called with."""
        ...

    @property
    def counted(self) -> Sequence[Block]:
        """The tallies that they leave, in the order of a plain build."""
        ...

    def write_block(self, block: Any) -> Written:
        """Leaves the records of a block as sorted runs."""
        ...


def is_wanted(download_config: Any) -> bool:
    """Whether the build is to run as a pipeline."""
    return bool(download_config.beam_options or download_config.beam_runner)


def check(download_config: Any) -> None:
    """Raises UserError where a pipeline is wanted that cannot be."""
    if not is_wanted(download_config):
        return
    require()
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


def index(work: ReadWork, download_config: Any) -> None:
    """Reads the audit keys of all blocks by a pipeline; `work.read_index` has them.

    Raises:
        UserError: where a worker met what a user can mend.
    """
    with _pipeline(download_config) as (pipeline, beam):
        _ = (
            pipeline
            | "Blocks" >> beam.Create(work.tasks)
            | "SpreadBlocks" >> beam.Reshuffle()
            | "IndexBlock" >> beam.Map(work.index_block)
        )


def write_splits(work: Work, tally: Tally, download_config: Any) -> list[tfds.core.SplitInfo]:
    """Writes all splits by a pipeline; `tally` counts their records.

    Raises:
        UserError: where a worker met what a user can mend.
    """
    output, splits = work.output, work.splits
    summary = output.folder / "summary.json"
    with _pipeline(download_config) as (pipeline, beam):
        written = (
            pipeline
            | "Blocks" >> beam.Create(work.tasks)
            | "SpreadBlocks" >> beam.Reshuffle()
            | "WriteBlock" >> beam.Map(work.write_block)
            | "Merge" >> beam.CombineGlobally(merge)
        )
        _ = written | "Save" >> beam.Map(functools.partial(save, str(summary)))
        _ = (
            written
            | "Shards" >> beam.FlatMap(functools.partial(shards, output, splits))
            | "SpreadShards" >> beam.Reshuffle()
            | "WriteShard"
            >> beam.Map(
                functools.partial(write_shard, output), written=beam.pvalue.AsSingleton(written)
            )
        )
    include_tallies(output, work.counted, tally)
    sizes = read_json(summary)
    return [output.split_info(split, *sizes[split]) for split in splits]


@contextlib.contextmanager
def _pipeline(download_config: Any) -> Iterator[tuple[Any, Any]]:
    """A pipeline, run at the end, and the module of Beam."""
    beam = importlib.import_module("apache_beam")
    options_of = importlib.import_module("apache_beam.options.pipeline_options")
    options = download_config.beam_options or options_of.PipelineOptions([])
    types = options.view_as(options_of.TypeOptions)
    # Else the Direct runner first fetches a program over the network, to run pipelines with it.
    types.allow_unsafe_triggers = True
    # As tfds sets it: Beam's own reading of annotations misses some of these.
    types.pipeline_type_check = False
    try:
        with beam.Pipeline(runner=download_config.beam_runner, options=options) as pipeline:
            yield pipeline, beam
    except Exception as error:
        sentence = _sentence(error)
        if sentence is None:
            raise
        raise UserError(sentence) from error
    finally:
        close_walks()  # of workers in this process


def _sentence(error: Exception) -> str | None:
    """What a worker said of an error that a user can mend; some runners hand on its text alone."""
    text = f"UserError: {error}" if isinstance(error, UserError) else str(error)
    found = re.search(rf"^(?:\S*\.)?(?:UserError|{_OS_ERRORS}): (.+)$", text, re.MULTILINE)
    return found[1].split(" [while running ")[0] if found else None
