"""Pairs of residues: how a pair is made of two states, triangle multiplication, the distogram.

Shape letters: L residues, D width of the states, C width of a pair, N distance bins. Everything
here is one chain, without leading axes; callers map over chains. Channels come first, so that
products over residues need no transposition, and every map of channels is one product of matrices.

The bins of a distogram (distances between C-alpha atoms, in angstrom):

    bin      0        1 .. N-2                    N-1
    holds    below 2  equal steps from 2 to 22    above 22
"""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
from einops import rearrange
from flax import nnx
from jaxtyping import Array, Bool, Float

NEAREST_ANGSTROM = 2.0
FARTHEST_ANGSTROM = 22.0
# Farther apart along the chain is told only by the side: relative positions of Jumper et al. 2021
# ("Highly accurate protein structure prediction with AlphaFold", supplement, algorithm 4).
MAX_OFFSET = 32


def distance_edges(num_bins: int) -> Float[np.ndarray, "N-1"]:
    """The inner edges of the bins, in angstrom."""
    return np.linspace(NEAREST_ANGSTROM, FARTHEST_ANGSTROM, num_bins - 1, dtype=np.float32)


def distogram_loss(
    logits_NLL: Float[Array, "N L L"],
    native_L3: Float[Array, "L 3"],
    resolved_L: Bool[Array, "L"],
) -> Float[Array, ""]:
    """Mean cross-entropy of the distance bins over pairs of different, resolved residues.

    Args:
        logits_NLL: of the bins.
        native_L3: C-alpha atoms in angstrom; finite, whatever stands at unresolved residues.
        resolved_L: which of them are known.

    Returns:
        The mean in nats; 0 without a pair.
    """
    squared = jnp.sum(jnp.square(native_L3[:, None] - native_L3[None]), axis=-1)
    edges = jnp.square(jnp.asarray(distance_edges(len(logits_NLL))))
    label = jnp.sum(squared[None] > edges[:, None, None], axis=0)
    is_label = jnp.arange(len(logits_NLL))[:, None, None] == label[None]
    at_label = jnp.sum(jnp.where(is_label, logits_NLL, 0.0), axis=0)
    loss = jax.nn.logsumexp(logits_NLL, axis=0) - at_label
    pair = resolved_L[:, None] & resolved_L[None] & ~jnp.eye(len(resolved_L), dtype=bool)
    return jnp.sum(jnp.where(pair, loss, 0.0)) / jnp.maximum(jnp.sum(pair), 1)


class ChannelLinear(nnx.Module):
    """A linear map of the first axis, with a bias."""

    def __init__(self, fan_in: int, fan_out: int, rngs: nnx.Rngs, scale: float = 1.0):
        init = nnx.initializers.variance_scaling(scale, "fan_in", "truncated_normal")
        self.kernel = nnx.Param(init(rngs.params(), (fan_in, fan_out), jnp.float32))
        self.bias = nnx.Param(jnp.zeros((fan_out,), jnp.float32))

    def __call__(self, x_CLL: Float[Array, "C L L"]) -> Float[Array, "E L L"]:
        # Pairs in one axis: the gradient of the kernel takes half the time on CPU.
        flat = self.kernel[...].T @ rearrange(x_CLL, "c i j -> c (i j)")
        return (flat + self.bias[...][:, None]).reshape(-1, *x_CLL.shape[1:])


class ChannelNorm(nnx.Module):
    """Layer norm over the first axis."""

    def __init__(self, width: int):
        self.scale = nnx.Param(jnp.ones((width,)))
        self.bias = nnx.Param(jnp.zeros((width,)))

    def __call__(self, x_CLL: Float[Array, "C L L"]) -> Float[Array, "C L L"]:
        return _channel_norm(x_CLL, self.scale[...], self.bias[...])


@jax.custom_vjp
def _channel_norm(
    x_CLL: Float[Array, "C L L"], scale_C: Float[Array, "C"], bias_C: Float[Array, "C"]
) -> Float[Array, "C L L"]:
    """With a gradient of its own: the derived one takes six times as long on CPU."""
    return _normalise(x_CLL, scale_C, bias_C)[0]


def _normalise(x_CLL, scale_C, bias_C):
    centred = x_CLL - _channel_mean(x_CLL)
    inverse = jax.lax.rsqrt(_channel_mean(jnp.square(centred)) + 1e-5)
    unit = centred * inverse
    return unit * scale_C[:, None, None] + bias_C[:, None, None], (unit, inverse, scale_C)


def _channel_norm_gradient(saved, gradient):
    unit, inverse, scale_C = saved
    scaled = gradient * scale_C[:, None, None]
    through = scaled - _channel_mean(scaled) - unit * _channel_mean(scaled * unit)
    return through * inverse, _pair_sum(gradient * unit), _pair_sum(gradient)


_channel_norm.defvjp(_normalise, _channel_norm_gradient)


def _channel_mean(x_CLL: Float[Array, "C L L"]) -> Float[Array, "L L"]:
    # As a product: a reduction over the first axis is some ten times slower on CPU.
    return jnp.einsum("c,cij->ij", jnp.full((len(x_CLL),), 1.0 / len(x_CLL), x_CLL.dtype), x_CLL)


def _pair_sum(x_CLL: Float[Array, "C L L"]) -> Float[Array, "C"]:
    flat = rearrange(x_CLL, "c i j -> c (i j)")
    return flat @ jnp.ones(flat.shape[1], flat.dtype)


