"""Losses of predicted backbone frames against native coordinates, one chain at a time.

Native coordinates hold NaN at unresolved residues; they are masked, and replaced before any
arithmetic, so that neither a loss nor a gradient is ever NaN. Lengths in angstrom.
"""

from __future__ import annotations

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float

from multimed_jax.layers.chain_start import backbone_torsions
from multimed_jax.layers.structure_module import BOND_ANGSTROM

# Nearest that C-alpha atoms of residues that are no neighbours come in well-made structures.
CLASH_ANGSTROM = 3.6
BROKEN_ANGSTROM = 4.3  # consecutive residues farther apart in the native are not bonded
LOCAL_REACH = 4  # residues: a turn of a helix
_EPSILON = 1e-4


def split_native(
    native_L33: Float[Array, "L 3 3"],
) -> tuple[Float[Array, "L 3 3"], Bool[Array, "L"]]:
    """Coordinates with 0 for NaN, and which residues have all three atoms."""
    resolved = jnp.all(jnp.isfinite(native_L33), axis=(-1, -2))
    return jnp.where(resolved[:, None, None], native_L33, 0.0), resolved


def frame_aligned_error(
    rotation_L33: Float[Array, "L 3 3"],
    translation_L3: Float[Array, "L 3"],
    points_LA3: Float[Array, "L A 3"],
    native_rotation_L33: Float[Array, "L 3 3"],
    native_translation_L3: Float[Array, "L 3"],
    native_points_LA3: Float[Array, "L A 3"],
    resolved_L: Bool[Array, "L"],
    clamp: float,
    leak: float = 0.0,
) -> Float[Array, ""]:
    """FAPE: mean distance of points seen from every residue's frame, in units of `clamp`.

    min(d, clamp) / clamp + leak * d / clamp. Frames are right-handed, so a mirror image is an
    error. The leak gives a gradient to what is farther away than the clamp: without it a fold that
    is wrong everywhere never starts to move.

    Source: Jumper et al. 2021, supplement, algorithm 28.

    Args:
        rotation_L33: predicted frames.
        translation_L3: predicted frames.
        points_LA3: predicted atoms.
        native_rotation_L33: native frames.
        native_translation_L3: native frames.
        native_points_LA3: native atoms.
        resolved_L: residues that count, as frames and as points.
        clamp: in angstrom.
        leak: share of the distance that is not clamped.
    """

    def seen(rotation: Array, translation: Array, points: Array) -> Array:
        # R^T (x - t) of every frame and point, without the [L, L, A, 3] differences.
        turned = jnp.einsum("lji,maj->lmai", rotation, points)
        return turned - jnp.einsum("lji,lj->li", rotation, translation)[:, None, None]

    ours = seen(rotation_L33, translation_L3, points_LA3)
    theirs = seen(native_rotation_L33, native_translation_L3, native_points_LA3)
    distance = jnp.sqrt(jnp.sum(jnp.square(ours - theirs), axis=-1) + _EPSILON)
    error = (jnp.minimum(distance, clamp) + leak * distance) / clamp
    pair = (resolved_L[:, None] & resolved_L[None])[..., None]
    count = jnp.sum(pair) * points_LA3.shape[1]
    return jnp.sum(jnp.where(pair, error, 0.0)) / jnp.maximum(count, 1)


def superposed_error(
    trace_L3: Float[Array, "L 3"],
    native_trace_L3: Float[Array, "L 3"],
    resolved_L: Bool[Array, "L"],
    clamp: float,
    leak: float = 0.0,
) -> Float[Array, ""]:
    """Mean distance of the C-alpha atoms after the best superposition, in units of `clamp`.

    min(d, clamp) / clamp + leak * d / clamp. It asks where residues lie and not how they are
    turned, so a fold can form before its frames are right. Rotations are proper, so a mirror image
    is an error. The rotation counts as given: at the best one its own gradient vanishes.

    Source: Kabsch 1976, "A solution for the best rotation to relate two sets of vectors".
    """
    weight = resolved_L / jnp.maximum(jnp.sum(resolved_L), 1).astype(trace_L3.dtype)
    ours = trace_L3 - weight @ trace_L3
    theirs = native_trace_L3 - weight @ native_trace_L3
    u, _, vt = jnp.linalg.svd(
        jax.lax.stop_gradient(jnp.einsum("l,li,lj->ij", weight, theirs, ours))
    )
    proper = jnp.array([1.0, 1.0, 0.0]) + jnp.array([0.0, 0.0, 1.0]) * jnp.linalg.det(u @ vt)
    turned = ours @ ((u * proper[None]) @ vt).T
    distance = jnp.sqrt(jnp.sum(jnp.square(turned - theirs), axis=-1) + _EPSILON)
    error = (jnp.minimum(distance, clamp) + leak * distance) / clamp
    return jnp.sum(jnp.where(resolved_L, error, 0.0) * weight)


