"""From residue states and pairs to backbone frames: invariant point attention and frame updates.

A frame is a rotation matrix [3, 3] and a translation [3] (angstrom): x = R @ local + t. A residue's
frame has its origin at C-alpha, its x axis towards C and N in its xy plane with y > 0, so that all
three backbone atoms follow from it by ideal geometry, and a mirror image never fits: a frame is
right-handed by construction.

          N (-0.525, 1.363, 0)
           \
           CA (0, 0, 0) --- C (1.526, 0, 0)

One chain at a time: L residues, D width of the states, C of the pairs, H attention heads, Q points.
"""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx
from jaxtyping import Array, Bool, Float

from multimed_jax.layers.pair import ChannelLinear, ChannelNorm

# Local positions of N, CA, C in angstrom, the mean over amino acids but for 0.002 (Jumper et al.
# 2021, code `residue_constants.rigid_group_atom_positions`; from Engh and Huber 1991 geometry).
IDEAL_BACKBONE = np.array([[-0.525, 1.363, 0.0], [0.0, 0.0, 0.0], [1.526, 0.0, 0.0]], np.float32)
BOND_ANGSTROM = 3.8  # between C-alpha atoms across a trans peptide bond
# Bonds of a finished trace lie this near to BOND_ANGSTROM, see `mend_trace`.
BOND_SLACK_ANGSTROM = 0.1
LENGTH_UNIT = 10.0  # angstrom in one unit of the network's translations
_EPSILON = 1e-6
_MASKED = -1e9


def frames_from_backbone(
    atoms: Float[Array, "*batch 3 3"],
) -> tuple[Float[Array, "*batch 3 3"], Float[Array, "*batch 3"]]:
    """Rotation and translation of the frames of N, CA, C (angstrom), by Gram-Schmidt.

    Atoms on a line give a finite matrix that is no rotation.
    """
    n, ca, c = atoms[..., 0, :], atoms[..., 1, :], atoms[..., 2, :]
    x = _unit(c - ca)
    to_n = n - ca
    y = _unit(to_n - jnp.sum(to_n * x, axis=-1, keepdims=True) * x)
    return jnp.stack([x, y, jnp.cross(x, y)], axis=-1), ca


def backbone_from_frames(
    rotation: Float[Array, "*batch 3 3"], translation: Float[Array, "*batch 3"]
) -> Float[Array, "*batch 3 3"]:
    """N, CA, C (angstrom) of the frames; rows are atoms."""
    local = jnp.asarray(IDEAL_BACKBONE)
    return jnp.einsum("...ij,aj->...ai", rotation, local) + translation[..., None, :]


def quaternion_rotation(vector: Float[Array, "*batch 3"]) -> Float[Array, "*batch 3 3"]:
    """Rotation of the quaternion (1, vector), normalised: 0 turns nothing, no angle reaches pi."""
    b, c, d = (vector[..., i] for i in range(3))
    norm = 1.0 + b * b + c * c + d * d
    rows = [
        [1 + b * b - c * c - d * d, 2 * (b * c - d), 2 * (b * d + c)],
        [2 * (b * c + d), 1 - b * b + c * c - d * d, 2 * (c * d - b)],
        [2 * (b * d - c), 2 * (c * d + b), 1 - b * b - c * c + d * d],
    ]
    matrix = jnp.stack([jnp.stack(row, axis=-1) for row in rows], axis=-2)
    return matrix / norm[..., None, None]


