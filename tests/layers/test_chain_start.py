"""Chains from torsions, against a plain loop and against the builder's own geometry."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx

from multimed_jax.layers.chain_start import TorsionHead, backbone_torsions, chain_frames
from multimed_jax.layers.structure_loss import local_error, torsion_loss
from multimed_jax.layers.structure_module import backbone_from_frames, frames_from_backbone


def torsion_degrees(a, b, c, d):
    """Signed torsion a-b-c-d by the atan2 formula."""
    first, axis, last = b - a, c - b, d - c
    left, right = np.cross(first, axis), np.cross(axis, last)
    sine = np.dot(np.cross(left, right), axis / np.linalg.norm(axis))
    return np.degrees(np.arctan2(sine, np.dot(left, right)))


def make(length=30, seed=0):
    degrees = np.random.default_rng(seed).uniform(-180, 180, (length, 2))
    radians = np.deg2rad(degrees)
    torsions = jnp.asarray(np.stack([np.cos(radians), np.sin(radians)], -1), jnp.float32)
    return degrees, torsions


def test_the_torsions_of_the_chain_are_those_asked_for():
    degrees, torsions = make()
    atoms = np.asarray(backbone_from_frames(*chain_frames(torsions)), np.float64)
    for i in range(len(atoms) - 1):
        (n, ca, c), (next_n, next_ca, next_c) = atoms[i], atoms[i + 1]
        found = [
            torsion_degrees(n, ca, c, next_n) - degrees[i, 1],
            torsion_degrees(ca, c, next_n, next_ca) - 180,
            torsion_degrees(c, next_n, next_ca, next_c) - degrees[i + 1, 0],
        ]
        assert np.abs((np.array(found) + 180) % 360 - 180).max() < 0.5


def test_bonds_and_angles_are_ideal_and_trans_residues_lie_3_8_apart():
    _, torsions = make()
    atoms = np.asarray(backbone_from_frames(*chain_frames(torsions)), np.float64)
    peptide = np.linalg.norm(atoms[1:, 0] - atoms[:-1, 2], axis=-1)
    np.testing.assert_allclose(peptide, 1.329, atol=1e-3)
    steps = np.linalg.norm(atoms[1:, 1] - atoms[:-1, 1], axis=-1)
    np.testing.assert_allclose(steps, 3.8, atol=0.03)


def test_an_untrained_head_makes_a_right_handed_helix():
    head = TorsionHead(8, nnx.Rngs(0))
    torsions = head(jnp.zeros((20, 8)))
    atoms = np.asarray(backbone_from_frames(*chain_frames(torsions)), np.float64)[:, 1]
    rise = np.linalg.norm(atoms[18] - atoms[0]) / 18
    assert 1.4 < rise < 1.6  # 1.5 angstrom a residue
    turn = [torsion_degrees(*atoms[i : i + 4]) for i in range(17)]
    assert 45 < np.mean(turn) < 55  # C-alpha torsion of a right-handed alpha helix


def test_gradients_reach_every_torsion():
    _, torsions = make(12)
    end = jax.grad(lambda t: jnp.sum(chain_frames(t)[1][-1] ** 2))(torsions)
    size = np.abs(np.asarray(end)).sum(-1)
    assert np.isfinite(size).all() and (size[1:-1] > 0).all()


def test_torsions_of_atoms_are_those_of_the_formula():
    _, torsions = make(10)
    atoms = np.asarray(backbone_from_frames(*chain_frames(torsions)))
    psi, phi = (np.asarray(found) for found in backbone_torsions(jnp.asarray(atoms)))
    for i in range(9):
        (n, ca, c), (next_n, next_ca, next_c) = atoms[i].astype(float), atoms[i + 1].astype(float)
        for found, expected in (
            (psi[i], torsion_degrees(n, ca, c, next_n)),
            (phi[i], torsion_degrees(c, next_n, next_ca, next_c)),
        ):
            angle = np.deg2rad(expected)
            np.testing.assert_allclose(found, [np.cos(angle), np.sin(angle)], atol=1e-3)


def test_torsion_loss_by_hand():
    degrees, torsions = make(8)
    moved = np.deg2rad(degrees + [[30.0, 0.0]])
    other = jnp.asarray(np.stack([np.cos(moved), np.sin(moved)], -1), jnp.float32)
    atoms, native = (backbone_from_frames(*chain_frames(t)) for t in (other, torsions))
    everything = jnp.ones(8, bool)
    found = torsion_loss(atoms, native, jnp.arange(8.0), everything)
    assert abs(float(found) - 0.5 * (1 - np.cos(np.deg2rad(30)))) < 1e-3
    gap = jnp.array([0.0, 1, 2, 3, 14, 15, 16, 17])
    broken = native.at[4:].add(50.0)
    assert float(torsion_loss(native, broken, gap, everything)) < 1e-3


def test_local_error_against_a_plain_loop():
    _, torsions = make(9, 1)
    _, others = make(9, 2)
    ours, native = (chain_frames(t) for t in (torsions, others))
    residue = np.array([0, 1, 2, 3, 5, 6, 7, 8, 9], np.float32)  # 4 is missing
    resolved = np.arange(9) != 6
    found = local_error(*ours, *native, jnp.asarray(residue), jnp.asarray(resolved))
    errors = []
    for i in range(9):
        for j in range(i + 1, 9):
            if residue[j] - residue[i] <= 4 and j - i <= 4 and resolved[i] and resolved[j]:
                if residue[j] - residue[i] != j - i:
                    continue
                seen = [
                    np.asarray(r)[i].T @ (np.asarray(t)[j] - np.asarray(t)[i])
                    for r, t in (ours, native)
                ]
                errors.append(np.linalg.norm(seen[0] - seen[1]) / 3.8)
    assert abs(float(found) - np.mean(errors)) < 1e-3
    turned = frames_from_backbone(backbone_from_frames(*native) @ jnp.asarray(rotation_matrix()))
    assert float(local_error(*turned, *native, jnp.asarray(residue), jnp.asarray(resolved))) < 0.01


def rotation_matrix():
    q, r = np.linalg.qr(np.random.default_rng(3).normal(size=(3, 3)))
    q = q * np.sign(np.diag(r))
    return (q if np.linalg.det(q) > 0 else -q).astype(np.float32)
