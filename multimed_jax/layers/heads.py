"""The classification head over namespaces, its loss and its probabilities.

A namespace is the label space of one source. Each has a head leaf of its own; the outputs of all
leaves lie side by side, and a slot reads only the columns of its namespace:

    namespaces   a: 3 classes   b: 2 classes      offset of a = 0, of b = 3
    outputs      a0 a1 a2       b0 b1             a slot of b with value 1 has its label at b1
    seen by a     1  1  1        .  .
    seen by b     .  .  .        1  1

Adding a source adds a leaf and reshapes none. Losses and softmax are float32 whatever the compute
dtype.
"""

from __future__ import annotations

from collections.abc import Sequence

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx
from jaxtyping import Array, Bool, Float, Int

from multimed_jax.specs import Namespace
from multimed_jax.types import TargetSlots, UserError

# Finite, so that a masked column adds exactly 0 to sums and gradients and never NaN.
MASKED_LOGIT = -1e30


class NamespacedClassifier(nnx.Module):
    """One linear leaf per namespace; logits concatenated in the order of the namespaces.

    With `logit_adjustment` tau, the constant tau * log prior(class) of the namespace is added to
    the leaf's logits (Menon et al. 2021, "Long-tail learning via logit adjustment", eq. 10): the
    leaf then learns scores that are free of the class frequencies, while the outputs stay the
    posterior under the frequencies of training, whose argmax is the most accurate. The balanced
    decision is the argmax of outputs - tau * log prior.
    """

    def __init__(
        self,
        d_model: int,
        namespaces: Sequence[Namespace],
        rngs: nnx.Rngs,
        logit_adjustment: float = 0.0,
    ):
        """Raises UserError for a namespace without classes, or two whose leaf names are equal."""
        leaves = {}
        for namespace in namespaces:
            name = leaf_name(namespace.name)
            if not namespace.class_names:
                raise UserError(
                    f"namespace {namespace.name!r} has no classes; accepted: at least 1"
                )
            if name in leaves:
                raise UserError(
                    f"namespace {namespace.name!r} has the parameter name {name!r} of another one; "
                    "accepted: names that differ in letters and digits"
                )
            leaves[name] = nnx.Linear(
                d_model,
                len(namespace.class_names),
                kernel_init=nnx.initializers.normal(0.02),
                rngs=rngs,
            )
        self.leaves = nnx.Dict(leaves)
        self.order = tuple(leaves)
        offset = logit_adjustment * log_prior(namespaces)
        self.offset = tuple(float(value) for value in offset) if logit_adjustment else None

    def __call__(self, states: Float[Array, "*batch D"]) -> Float[Array, "*batch C"]:
        """Logits of all namespaces."""
        states = states.astype(jnp.float32)
        logits = jnp.concatenate([self.leaves[name](states) for name in self.order], axis=-1)
        if self.offset is None:
            return logits
        return logits + jnp.array(self.offset).reshape((1,) * (logits.ndim - 1) + (-1,))


def leaf_name(namespace: str) -> str:
    """`covid/native` -> `covid_native`: parameter names hold letters, digits and `_` only."""
    return "".join(c if c.isalnum() else "_" for c in namespace)


def class_offsets(namespaces: Sequence[Namespace]) -> Int[np.ndarray, "S"]:
    """First column of each namespace."""
    sizes = [len(namespace.class_names) for namespace in namespaces]
    return np.cumsum([0, *sizes[:-1]], dtype=np.int32)


def column_namespaces(namespaces: Sequence[Namespace]) -> Int[np.ndarray, "C"]:
    """Which namespace each column belongs to."""
    sizes = [len(namespace.class_names) for namespace in namespaces]
    return np.repeat(np.arange(len(sizes), dtype=np.int32), sizes)


def log_prior(namespaces: Sequence[Namespace]) -> Float[np.ndarray, "C"]:
    """Log share of each class among its namespace's training records.

    A class without a training record counts as one record, so that its log stays finite.
    """
    priors = []
    for namespace in namespaces:
        counts = np.maximum(np.asarray(namespace.class_counts, np.float64), 1.0)
        priors.append(np.log(counts / counts.sum()))
    return np.concatenate(priors).astype(np.float32)


def namespaced_cross_entropy(
    outputs: Float[Array, "P K C"],
    slots: TargetSlots,
    namespaces: Sequence[Namespace],
    logit_adjustment: float = 0.0,
) -> Float[Array, "P K"]:
    """Cross-entropy of each slot over the classes of its own namespace; not weighted.

    Args:
        outputs: of `NamespacedClassifier`.
        slots: `value` is the class index inside the namespace; a slot with a negative value (no
            target) has loss 0.
        namespaces: those of the head, in its order.
        logit_adjustment: tau of Menon et al. 2021 for a task whose outputs shall be free of the
            class frequencies (its argmax is then the balanced decision). A head built with a
            `logit_adjustment` of its own already has it.
    """
    if logit_adjustment:
        prior = logit_adjustment * log_prior(namespaces)
        outputs = outputs.astype(jnp.float32) + prior.reshape(1, 1, -1)
    logits = _own_logits(outputs, slots, namespaces)
    label = jnp.array(class_offsets(namespaces))[slots.namespace] + slots.value
    is_label = jnp.arange(logits.shape[-1]).reshape(1, 1, -1) == label[..., None]
    at_label = jnp.sum(jnp.where(is_label, logits, 0.0), axis=-1)
    loss = jax.nn.logsumexp(logits, axis=-1) - at_label
    return jnp.where(slots.value >= 0, loss, 0.0)


def namespaced_probabilities(
    outputs: Float[Array, "P K C"], slots: TargetSlots, namespaces: Sequence[Namespace]
) -> Float[Array, "P K C"]:
    """Class probabilities of each slot; exactly 0 outside its namespace."""
    return jax.nn.softmax(_own_logits(outputs, slots, namespaces), axis=-1)


def own_mask(slots: TargetSlots, namespaces: Sequence[Namespace]) -> Bool[Array, "P K C"]:
    """Which columns belong to the namespace of each slot."""
    column = jnp.array(column_namespaces(namespaces)).reshape(1, 1, -1)
    return column == slots.namespace[..., None]


def _own_logits(
    outputs: Float[Array, "P K C"], slots: TargetSlots, namespaces: Sequence[Namespace]
) -> Float[Array, "P K C"]:
    own = own_mask(slots, namespaces)
    return jnp.where(own, outputs.astype(jnp.float32), MASKED_LOGIT)
