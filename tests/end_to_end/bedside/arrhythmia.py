"""Rhythm of a pulse, regular or not: a task that the package does not have.

One logit for "irregular" in each source, logistic loss; the figures are accuracy and Brier score.
"""

from __future__ import annotations

from collections.abc import Sequence

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx

from multimed_jax.specs import Namespace, TaskSpec
from multimed_jax.types import TargetSlots

NAME = "arrhythmia"


def make_head(d_model: int, namespaces: Sequence[Namespace], rngs: nnx.Rngs) -> nnx.Linear:
    return nnx.Linear(d_model, len(namespaces), rngs=rngs)


def _own(outputs: jax.Array, slots: TargetSlots) -> jax.Array:
    """The logit of each slot's namespace."""
    return jnp.take_along_axis(outputs, slots.namespace[..., None], axis=-1)[..., 0]


def loss_fn(outputs: jax.Array, slots: TargetSlots, namespaces: Sequence[Namespace]) -> jax.Array:
    logit = _own(outputs, slots)
    loss = jax.nn.softplus(jnp.where(slots.value == 1, -logit, logit))
    return jnp.where(slots.value >= 0, loss, 0.0)


def predict(outputs: jax.Array, slots: TargetSlots, namespaces: Sequence[Namespace]) -> jax.Array:
    irregular = jax.nn.sigmoid(_own(outputs, slots))
    pair = jnp.stack([1 - irregular, irregular], axis=-1)
    own = slots.namespace[..., None] == jnp.arange(len(namespaces)).reshape(1, 1, -1)
    return jnp.where(own[..., None], pair[:, :, None], 0.0).reshape(*pair.shape[:2], -1)


def metrics(probabilities: np.ndarray, targets: np.ndarray) -> dict[str, float]:
    right = probabilities.argmax(-1) == targets
    return {
        "accuracy": float(right.mean()),
        "brier": float(np.mean((probabilities[:, 1] - targets) ** 2)),
    }


SPEC = TaskSpec(
    name=NAME,
    spec="bedside.arrhythmia:SPEC",
    target_shape=(),
    target_dtype="int32",
    make_head=make_head,
    loss_fn=loss_fn,
    predict=predict,
    metrics=metrics,
    primary_metric="accuracy",
    lower_is_better=frozenset({"brier"}),
)
