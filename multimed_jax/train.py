"""The training loop: steps, logs, checkpoints, preemption, and the evaluation at its end."""

from __future__ import annotations

import dataclasses
import logging
import subprocess
import time
from importlib import metadata
from pathlib import Path
from typing import Any

import jax
import numpy as np
from clu import parameter_overview

from multimed_jax.checkpoint import (
    Checkpoints,
    check_same_run,
    lock_workdir,
    read_manifest,
    write_manifest,
)
from multimed_jax.command import EXIT_PREEMPTED
from multimed_jax.config import RunConfig
from multimed_jax.config_io import config_hash, to_json
from multimed_jax.data.loader import batch_fill
from multimed_jax.evaluators.context import EvalContext
from multimed_jax.metric_log import MetricLog
from multimed_jax.predictions import Predictor, predict_split
from multimed_jax.preemption import Preempted, StopRequest, stop_on_signals
from multimed_jax.results import ResultRow, format_table, write_rows
from multimed_jax.run import Run, dataset_hashes, eval_params, make_run
from multimed_jax.types import Batch, TrainState, UserError

log = logging.getLogger(__name__)

PACKAGES = ("jax", "flax", "optax", "orbax-checkpoint", "grain", "tensorflow-datasets", "numpy")


def train_and_evaluate(config: RunConfig, workdir: Path) -> int:
    """Trains (or goes on training) in `workdir`, measures the model, prints the table.

    Returns:
        The exit code: 0 finished, 75 stopped by a signal with everything saved.
    """
    _make_folder(workdir)
    with lock_workdir(workdir), stop_on_signals() as stop:
        run = make_run(config, workdir)
        if (workdir / "manifest.json").exists():
            # After what modalities learn from train, which the manifest holds as well.
            check_same_run(read_manifest(workdir / "manifest.json"), run.config)
        _write_manifest(run)
        checkpoints = Checkpoints(workdir / "checkpoints", config.checkpoint.keep)
        try:
            state = _Loop(run, checkpoints, stop).run_steps()
            rows = evaluate_state(run, state, stop)
        except Preempted:
            print("stopped by a signal; the same command goes on from here", flush=True)
            return EXIT_PREEMPTED
        finally:
            checkpoints.close()
    print(format_table(rows))
    return 0


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

    def run_steps(self) -> TrainState:
        """Returns the state after the last step. Raises Preempted once a signal has come."""
        state, cursor = self._start()
        first = int(state.step)
        batches = self.run.train_batches(cursor)
        self.log = MetricLog(self.run.workdir, first, self.config.num_steps)
        self.log.say(self.run.layout.describe())
        if first:
            self.log.say(f"going on from step {first}")
        saved = first if first else -1
        window = _Window()
        try:
            for step in range(first + 1, self.config.num_steps + 1):
                batch = next(batches)
                state, metrics = self.run.train_step(state, self.run.put(batch))
                jax.block_until_ready(metrics["loss"])
                cursor = batch.cursor
                window.add(batch_fill(batch, self.run.layout), batch)
                self._report(step, state, metrics, window)
                last = step == self.config.num_steps
                if step % self.config.checkpoint.every_steps == 0 or last or self.stop:
                    self.checkpoints.save(step, state, np.asarray(cursor))
                    saved = step
                if self.stop:
                    self.checkpoints.wait()
                    raise Preempted
            self.checkpoints.wait()
            assert saved == self.config.num_steps
            return state
        finally:
            batches.close()
            self.log.close()

    def _start(self) -> tuple[TrainState, np.ndarray | None]:
        if self.checkpoints.latest() is None:
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

    def _report(self, step: int, state: TrainState, metrics: dict, window: _Window) -> None:
        config = self.config
        if step % config.log_every_steps == 0 or step == config.num_steps:
            values = _scalars(self.run, step, jax.device_get(metrics))
            values |= window.take()
            values["compilations"] = float(self.run.train_step.compilations())  # type: ignore[attr-defined]
            self.log.write(step, values)
            shown = ", ".join(
                f"{name} {values[name]:.4g}"
                for name in ("loss", "fill/token", "steps_per_s", "tokens_per_s")
            )
            self.log.say(f"step {step}/{config.num_steps}: {shown}")
            if values["skipped"]:
                self.log.say(f"step {step}: loss or gradient not finite, update skipped")
        every = config.eval.validation_every_steps
        if every and (step % every == 0 or step == config.num_steps):
            self._validate(step, state)
            window.pause()
        self.log.advance(step)

    def _validate(self, step: int, state: TrainState) -> None:
        params = eval_params(self.run, state)
        limit = self.config.eval.validation_records
        values = {}
        for found in predict_split(
            self.run, params, state.model_state, "validation", None, limit, lambda: None
        ):
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
        self._since = time.perf_counter()

    def add(self, fill: dict[str, float], batch: Batch) -> None:
        self._fills.append(fill)
        self._tokens += sum(int(np.count_nonzero(g.segment_ids)) for g in batch.grids)

    def pause(self) -> None:
        """Leaves out the time of something that is not training."""
        self._fills, self._tokens, self._since = [], 0, time.perf_counter()

    def take(self) -> dict[str, float]:
        seconds = time.perf_counter() - self._since
        steps = len(self._fills)
        names = self._fills[0] if self._fills else {}
        values = {f"fill/{n}": float(np.mean([f[n] for f in self._fills])) for n in names}
        values["steps_per_s"] = steps / seconds
        values["tokens_per_s"] = self._tokens / seconds
        self.pause()
        return values


def _scalars(run: Run, step: int, metrics: dict) -> dict[str, float]:
    values = {name: float(metrics[name]) for name in ("loss", "grad_norm", "skipped")}
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


def _write_manifest(run: Run) -> None:
    config = run.config
    write_manifest(
        run.workdir / "manifest.json",
        config=to_json(config),
        config_hash=config_hash(config),
        git_commit=_git_commit(),
        datasets=dataset_hashes(run.splits["train"].sources),
        packages={name: metadata.version(name) for name in PACKAGES},
        mesh=dict(run.mesh.shape),
        namespaces={
            task: [dataclasses.asdict(space) for space in spaces]
            for task, spaces in run.namespaces.items()
        },
        budgets={
            "streams": dict(run.layout.stream_budgets),
            "slots": dict(run.layout.slot_budgets),
        },
        num_params=sum(
            int(np.prod(leaf.shape)) for leaf in jax.tree.leaves(run.state_shapes.params)
        ),
    )


def _git_commit() -> str | None:
    """The commit of the checkout that the package runs from; None for an installed wheel."""
    folder = Path(__file__).parent
    found = subprocess.run(
        ["git", "-C", str(folder), "rev-parse", "HEAD"], capture_output=True, text=True, check=False
    )
    return found.stdout.strip() or None