class InvariantPointAttention(nnx.Module):
    """Attention by states, pairs and distances of points that each residue sets in its frame.

    Source: Jumper et al. 2021, supplement, algorithm 22. Turning or moving all frames changes
    nothing.
    """

    def __init__(self, width: int, pair_dim: int, num_heads: int, num_points: int, rngs: nnx.Rngs):
        self.num_heads, self.num_points = num_heads, num_points
        self.head_dim = width // num_heads
        self.qkv = nnx.Linear(width, 3 * num_heads * self.head_dim, use_bias=False, rngs=rngs)
        self.points = nnx.Linear(width, 9 * num_heads * num_points, rngs=rngs)
        self.pair_bias = ChannelLinear(pair_dim, num_heads, rngs)
        # softplus(0.541) = 1: each head starts with the same reach.
        self.reach = nnx.Param(jnp.full((num_heads,), 0.541, jnp.float32))
        told = num_heads * (self.head_dim + pair_dim + 4 * num_points)
        small = nnx.initializers.variance_scaling(0.1, "fan_in", "truncated_normal")
        self.out = nnx.Linear(told, width, kernel_init=small, rngs=rngs)

    def __call__(
        self,
        states_LD: Float[Array, "L D"],
        pair_CLL: Float[Array, "C L L"],
        rotation_L33: Float[Array, "L 3 3"],
        translation_L3: Float[Array, "L 3"],
        mask_L: Bool[Array, "L"],
    ) -> Float[Array, "L D"]:
        """What to add to the states; `translation_L3` in units of `LENGTH_UNIT`."""
        length, heads = len(states_LD), self.num_heads
        q, k, v = jnp.moveaxis(self.qkv(states_LD).reshape(length, 3, heads, self.head_dim), 1, 0)
        local = self.points(states_LD).reshape(length, 3, heads * self.num_points, 3)
        placed = jnp.einsum("lij,lnpj->nlpi", rotation_L33, local) + translation_L3[None, :, None]
        q_at, k_at, v_at = placed.reshape(3, length, heads, self.num_points, 3)

        squared = (
            jnp.sum(jnp.square(q_at), axis=(-1, -2)).T[:, :, None]
            + jnp.sum(jnp.square(k_at), axis=(-1, -2)).T[:, None, :]
            - 2.0 * jnp.einsum("ihpx,jhpx->hij", q_at, k_at)
        )
        scale = jax.nn.softplus(self.reach[...])[:, None, None]
        scores = (
            jnp.einsum("ihc,jhc->hij", q, k) * self.head_dim**-0.5
            + self.pair_bias(pair_CLL)
            - 0.5 * (2.0 / (9.0 * self.num_points)) ** 0.5 * scale * squared
        )
        scores = jnp.where(mask_L[None, None], scores * 3.0**-0.5, _MASKED)
        weights = jax.nn.softmax(scores, axis=-1)

        told_states = jnp.einsum("hij,jhc->ihc", weights, v).reshape(length, -1)
        told_pairs = jnp.einsum("hij,cij->ihc", weights, pair_CLL).reshape(length, -1)
        seen = jnp.einsum("hij,jhpx->ihpx", weights, v_at) - translation_L3[:, None, None]
        seen = jnp.einsum("lji,lhpj->lhpi", rotation_L33, seen)
        far = jnp.sqrt(jnp.sum(jnp.square(seen), axis=-1) + _EPSILON)
        told = [told_states, told_pairs, seen.reshape(length, -1), far.reshape(length, -1)]
        return self.out(jnp.concatenate(told, axis=-1))


class StructureModule(nnx.Module):
    """Frames by `num_steps` rounds of attention and update that share their weights.

    The frames start apart, each where a linear map of its residue's state puts it: from frames that
    all lie at one point distances would have no gradient.
    """

    def __init__(
        self,
        width: int,
        pair_dim: int,
        num_steps: int,
        num_heads: int,
        num_points: int,
        rngs: nnx.Rngs,
        keep_start: bool = False,
    ):
        """`keep_start`: the first update of an untrained module moves nothing."""
        self.num_steps = num_steps
        small = nnx.initializers.variance_scaling(0.1, "fan_in", "truncated_normal")
        self.norm_pair = ChannelNorm(pair_dim)
        self.start = nnx.Linear(width, 3, rngs=rngs)
        self.attend = InvariantPointAttention(width, pair_dim, num_heads, num_points, rngs)
        self.norm_attend = nnx.LayerNorm(width, rngs=rngs)
        self.mlp_in = nnx.Linear(width, 2 * width, rngs=rngs)
        self.mlp_out = nnx.Linear(2 * width, width, kernel_init=small, rngs=rngs)
        self.norm_mlp = nnx.LayerNorm(width, rngs=rngs)
        still = nnx.initializers.zeros_init()
        self.update = nnx.Linear(width, 6, kernel_init=still if keep_start else small, rngs=rngs)

    def __call__(
        self,
        states_LD: Float[Array, "L D"],
        pair_CLL: Float[Array, "C L L"],
        mask_L: Bool[Array, "L"],
        start: tuple[Float[Array, "L 3 3"], Float[Array, "L 3"]] | None = None,
    ) -> tuple[Float[Array, "I L 3 3"], Float[Array, "I L 3"]]:
        """Rotations and translations (angstrom) after each of the I rounds.

        With the frames of `start` (angstrom) the rounds begin there, and it comes first.
        """
        pair_CLL = self.norm_pair(pair_CLL)
        if start is None:
            rotation = jnp.broadcast_to(jnp.eye(3), (len(states_LD), 3, 3))
            begin = states_LD, rotation, self.start(states_LD)
        else:
            # What the rounds make of the chain is no reason to bend it.
            begin = states_LD, *jax.lax.stop_gradient((start[0], start[1] / LENGTH_UNIT))

        def body(carry, _):
            states, rotation, translation = carry
            told = self.attend(states, pair_CLL, rotation, translation, mask_L)
            states = self.norm_attend(states + told)
            states = states + self.mlp_out(jax.nn.relu(self.mlp_in(states)))
            states = self.norm_mlp(states)
            turn, move = jnp.split(self.update(states), 2, axis=-1)
            translation = translation + jnp.einsum("lij,lj->li", rotation, move)
            rotation = jnp.einsum("lij,ljk->lik", rotation, quaternion_rotation(turn))
            # A rotation is not blamed for the rounds after it: long products of turns diverge.
            carry = states, jax.lax.stop_gradient(rotation), translation
            return carry, (rotation, translation * LENGTH_UNIT)

        _, (rotations, translations) = jax.lax.scan(body, begin, length=self.num_steps)
        if start is None:
            return rotations, translations
        return (
            jnp.concatenate([start[0][None], rotations]),
            jnp.concatenate([start[1][None], translations]),
        )


