"""The compiled steps: training (loss, gradients, update) and prediction."""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import optax
from flax import nnx

from multimed_jax.aligned import alignment_loss, bank_of, embed_slots, embed_texts
from multimed_jax.answers import generating_task, write_answers
from multimed_jax.config import RunConfig
from multimed_jax.layers.slot_loss import denominators, mean_loss, numerators
from multimed_jax.model import Model, ModelSpec
from multimed_jax.optim import accepts, make_optimizer, make_weighting
from multimed_jax.sharding import (
    batch_sharding,
    constrain_cut,
    gather_outside_layers,
    state_shardings,
)
from multimed_jax.types import Batch, TrainState

Metrics = dict[str, Any]


def make_state(
    config: RunConfig,
    spec: ModelSpec,
    optimizer: optax.GradientTransformation,
    weighting: optax.GradientTransformationExtraArgs,
) -> TrainState:
    """A fresh state, a pure function of `config.seed`."""
    model = Model(spec, nnx.Rngs(config.seed))
    _, params, rest = nnx.split(model, nnx.Param, ...)
    params, rest = nnx.to_pure_dict(params), nnx.to_pure_dict(rest)
    return TrainState(
        step=jnp.zeros((), jnp.int32),
        params=params,
        model_state=rest,
        opt_state=optimizer.init(params),
        weighting_state=weighting.init(params),
        ema=jax.tree.map(jnp.copy, params) if config.optim.ema_decay > 0 else None,
        rng=jax.random.key_data(jax.random.key(config.seed)),
    )


def graph_of(spec: ModelSpec) -> nnx.GraphDef:
    """The static part of the model, made without allocating parameters."""
    graphdef, _ = nnx.split(nnx.eval_shape(lambda: Model(spec, nnx.Rngs(0))))
    return graphdef


def _merge(graphdef: nnx.GraphDef, params: Any, model_state: Any) -> Model:
    """The model as a compiled step uses it."""
    return nnx.merge(graphdef, gather_outside_layers(params), model_state)


def make_loss(config: RunConfig, spec: ModelSpec) -> Callable[..., tuple[Any, tuple[Metrics, Any]]]:
    """(params, model_state, batch, lambdas, totals) -> loss, ({"task_loss": ...}, model state).

    `totals` are the denominators of the whole batch, of which this may be a microbatch: the losses
    of all microbatches then add up to that of the batch. An aligned space adds "alignment_loss"; a
    contrast needs other samples, so it is that of each microbatch, averaged.
    """
    graphdef = graph_of(spec)
    bank = bank_of(spec) if config.alignment.weight > 0 else None

    def loss_fn(params, model_state, batch: Batch, lambdas, totals):
        model = _merge(graphdef, params, model_state)
        states, present, parts = model.encode(batch)
        outputs = model.read(batch, states, present, parts)
        loss, table = 0.0, {}
        for row, task in enumerate(spec.tasks):
            slots = batch.targets[task.name]
            per_slot = task.loss_fn(outputs[task.name], slots, spec.namespaces[task.name])
            table[task.name] = mean_loss(numerators(per_slot, slots), totals[task.name])
            loss += jnp.dot(lambdas[row], table[task.name])
        told: Metrics = {"task_loss": table}
        if bank is not None:
            contrast = alignment_loss(model, bank, batch, states, present)
            told["alignment_loss"] = contrast / config.optim.accumulate
            loss += config.alignment.weight * told["alignment_loss"]
        return loss, (told, nnx.to_pure_dict(nnx.state(model, nnx.Not(nnx.Param))))

    return loss_fn


def _accumulated(gradient: Callable[..., Any], parts: int) -> Callable[..., Any]:
    """`gradient` of `make_loss` over `parts` microbatches one after another, summed."""
    if parts == 1:
        return gradient

    def summed(params, model_state, batch: Batch, lambdas, totals):
        def body(carry, micro):
            sums, model_state = carry
            (loss, (told, rest)), grads = gradient(params, model_state, micro, lambdas, totals)
            return (jax.tree.map(jnp.add, sums, (loss, told, constrain_cut(grads))), rest), None

        # Every `parts`-th pack, so that each device keeps packs of its own.
        split = jax.tree.map(lambda x: x.reshape(-1, parts, *x.shape[1:]).swapaxes(0, 1), batch)
        first = jax.tree.map(lambda x: x[0], split)
        shapes = jax.eval_shape(gradient, params, model_state, first, lambdas, totals)
        (loss, (told, _)), grads = jax.tree.map(lambda s: jnp.zeros(s.shape, s.dtype), shapes)
        carry = ((loss, told, constrain_cut(grads)), model_state)
        ((loss, told, grads), rest), _ = jax.lax.scan(body, carry, split)
        return (loss, (told, rest)), grads

    return summed


