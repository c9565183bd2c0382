"""The training loop: steps, logs, checkpoints, preemption, and the evaluation at its end."""

from __future__ import annotations

import logging
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import jax
import numpy as np
from clu import parameter_overview

from multimed_jax.checkpoint import Checkpoints, lock_workdir
from multimed_jax.command import EXIT_PREEMPTED
from multimed_jax.config import RunConfig
from multimed_jax.config_io import config_hash
from multimed_jax.data.loader import batch_fill
from multimed_jax.data.sample_log import SampleLog
from multimed_jax.evaluators.context import EvalContext
from multimed_jax.manifest import begin_manifest
from multimed_jax.metric_log import MetricLog, SilentLog
from multimed_jax.predictions import Predictor, predict_split
from multimed_jax.preemption import Preempted, StopRequest
from multimed_jax.processes import from_first, sum_processes
from multimed_jax.profile import traced
from multimed_jax.results import ResultRow, format_table, write_rows
from multimed_jax.run import Run, eval_params, make_run
from multimed_jax.skips import SkipCount
from multimed_jax.types import Batch, TrainState, UserError

log = logging.getLogger(__name__)


def train_and_evaluate(config: RunConfig, workdir: Path, stop: StopRequest) -> int:
    """Trains (or goes on training) in `workdir`, measures the model, prints the table.

    Every process of a job calls it; process 0 alone writes, but for the checkpoints.

    Returns:
        The exit code: 0 finished, 75 stopped by a signal with everything saved.
    """
    _make_folder(workdir)
    with lock_workdir(workdir):
        run = make_run(config, workdir)
        begin_manifest(run)
        checkpoints = Checkpoints(workdir / "checkpoints", config.checkpoint.keep)
        try:
            state = _Loop(run, checkpoints, stop).run_steps()
            rows = evaluate_state(run, state, stop)
        except Preempted:
            if jax.process_index() == 0:
                print("stopped by a signal; the same command goes on from here", flush=True)
            return EXIT_PREEMPTED
        finally:
            checkpoints.close()
    print_table(rows)
    return 0


def print_table(rows: list[ResultRow]) -> None:
    """Prints the figures of a run once, however many processes it has."""
    if jax.process_index() == 0:
        print(format_table(rows))


def evaluate_state(run: Run, state: TrainState, stop: StopRequest) -> list[ResultRow]:
    """Runs every evaluator of the config and stores its rows in results.jsonl."""
    predictor = Predictor(run, eval_params(run, state), state.model_state, stop.check)
    aligned = run.config.alignment.weight > 0
    context = EvalContext(
        config=run.config,
        step=int(state.step),
        config_hash=config_hash(run.config),
        workdir=run.workdir,
        predict=predictor,
        open_source=lambda name, split: _find_source(run, name, split),
        embed=predictor.embed if aligned else None,
        embed_texts=predictor.embed_texts if aligned else None,
    )
    rows: list[ResultRow] = []
    for evaluator in run.config.evals:
        stop.check()
        started = time.perf_counter()
        rows.extend(evaluator.run(evaluator.options, context))
        log.info("%s took %.1f s", evaluator.name, time.perf_counter() - started)
    if jax.process_index() == 0:
        write_rows(run.workdir / "results.jsonl", rows)
    return rows


def _find_source(run: Run, name: str, split: str) -> Any:
    for source in run.splits[split].sources:
        if source.info.name == name:
            return source
    raise KeyError(f"no source {name!r} in split {split!r}")


def _make_folder(workdir: Path) -> None:
    try:
        workdir.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise UserError(f"--workdir {workdir} cannot be made: {error.strerror}") from None


