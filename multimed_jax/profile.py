"""Traces of chosen training steps, for the viewers that docs/profiling.md names."""

from __future__ import annotations

import logging
from collections.abc import Generator, Iterable
from pathlib import Path

import jax

from multimed_jax.config import ProfileConfig

log = logging.getLogger(__name__)


def traced(
    steps: Iterable[int], config: ProfileConfig, workdir: Path
) -> Generator[int, None, None]:
    """The steps as they are; what is done in those of the window goes to `workdir/profile`.

    A run that goes on from inside of the window traces what is left of it. A trace that the end
    of the loop cuts short is written where the generator is closed. Process 0 alone traces: its
    devices stand for the others'.

    Args:
        steps: numbers of the training steps, ascending.
        config: the window.
        workdir: the run folder.
    """
    window = range(config.first_step, config.first_step + config.num_steps)
    on = config.first_step > 0 and jax.process_index() == 0
    folder = workdir / "profile"
    tracing = False
    try:
        for step in steps:
            inside = on and step in window
            if inside and not tracing:
                jax.profiler.start_trace(folder, create_perfetto_trace=True)
                tracing = True
            with jax.profiler.StepTraceAnnotation("train", step_num=step):
                yield step
            if tracing and step + 1 not in window:
                tracing = False
                _stop(step, folder)
    finally:
        if tracing:
            _stop(None, folder)


def _stop(step: int | None, folder: Path) -> None:
    jax.profiler.stop_trace()
    end = "where the loop was left" if step is None else f"with step {step}"
    log.info("the trace ends %s; it is in %s", end, folder)
