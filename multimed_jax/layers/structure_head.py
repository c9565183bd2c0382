"""The head that folds a chain: residue states -> pairs -> distogram and backbone frames.

Chains of a pack are folded one after the other, so that memory holds the pairs of one chain at a
time ([C, L, L], and the distogram [N, L, L] of every slot for the loss); slots without a chain cost
nothing.

P packs, K slots, L residues, D model width, I rounds of the structure module, N distance bins.
"""

from __future__ import annotations

import dataclasses
import functools
from typing import Literal

import jax
import jax.numpy as jnp
from flax import nnx
from jaxtyping import Array, Bool, Float

from multimed_jax.layers.chain_start import TorsionHead, chain_frames
from multimed_jax.layers.pair import Distogram, PairStack, distogram_loss
from multimed_jax.layers.structure_loss import (
    bond_loss,
    clash_loss,
    frame_aligned_error,
    local_error,
    split_native,
    superposed_error,
    torsion_loss,
)
from multimed_jax.layers.structure_module import (
    StructureModule,
    backbone_from_frames,
    frames_from_backbone,
    mend_trace,
)
from multimed_jax.types import SegmentParts, UserError


@dataclasses.dataclass(frozen=True)
class FoldOptions:
    """Sizes of the head and weights of its losses.

    Attributes:
        width: of the residue states inside the head.
        pair_dim: width of a pair of residues.
        pair_blocks: triangle blocks, 2 to 4 as a rule.
        steps: rounds of the structure module; they share weights.
        start: "chain" starts the rounds at the chain of predicted torsions, right for chains whose
            fold is a matter of few torsions; "free" where a linear map of each state puts it, right
            for long chains, whose torsions would have to be exact.
        num_heads: of invariant point attention.
        num_points: points of a head and residue.
        num_bins: of the distogram.
        clamp_angstrom: of the frame-aligned error; its unit, too.
        leak: share of the error that is not clamped.
        fape_weight: of the last round's frame-aligned error over N, CA and C.
        steps_weight: of the mean over all rounds of the error over CA.
        superposed_weight: of the mean over all rounds of the error over CA after superposition, of
            use where "free" starts have to fold long chains.
        local_weight: of the error over the next `LOCAL_REACH` residues, at the start and at the
            end, never clamped.
        torsion_weight: of the errors of phi and psi of a chain's start.
        distogram_weight: of the cross-entropy.
        bond_weight: of bond errors.
        clash_weight: of overlaps.
    """

    width: int = 64
    pair_dim: int = 32
    pair_blocks: int = 2
    steps: int = 4
    start: Literal["chain", "free"] = "free"
    num_heads: int = 4
    num_points: int = 4
    num_bins: int = 64
    clamp_angstrom: float = 10.0
    leak: float = 0.1
    fape_weight: float = 1.0
    steps_weight: float = 0.5
    superposed_weight: float = 0.0
    local_weight: float = 0.3
    torsion_weight: float = 1.0
    distogram_weight: float = 0.3
    bond_weight: float = 0.1
    clash_weight: float = 0.02

    def __post_init__(self):
        """Raises UserError for sizes that make no head, or weights below 0."""
        sizes = (self.pair_dim, self.pair_blocks, self.steps, self.num_heads, self.num_points)
        if min(sizes) < 1 or self.width < 1 or self.width % self.num_heads or self.num_bins < 3:
            raise UserError(
                f"a structure head has width {self.width}, heads {self.num_heads}, bins "
                f"{self.num_bins} and sizes {sizes}; accepted: sizes of at least 1, a width that "
                "the heads divide, at least 3 bins"
            )
        weights = (
            self.fape_weight,
            self.steps_weight,
            self.superposed_weight,
            self.local_weight,
            self.torsion_weight,
            self.distogram_weight,
            self.bond_weight,
            self.clash_weight,
            self.leak,
        )
        if self.start not in ("chain", "free"):
            raise UserError(f"a structure head has start {self.start!r}; accepted: 'chain', 'free'")
        if min(weights) < 0 or self.clamp_angstrom <= 0:
            raise UserError(
                f"a structure head has loss weights {weights} and clamp {self.clamp_angstrom}; "
                "accepted: weights of at least 0, a clamp above 0"
            )


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class Fold:
    """What the head makes of the chains; 0 where a slot has none."""

    distogram: Float[Array, "P K N L L"]
    rotation: Float[Array, "P K I L 3 3"]
    translation: Float[Array, "P K I L 3"]  # angstrom
    residue: Float[Array, "P K L"]  # index in the chain
    mask: Bool[Array, "P K L"]


