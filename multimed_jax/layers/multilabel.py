"""Losses and predictions of tasks with several yes-or-no labels, over the columns of `heads`.

A target is [W], W the most labels that a namespace of the task has, with its namespace's labels
first: 1 has it, 0 has it not, -1 uncertain, not told, or no label of the namespace.

    namespaces   a: 3 labels   b: 2 labels        outputs   a0 a1 a2 b0 b1
    target of a   1  0 -1                         meets     a0 a1  .
    target of b   0  1 -1 (padding)               meets     b0 b1
"""

from __future__ import annotations

from collections.abc import Sequence

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx
from jaxtyping import Array, Bool, Float

from multimed_jax.layers.heads import (
    NamespacedClassifier,
    class_offsets,
    own_mask,
)
from multimed_jax.specs import Namespace
from multimed_jax.types import TargetSlots


def make_label_head(
    d_model: int, namespaces: Sequence[Namespace], rngs: nnx.Rngs
) -> NamespacedClassifier:
    """One linear leaf per namespace whose labels start at the training log-odds.

    Rare findings would else spend the first steps learning that they are rare. A label without a
    known training record starts at 0.
    """
    head = NamespacedClassifier(d_model, namespaces, rngs)
    for name, namespace in zip(head.order, namespaces, strict=True):
        bias = jnp.asarray(_log_odds(namespace), jnp.float32)
        head.leaves[name].bias = nnx.Param(bias)
    return head


def _log_odds(namespace: Namespace) -> Float[np.ndarray, "F"]:  # noqa: F821
    zeros = np.zeros(len(namespace.class_names))
    known = np.asarray(namespace.stats["count"]) if "count" in namespace.stats else zeros
    positive = np.asarray(namespace.stats["sum"]) if "sum" in namespace.stats else zeros
    # Half a record on each side (Haldane's correction) keeps the odds of 0 and all finite.
    return np.log((positive + 0.5) / (known - positive + 0.5))


def masked_label_loss(
    outputs: Float[Array, "P K C"], slots: TargetSlots, namespaces: Sequence[Namespace]
) -> Float[Array, "P K"]:
    """Mean binary cross-entropy over the known labels of each slot; 0 where none is known."""
    logits, exists = own_columns(outputs.astype(jnp.float32), slots, namespaces)
    known = exists & (slots.value >= 0)
    loss = jax.nn.softplus(jnp.where(slots.value > 0, -logits, logits))
    total = jnp.sum(jnp.where(known, loss, 0.0), axis=-1)
    return total / jnp.maximum(jnp.sum(known, axis=-1), 1)


def label_probabilities(
    outputs: Float[Array, "P K C"], slots: TargetSlots, namespaces: Sequence[Namespace]
) -> Float[Array, "P K C"]:
    """Probability of each label; exactly 0 outside the slot's namespace."""
    own = own_mask(slots, namespaces)
    return jnp.where(own, jax.nn.sigmoid(outputs.astype(jnp.float32)), 0.0)


def own_columns(
    outputs: Float[Array, "P K C"], slots: TargetSlots, namespaces: Sequence[Namespace]
) -> tuple[Float[Array, "P K W"], Bool[Array, "P K W"]]:
    """The columns of each slot's namespace, brought to the front, and which of them exist."""
    widths = np.array([len(namespace.class_names) for namespace in namespaces], np.int32)
    place = np.arange(slots.value.shape[-1], dtype=np.int32).reshape(1, 1, -1)
    column = jnp.array(class_offsets(namespaces))[slots.namespace][..., None] + place
    exists = place < jnp.array(widths)[slots.namespace][..., None]
    index = jnp.where(exists, column, 0)
    return jnp.take_along_axis(outputs, index, axis=-1), jnp.asarray(exists)
