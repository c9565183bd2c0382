"""A training command with one thing broken: `python -m tests.faults.sabotage FAULT --config ...`.

Each fault stands for what hardware or a user does; the command itself is the real one.
"""

from __future__ import annotations

import runpy
import sys
import time
from pathlib import Path


def say(line: str) -> None:
    print(line, flush=True)


def slow_save() -> None:
    """The list of a step is written four seconds late."""
    from multimed_jax import checkpoint

    write = checkpoint.write_json

    def late(path: Path, values) -> None:
        say(f"saving {path.stem}")
        time.sleep(4)
        write(path, values)

    checkpoint.write_json = late


def failed_save() -> None:
    """The second save fails in its thread, after the step went on."""
    from multimed_jax import checkpoint

    write, calls = checkpoint.write_json, []

    def broken(path: Path, values) -> None:
        calls.append(path)
        if len(calls) == 2:
            raise RuntimeError("the storage said no")
        write(path, values)

    checkpoint.write_json = broken


def slow_compile() -> None:
    """Says when the training step is about to be compiled, and takes a second more."""
    from multimed_jax import steps  # before the module that takes the function from it

    make = steps.make_train_step

    def make_slow(*arguments):
        step = make(*arguments)

        def traced(state, batch):
            say("compiling")
            time.sleep(1)
            return step(state, batch)

        return traced

    steps.make_train_step = make_slow


def slow_steps() -> None:
    """A fifth of a second more for each step, so that a signal comes in a chosen one."""
    from multimed_jax.metric_log import MetricLog

    advance = MetricLog.advance

    def slow(self, step: int) -> None:
        time.sleep(0.2)
        advance(self, step)

    MetricLog.advance = slow


def slow_start() -> None:
    """Says that the data are being opened, and takes a second more."""
    from multimed_jax import run

    check = run.check_config

    def slow(config) -> None:
        say("opening")
        time.sleep(1)
        check(config)

    run.check_config = slow


def slow_evaluation() -> None:
    """Says that predictions of a split begin, and waits a moment before each batch."""
    from multimed_jax.data import loader

    iterate = loader.EvalLoader.__iter__

    def slow(self):
        say("predicting")
        for batch in iterate(self):
            time.sleep(0.5)
            yield batch

    loader.EvalLoader.__iter__ = slow


def hanging_record() -> None:
    """Reading never comes back from one record, the 300th that is asked for."""
    from multimed_jax.data import sources

    read, calls = sources.BuiltSource.__getitem__, []

    def hang(self, row, /):
        if self.split == "train":
            calls.append(row)
            if len(calls) == 300:
                say(f"hanging {row}")
                time.sleep(3600)
        return read(self, row)

    sources.BuiltSource.__getitem__ = hang


def poisoned_batches() -> None:
    """From the seventh batch on, every part of one modality is NaN."""
    import dataclasses

    from multimed_jax.data import loader

    take, calls = loader.TrainLoader.__next__, []

    def poisoned(self):
        batch = take(self)
        calls.append(None)
        if len(calls) < 7:
            return batch
        bad = {
            name: dataclasses.replace(stream, parts=stream.parts * float("nan"))
            for name, stream in batch.streams.items()
            if stream.parts.dtype.kind == "f"
        }
        return dataclasses.replace(batch, streams=batch.streams | bad)

    loader.TrainLoader.__next__ = poisoned


FAULTS = {
    function.__name__: function
    for function in (
        slow_save,
        failed_save,
        slow_compile,
        slow_start,
        slow_steps,
        slow_evaluation,
        hanging_record,
        poisoned_batches,
    )
}

if __name__ == "__main__":
    FAULTS[sys.argv.pop(1)]()
    runpy.run_module("multimed_jax.main", run_name="__main__", alter_sys=True)
