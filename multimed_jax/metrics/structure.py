"""How like a predicted chain is to its native: TM-score, lDDT and RMSD over C-alpha atoms.

All take [B, L, 3] in angstrom, prediction and native residue by residue, and a mask [B, L] of the
residues that the native resolves; a chain without one scores 0 everywhere. A prediction that is not
finite at a resolved residue lacks it there: the residue counts as not matched in TM-score and lDDT,
and RMSD is over the rest.

TM-score (Zhang and Skolnick 2004) is the greatest value over superpositions of

    1/n  sum over the n resolved residues of  1 / (1 + (d_i / d0)^2),
    d0 = 1.24 (n - 15)^(1/3) - 1.8, at least 0.5

The search: fragments of n, n/2, n/4 ... at least 4 residues, every half a fragment along the chain,
are superposed, and refitted to the residues that came near, then by weights 1 / (1 + (d/d0)^2)^2,
with which no step lowers the score; the best are refitted both ways until they settle.
"""

from __future__ import annotations

import numpy as np
from jaxtyping import Bool, Float, Int

from multimed_jax.metrics.superposition import apply, kabsch, moments, solve_moments
from multimed_jax.types import Array

MIN_FRAGMENT = 4
# Every fragment is refitted to near residues (radii beside the search distance, in angstrom) and by
# weights of a widened d0; the best ones until they settle.
_FIRST_ROUNDS = (-1.0, 1.0)
_WIDENINGS = (2.0, 1.4, 1.0)
_KEPT = 16
_NEAR_ROUNDS = 4
_SMOOTH_ROUNDS = 20
# Near is within the distance that the original program searches with: d0 in these bounds.
_NEAR_ANGSTROM = (4.5, 8.0)
_BLOCK_CELLS = 1 << 20  # distances held at once: 8 MiB as float64, some arrays of that size

LDDT_RADIUS_ANGSTROM = 15.0  # Mariani et al. 2013, inclusion radius
LDDT_TOLERANCES_ANGSTROM = (0.5, 1.0, 2.0, 4.0)  # the same paper


def tm_score(
    predicted_xyz: Float[Array, "B L 3"],
    native_xyz: Float[Array, "B L 3"],
    mask: Bool[Array, "B L"],
) -> Float[np.ndarray, "B"]:
    """TM-score of each pair over all rotations and translations; reflections are no part of it.

    Arrays of NumPy or JAX; see the module's docstring.
    """
    predicted, native, mask, matched = _prepared(predicted_xyz, native_xyz, mask)
    scores = np.zeros(len(native))
    number, total = matched.sum(axis=1), mask.sum(axis=1)
    chosen = np.flatnonzero(number > 0)
    # Chains of similar length share a block, so that little of it is padding.
    chosen = chosen[np.argsort(number[chosen], kind="stable")]
    start = 0
    cells = number[chosen] * _num_fragments(number[chosen])
    while start < len(chosen):
        held = np.arange(1, len(chosen) - start + 1) * cells[start:]
        stop = start + max(1, int(np.searchsorted(held, _BLOCK_CELLS)))
        block = chosen[start:stop]
        scores[block] = _search(predicted[block], native[block], matched[block], total[block])
        start = stop
    return scores


def distance_scale(num_residues: Int[np.ndarray, "B"]) -> Float[np.ndarray, "B"]:
    """d0 in angstrom: the distance at which a residue counts half."""
    return np.maximum(1.24 * np.cbrt(np.maximum(num_residues - 15.0, 0.0)) - 1.8, 0.5)


def rmsd(
    predicted_xyz: Float[Array, "B L 3"],
    native_xyz: Float[Array, "B L 3"],
    mask: Bool[Array, "B L"],
) -> Float[np.ndarray, "B"]:
    """Root mean square distance in angstrom after the best superposition of all residues."""
    predicted, native, _, matched = _prepared(predicted_xyz, native_xyz, mask)
    weights = matched.astype(np.float64)
    moved = apply(*kabsch(predicted, native, weights), predicted)
    squared = np.sum((moved - native) ** 2, axis=-1)
    return np.sqrt(np.sum(squared * weights, axis=1) / np.maximum(weights.sum(axis=1), 1.0))


