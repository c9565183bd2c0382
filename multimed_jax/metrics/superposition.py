"""Rigid superposition of point sets, batched: the rotation is proper, never a reflection."""

from __future__ import annotations

import numpy as np
from jaxtyping import Float


def kabsch(
    moving: Float[np.ndarray, "*batch L 3"],
    fixed: Float[np.ndarray, "*batch L 3"],
    weights: Float[np.ndarray, "*batch L"],
) -> tuple[Float[np.ndarray, "*batch 3 3"], Float[np.ndarray, "*batch 3"]]:
    """Rotation R and translation t with the least sum of weights * |R moving + t - fixed|^2.

    Points of weight 0 do not count and have to be finite. Where the points do not fix a rotation
    (fewer than 3, or on a line) it is one of the best.

    Source: Kabsch 1976, "A solution for the best rotation to relate two sets of vectors".
    """
    # Centred first: sums of squares of far-away coordinates would lose the digits that matter.
    share = weights / np.maximum(weights.sum(axis=-1, keepdims=True), 1e-12)
    from_centre = np.einsum("...l,...lx->...x", share, moving)
    to_centre = np.einsum("...l,...lx->...x", share, fixed)
    terms = moments(moving - from_centre[..., None, :], fixed - to_centre[..., None, :])
    rotation, shift = solve_moments(np.einsum("...l,...lm->...m", share, terms))
    return rotation, shift + to_centre - np.einsum("...ij,...j->...i", rotation, from_centre)


def moments(
    moving: Float[np.ndarray, "*batch L 3"], fixed: Float[np.ndarray, "*batch L 3"]
) -> Float[np.ndarray, "*batch L 16"]:
    """What the best superposition needs of each point: 1, moving, fixed, their outer product."""
    outer = moving[..., :, None] * fixed[..., None, :]
    one = np.ones_like(moving[..., :1])
    return np.concatenate([one, moving, fixed, outer.reshape(*outer.shape[:-2], 9)], axis=-1)


def solve_moments(
    sums: Float[np.ndarray, "*batch 16"],
) -> tuple[Float[np.ndarray, "*batch 3 3"], Float[np.ndarray, "*batch 3"]]:
    """The best rotation and translation from weighted sums of `moments`."""
    total = np.maximum(sums[..., :1], 1e-12)
    from_centre, to_centre = sums[..., 1:4] / total, sums[..., 4:7] / total
    outer = (sums[..., 7:] / total).reshape(*sums.shape[:-1], 3, 3)
    covariance = outer - from_centre[..., :, None] * to_centre[..., None, :]
    left, _, right = np.linalg.svd(covariance)
    # The sign of the smallest singular value makes the determinant 1.
    sign = np.sign(np.linalg.det(left) * np.linalg.det(right))
    left = left.copy()
    left[..., 2] *= sign[..., None]
    rotation = np.swapaxes(left @ right, -1, -2)
    return rotation, to_centre - np.einsum("...ij,...j->...i", rotation, from_centre)


def apply(
    rotation: Float[np.ndarray, "*batch 3 3"],
    translation: Float[np.ndarray, "*batch 3"],
    points: Float[np.ndarray, "*batch L 3"],
) -> Float[np.ndarray, "*batch L 3"]:
    """R points + t."""
    return points @ np.swapaxes(rotation, -1, -2) + translation[..., None, :]
