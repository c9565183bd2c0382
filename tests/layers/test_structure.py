"""Pairs, structure module and losses: laws that hold for any weights."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx
from scipy.spatial.transform import Rotation

from multimed_jax.layers import structure_loss
from multimed_jax.layers.pair import (
    MAX_OFFSET,
    PairStack,
    TriangleMultiplication,
    distance_edges,
    distogram_loss,
)
from multimed_jax.layers.structure_module import (
    IDEAL_BACKBONE,
    StructureModule,
    backbone_from_frames,
    frames_from_backbone,
    mend_trace,
    quaternion_rotation,
)
from tests.metrics.chains import random_chain

LENGTH, WIDTH, PAIR = 9, 8, 4


def jitted(module: nnx.Module):
    graph, params = nnx.split(module)
    return jax.jit(lambda *args: nnx.merge(graph, params)(*args))


def backbone(length: int, seed: int = 0) -> np.ndarray:
    rng = np.random.default_rng(seed)
    turn = Rotation.random(length, rng=rng).as_matrix()
    return np.asarray(
        backbone_from_frames(jnp.asarray(turn), jnp.asarray(random_chain(length, rng))), np.float32
    )


# ------------------------------------------------------------------------------------ pairs


def test_distance_bins():
    edges = distance_edges(64)
    assert len(edges) == 63 and edges[0] == 2.0 and edges[-1] == 22.0
    np.testing.assert_allclose(np.diff(edges), 20 / 62, rtol=1e-4)


def test_distogram_loss_equals_cross_entropy_of_the_bins():
    rng = np.random.default_rng(0)
    native = random_chain(LENGTH, rng).astype(np.float32)
    resolved = np.arange(LENGTH) != 4
    logits = rng.normal(size=(12, LENGTH, LENGTH)).astype(np.float32)
    losses = []
    for i in range(LENGTH):
        for j in range(LENGTH):
            if i != j and resolved[i] and resolved[j]:
                distance = np.linalg.norm(native[i] - native[j])
                label = np.digitize(distance, np.linspace(2, 22, 11))
                column = logits[:, i, j].astype(float)
                losses.append(np.log(np.exp(column).sum()) - column[label])
    got = distogram_loss(jnp.asarray(logits), jnp.asarray(native), jnp.asarray(resolved))
    assert got == pytest.approx(np.mean(losses), abs=1e-5)
    nothing = distogram_loss(jnp.asarray(logits), jnp.asarray(native), jnp.zeros(LENGTH, bool))
    assert nothing == 0.0


@pytest.mark.parametrize("outgoing", [True, False])
def test_triangle_multiplication_by_a_loop(outgoing):
    module = TriangleMultiplication(PAIR, outgoing, nnx.Rngs(0))
    rng = np.random.default_rng(1)
    pair = rng.normal(size=(PAIR, LENGTH, LENGTH)).astype(np.float32)
    mask = np.arange(LENGTH) < 7

    def norm(x):
        return (x - x.mean(0)) / np.sqrt(x.var(0) + 1e-5)

    def linear(x, layer):
        return (
            np.tensordot(np.asarray(layer.kernel[...]).T, x, 1)
            + np.asarray(layer.bias[...])[:, None, None]
        )

    def sigmoid(x):
        return 1 / (1 + np.exp(-x))

    a, b, gate_a, gate_b, gate = np.split(linear(norm(pair), module.project), 5)
    a, b = a * sigmoid(gate_a), b * sigmoid(gate_b)
    total = np.zeros_like(pair)
    for k in range(7):
        for i in range(LENGTH):
            for j in range(LENGTH):
                if i < 7 and j < 7:
                    edges = (a[:, i, k], b[:, j, k]) if outgoing else (a[:, k, i], b[:, k, j])
                    total[:, i, j] += edges[0] * edges[1] / np.sqrt(7)
    expected = linear(norm(total), module.out) * sigmoid(gate)
    got = np.asarray(jitted(module)(jnp.asarray(pair), jnp.asarray(mask)))
    np.testing.assert_allclose(got[:, :7, :7], expected[:, :7, :7], rtol=1e-4, atol=1e-5)


def test_pairs_know_the_offset_and_not_the_padding():
    stack = jitted(PairStack(WIDTH, PAIR, 2, nnx.Rngs(0)))
    rng = np.random.default_rng(2)
    states = rng.normal(size=(LENGTH, WIDTH)).astype(np.float32)
    mask = jnp.arange(LENGTH) < 7
    residue = jnp.arange(LENGTH, dtype=jnp.float32)
    first = np.asarray(stack(states, residue, mask))
    changed = states.copy()
    changed[7:] = 50.0
    again = np.asarray(stack(changed, residue, mask))
    np.testing.assert_allclose(again[:, :7, :7], first[:, :7, :7], atol=1e-5)
    shifted = np.asarray(stack(states, residue + 100, mask))
    np.testing.assert_allclose(shifted, first, atol=1e-5)
    spread = np.asarray(stack(states, residue * 2, mask))
    assert np.abs(spread - first)[:, :7, :7].max() > 1e-2
    far, farther = (stack(states, residue * (MAX_OFFSET + n), mask) for n in (0, 9))
    np.testing.assert_allclose(far, farther, atol=1e-5)


# ----------------------------------------------------------------------------------- frames


def test_frames_of_a_backbone_and_back():
    atoms = backbone(LENGTH)
    rotation, translation = frames_from_backbone(jnp.asarray(atoms))
    np.testing.assert_allclose(np.linalg.det(rotation), 1.0, atol=1e-5)
    np.testing.assert_allclose(backbone_from_frames(rotation, translation), atoms, atol=1e-4)
    n, ca, c = IDEAL_BACKBONE
    bonds = np.linalg.norm(n - ca), np.linalg.norm(c - ca)
    np.testing.assert_allclose(bonds, (1.46, 1.525), atol=0.01)  # Engh and Huber 1991
    angle = np.degrees(np.arccos(n @ c / np.prod(bonds)))
    assert angle == pytest.approx(111.0, abs=0.5)


def test_quaternions_turn_as_scipy_says():
    vector = np.random.default_rng(0).normal(size=(5, 3)).astype(np.float32)
    expected = Rotation.from_quat(np.concatenate([vector, np.ones((5, 1))], axis=1)).as_matrix()
    np.testing.assert_allclose(quaternion_rotation(jnp.asarray(vector)), expected, atol=1e-5)


def test_structure_module_is_right_handed_spread_and_blind_to_padding():
    module = StructureModule(WIDTH, PAIR, 3, 2, 2, nnx.Rngs(0))
    run = jitted(module)
    rng = np.random.default_rng(3)
    states = rng.normal(size=(LENGTH, WIDTH)).astype(np.float32)
    pair = rng.normal(size=(PAIR, LENGTH, LENGTH)).astype(np.float32)
    mask = jnp.arange(LENGTH) < 7
    rotation, translation = run(states, pair, mask)
    assert rotation.shape == (3, LENGTH, 3, 3) and translation.shape == (3, LENGTH, 3)
    np.testing.assert_allclose(np.linalg.det(rotation), 1.0, atol=1e-4)
    assert np.std(translation[0], axis=0).min() > 0.5  # angstrom: no two start at one point
    changed, changed_pair = states.copy(), pair.copy()
    changed[7:], changed_pair[:, 7:], changed_pair[:, :, 7:] = 9.0, 9.0, 9.0
    for ours, theirs in zip(run(changed, changed_pair, mask), (rotation, translation), strict=True):
        np.testing.assert_allclose(ours[:, :7], theirs[:, :7], atol=1e-3)


def test_attention_is_invariant_to_a_motion_of_all_frames():
    module = StructureModule(WIDTH, PAIR, 1, 2, 2, nnx.Rngs(0)).attend
    rng = np.random.default_rng(4)
    states = rng.normal(size=(LENGTH, WIDTH)).astype(np.float32)
    pair = rng.normal(size=(PAIR, LENGTH, LENGTH)).astype(np.float32)
    turn = Rotation.random(LENGTH, rng=rng).as_matrix().astype(np.float32)
    place = rng.normal(size=(LENGTH, 3)).astype(np.float32)
    motion = Rotation.random(rng=rng).as_matrix().astype(np.float32)
    mask = jnp.ones(LENGTH, bool)
    run = jitted(module)
    still = np.asarray(run(states, pair, turn, place, mask))
    moved = np.asarray(run(states, pair, motion @ turn, place @ motion.T + 3, mask))
    np.testing.assert_allclose(moved, still, atol=2e-4)
    mirror = np.diag([1.0, 1.0, -1.0]).astype(np.float32)
    mirrored = np.asarray(run(states, pair, mirror @ turn @ mirror, place @ mirror, mask))
    assert np.abs(mirrored - still).max() > 1e-3


# ---------------------------------------------------------------------------------- losses


def fape(ours: np.ndarray, theirs: np.ndarray, resolved=None, clamp=10.0, leak=0.0) -> float:
    resolved = np.ones(len(ours), bool) if resolved is None else resolved
    atoms, native = jnp.asarray(ours), jnp.asarray(theirs)
    return float(
        structure_loss.frame_aligned_error(
            *frames_from_backbone(atoms),
            atoms,
            *frames_from_backbone(native),
            native,
            jnp.asarray(resolved),
            clamp,
            leak,
        )
    )


def test_frame_aligned_error_by_a_loop():
    ours, theirs = backbone(6, 1), backbone(6, 2)
    resolved = np.arange(6) != 2
    frames = [
        [np.asarray(a, np.float64) for a in frames_from_backbone(jnp.asarray(x))]
        for x in (ours, theirs)
    ]
    errors = []
    for i in np.flatnonzero(resolved):
        for j in np.flatnonzero(resolved):
            for atom in range(3):
                seen = [
                    rotation[i].T @ (x[j, atom] - place[i])
                    for (rotation, place), x in zip(frames, (ours, theirs), strict=True)
                ]
                distance = np.linalg.norm(seen[0] - seen[1])
                errors.append((min(distance, 5.0) + 0.2 * distance) / 5.0)
    assert fape(ours, theirs, resolved, 5.0, 0.2) == pytest.approx(np.mean(errors), abs=1e-3)


def test_frame_aligned_error_knows_motions_from_mirrors():
    atoms = backbone(12)
    turn = Rotation.random(rng=np.random.default_rng(0)).as_matrix()
    moved = (atoms @ turn.T + 5).astype(np.float32)
    assert fape(moved, atoms) < 0.005
    assert fape((atoms * [1, 1, -1]).astype(np.float32), atoms) > 0.2


def test_superposed_error_equals_that_of_scipys_rotation():
    ours, theirs = backbone(9, 1)[:, 1], backbone(9, 2)[:, 1]
    resolved = np.arange(9) != 4
    a, b = (x[resolved] - x[resolved].mean(axis=0) for x in (ours, theirs))
    turn = Rotation.align_vectors(b, a)[0]
    distance = np.linalg.norm(turn.apply(a) - b, axis=1)
    expected = np.mean((np.minimum(distance, 4.0) + 0.2 * distance) / 4.0)
    assert distance.max() > 4.0 > distance.min()

    def error(x):
        return structure_loss.superposed_error(
            x, jnp.asarray(theirs), jnp.asarray(resolved), 4.0, 0.2
        )

    assert float(error(jnp.asarray(ours))) == pytest.approx(expected, abs=1e-4)
    moved = Rotation.random(rng=np.random.default_rng(0)).apply(theirs) + 5
    assert float(error(jnp.asarray(moved, jnp.float32))) < 0.005
    assert float(error(jnp.asarray(theirs * [1, 1, -1], jnp.float32))) > 0.2
    gradient = np.asarray(jax.grad(error)(jnp.asarray(ours)))
    assert np.isfinite(gradient).all() and not gradient[4].any() and gradient[0].any()


def test_bond_and_clash_by_hand():
    trace = jnp.array([[0.0, 0, 0], [4.8, 0, 0], [8.6, 0, 0], [8.6, 0, 2.0], [0.0, 1.6, 0]])
    residue = jnp.array([0.0, 1, 2, 9, 10])
    mask = jnp.array([True, True, True, True, False])
    nothing = jnp.zeros(5, bool)
    native = jnp.zeros((5, 3))
    bond = structure_loss.bond_loss(trace, residue, mask, native, nothing)
    assert bond == pytest.approx((np.sqrt(2) - 1) / 2, abs=1e-3)
    # The native says that residues 0 and 1 are apart.
    native = native.at[0, 0].set(20.0)
    bond = structure_loss.bond_loss(trace, residue, mask, native, jnp.ones(5, bool))
    assert bond == pytest.approx(0.0, abs=1e-3)
    clash = structure_loss.clash_loss(trace, jnp.ones(5, bool))
    assert clash == pytest.approx(2 * (3.6 - 1.6) / 5, abs=1e-2)  # residues 0 and 4
    assert structure_loss.clash_loss(trace, mask) == 0.0


def test_mended_traces_have_bonds_and_stay_near():
    rng = np.random.default_rng(0)
    mend = jax.jit(mend_trace)
    chain = random_chain(60, rng)
    mask = jnp.arange(60) < 50
    cases = {
        "good": (chain, 0.05),
        "rough": (chain + rng.normal(size=chain.shape) * 0.5, 1.5),
        "shrunk": (chain * 0.3, 1e9),
        "one point": (np.zeros((60, 3)), 1e9),
        "broken": (chain + 30.0 * (np.arange(60)[:, None] > 20), 1e9),
    }
    for name, (trace, most) in cases.items():
        got = np.asarray(mend(jnp.asarray(trace, jnp.float32), mask))
        bonds = np.linalg.norm(np.diff(got[:50], axis=0), axis=1)
        assert bonds.min() > 3.69 and bonds.max() < 3.91, name
        moved = got[:50] - trace[:50]
        assert np.sqrt(np.mean(np.sum(moved**2, -1))) < most, name
        np.testing.assert_allclose(got[50:], trace[50:], atol=1e-5)
    gradient = jax.grad(lambda x: jnp.sum(jnp.square(mend_trace(x, mask))))(jnp.zeros((60, 3)))
    assert np.isfinite(gradient).all()