def lddt_ca(
    predicted_xyz: Float[Array, "B L 3"],
    native_xyz: Float[Array, "B L 3"],
    mask: Bool[Array, "B L"],
) -> Float[np.ndarray, "B"]:
    """Share of native C-alpha distances under 15 angstrom that the prediction keeps (lDDT).

    Mean over tolerances of 0.5, 1, 2 and 4 angstrom of the share over all such pairs of residues.
    No superposition; a mirror image keeps every distance. 0 where there is no pair.
    """
    predicted, native, mask, matched = _prepared(predicted_xyz, native_xyz, mask)
    scores = np.zeros(len(native))
    for b in range(len(native)):  # [L, L] of one pair at a time
        apart = _distances(native[b])
        np.fill_diagonal(apart, np.inf)
        counted = (apart < LDDT_RADIUS_ANGSTROM) & mask[b][:, None] & mask[b][None]
        if not counted.any():
            continue
        error = np.abs(_distances(predicted[b]) - apart)[counted]
        both = (matched[b][:, None] & matched[b][None])[counted]
        kept = [np.mean((error < limit) & both) for limit in LDDT_TOLERANCES_ANGSTROM]
        scores[b] = np.mean(kept)
    return scores


# ------------------------------------------------------------------------------- internals


def _prepared(predicted_xyz, native_xyz, mask):
    """Finite float64 arrays, which residues count, and which of them the prediction has."""
    predicted = np.array(predicted_xyz, np.float64)
    native = np.array(native_xyz, np.float64)
    mask = np.array(mask, bool)
    if native.ndim != 3 or predicted.shape != native.shape or mask.shape != native.shape[:2]:
        raise ValueError(
            f"coordinates of shapes {predicted.shape} and {native.shape} with a mask {mask.shape}; "
            "accepted: [B, L, 3] twice and [B, L]"
        )
    mask &= np.isfinite(native).all(axis=-1)
    matched = mask & np.isfinite(predicted).all(axis=-1)
    for points in (predicted, native):
        points[~matched] = 0.0
        # Centred on the resolved residues: what is near 0 keeps its digits.
        middle = points.sum(axis=1) / np.maximum(matched.sum(axis=1), 1)[:, None]
        points -= middle[:, None]
        points[~matched] = 0.0
    return predicted, _restored(native, native_xyz, mask, matched), mask, matched


def _restored(native, native_xyz, mask, matched):
    """The native of residues that the prediction lacks, on the same centre as the others."""
    lacking = mask & ~matched
    if not lacking.any():
        return native
    original = np.array(native_xyz, np.float64)
    weights = matched[..., None]
    middle = np.sum(np.where(weights, original, 0.0), axis=1)
    middle /= np.maximum(matched.sum(axis=1), 1)[:, None]
    return np.where(lacking[..., None], original - middle[:, None], native)


def _distances(points: Float[np.ndarray, "L 3"]) -> Float[np.ndarray, "L L"]:
    return np.sqrt(np.sum((points[:, None] - points[None]) ** 2, axis=-1))


