from __future__ import annotations

import jax.numpy as jnp
import numpy as np
import pytest
from scipy import optimize
from scipy.spatial.transform import Rotation

from multimed_jax.metrics import tm_score
from multimed_jax.metrics.structure import distance_scale, lddt_ca, rmsd
from multimed_jax.metrics.superposition import kabsch
from tests.metrics.chains import bend, hinged, move, noisy, random_chain, real_chains


def padded(
    pairs: list[tuple[np.ndarray, np.ndarray]], width: int = 0
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Predictions, natives and mask of pairs of different lengths."""
    width = max(width, *(len(native) for _, native in pairs))
    predicted, native = np.full((2, len(pairs), width, 3), np.nan)
    for b, (ours, theirs) in enumerate(pairs):
        predicted[b, : len(ours)], native[b, : len(theirs)] = ours, theirs
    return predicted, native, np.asarray(np.isfinite(native).all(-1))


def one(ours: np.ndarray, theirs: np.ndarray) -> float:
    return float(tm_score(*padded([(ours, theirs)]))[0])


def score_at(vector, predicted, native) -> float:
    """Minus the TM-score after turning by a rotation vector and moving."""
    moved = Rotation.from_rotvec(vector[:3]).apply(predicted) + vector[3:]
    d0 = max(0.5, 1.24 * np.cbrt(max(len(native) - 15, 0)) - 1.8)
    return -float(np.mean(1 / (1 + np.sum((moved - native) ** 2, axis=1) / d0**2)))


def reference(predicted: np.ndarray, native: np.ndarray, polished: int = 5) -> float:
    """The best score of a general optimiser over rotations and translations, from many starts."""
    predicted = predicted - predicted.mean(0)
    native = native - native.mean(0)
    starts, length = [], len(native)
    for size in {length, length // 2, length // 3, length // 5, length // 8, 12, 6}:
        for begin in range(0, length - size + 1, max(1, size // 2)):
            ours, theirs = predicted[begin : begin + size], native[begin : begin + size]
            turn = Rotation.align_vectors(theirs - theirs.mean(0), ours - ours.mean(0))[0]
            shift = theirs.mean(0) - turn.apply(ours.mean(0))
            starts.append(np.concatenate([turn.as_rotvec(), shift]))
    scores = [score_at(start, predicted, native) for start in starts]
    return max(
        -optimize.minimize(score_at, starts[i], (predicted, native), method="BFGS").fun
        for i in np.argsort(scores)[:polished]
    )


def test_kabsch_equals_scipy_and_never_reflects():
    rng = np.random.default_rng(0)
    moving, fixed = rng.normal(size=(2, 5, 20, 3)) * 9
    fixed[3] = moving[3] * [1, 1, -1]
    weights = rng.random((5, 20))
    weights[1, 4:] = 0
    rotation, shift = kabsch(moving, fixed, weights)
    np.testing.assert_allclose(np.linalg.det(rotation), 1.0)
    for b in range(5):
        middles = [np.average(x[b], axis=0, weights=weights[b]) for x in (moving, fixed)]
        turn = Rotation.align_vectors(
            fixed[b] - middles[1], moving[b] - middles[0], weights=weights[b]
        )[0]
        np.testing.assert_allclose(rotation[b], turn.as_matrix(), atol=1e-6)
        np.testing.assert_allclose(shift[b], middles[1] - turn.apply(middles[0]), atol=1e-5)


def test_distance_scale():
    assert distance_scale(np.array([3, 15, 20, 115])).tolist() == pytest.approx(
        [0.5, 0.5, 0.5, 1.24 * 100 ** (1 / 3) - 1.8]
    )


@pytest.mark.parametrize("length", [1, 2, 3, 5, 8, 30, 151])
def test_a_rigid_motion_scores_one(length):
    rng = np.random.default_rng(length)
    chain = random_chain(length, rng)
    moved = move(chain, rng) + 1000.0
    assert one(moved, chain) == pytest.approx(1.0, abs=1e-6)
    assert rmsd(*padded([(moved, chain)]))[0] == pytest.approx(0.0, abs=1e-5)
    if length > 1:
        assert lddt_ca(*padded([(moved, chain)]))[0] == 1.0


def test_a_mirror_image_scores_below_one():
    rng = np.random.default_rng(0)
    for _ in range(5):
        chain = random_chain(100, rng)
        mirror = chain * [1, 1, -1]
        assert one(mirror, chain) < 0.7
        assert rmsd(*padded([(mirror, chain)]))[0] > 2.0
        assert lddt_ca(*padded([(mirror, chain)]))[0] == 1.0  # distances have no hand


def test_without_superposition_it_would_be_another_figure():
    rng = np.random.default_rng(1)
    chain = random_chain(80, rng)
    moved = move(noisy(chain, 1.0, rng), rng)
    raw = np.mean(1 / (1 + np.sum((moved - chain) ** 2, -1) / distance_scale(np.array(80)) ** 2))
    assert raw < 0.2 < 0.7 < one(moved, chain)


def test_only_resolved_residues_count():
    rng = np.random.default_rng(2)
    chain = random_chain(60, rng)
    ours = move(noisy(chain, 2.0, rng), rng)
    mask = rng.random(60) > 0.3
    alone = one(ours[mask], chain[mask])
    damaged, hidden = ours.copy(), chain.copy()
    damaged[~mask] = 1e4
    hidden[~mask] = np.nan
    for theirs in (hidden, chain):
        got = tm_score(damaged[None], theirs[None], mask[None])
        assert got[0] == pytest.approx(alone, abs=1e-9)
    for metric in (rmsd, lddt_ca):
        got = metric(damaged[None], hidden[None], np.ones((1, 60), bool))
        assert got[0] == pytest.approx(metric(*padded([(ours[mask], chain[mask])]))[0])


def test_what_the_prediction_lacks_counts_as_wrong():
    rng = np.random.default_rng(3)
    chain = random_chain(40, rng)
    ours = move(chain, rng)
    ours[10:20] = np.nan
    arguments = padded([(ours, chain)])
    assert tm_score(*arguments)[0] == pytest.approx(0.75, abs=1e-6)
    assert rmsd(*arguments)[0] == pytest.approx(0.0, abs=1e-6)
    far = np.full((1, 40, 3), np.nan)
    for metric in (tm_score, lddt_ca, rmsd):
        assert metric(far, chain[None], np.ones((1, 40), bool))[0] == 0.0
        assert metric(chain[None], far, np.ones((1, 40), bool))[0] == 0.0


def test_a_batch_gives_what_single_pairs_give():
    rng = np.random.default_rng(4)
    natives = [random_chain(n, rng) for n in (7, 200, 33, 90, 34)]
    pairs = [(bend(chain, i, rng), chain) for i, chain in enumerate(natives)]
    got = tm_score(*padded(pairs, width=256))
    assert got == pytest.approx([one(*pair) for pair in pairs], abs=1e-9)
    on_device = tm_score(*(jnp.asarray(a) for a in padded(pairs)))
    assert on_device == pytest.approx(got, abs=1e-4)


def test_shapes_are_checked():
    with pytest.raises(ValueError, match="accepted"):
        tm_score(np.zeros((2, 5, 3)), np.zeros((2, 6, 3)), np.ones((2, 6), bool))


def test_generated_pairs_reach_the_reference():
    rng = np.random.default_rng(5)
    natives = [random_chain(int(n), rng) for n in rng.integers(20, 120, 16)]
    pairs = [(bend(chain, i, rng), chain) for i, chain in enumerate(natives)]
    pairs.append((hinged(natives[0], 90, rng), natives[0]))
    got = tm_score(*padded(pairs))
    assert got == pytest.approx([reference(*pair, polished=3) for pair in pairs], abs=0.005)


def test_lddt_by_hand():
    native = np.array([[0.0, 0, 0], [3.8, 0, 0], [7.6, 0, 0], [30, 0, 0]])
    ours = np.array([[0.0, 0, 0], [3.8, 0, 0], [8.9, 0, 0], [0, 0, 0]])
    # Three pairs lie within 15 angstrom; errors 0, 1.3, 1.3: kept by 4, 2 and 2 tolerances of 4.
    assert lddt_ca(*padded([(ours, native)]))[0] == pytest.approx((4 + 2 + 2) / 12)


def real_pairs(
    shared_data, limit: int, number: int, most: float
) -> list[tuple[np.ndarray, np.ndarray]]:
    rng = np.random.default_rng(6)
    natives = real_chains(shared_data / "rcsb_pdb_psicov150", "*.pdb", limit)
    natives += real_chains(shared_data / "theseus_family_chains", "*/*.pdb", limit)
    natives = [chain for chain in natives if 40 <= len(chain) <= 260]
    chosen = [natives[i % len(natives)] for i in range(number)]
    return [(bend(c, i + i // len(natives), rng, most), c) for i, c in enumerate(chosen)]


@pytest.mark.slow  # the reference optimiser takes 0.1 s a pair
def test_real_pairs_reach_the_reference(shared_data):
    pairs = real_pairs(shared_data, 70, 200, most=8.0)
    assert len({len(native) for _, native in pairs}) > 50
    got = tm_score(*padded(pairs))
    assert got.min() < 0.4 and got.max() > 0.9
    expected = np.array([reference(*pair, polished=3) for pair in pairs])
    # Poor pairs have many optima of nearly one height: there the optimiser gets more starts.
    for index in np.flatnonzero(np.abs(got - expected) > 0.003):
        expected[index] = reference(*pairs[index], polished=60)
    np.testing.assert_allclose(got, expected, rtol=0, atol=0.005)


def check_tmtools(pairs) -> int:
    """Pairs whose alignment by TM-align is the identity: both scores agree."""
    tmtools = pytest.importorskip("tmtools")
    ours, compared = tm_score(*padded(pairs)), 0
    for score, (predicted, native) in zip(ours, pairs, strict=True):
        letters = "A" * len(native)
        found = tmtools.tm_align(predicted, native, letters, letters)
        if found.seqxA == letters and found.seqyA == letters:
            assert score == pytest.approx(found.tm_norm_chain2, abs=0.005)
            compared += 1
        else:
            # It searched in aligned pairs alone, so what it found is no bound for ours; that the
            # residue-matched score is not far above is.
            assert score < found.tm_norm_chain2 + 0.1
    return compared


def test_generated_pairs_agree_with_tm_align():
    rng = np.random.default_rng(7)
    natives = [random_chain(int(n), rng) for n in rng.integers(30, 120, 30)]
    pairs = [(move(noisy(c, 0.5 + i / 10, rng), rng), c) for i, c in enumerate(natives)]
    assert check_tmtools(pairs) >= 10


@pytest.mark.slow  # 260 alignments
def test_real_pairs_agree_with_tm_align(shared_data):
    assert check_tmtools(real_pairs(shared_data, 70, 330, most=3.0)) >= 200
