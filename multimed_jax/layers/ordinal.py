"""The head of grades, classes in order: one direction and ordered thresholds per namespace (CORAL).

A leaf has one weight vector w and C - 1 thresholds; the logit of "at least grade k" is w.x + b_k
with b_1 > b_2 > ..., so that no two curves cross and no grade has a negative probability. Columns
as in `heads`; the first one of a namespace ("at least grade 0") is certain and holds 0:

    namespaces   a: 4 grades      b: 2 classes
    outputs       .  a1 a2 a3      .  b1          b is logistic regression

Source: W. Cao, V. Mirjalili, S. Raschka, "Rank consistent ordinal regression for neural networks"
(2020), section 3.3. Their biases are free and ordered at the optimum (their theorem 1); here they
are ordered from the start.
"""

from __future__ import annotations

from collections.abc import Sequence

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx
from jaxtyping import Array, Float, Int

from multimed_jax.layers.heads import class_offsets, column_namespaces, leaf_name, own_mask
from multimed_jax.specs import Namespace
from multimed_jax.types import TargetSlots, UserError

# Sharp grades need gaps of several logits. Adam moves a parameter by the learning rate at most,
# and a threshold, unlike the product w.x, is a single one: it moves in larger units.
THRESHOLD_UNIT = 10.0


class NamespacedOrdinal(nnx.Module):
    """One CORAL leaf per namespace; logits of "at least" side by side in the namespaces' order."""

    def __init__(self, d_model: int, namespaces: Sequence[Namespace], rngs: nnx.Rngs):
        """Raises UserError for a namespace under two grades, or two whose leaf names are equal."""
        leaves = {}
        for namespace in namespaces:
            name = leaf_name(namespace.name)
            if len(namespace.class_names) < 2:
                raise UserError(
                    f"namespace {namespace.name!r} has {len(namespace.class_names)} grades; "
                    "accepted: at least 2"
                )
            if name in leaves:
                raise UserError(
                    f"namespace {namespace.name!r} has the parameter name {name!r} of another one; "
                    "accepted: names that differ in letters and digits"
                )
            leaves[name] = _Leaf(d_model, namespace, rngs)
        self.leaves = nnx.Dict(leaves)
        self.order = tuple(leaves)

    def __call__(self, states: Float[Array, "*batch D"]) -> Float[Array, "*batch C"]:
        """Logits of "at least grade k" of all namespaces; 0 in each first column."""
        states = states.astype(jnp.float32)
        return jnp.concatenate([self.leaves[name](states) for name in self.order], axis=-1)


class _Leaf(nnx.Module):
    """w and the thresholds of one namespace.

    `thresholds` holds b_1 and then the gaps to the next ones before a softplus makes them positive,
    in units of `THRESHOLD_UNIT`. They start where w = 0 predicts the training shares (equal ones
    where these are not known); a grade never seen counts as one record.
    """

    def __init__(self, d_model: int, namespace: Namespace, rngs: nnx.Rngs):
        self.direction = nnx.Linear(
            d_model,
            1,
            use_bias=False,
            kernel_init=nnx.initializers.normal(0.02),
            rngs=rngs,
        )
        known = namespace.class_counts or (1,) * len(namespace.class_names)
        counts = np.maximum(np.asarray(known, np.float64), 1.0)
        at_least = np.cumsum(counts[::-1])[::-1][1:] / counts.sum()
        bias = np.log(at_least / (1.0 - at_least))
        gaps = -np.diff(bias)
        raw = np.concatenate([bias[:1], np.log(np.expm1(gaps))])
        self.thresholds = nnx.Param(jnp.asarray(raw / THRESHOLD_UNIT, jnp.float32))

    def __call__(self, states: Float[Array, "*batch D"]) -> Float[Array, "*batch C"]:
        raw = self.thresholds[...] * THRESHOLD_UNIT
        steps = jnp.concatenate([raw[:1], -jax.nn.softplus(raw[1:])])
        bias = jnp.cumsum(steps).reshape((1,) * (states.ndim - 1) + (-1,))
        logits = self.direction(states) + bias
        return jnp.concatenate([jnp.zeros_like(logits[..., :1]), logits], axis=-1)


def namespaced_ordinal_loss(
    outputs: Float[Array, "P K C"], slots: TargetSlots, namespaces: Sequence[Namespace]
) -> Float[Array, "P K"]:
    """Sum of the binary cross-entropies of "at least grade k" (their eq. 4, all weights 1).

    Not weighted; a slot with a negative value (no target) has loss 0. With two classes it is the
    cross-entropy of the class.
    """
    is_asked = own_mask(slots, namespaces) & (_grades(namespaces) > 0).reshape(1, 1, -1)
    has = slots.value[..., None] >= _grades(namespaces).reshape(1, 1, -1)
    logits = outputs.astype(jnp.float32)
    loss = jax.nn.softplus(jnp.where(has, -logits, logits))
    total = jnp.sum(jnp.where(is_asked, loss, 0.0), axis=-1)
    return jnp.where(slots.value >= 0, total, 0.0)


def namespaced_grade_probabilities(
    outputs: Float[Array, "P K C"], slots: TargetSlots, namespaces: Sequence[Namespace]
) -> Float[Array, "P K C"]:
    """Probability of each grade, P(at least k) - P(at least k + 1); 0 outside the namespace."""
    grades = _grades(namespaces)
    at_least = jnp.where(
        (grades == 0).reshape(1, 1, -1), 1.0, jax.nn.sigmoid(outputs.astype(jnp.float32))
    )
    # What follows a namespace's last grade is the first column of the next one: nothing beyond it.
    is_last = np.append(grades[1:] == 0, True).reshape(1, 1, -1)
    beyond = jnp.where(is_last, 0.0, jnp.roll(at_least, -1, axis=-1))
    return jnp.where(own_mask(slots, namespaces), at_least - beyond, 0.0)


def _grades(namespaces: Sequence[Namespace]) -> Int[np.ndarray, "C"]:
    """Grade of each column inside its namespace."""
    owner = column_namespaces(namespaces)
    return np.arange(len(owner), dtype=np.int32) - class_offsets(namespaces)[owner]
