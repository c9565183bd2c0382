"""Answers to questions, written or chosen by running the model over the same batch again.

Pass k of the first L fills place k + 1 of every answer with the most probable next piece, until
all have ended; pass L + c shows every slot its candidate c and scores it. A batch without questions
takes no pass, one without closed (or without open) questions leaves out those passes. Other tasks
never see the places of an answer: what they predict is made once, and no pass runs their heads.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int

from multimed_jax.layers.subwords import special_id
from multimed_jax.model import ModelSpec
from multimed_jax.specs import TaskSpec, read_stream
from multimed_jax.types import Batch, TargetSlots

NOT_KNOWN = -1

LogP = Float[Array, "P K L V"]


def generating_task(spec: ModelSpec) -> TaskSpec | None:
    """The task whose answers are written; None where the run has none."""
    return next((task for task in spec.tasks if task.generates), None)


def write_answers(
    next_piece: Callable[[Batch], LogP], batch: Batch, task: TaskSpec, spec: ModelSpec
) -> Int[Array, "P K L"]:
    """The ids of every slot's answer, -1 behind its end.

    Args:
        next_piece: batch -> log-probabilities of the next piece at every place of `task`'s slots.
        batch: its places show `<begin>` and then nothing.
        task: that generates.
        spec: of the model.
    """
    stream = read_stream(task, spec.streams)
    slots = batch.targets[task.name]
    places = stream.max_parts
    candidates = jnp.moveaxis(slots.value[:, :, 1:], 2, 0)  # [C, P, K, L]
    asked = slots.weight > 0
    closed = asked & (candidates != NOT_KNOWN).any(axis=(0, 3))
    is_open = asked & ~closed

    def show(ids: Int[Array, "P K L"]) -> Batch:
        parts = _with_answers(batch, stream.name, slots, ids)
        streams = batch.streams | {
            stream.name: dataclasses.replace(batch.streams[stream.name], parts=parts)
        }
        return dataclasses.replace(batch, streams=streams)

    def write(carry):
        piece, written = carry
        log_p = next_piece(show(written))
        chosen = jnp.where(_ended(written, piece), NOT_KNOWN, log_p[:, :, piece].argmax(-1))
        return piece + 1, written.at[:, :, piece].set(chosen)

    def going_on(carry):
        piece, written = carry
        return (piece < places) & (is_open & ~_ended(written, piece)).any()

    def score(carry):
        number, scores = carry
        log_p = next_piece(show(candidates[number]))
        return number + 1, scores.at[number].set(_score(log_p, candidates[number]))

    zero = jnp.zeros((), jnp.int32)
    written = jnp.full((*slots.segment.shape, places), NOT_KNOWN, jnp.int32)
    _, written = jax.lax.while_loop(going_on, write, (zero, written))
    scores = jnp.full((len(candidates), *slots.segment.shape), -jnp.inf)
    more = jnp.where(closed.any(), len(candidates), 0)
    _, scores = jax.lax.while_loop(lambda carry: carry[0] < more, score, (zero, scores))
    best = jnp.take_along_axis(candidates, scores.argmax(0)[None, ..., None], axis=0)[0]
    return jnp.where(closed[..., None], best, written)


def _with_answers(
    batch: Batch, stream: str, slots: TargetSlots, ids: Int[Array, "P K L"]
) -> Int[Array, "P N"]:
    """The parts of the answer stream with `ids[l]` at place l + 1; place 0 keeps its `<begin>`."""
    places = batch.streams[stream]
    member = places.segment[:, :, None] == slots.segment[:, None, :]
    member &= (slots.segment > 0)[:, None, :]
    slot = member.argmax(-1)  # [P, N]
    first = (places.segment[:, None, :] == places.segment[:, :, None]).argmax(-1)
    place = jnp.arange(places.segment.shape[1])[None] - first
    index = jnp.clip(place - 1, 0, ids.shape[-1] - 1)
    found = jax.vmap(lambda table, k, at: table[k, at])(ids, slot, index)
    found = jnp.where(found == NOT_KNOWN, special_id("<pad>"), found)
    return jnp.where(member.any(-1) & (place > 0), found, places.parts)


def _ended(written: Int[Array, "P K L"], piece: Array) -> Bool[Array, "P K"]:
    """Whether an answer has said its `<end>` before the piece."""
    before = jnp.arange(written.shape[-1]).reshape(1, 1, -1) < piece
    return (before & (written == special_id("<end>"))).any(-1)


def _score(log_p: Float[Array, "P K L V"], ids: Int[Array, "P K L"]) -> Float[Array, "P K"]:
    """Log-probability of an answer with its end; minus infinity where there is none."""
    at = jnp.take_along_axis(log_p, jnp.maximum(ids, 0)[..., None], axis=-1)[..., 0]
    known = ids != NOT_KNOWN
    return jnp.where(known.any(-1), jnp.where(known, at, 0.0).sum(-1), -jnp.inf)