def _fragments(number: int) -> Int[np.ndarray, "S 2"]:
    """Start and stop of the fragments of `number` residues, the longest first."""
    spans, length = [], number
    while True:
        starts = np.unique(
            np.append(np.arange(0, number - length, max(1, length // 2)), number - length)
        )
        spans.append(np.stack([starts, starts + length], axis=1))
        if length // 2 < MIN_FRAGMENT:
            return np.concatenate(spans)
        length //= 2


def _num_fragments(number: Int[np.ndarray, "B"]) -> Int[np.ndarray, "B"]:
    distinct, inverse = np.unique(number, return_inverse=True)
    return np.array([len(_fragments(int(n))) for n in distinct])[inverse]


def _search(predicted, native, matched, total) -> Float[np.ndarray, "B"]:
    """The best score that the search of the module's docstring finds for each pair."""
    number = matched.sum(axis=1)
    width = int(number.max())
    # Residues that count move to the front: fragments run over them.
    order = np.argsort(~matched, axis=1, kind="stable")[:, :width, None]
    predicted = np.take_along_axis(predicted, order, axis=1)
    native = np.take_along_axis(native, order, axis=1)
    inside = np.arange(width) < number[:, None]
    scale = distance_scale(total)
    terms = moments(predicted, native) * inside[..., None]
    # All fragments are tried in half the digits; those that are kept get the other half.
    exact = _Problem(predicted, native, inside, terms, scale, total)
    problem = _Problem(
        predicted.astype(np.float32),
        native.astype(np.float32),
        inside,
        terms.astype(np.float32),
        scale.astype(np.float32),
        total,
    )

    fragments = [_fragments(int(n)) for n in number]
    spans = np.zeros((len(number), max(len(f) for f in fragments), 2), np.int64)
    for b, found in enumerate(fragments):
        spans[b] = found[0]
        spans[b, : len(found)] = found
    sums = np.concatenate([np.zeros_like(terms[:, :1]), np.cumsum(terms, axis=1)], axis=1)
    pair = np.arange(len(number))[:, None]
    spanned = sums[pair, spans[..., 1]] - sums[pair, spans[..., 0]]
    squared = problem.squared(spanned.astype(np.float32))
    near = np.clip(scale, *_NEAR_ANGSTROM)[:, None, None]
    for slack in _FIRST_ROUNDS:
        squared = problem.squared(problem.fit(squared < (near + slack) ** 2, squared))
    # Smooth refits of a wide scale first: they leave the shallow optima of the narrow one.
    for widening in _WIDENINGS:
        squared = problem.smooth(squared, widening)
    kept = np.argsort(-problem.score(squared), axis=1)[:, :_KEPT]
    squared = np.take_along_axis(squared, kept[..., None], axis=1).astype(np.float64)
    for _ in range(_SMOOTH_ROUNDS):
        squared = exact.smooth(squared, 1.0)
    best = exact.score(squared).max(axis=1)
    for _ in range(_NEAR_ROUNDS):
        squared = exact.squared(exact.fit(squared < (near + 1.0) ** 2, squared))
    for _ in range(_SMOOTH_ROUNDS):
        squared = exact.smooth(squared, 1.0)
    return np.minimum(np.maximum(best, exact.score(squared).max(axis=1)), 1.0)


class _Problem:
    """A block of pairs, and what S superpositions of each of them give."""

    def __init__(self, predicted, native, inside, terms, scale, total):
        self.predicted, self.native = predicted, native
        self.inside, self.terms, self.scale, self.total = inside, terms, scale, total

    def squared(self, sums: Float[np.ndarray, "B S 16"]) -> Float[np.ndarray, "B S L"]:
        """Squared distances after the superposition of least squares from sums of moments."""
        rotation, translation = solve_moments(sums)
        batch, fits = sums.shape[:2]
        turned = rotation.reshape(batch, fits * 3, 3) @ self.predicted.swapaxes(1, 2)
        turned = turned.reshape(batch, fits, 3, -1)
        turned += translation[..., None]
        turned -= self.native.swapaxes(1, 2)[:, None]
        return np.einsum("bsxl,bsxl->bsl", turned, turned)

    def score(self, squared: Float[np.ndarray, "B S L"]) -> Float[np.ndarray, "B S"]:
        value = 1.0 / (1.0 + squared / self.scale[:, None, None] ** 2)
        return np.einsum("bsl,bl->bs", value, self.inside.astype(value.dtype)) / self.total[:, None]

    def smooth(
        self, squared: Float[np.ndarray, "B S L"], widening: float
    ) -> Float[np.ndarray, "B S L"]:
        """After a refit by weights; with `widening` 1 no score falls."""
        scale = widening * self.scale[:, None, None]
        return self.squared(((1.0 + squared / scale**2) ** -2) @ self.terms)

    def fit(
        self, near: Bool[np.ndarray, "B S L"], squared: Float[np.ndarray, "B S L"]
    ) -> Float[np.ndarray, "B S 16"]:
        """Sums over the near residues; over the three nearest where fewer are near."""
        near = near & self.inside[:, None]
        few = near.sum(axis=-1) < 3
        if few.any():
            far = np.where(self.inside[:, None], squared, np.inf)
            third = min(2, far.shape[-1] - 1)
            limit = np.partition(far, third, axis=-1)[..., third]
            near |= few[..., None] & (far <= limit[..., None]) & np.isfinite(far)
        return near.astype(self.terms.dtype) @ self.terms