class PairInit(nnx.Module):
    """A pair is the sum of both states' projections, their product, and the offset in the chain."""

    def __init__(self, width: int, pair_dim: int, rngs: nnx.Rngs):
        self.project = nnx.Linear(width, 4 * pair_dim, rngs=rngs)
        offsets = nnx.initializers.normal(0.3)(
            rngs.params(), (2 * MAX_OFFSET + 1, pair_dim), jnp.float32
        )
        self.offset = nnx.Param(offsets)

    def __call__(
        self, states_LD: Float[Array, "L D"], residue_L: Float[Array, "L"]
    ) -> Float[Array, "C L L"]:
        """Pairs of residues; `residue_L` is the index of each one in its chain."""
        left, right, u, v = jnp.split(self.project(states_LD).T, 4, axis=0)
        offset = jnp.clip(residue_L[None] - residue_L[:, None], -MAX_OFFSET, MAX_OFFSET)
        index = jnp.round(offset).astype(jnp.int32) + MAX_OFFSET
        # A product with 0 and 1 rather than a look-up, whose gradient would be a slow scatter.
        one_hot = (jnp.arange(2 * MAX_OFFSET + 1)[:, None, None] == index).astype(jnp.float32)
        pair = left[:, :, None] + right[:, None, :] + u[:, :, None] * v[:, None, :]
        flat = self.offset[...].T @ rearrange(one_hot, "n i j -> n (i j)")
        return pair + flat.reshape(pair.shape)


class TriangleMultiplication(nnx.Module):
    """Pair (i, j) is told of every k by the edges (i, k) and (j, k), or (k, i) and (k, j).

    Source: Jumper et al. 2021, supplement, algorithms 11 and 12.
    """

    def __init__(self, pair_dim: int, outgoing: bool, rngs: nnx.Rngs):
        self.outgoing = outgoing
        self.norm_in = ChannelNorm(pair_dim)
        # Both edges, their gates, and the gate of the result, in one product.
        self.project = ChannelLinear(pair_dim, 5 * pair_dim, rngs)
        self.norm_out = ChannelNorm(pair_dim)
        self.out = ChannelLinear(pair_dim, pair_dim, rngs, scale=0.1)

    def __call__(
        self, pair_CLL: Float[Array, "C L L"], mask_L: Bool[Array, "L"]
    ) -> Float[Array, "C L L"]:
        """What to add to the pairs; residues outside `mask_L` tell nothing."""
        a, b, gate_a, gate_b, gate = jnp.split(self.project(self.norm_in(pair_CLL)), 5, axis=0)
        mask = mask_L[:, None] & mask_L[None]
        a = jnp.where(mask, a * jax.nn.sigmoid(gate_a), 0.0)
        b = jnp.where(mask, b * jax.nn.sigmoid(gate_b), 0.0)
        equation = "cik,cjk->cij" if self.outgoing else "cki,ckj->cij"
        # The scale keeps sums over long chains near those over short ones.
        scale = jax.lax.rsqrt(jnp.maximum(jnp.sum(mask_L), 1).astype(a.dtype))
        together = jnp.einsum(equation, a, b) * scale
        return self.out(self.norm_out(together)) * jax.nn.sigmoid(gate)


class PairBlock(nnx.Module):
    """Outgoing and incoming triangle multiplication, then an MLP, each added to the pairs."""

    def __init__(self, pair_dim: int, rngs: nnx.Rngs):
        self.outgoing = TriangleMultiplication(pair_dim, True, rngs)
        self.incoming = TriangleMultiplication(pair_dim, False, rngs)
        self.norm = ChannelNorm(pair_dim)
        self.mlp_in = ChannelLinear(pair_dim, 2 * pair_dim, rngs, scale=2.0)
        self.mlp_out = ChannelLinear(2 * pair_dim, pair_dim, rngs, scale=0.1)

    def __call__(
        self, pair_CLL: Float[Array, "C L L"], mask_L: Bool[Array, "L"]
    ) -> Float[Array, "C L L"]:
        """One block."""
        pair_CLL = pair_CLL + self.outgoing(pair_CLL, mask_L)
        pair_CLL = pair_CLL + self.incoming(pair_CLL, mask_L)
        return pair_CLL + self.mlp_out(jax.nn.relu(self.mlp_in(self.norm(pair_CLL))))


class PairStack(nnx.Module):
    """From residue states to pairs: `PairInit`, then blocks whose weights are stacked and scanned.

    The time to compile does not grow with the number of blocks.
    """

    def __init__(self, width: int, pair_dim: int, num_blocks: int, rngs: nnx.Rngs):
        self.init = PairInit(width, pair_dim, rngs)

        @nnx.split_rngs(splits=num_blocks)
        @nnx.vmap(in_axes=0, out_axes=0)
        def make(rngs: nnx.Rngs) -> PairBlock:
            return PairBlock(pair_dim, rngs)

        self.blocks = make(rngs)

    def __call__(
        self,
        states_LD: Float[Array, "L D"],
        residue_L: Float[Array, "L"],
        mask_L: Bool[Array, "L"],
    ) -> Float[Array, "C L L"]:
        """Pairs of residues; those with a residue outside `mask_L` mean nothing."""
        graph, stacked = nnx.split(self.blocks)

        def body(pair, params):
            return nnx.merge(graph, params)(pair, mask_L), None

        pair, _ = jax.lax.scan(body, self.init(states_LD, residue_L), stacked)
        return pair


class Distogram(nnx.Module):
    """Logits of the distance bins, the same for (i, j) and (j, i)."""

    def __init__(self, pair_dim: int, num_bins: int, rngs: nnx.Rngs):
        self.norm = ChannelNorm(pair_dim)
        self.out = ChannelLinear(pair_dim, num_bins, rngs)

    def __call__(self, pair_CLL: Float[Array, "C L L"]) -> Float[Array, "N L L"]:
        """Logits of every pair."""
        return self.out(self.norm(pair_CLL + pair_CLL.swapaxes(1, 2)))
