"""The model's aligned space: embeddings of samples and texts, and the alignment loss of a batch."""

from __future__ import annotations

from collections.abc import Mapping

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Int

from multimed_jax.layers.alignment import text_keys
from multimed_jax.layers.heads import column_namespaces
from multimed_jax.layers.label_bank import LabelBank, make_label_bank
from multimed_jax.layers.posemb import rotary_angles
from multimed_jax.layers.sight import make_sight
from multimed_jax.layers.subwords import special_id
from multimed_jax.layers.transformer import compute_dtype
from multimed_jax.model import Model, ModelSpec, leaf_name
from multimed_jax.specs import WORDS, StreamSpec
from multimed_jax.types import Batch, StreamBatch, UserError


def words_of(spec: ModelSpec) -> StreamSpec:
    """The stream of words. Raises UserError where the run has none to align with."""
    found = [stream for stream in spec.streams if stream.kind == WORDS]
    if not found:
        raise UserError(
            "config.alignment.weight is above 0, but no configured modality has words; accepted: "
            "a run with a text modality, or weight 0"
        )
    return found[0]


def bank_of(spec: ModelSpec) -> LabelBank:
    """The prompts of the run's classes."""
    config = spec.alignment
    return make_label_bank(spec.tasks, spec.namespaces, config.templates, config.max_label_tokens)


def embed_texts(model: Model, ids: Int[Array, "B W"]) -> Float[Array, "B E"]:
    """Unit vectors of texts, each in a row of its own, through tokenizer, trunk and projection."""
    config = model.spec.config
    stream = words_of(model.spec)
    known = (ids != special_id("<pad>")).astype(jnp.int32)
    coords = jnp.broadcast_to(jnp.arange(ids.shape[1], dtype=jnp.float32), ids.shape)[..., None]
    texts = StreamBatch(ids, coords, known, known)
    x = model.tokenizers[leaf_name(stream.name)](texts).astype(compute_dtype(config))
    angles = rotary_angles(coords, config.d_model // config.num_heads)
    # Padding is a run behind the text.
    sight = make_sight(known, contiguous=True, max_runs=2)
    states = model.trunk(x, sight, sight, angles)
    weights = known / jnp.maximum(known.sum(1, keepdims=True), 1)
    return model.align.embed_texts(jnp.einsum("bwd,bw->bd", states, weights))


def embed_slots(model: Model, batch: Batch, states, present) -> dict[str, Float[Array, "P K E"]]:
    """Unit vectors of the segments of every task's slots; `states`, `present` of `Model.encode`."""
    z_PSE = _embed_segments(model, states, present)
    return {
        name: jax.vmap(lambda z, i: z[i])(z_PSE, jnp.maximum(slots.segment - 1, 0))
        for name, slots in batch.targets.items()
    }


def alignment_loss(
    model: Model, bank: LabelBank, batch: Batch, states, present
) -> Float[Array, ""]:
    """Mean of the losses of every task with classes, and of the halves where there are any."""
    texts = embed_texts(model, jnp.asarray(bank.ids))
    slots_z = embed_slots(model, batch, states, present)
    losses = [
        _class_loss(model, batch, name, slots_z[name], texts[jnp.asarray(rows)].mean(1))
        for name, rows in bank.columns.items()
    ]
    total = jnp.stack(losses).mean() if losses else jnp.zeros(())
    if model.spec.alignment.pair_rate > 0:
        total += _pair_loss(model, batch, states, present)
    return total


def _embed_segments(model: Model, states, present) -> Float[Array, "P S E"]:
    weights = present / jnp.maximum(present.sum(-1, keepdims=True), 1.0)
    return model.align.embed_samples(jnp.einsum("psmd,psm->psd", states, weights))


def _class_loss(model: Model, batch: Batch, task: str, z_PKE, columns_CE) -> Float[Array, ""]:
    slots = batch.targets[task]
    spaces = model.spec.namespaces[task]
    own = jnp.asarray(column_namespaces(spaces))
    offset = np.cumsum([0, *(len(space.class_names) for space in spaces)])[:-1]
    namespace = slots.namespace.reshape(-1)
    column = jnp.asarray(offset)[namespace] + jnp.maximum(slots.value.reshape(-1), 0)
    known = ((slots.weight > 0) & (slots.value >= 0)).reshape(-1)
    logits = model.align.logits(z_PKE.reshape(-1, z_PKE.shape[-1]), columns_CE)
    valid = known[:, None] & (own.reshape(1, -1) == namespace[:, None])
    positive = jnp.arange(len(own)).reshape(1, -1) == column[:, None]
    return model.align.loss(logits, positive, valid)


def _pair_loss(model: Model, batch: Batch, states, present) -> Float[Array, ""]:
    """Halves against halves; the half with the words has the larger segment number."""
    packs, segments = batch.partner.shape
    first = (batch.partner > 1 + jnp.arange(segments).reshape(1, -1)).reshape(-1)
    samples = _embed_segments(model, states, present)
    weights = present / jnp.maximum(present.sum(-1, keepdims=True), 1.0)
    texts = model.align.embed_texts(jnp.einsum("psmd,psm->psd", states, weights))
    partner = jnp.maximum(batch.partner - 1, 0)
    texts = jax.vmap(lambda t, i: t[i])(texts, partner)
    words = batch.streams[words_of(model.spec).name]
    keys = text_keys(jnp.asarray(words.parts), jnp.asarray(words.segment), segments)
    keys = jax.vmap(lambda k, i: k[i])(keys, partner).reshape(-1)
    dim = samples.shape[-1]
    logits = model.align.logits(samples.reshape(-1, dim), texts.reshape(-1, dim))
    valid = first[:, None] & first[None, :]
    return model.align.loss(logits, keys[:, None] == keys[None, :], valid)


def score_texts(
    samples: Float[np.ndarray, "n E"], texts: Mapping[str, Float[np.ndarray, "templates E"]]
) -> Float[np.ndarray, "n C"]:
    """Cosine of every sample with every label, whose texts are averaged and made unit again."""
    means = [np.mean(vectors, axis=0) for vectors in texts.values()]
    labels = np.stack([mean / max(float(np.linalg.norm(mean)), 1e-12) for mean in means])
    return samples @ labels.T