class FoldHead(nnx.Module):
    """Pairs, distogram and frames of the chains whose residues the trunk has seen."""

    def __init__(self, d_model: int, options: FoldOptions, rngs: nnx.Rngs):
        self.norm_in = nnx.LayerNorm(d_model, rngs=rngs)
        self.project = nnx.Linear(d_model, options.width, rngs=rngs)
        self.norm = nnx.LayerNorm(options.width, rngs=rngs)
        self.pairs = PairStack(options.width, options.pair_dim, options.pair_blocks, rngs)
        self.distogram = Distogram(options.pair_dim, options.num_bins, rngs)
        self.structure = StructureModule(
            options.width,
            options.pair_dim,
            options.steps,
            options.num_heads,
            options.num_points,
            rngs,
            keep_start=options.start == "chain",
        )
        self.torsions = TorsionHead(options.width, rngs) if options.start == "chain" else None

    def __call__(self, states_PKD: Float[Array, "P K D"], read: SegmentParts) -> Fold:
        """Folds every slot's chain; the merged states add nothing to what residues know."""
        del states_PKD
        residue, mask = read.coords[..., 0].astype(jnp.float32), read.mask

        def slot(of_slot):
            states, residue, mask = of_slot

            def fold(states, residue, mask):
                return jax.vmap(self._fold)(states, residue, mask)

            shapes = jax.eval_shape(fold, states, residue, mask)

            def skip(*_):
                return jax.tree.map(lambda s: jnp.zeros(s.shape, s.dtype), shapes)

            return jax.lax.cond(jnp.any(mask), jax.checkpoint(fold), skip, states, residue, mask)

        by_slot = jax.tree.map(
            lambda a: jnp.moveaxis(a, 1, 0), (read.states.astype(jnp.float32), residue, mask)
        )
        folded = jax.tree.map(lambda a: jnp.moveaxis(a, 0, 1), jax.lax.map(slot, by_slot))
        distogram, rotation, translation = folded
        return Fold(distogram, rotation, translation, residue, mask)

    def _fold(self, states_LD, residue_L, mask_L):
        states_LD = self.norm(self.project(self.norm_in(states_LD)))
        pair_CLL = self.pairs(states_LD, residue_L, mask_L)
        start = None if self.torsions is None else chain_frames(self.torsions(states_LD))
        rotations, translations = self.structure(states_LD, pair_CLL, mask_L, start)
        return self.distogram(pair_CLL), rotations, translations


def fold_loss(
    fold: Fold, native_PKL33: Float[Array, "P K L 3 3"], options: FoldOptions
) -> Float[Array, "P K"]:
    """The weighted sum of all losses of each slot; 0 where it has no resolved residue.

    Args:
        fold: of the head.
        native_PKL33: N, CA, C in angstrom, NaN where unresolved; padding behind the chain.
        options: of the head.
    """

    def of_slot(values):
        return jax.vmap(lambda fold, native: _chain_losses(fold, native, options))(*values)

    def guarded(values):
        known = jnp.any(jnp.isfinite(values[1])) & jnp.any(values[0].mask)
        zero = jnp.zeros(values[1].shape[0], jnp.float32)
        return jax.lax.cond(known, jax.checkpoint(of_slot), lambda _: zero, values)

    by_slot = jax.tree.map(lambda a: jnp.moveaxis(a, 1, 0), (fold, native_PKL33))
    return jax.lax.map(guarded, by_slot).T


def fold_losses(
    fold: Fold, native_L33: Float[Array, "L 3 3"], options: FoldOptions
) -> dict[str, Float[Array, ""]]:
    """Every loss of one chain, not weighted; `fold` without its leading axes."""
    native, resolved = split_native(native_L33)
    resolved &= fold.mask
    native_frames = frames_from_backbone(native)
    ends = fold.rotation[-1], fold.translation[-1]
    # The chain of the torsions is judged nearby alone: far away every error of an angle counts
    # again, and the gradient of such products drowns all others.
    first = 1 if options.start == "chain" else 0
    rounds = fold.rotation[first:], fold.translation[first:]

    def error(rotation, translation, atoms, native_atoms):
        return frame_aligned_error(
            rotation,
            translation,
            atoms,
            *native_frames,
            native_atoms,
            resolved,
            options.clamp_angstrom,
            options.leak,
        )

    def near(rotation, translation):
        return local_error(rotation, translation, *native_frames, fold.residue, resolved)

    def of_round(frames):
        rotation, translation = frames
        return error(rotation, translation, translation[:, None], native[:, 1:2])

    superposed = jnp.zeros(())
    if options.superposed_weight > 0:
        of_trace = functools.partial(
            superposed_error, clamp=options.clamp_angstrom, leak=options.leak
        )
        superposed = jnp.mean(
            jax.lax.map(lambda trace: of_trace(trace, native[:, 1], resolved), rounds[1])
        )
    torsion = jnp.zeros(())
    if options.start == "chain":
        chain = backbone_from_frames(fold.rotation[0], fold.translation[0])
        torsion = torsion_loss(chain, native, fold.residue, resolved)
    return {
        "torsion": torsion,
        "fape": error(ends[0], ends[1], backbone_from_frames(*ends), native),
        "steps": jnp.mean(jax.lax.map(of_round, rounds)),
        "superposed": superposed,
        "local": near(fold.rotation[0], fold.translation[0]) + near(*ends),
        "distogram": distogram_loss(fold.distogram, native[:, 1], resolved),
        "bond": bond_loss(ends[1], fold.residue, fold.mask, native[:, 1], resolved),
        "clash": clash_loss(ends[1], fold.mask),
    }


def _chain_losses(fold: Fold, native_L33, options: FoldOptions) -> Float[Array, ""]:
    losses = fold_losses(fold, native_L33, options)
    weights = {
        "fape": options.fape_weight,
        "steps": options.steps_weight,
        "superposed": options.superposed_weight,
        "local": options.local_weight,
        "torsion": options.torsion_weight,
        "distogram": options.distogram_weight,
        "bond": options.bond_weight,
        "clash": options.clash_weight,
    }
    total = sum(weights[name] * loss for name, loss in losses.items())
    has_target = jnp.any(jnp.all(jnp.isfinite(native_L33), axis=(-1, -2)) & fold.mask)
    return jnp.where(has_target, total, 0.0)


def fold_backbone(fold: Fold) -> Float[Array, "P K L 3 3"]:
    """N, CA, C (angstrom) of the last round, its C-alpha trace mended to bonds of 3.7 to 3.9.

    Padding is 0. The frames keep their orientation.
    """
    rotation, translation = fold.rotation[:, :, -1], fold.translation[:, :, -1]
    trace = jax.vmap(jax.vmap(mend_trace))(translation, fold.mask)
    atoms = backbone_from_frames(rotation, trace)
    return jnp.where(fold.mask[..., None, None], atoms, 0.0)
