"""Optimiser, schedules and loss weights.

The optimiser is AdamW per parameter group behind one global-norm clip. The loss weights
lambda[t, m] multiply losses, not gradients: Adam would cancel a gradient scale per head.
"""

from __future__ import annotations

from collections.abc import Hashable, Mapping, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax
from jaxtyping import Array, Bool, Float, Int

from multimed_jax.config import OptimConfig, ScheduleConfig
from multimed_jax.types import UserError

GROUPS = ("tokenizers", "trunk", "heads")

# The running mean of the gradient's norm covers about 50 updates, and counts after the first 20.
_NORM_DECAY = 0.98
_NORM_WARMUP = 20


def make_schedule(config: ScheduleConfig, num_steps: int) -> optax.Schedule:
    """The value at a step. Linear and cosine reach `end_value` at `num_steps`.

    Raises:
        UserError: where the warm-up is longer than the run, or boundaries and scales differ in
            number.
    """
    if config.warmup_steps >= num_steps and config.warmup_steps > 0:
        raise UserError(
            f"warmup_steps is {config.warmup_steps}; it must be below num_steps ({num_steps})"
        )
    if len(config.boundaries) != len(config.scales):
        raise UserError(
            f"a piecewise schedule has {len(config.boundaries)} boundaries and "
            f"{len(config.scales)} scales; give one scale per boundary"
        )
    rest = max(num_steps - config.warmup_steps, 1)
    if config.kind == "constant":
        main = optax.constant_schedule(config.value)
    elif config.kind == "linear":
        main = optax.linear_schedule(config.value, config.end_value, rest)
    elif config.kind == "cosine":
        alpha = config.end_value / config.value if config.value else 0.0
        main = optax.cosine_decay_schedule(config.value, rest, alpha)
    else:
        shifted = {
            boundary - config.warmup_steps: scale
            for boundary, scale in zip(config.boundaries, config.scales, strict=True)
        }
        main = optax.piecewise_constant_schedule(config.value, shifted)
    if not config.warmup_steps:
        return main
    warmup = optax.linear_schedule(0.0, config.value, config.warmup_steps)
    return optax.join_schedules([warmup, main], [config.warmup_steps])


def group_of(path: tuple[Any, ...]) -> str:
    """The parameter group of a leaf, by the first key of its path."""
    first = str(getattr(path[0], "key", path[0]))
    return first if first in ("tokenizers", "trunk") else "heads"


def make_optimizer(config: OptimConfig, num_steps: int) -> optax.GradientTransformation:
    """Clip by global norm, then AdamW with the schedule of each group.

    Weight decay reaches matrices only: not norms, biases or the modality embeddings.

    Raises:
        UserError: where the groups of `learning_rate` are not exactly `GROUPS`.
    """
    if set(config.learning_rate) != set(GROUPS):
        raise UserError(
            f"config.optim.learning_rate names {', '.join(sorted(config.learning_rate))}; "
            f"it must name exactly {', '.join(GROUPS)}"
        )

    def matrices(params):
        return jax.tree.map(lambda leaf: leaf.ndim >= 2, params)

    def adamw(schedule: ScheduleConfig) -> optax.GradientTransformation:
        return optax.adamw(
            make_schedule(schedule, num_steps),
            b1=config.b1,
            b2=config.b2,
            weight_decay=config.weight_decay,
            mask=matrices,
        )

    def labels(params):
        return jax.tree_util.tree_map_with_path(lambda path, _: group_of(path), params)

    groups: dict[Hashable, Any] = {name: adamw(config.learning_rate[name]) for name in GROUPS}
    update = optax.clip_by_global_norm(config.clip_norm), optax.multi_transform(groups, labels)
    if config.spike_factor > 0:
        return optax.chain(_track_norm(), *update)
    return optax.chain(*update)


class NormState(NamedTuple):
    """Discounted sum of the gradient norms of the updates made so far, and how many those are."""

    total: Float[Array, ""]
    seen: Int[Array, ""]


def _track_norm() -> optax.GradientTransformation:
    """Leaves gradients alone and keeps the running mean of their norm."""

    def init(params) -> NormState:
        del params
        return NormState(jnp.zeros((), jnp.float32), jnp.zeros((), jnp.int32))

    def update(updates, state, params=None):
        del params
        total = _NORM_DECAY * state.total + (1 - _NORM_DECAY) * optax.tree.norm(updates)
        return updates, NormState(total, state.seen + 1)

    return optax.GradientTransformation(init, update)


def accepts(
    config: OptimConfig, opt_state: Any, loss: Float[Array, ""], norm: Float[Array, ""]
) -> Bool[Array, ""]:
    """Whether an update is to be made: loss and gradient are finite, and the norm is no spike.

    Args:
        config: of the optimiser.
        opt_state: before the update; a skipped update must leave it so.
        loss: of the step.
        norm: global norm of its gradient, before clipping.
    """
    finite = jnp.isfinite(loss) & jnp.isfinite(norm)
    if config.spike_factor <= 0:
        return finite
    tracked: NormState = opt_state[0]
    mean = tracked.total / (1 - _NORM_DECAY ** jnp.maximum(tracked.seen, 1).astype(jnp.float32))
    spike = (tracked.seen >= _NORM_WARMUP) & (norm > config.spike_factor * mean)
    return finite & ~spike


class WeightingState(NamedTuple):
    """Loss weights of the coming step, and how many steps have been taken."""

    step: Int[Array, ""]
    lambdas: Float[Array, "tasks M"]


def make_weighting(
    lambdas: Mapping[str, ScheduleConfig],
    tasks: Sequence[str],
    modalities: Sequence[str],
    num_steps: int,
) -> optax.GradientTransformationExtraArgs:
    """The schedules of lambda[t, m] as an Optax transformation that leaves gradients alone.

    `lambdas` is keyed by "task/modality" or "task" (all its modalities); 1 where not named.

    Raises:
        UserError: for a key whose task or modality the run does not have.
    """
    schedules: dict[tuple[int, int], optax.Schedule] = {}
    # "task" first, so that "task/modality" overrides it whatever the order in the config.
    for key in sorted(lambdas, key=lambda k: k.count("/")):
        task, _, modality = key.partition("/")
        if task not in tasks or (modality and modality not in modalities):
            raise UserError(
                f"config.optim.lambdas has the key {key!r}; accepted: task or task/modality with "
                f"tasks {', '.join(tasks)} and modalities {', '.join(modalities)}"
            )
        schedule = make_schedule(lambdas[key], num_steps)
        for column, name in enumerate(modalities):
            if not modality or name == modality:
                schedules[tasks.index(task), column] = schedule

    def at(step: Int[Array, ""]) -> Float[Array, "tasks M"]:
        table = jnp.ones((len(tasks), len(modalities)), jnp.float32)
        for (row, column), schedule in schedules.items():
            table = table.at[row, column].set(jnp.asarray(schedule(step), jnp.float32))
        return table

    def init(params) -> WeightingState:
        del params
        step = jnp.zeros((), jnp.int32)
        return WeightingState(step, at(step))

    def update(updates, state, params=None, **extra):
        del params, extra
        step = state.step + 1
        return updates, WeightingState(step, at(step))

    return optax.GradientTransformationExtraArgs(init, update)
