"""The one place where a loss meets its mask, weight, modality share and denominator.

    L = sum over (t, m) of  lambda[t, m] * sum(loss * weight * share_m) / sum(weight * share_m)

Both sums of a (task, modality) run over the whole global batch: all packs, all microbatches (eq. 5
of the MultiMed paper). A fused sample counts under each of its modalities with share 1/|M|. Hence
the figure is the same under any packing, mesh and number of microbatches.
"""

from __future__ import annotations

import jax.numpy as jnp
from jaxtyping import Array, Float

from multimed_jax.types import TargetSlots


def denominators(slots: TargetSlots) -> Float[Array, "M"]:
    """Sum of target weights under each modality."""
    return jnp.einsum("pk,pkm->m", slots.weight, slots.modality_share)


def numerators(per_slot: Float[Array, "P K"], slots: TargetSlots) -> Float[Array, "M"]:
    """Sum of weighted losses under each modality; empty slots add nothing, not even a NaN."""
    losses = jnp.where(slots.weight > 0, per_slot.astype(jnp.float32), 0.0)
    return jnp.einsum("pk,pk,pkm->m", losses, slots.weight, slots.modality_share)


def mean_loss(numerator: Float[Array, "M"], denominator: Float[Array, "M"]) -> Float[Array, "M"]:
    """Numerator over denominator, 0 where a modality carries no target."""
    return jnp.where(denominator > 0, numerator / jnp.maximum(denominator, 1e-12), 0.0)