def mend_trace(
    trace_L3: Float[Array, "L 3"], mask_L: Bool[Array, "L"], num_sweeps: int = 50
) -> Float[Array, "L 3"]:
    """The nearest C-alpha trace that this finds whose bonds are 3.7 to 3.9 angstrom.

    Sweeps move the two ends of every bond, odd and even bonds in turn, until both lengths agree
    (Jakobsen 2001, "Advanced character physics": constraints by relaxation). What is left is
    mended exactly by walking along the chain with each bond's length clipped. Differentiable.

    Args:
        trace_L3: in angstrom; residues follow each other.
        mask_L: which of them exist; padding lies behind them and is returned as it is.
        num_sweeps: of the relaxation.
    """
    bond = mask_L[1:] & mask_L[:-1]
    parity = jnp.arange(len(trace_L3) - 1) % 2

    def relax(trace: Array, turn: Array) -> tuple[Array, None]:
        along, length = _bonds(trace)
        excess = jnp.where(bond & (parity == turn % 2), length - BOND_ANGSTROM, 0.0)
        move = 0.5 * excess[:, None] * along
        zero = jnp.zeros((1, 3), trace.dtype)
        return trace + jnp.concatenate([move, zero]) - jnp.concatenate([zero, move]), None

    trace, _ = jax.lax.scan(relax, trace_L3, jnp.arange(2 * num_sweeps))
    along, length = _bonds(trace)
    low, high = BOND_ANGSTROM - BOND_SLACK_ANGSTROM, BOND_ANGSTROM + BOND_SLACK_ANGSTROM
    walk = jnp.cumsum(along * jnp.clip(length, low, high)[:, None], axis=0)
    walked = jnp.concatenate([trace[:1], trace[:1] + walk])
    # Walking shifts what lies behind a mended bond: the middle of the chain stays where it was.
    weight = mask_L[:, None] / jnp.maximum(jnp.sum(mask_L), 1)
    walked = walked + jnp.sum((jnp.where(mask_L[:, None], trace - walked, 0.0)) * weight, axis=0)
    return jnp.where(mask_L[:, None], walked, trace_L3)


def _bonds(trace: Float[Array, "L 3"]) -> tuple[Float[Array, "L-1 3"], Float[Array, "L-1"]]:
    """Direction and length of each step of a trace; x where two residues lie at one point."""
    step = trace[1:] - trace[:-1]
    squared = jnp.sum(jnp.square(step), axis=-1)
    apart = squared > 1e-12
    length = jnp.sqrt(jnp.where(apart, squared, 1.0))
    along = jnp.where(apart[:, None], step / length[:, None], jnp.array([1.0, 0.0, 0.0]))
    return along, jnp.where(apart, length, 0.0)


def _unit(vector: Float[Array, "*batch 3"]) -> Float[Array, "*batch 3"]:
    return vector * jax.lax.rsqrt(jnp.sum(jnp.square(vector), axis=-1, keepdims=True) + 1e-12)