def local_error(
    rotation_L33: Float[Array, "L 3 3"],
    translation_L3: Float[Array, "L 3"],
    native_rotation_L33: Float[Array, "L 3 3"],
    native_translation_L3: Float[Array, "L 3"],
    residue_L: Float[Array, "L"],
    resolved_L: Bool[Array, "L"],
) -> Float[Array, ""]:
    """Mean error of the next `LOCAL_REACH` C-alpha atoms seen from each frame, in bonds.

    It is the frame-aligned error near the diagonal. Helices, strands and turns show there, and it
    has a gradient from the start, whatever the fold as a whole looks like.
    """
    total, count = jnp.zeros(()), jnp.zeros(())
    for reach in range(1, LOCAL_REACH + 1):
        ours = _seen(rotation_L33[:-reach], translation_L3[:-reach], translation_L3[reach:])
        theirs = _seen(
            native_rotation_L33[:-reach],
            native_translation_L3[:-reach],
            native_translation_L3[reach:],
        )
        distance = jnp.sqrt(jnp.sum(jnp.square(ours - theirs), axis=-1) + _EPSILON)
        pair = resolved_L[:-reach] & resolved_L[reach:]
        pair &= residue_L[reach:] - residue_L[:-reach] == reach
        total += jnp.sum(jnp.where(pair, distance, 0.0)) / BOND_ANGSTROM
        count += jnp.sum(pair)
    return total / jnp.maximum(count, 1)


def torsion_loss(
    atoms_L33: Float[Array, "L 3 3"],
    native_L33: Float[Array, "L 3 3"],
    residue_L: Float[Array, "L"],
    resolved_L: Bool[Array, "L"],
) -> Float[Array, ""]:
    """Mean of 1 - cos(error) of phi and psi, over residues bonded to a resolved neighbour."""
    bonded = resolved_L[1:] & resolved_L[:-1] & (residue_L[1:] - residue_L[:-1] == 1)
    total = jnp.zeros(())
    for ours, theirs in zip(
        backbone_torsions(atoms_L33), backbone_torsions(native_L33), strict=True
    ):
        error = 1.0 - jnp.sum(ours * theirs, axis=-1)
        total += 0.5 * jnp.sum(jnp.where(bonded, error, 0.0))
    return total / jnp.maximum(jnp.sum(bonded), 1)


def _seen(rotation: Array, translation: Array, points: Array) -> Array:
    return jnp.einsum("lji,lj->li", rotation, points - translation)


def bond_loss(
    trace_L3: Float[Array, "L 3"],
    residue_L: Float[Array, "L"],
    mask_L: Bool[Array, "L"],
    native_trace_L3: Float[Array, "L 3"],
    resolved_L: Bool[Array, "L"],
) -> Float[Array, ""]:
    """Mean error of the bonds from 3.8 angstrom, over consecutive residues.

    sqrt(1 + error^2) - 1: near 3.8 half the square, far from it the error, for frames that start
    far apart would else outweigh all that has to be learnt.

    A bond needs residue numbers that follow each other, and a native that does not say that the
    two are apart (a sequence of observed residues hides the gaps of its chain).
    """
    step = jnp.sum(jnp.square(native_trace_L3[1:] - native_trace_L3[:-1]), axis=-1)
    broken = resolved_L[1:] & resolved_L[:-1] & (step > BROKEN_ANGSTROM**2)
    bonded = mask_L[1:] & mask_L[:-1] & (residue_L[1:] - residue_L[:-1] == 1) & ~broken
    squared = jnp.sum(jnp.square(trace_L3[1:] - trace_L3[:-1]), axis=-1)
    error = jnp.sqrt(1.0 + jnp.square(jnp.sqrt(squared + _EPSILON) - BOND_ANGSTROM)) - 1.0
    return jnp.sum(jnp.where(bonded, error, 0.0)) / jnp.maximum(jnp.sum(bonded), 1)


def clash_loss(trace_L3: Float[Array, "L 3"], mask_L: Bool[Array, "L"]) -> Float[Array, ""]:
    """Sum of what lies under 3.6 angstrom between residues that are no neighbours, by residue."""
    squared = jnp.sum(jnp.square(trace_L3[:, None] - trace_L3[None]), axis=-1)
    index = jnp.arange(len(trace_L3))
    apart = jnp.abs(index[:, None] - index[None]) > 1
    pair = mask_L[:, None] & mask_L[None] & apart
    overlap = jnp.maximum(CLASH_ANGSTROM - jnp.sqrt(squared + _EPSILON), 0.0)
    total = jnp.sum(jnp.where(pair, overlap, 0.0))
    return total / jnp.maximum(jnp.sum(mask_L), 1)
