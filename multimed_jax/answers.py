"""Answers to questions, written or chosen by running the model over the same batch again.

Pass k of the first L fills place k + 1 of every answer with the most probable next piece; pass
L + c shows every slot its candidate c and scores it. A batch without questions takes one pass, one
without closed (or without open) questions leaves out those passes. Other tasks never see the
places of an answer, so what they predict is the same in every pass.
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

Predict = Callable[[Batch], dict[str, Array]]


def generating_task(spec: ModelSpec) -> TaskSpec | None:
    """The task whose answers are written; None where the run has none."""
    return next((task for task in spec.tasks if task.generates), None)


def predict_with_answers(
    predict: Predict, batch: Batch, task: TaskSpec, spec: ModelSpec
) -> dict[str, Array]:
    """Predictions of every task; those of `task` are the ids of its answers, [P, K, L].

    Args:
        predict: batch -> predictions of every task; of `task` log-probabilities [P, K, L, V].
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
    any_open, any_closed = (asked & ~closed).any(), closed.any()
    first = jnp.where(any_open, 0, places)
    end = jnp.where(any_closed, places + len(candidates), jnp.where(any_open, places, first + 1))

    def show(ids: Int[Array, "P K L"]) -> Batch:
        parts = _with_answers(batch, stream.name, slots, ids)
        streams = batch.streams | {
            stream.name: dataclasses.replace(batch.streams[stream.name], parts=parts)
        }
        return dataclasses.replace(batch, streams=streams)

    def body(carry):
        number, written, scores, _ = carry
        candidate = jnp.clip(number - places, 0, len(candidates) - 1)
        shown = jnp.where(number < places, written, candidates[candidate])
        found = predict(show(shown))
        log_p = found[task.name]
        piece = jnp.where(number < places, number, 0)
        ended = _ended(written, piece)
        chosen = jnp.where(ended, NOT_KNOWN, log_p[:, :, piece].argmax(-1))
        written = jnp.where(number < places, written.at[:, :, piece].set(chosen), written)
        score = _score(log_p, candidates[candidate])
        scores = jnp.where(number < places, scores, scores.at[candidate].set(score))
        rest = {name: values for name, values in found.items() if name != task.name}
        return number + 1, written, scores, rest

    shapes = jax.eval_shape(predict, batch)
    rest = {n: jnp.zeros(s.shape, s.dtype) for n, s in shapes.items() if n != task.name}
    written = jnp.full((*slots.segment.shape, places), NOT_KNOWN, jnp.int32)
    scores = jnp.full((len(candidates), *slots.segment.shape), -jnp.inf)
    carry = (first, written, scores, rest)
    _, written, scores, rest = jax.lax.while_loop(lambda c: c[0] < end, body, carry)
    best = jnp.take_along_axis(candidates, scores.argmax(0)[None, ..., None], axis=0)[0]
    return rest | {task.name: jnp.where(closed[..., None], best, written)}


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