def make_train_step(
    config: RunConfig,
    spec: ModelSpec,
    optimizer: optax.GradientTransformation,
    weighting: optax.GradientTransformationExtraArgs,
) -> Callable[[TrainState, Batch], tuple[TrainState, Metrics]]:
    """The pure training step; jit it with the shardings of the run.

    An update that `optim.accepts` refuses (its loss or gradient is not finite, or a spike) is
    skipped: parameters and moments stay, the step counts, and `metrics["skipped"]` is 1.
    """
    gradient = _accumulated(
        jax.value_and_grad(make_loss(config, spec), has_aux=True), config.optim.accumulate
    )

    def train_step(state: TrainState, batch: Batch) -> tuple[TrainState, Metrics]:
        totals = {name: denominators(slots) for name, slots in batch.targets.items()}
        lambdas = state.weighting_state.lambdas
        (loss, (told, rest)), grads = gradient(
            state.params, state.model_state, batch, lambdas, totals
        )
        grads = constrain_cut(grads)
        norm = optax.tree.norm(grads)
        accepted = accepts(config.optim, state.opt_state, loss, norm)
        updates, opt_state = optimizer.update(grads, state.opt_state, state.params)
        params = optax.apply_updates(state.params, updates)
        _, weighting_state = weighting.update(
            grads, state.weighting_state, losses=told["task_loss"]
        )
        ema = state.ema
        if ema is not None:
            ema = optax.incremental_update(params, ema, 1.0 - config.optim.ema_decay)

        def keep(new, old):
            return jax.tree.map(lambda n, o: jnp.where(accepted, n, o), new, old)

        new = TrainState(
            step=state.step + 1,
            params=keep(params, state.params),
            model_state=keep(rest, state.model_state),
            opt_state=keep(opt_state, state.opt_state),
            weighting_state=weighting_state,
            ema=keep(ema, state.ema),
            rng=state.rng,
        )
        metrics = {
            "loss": loss,
            "grad_norm": norm,
            "skipped": 1 - accepted.astype(jnp.int32),
            "task_weight": totals,
        }
        return new, metrics | told

    return train_step


def jit_train_step(
    config: RunConfig, spec: ModelSpec, mesh: jax.sharding.Mesh
) -> tuple[Any, Callable[[], TrainState], TrainState]:
    """The training step as a run compiles it, for the devices of the mesh.

    Returns:
        The jitted step, which takes the state for its own (donated); () -> a fresh state, not yet
        on the devices; shapes, dtypes and shardings of the state.
    """
    optimizer = make_optimizer(config.optim, config.num_steps)
    weighting = make_weighting(
        config.optim.lambdas,
        [task.name for task in spec.tasks],
        [modality.name for modality in spec.modalities],
        config.num_steps,
    )
    fresh = functools.partial(make_state, config, spec, optimizer, weighting)
    abstract = jax.eval_shape(fresh)
    shardings = state_shardings(abstract, mesh)
    step = jax.jit(
        make_train_step(config, spec, optimizer, weighting),
        in_shardings=(shardings, batch_sharding(mesh)),
        out_shardings=(shardings, None),
        donate_argnums=0,
    )
    shapes = jax.tree.map(
        lambda a, s: jax.ShapeDtypeStruct(a.shape, a.dtype, sharding=s), abstract, shardings
    )
    return step, fresh, shapes


def make_predict_step(spec: ModelSpec) -> Callable[[Any, Any, Batch], dict[str, jax.Array]]:
    """(params, model_state, batch) -> predictions of every task at its slots, [P, K, ...]."""
    graphdef = graph_of(spec)
    generating = generating_task(spec)

    def predict_step(params, model_state, batch: Batch) -> dict[str, jax.Array]:
        model = _merge(graphdef, params, model_state)

        def predicted(task, outputs) -> jax.Array:
            return task.predict(outputs, batch.targets[task.name], spec.namespaces[task.name])

        outputs = model(batch)
        found = {
            task.name: predicted(task, outputs[task.name])
            for task in spec.tasks
            if task is not generating
        }
        if generating is None:
            return found
        task = generating

        def next_piece(shown: Batch) -> jax.Array:
            states = model.encode(shown)
            # Only this task's outputs are used: the compiler leaves the other heads out.
            return predicted(task, model.read(shown, *states)[task.name])

        return found | {task.name: write_answers(next_piece, batch, task, spec)}

    return predict_step


def make_embed_step(spec: ModelSpec) -> Callable[[Any, Any, Batch], dict[str, jax.Array]]:
    """(params, model_state, batch) -> aligned unit vectors at every task's slots, [P, K, E]."""
    graphdef = graph_of(spec)

    def embed_step(params, model_state, batch: Batch) -> dict[str, jax.Array]:
        model = _merge(graphdef, params, model_state)
        states, present, _ = model.encode(batch)
        return embed_slots(model, batch, states, present)

    return embed_step


def make_text_step(spec: ModelSpec) -> Callable[[Any, Any, jax.Array], jax.Array]:
    """(params, model_state, ids [B, W]) -> aligned unit vectors of texts, [B, E]."""
    graphdef = graph_of(spec)

    def text_step(params, model_state, ids: jax.Array) -> jax.Array:
        return embed_texts(_merge(graphdef, params, model_state), ids)

    return text_step