class _Loop:
    """One stretch of training, from the last checkpoint to the last step or a signal."""

    def __init__(self, run: Run, checkpoints: Checkpoints, stop: StopRequest):
        self.run = run
        self.config = run.config
        self.checkpoints = checkpoints
        self.stop = stop
        self.skips = SkipCount(run.config.optim.max_skipped)

    def run_steps(self) -> TrainState:
        """Returns the state after the last step. Raises Preempted once a signal has come."""
        state, cursor = self._start()
        self.stop.check()  # a signal while the run was made: there is nothing new to save
        first = int(state.step)
        batches = self.run.train_batches(cursor)
        self.log = self._metric_log(first)
        self.log.say(self.run.layout.describe())
        if first:
            self.log.say(f"going on from step {first}")
        saved = first if first else -1
        samples = self._sample_log(first)
        window = _Window()
        steps = range(first + 1, self.config.num_steps + 1)
        steps = traced(steps, self.config.profile, self.run.workdir)
        try:
            for step in steps:
                batch = window.next(batches)
                placed = self.run.put(batch)
                state, metrics = self.run.train_step(state, placed)
                jax.block_until_ready(metrics["loss"])
                if samples is not None:
                    samples.write(step, batch)
                window.add(batch_fill(batch, self.run.layout), batch)
                self._count_skips(step, metrics)
                self._report(step, state, metrics, window)
                last = step == self.config.num_steps
                self.stop.step = step
                # Asked once: a signal between two askings would not save.
                stopping = bool(self.stop)
                if step % self.config.checkpoint.every_steps == 0 or last or stopping:
                    cursor = placed.cursor if jax.process_count() > 1 else batch.cursor
                    self.checkpoints.save(step, state, np.asarray(self.run.whole(cursor), np.int64))
                    saved = step
                if stopping:
                    self.checkpoints.wait()
                    raise Preempted
            self.checkpoints.wait()
            assert saved == self.config.num_steps
            return state
        finally:
            steps.close()
            batches.close()
            if samples is not None:
                samples.close()
            self.log.close()

    def _metric_log(self, first: int) -> MetricLog | SilentLog:
        if jax.process_index() != 0:
            return SilentLog()
        return MetricLog(self.run.workdir, first, self.config.num_steps)

    def _sample_log(self, first: int) -> SampleLog | None:
        if not self.config.data.log_samples:
            return None
        names = [source.info.name for source in self.run.splits["train"].sources]
        process, count = jax.process_index(), jax.process_count()
        return SampleLog(self.run.workdir, first, names, self.run.lanes, process, count)

    def _start(self) -> tuple[TrainState, np.ndarray | None]:
        # What process 0 finds counts: file systems of several machines may lag behind each other.
        if not from_first(int(self.checkpoints.latest() is not None)):
            state = self.run.init()
            log.info(
                "parameters:\n%s",
                parameter_overview.get_parameter_overview(state.params, include_stats=False),
            )
            return state, None
        lanes = self.config.data.lanes
        cursor = np.zeros((lanes, 2), np.int64)
        _, state, cursor = self.checkpoints.restore(self.run.state_shapes, cursor)
        return state, np.asarray(cursor)

    def _count_skips(self, step: int, metrics: dict) -> None:
        skipped, loss, norm = (float(metrics[name]) for name in ("skipped", "loss", "grad_norm"))
        told = self.skips.add(step, bool(skipped), loss, norm)
        if told:
            self.log.say(told)

    def _report(self, step: int, state: TrainState, metrics: dict, window: _Window) -> None:
        config = self.config
        if step % config.log_every_steps == 0 or step == config.num_steps:
            values = _scalars(self.run, step, self.run.whole(metrics))
            values |= window.take() | {"skipped": self.skips.take()}
            values["compilations"] = float(self.run.train_step.compilations())  # type: ignore[attr-defined]
            self.log.write(step, values)
            shown = ", ".join(
                f"{name} {values[name]:.4g}"
                for name in ("loss", "fill/token", "steps_per_s", "tokens_per_s")
            )
            self.log.say(f"step {step}/{config.num_steps}: {shown}")
        every = config.eval.validation_every_steps
        if every and (step % every == 0 or step == config.num_steps):
            self._validate(step, state)
            window.pause()
        self.log.advance(step)

    def _validate(self, step: int, state: TrainState) -> None:
        params = eval_params(self.run, state)
        limit = self.config.eval.validation_records
        values = {}
        try:
            predicted = predict_split(
                self.run, params, state.model_state, "validation", None, limit, self.stop.check
            )
        except Preempted:
            return  # the loop saves this step and stops
        for found in predicted:
            metric = found.task.primary_metric
            value = found.task.metrics(found.probabilities, found.targets)[metric]
            values[f"{metric}/validation/{found.source.name}/{found.task.name}"] = value
        self.log.write(step, values)
        shown = ", ".join(f"{k.split('/')[-1]} {v:.3f}" for k, v in values.items())
        self.log.say(f"step {step}: validation {shown}")


class _Window:
    """Means and rates between two log lines."""

    def __init__(self) -> None:
        self._fills: list[dict[str, float]] = []
        self._tokens = 0
        self._waited = 0.0
        self._since = time.perf_counter()

    def next(self, batches: Iterator[Batch]) -> Batch:
        """The next batch; the time until it is there counts as waiting for the input."""
        asked = time.perf_counter()
        batch = next(batches)
        self._waited += time.perf_counter() - asked
        return batch

    def add(self, fill: dict[str, float], batch: Batch) -> None:
        self._fills.append(fill)
        self._tokens += sum(int(np.count_nonzero(g.segment_ids)) for g in batch.grids)

    def pause(self) -> None:
        """Leaves out the time of something that is not training."""
        self._fills, self._tokens, self._waited = [], 0, 0.0
        self._since = time.perf_counter()

    def take(self) -> dict[str, float]:
        seconds = time.perf_counter() - self._since
        steps = len(self._fills)
        names = list(self._fills[0]) if self._fills else []
        means = [float(np.mean([f[n] for f in self._fills])) for n in names]
        # Every process has filled as many packs: the mean of their means is that of all.
        mine = np.array([*means, self._tokens, self._waited], np.float64)
        *fills, tokens, waited = sum_processes(mine).tolist()
        values = {f"fill/{n}": v / jax.process_count() for n, v in zip(names, fills, strict=True)}
        values["steps_per_s"] = steps / seconds
        values["tokens_per_s"] = tokens / seconds
        values["input_wait"] = waited / jax.process_count() / seconds
        self.pause()
        return values


def _scalars(run: Run, step: int, metrics: dict) -> dict[str, float]:
    values = {name: float(metrics[name]) for name in ("loss", "grad_norm")}
    for task, losses in metrics["task_loss"].items():
        for modality, loss, weight in zip(
            run.spec.modalities, losses, metrics["task_weight"][task], strict=True
        ):
            if weight > 0:
                values[f"loss/{task}/{modality.name}"] = float(loss)
    if "alignment_loss" in metrics:
        values["loss/alignment"] = float(metrics["alignment_loss"])
    for group, schedule in run.learning_rates.items():
        values[f"learning_rate/{group}"] = float(schedule(step - 1))
    return values
