"""What a config and a model must fulfil before anything is built."""

from __future__ import annotations

from multimed_jax.aligned import words_of
from multimed_jax.config import RunConfig
from multimed_jax.model import ModelSpec
from multimed_jax.specs import read_stream
from multimed_jax.types import UserError


def check_config(config: RunConfig) -> None:
    """Raises UserError for values that only together make no sense."""
    for key in ("modalities", "tasks"):
        names = [spec.name for spec in getattr(config, key)]
        if not names:
            raise UserError(f"config.{key} is empty; name at least one SPEC")
        twice = sorted({name for name in names if names.count(name) > 1})
        if twice:
            raise UserError(f"config.{key} names {twice[0]!r} twice")
    model = config.model
    if model.d_model % (2 * model.num_heads):
        raise UserError(
            f"config.model.d_model is {model.d_model}; it must be a multiple of "
            f"{2 * model.num_heads} (2 x num_heads), because rotary planes come in pairs"
        )
    if not 0 <= model.fusion_layers <= model.num_layers:
        raise UserError(
            f"config.model.fusion_layers is {model.fusion_layers}; accepted: 0 to num_layers "
            f"({model.num_layers})"
        )
    for key in ("num_steps", "log_every_steps"):
        if getattr(config, key) < 1:
            raise UserError(f"config.{key} is {getattr(config, key)}; it must be at least 1")
    profile = config.profile
    last = profile.first_step + profile.num_steps - 1
    if profile.first_step and last > config.num_steps:
        raise UserError(
            f"config.profile traces steps {profile.first_step} to {last}, and the run ends with "
            f"step {config.num_steps}; accepted: windows up to that step"
        )
    if not config.data.sources:
        raise UserError("config.data.sources is empty; name at least one built dataset")
    tasks = [task.name for task in config.tasks]
    for source in config.data.sources:
        for name in source.tasks:
            if name not in tasks:
                raise UserError(
                    f"source {source.name!r} lists the task {name!r}; configured tasks: "
                    f"{', '.join(tasks)}"
                )


def check_spec(spec: ModelSpec) -> None:
    """Raises UserError where a head has no stream to read, or two tasks write answers."""
    for task in spec.tasks:
        if task.reads:
            read_stream(task, spec.streams)
    writing = [task.name for task in spec.tasks if task.generates]
    if len(writing) > 1:
        raise UserError(
            f"config.tasks has {' and '.join(writing)}; only one task may write answers"
        )
    if spec.alignment.weight > 0:
        words_of(spec)
