"""The space that samples share with texts, and the losses that pull equals together.

Every similarity is a cosine over a learnt temperature. InfoNCE with several positives (Khosla et
al. 2020, "Supervised contrastive learning", eq. 2, L_out) runs both ways:

    sample -> text    softmax over the classes of the sample's own namespace
    text -> sample    softmax over all samples of that namespace in the global batch
    half -> half      both ways over all halves in the global batch; equal texts are positives

SigLIP (Zhai et al. 2023, "Sigmoid loss for language image pre-training", alg. 1) asks of every
pair alone whether it belongs together. Under jit the arrays are global: so are the losses.
"""

from __future__ import annotations

import math

import jax
import jax.numpy as jnp
from flax import nnx
from jaxtyping import Array, Bool, Float, Int

from multimed_jax.config import AlignmentConfig

# Finite, so that an empty row gives a finite logarithm, which its mask then removes.
MASKED = -1e9
# The temperature is held above this: Radford et al. 2021 (CLIP), section 2.5.
MIN_TEMPERATURE = 0.01
# Start of the bias of SigLIP (Zhai et al. 2023, section 3.2): most pairs do not belong together.
SIGLIP_BIAS = -10.0


class AlignmentHead(nnx.Module):
    """Projections of samples and of texts into the shared space, and its temperature."""

    def __init__(self, config: AlignmentConfig, d_model: int, rngs: nnx.Rngs):
        self.config = config
        self.sample = nnx.Linear(d_model, config.dim, use_bias=False, rngs=rngs)
        self.text = nnx.Linear(d_model, config.dim, use_bias=False, rngs=rngs)
        # With a type of their own: of a Python number they would change it, and compile, once more.
        bias = SIGLIP_BIAS if config.loss == "siglip" else 0.0
        self.log_temperature = nnx.Param(jnp.asarray(math.log(config.temperature), jnp.float32))
        self.bias = nnx.Param(jnp.asarray(bias, jnp.float32))

    def embed_samples(self, states: Float[Array, "*batch D"]) -> Float[Array, "*batch E"]:
        """Unit vectors of pooled states."""
        return _unit(self.sample(states.astype(jnp.float32)))

    def embed_texts(self, states: Float[Array, "*batch D"]) -> Float[Array, "*batch E"]:
        """Unit vectors of pooled states of texts."""
        return _unit(self.text(states.astype(jnp.float32)))

    def logits(self, a: Float[Array, "n E"], b: Float[Array, "m E"]) -> Float[Array, "n m"]:
        """Similarity of every pair."""
        temperature = jnp.maximum(jnp.exp(self.log_temperature[...]), MIN_TEMPERATURE)
        return a @ b.T / temperature + self.bias[...]

    def loss(
        self, logits: Float[Array, "n m"], positive: Bool[Array, "n m"], valid: Bool[Array, "n m"]
    ) -> Float[Array, ""]:
        """Mean over the rows that have a positive; 0 where none has.

        Args:
            logits: of `logits`.
            positive: pairs that belong together.
            valid: pairs that may be compared; the others count as absent.
        """
        if self.config.loss == "siglip":
            sign = jnp.where(positive, 1.0, -1.0)
            each = jnp.where(valid, -jax.nn.log_sigmoid(sign * logits), 0.0)
            rows = (positive & valid).any(1)
            return jnp.sum(each.sum(1) * rows) / jnp.maximum(rows.sum(), 1)
        return 0.5 * (
            multi_positive_info_nce(logits, positive, valid)
            + multi_positive_info_nce(logits.T, positive.T, valid.T)
        )


def multi_positive_info_nce(
    logits: Float[Array, "n m"], positive: Bool[Array, "n m"], valid: Bool[Array, "n m"]
) -> Float[Array, ""]:
    """-mean over rows of the mean over positives of log softmax; rows without one are left out."""
    positive = positive & valid
    log_p = jax.nn.log_softmax(jnp.where(valid, logits, MASKED), axis=1)
    number = positive.sum(1)
    each = -jnp.where(positive, log_p, 0.0).sum(1) / jnp.maximum(number, 1)
    rows = number > 0
    return jnp.sum(jnp.where(rows, each, 0.0)) / jnp.maximum(rows.sum(), 1)


def text_keys(
    ids: Int[Array, "P N"], segment: Int[Array, "P N"], num_segments: int
) -> Int[Array, "P S"]:
    """A 32-bit hash of the words of every segment, for telling equal texts."""
    member = (segment[:, None, :] == 1 + jnp.arange(num_segments)[None, :, None]).astype(jnp.uint32)
    place = jnp.cumsum(member, axis=-1) * member
    mixed = (ids[:, None, :].astype(jnp.uint32) + 1) * jnp.uint32(2654435761)
    mixed = (mixed ^ (mixed >> 15)) * (2 * place + 1) * jnp.uint32(2246822519)
    return jnp.sum((mixed ^ (mixed >> 13)) * member, axis=-1, dtype=jnp.uint32)


def _unit(x: Float[Array, "*batch E"]) -> Float[Array, "*batch E"]:
    return x * jax.lax.rsqrt(jnp.sum(x**2, axis=-1, keepdims=True) + 1e-12)
