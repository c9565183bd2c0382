"""Backbone frames of a chain from its torsion angles, by ideal bond lengths and angles.

The torsions between residues i and i + 1 turn the frame of one into that of the next:

    N - CA - C  psi(i)   CA - C - N'  omega   C - N' - CA'  phi(i + 1)

Omega is 180 degrees, a trans bond: 99.7 % of all peptide bonds are (Stewart et al. 1990, J. Mol.
Biol. 214, 253-260), and left free it only helps wrong turns to look right.

All steps are composed at once by an associative scan, in log2(L) rounds instead of L.
"""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx
from jaxtyping import Array, Float

from multimed_jax.layers.structure_module import IDEAL_BACKBONE, frames_from_backbone

# Lengths in angstrom, angles in degrees of the peptide bond.
# Source: Engh and Huber, Acta Crystallographica A47, 392-400 (1991), table 3.
C_N_ANGSTROM = 1.329
CA_C_N_DEGREES, C_N_CA_DEGREES = 116.2, 121.7
# phi and psi that an untrained head gives: a right-handed helix.
# Source: Creighton, "Proteins" (1993), table 5.1.
START_DEGREES = (-57.0, -47.0)


class TorsionHead(nnx.Module):
    """Phi and psi of every residue as unit vectors; a helix at the start."""

    def __init__(self, width: int, rngs: nnx.Rngs):
        small = nnx.initializers.variance_scaling(0.1, "fan_in", "truncated_normal")
        self.hidden = nnx.Linear(width, width, rngs=rngs)
        self.out = nnx.Linear(width, 4, kernel_init=small, use_bias=False, rngs=rngs)

    def __call__(self, states_LD: Float[Array, "L D"]) -> Float[Array, "L 2 2"]:
        """(cosine, sine) of phi and psi."""
        angles = np.deg2rad(np.asarray(START_DEGREES, np.float32))
        start = jnp.asarray(np.stack([np.cos(angles), np.sin(angles)], axis=-1))
        moved = self.out(jax.nn.gelu(self.hidden(states_LD))).reshape(-1, 2, 2) + start[None]
        return moved * jax.lax.rsqrt(jnp.sum(moved**2, axis=-1, keepdims=True) + 1e-8)


def chain_frames(
    torsions: Float[Array, "L 2 2"],
) -> tuple[Float[Array, "L 3 3"], Float[Array, "L 3"]]:
    """Rotations and translations (angstrom) of the frames; the first residue is at the origin."""
    phi, psi = torsions[:, 0], torsions[:, 1]
    trans = jnp.broadcast_to(jnp.array([-1.0, 0.0]), psi[:-1].shape)
    n, ca, c = (jnp.broadcast_to(jnp.asarray(atom), (len(phi) - 1, 3)) for atom in IDEAL_BACKBONE)
    n_ca = float(np.linalg.norm(IDEAL_BACKBONE[0]))
    ca_c = float(np.linalg.norm(IDEAL_BACKBONE[2]))
    cosine = IDEAL_BACKBONE[0] @ IDEAL_BACKBONE[2] / (n_ca * ca_c)
    n_ca_c_degrees = float(np.degrees(np.arccos(cosine)))
    next_n = place_atom(n, ca, c, C_N_ANGSTROM, CA_C_N_DEGREES, psi[:-1])
    next_ca = place_atom(ca, c, next_n, n_ca, C_N_CA_DEGREES, trans)
    next_c = place_atom(c, next_n, next_ca, ca_c, n_ca_c_degrees, phi[1:])
    rotation, translation = frames_from_backbone(jnp.stack([next_n, next_ca, next_c], axis=-2))
    rotation = jnp.concatenate([jnp.eye(3)[None], rotation])
    translation = jnp.concatenate([jnp.zeros((1, 3)), translation])
    return jax.lax.associative_scan(_compose, (rotation, translation))


def backbone_torsions(
    atoms: Float[Array, "L 3 3"],
) -> tuple[Float[Array, "L-1 2"], Float[Array, "L-1 2"]]:
    """(cosine, sine) of psi of each residue but the last and of phi of each but the first."""
    n, ca, c = atoms[:, 0], atoms[:, 1], atoms[:, 2]
    psi = _torsion(n[:-1], ca[:-1], c[:-1], n[1:])
    phi = _torsion(c[:-1], n[1:], ca[1:], c[1:])
    return psi, phi


def _torsion(a: Array, b: Array, c: Array, d: Array) -> Float[Array, "L 2"]:
    """(cosine, sine) of the torsion a-b-c-d; of atoms on a line some unit vector or 0."""
    axis = _unit(c - b)
    left = (a - b) - jnp.sum((a - b) * axis, axis=-1, keepdims=True) * axis
    right = (d - c) - jnp.sum((d - c) * axis, axis=-1, keepdims=True) * axis
    cosine = jnp.sum(left * right, axis=-1)
    sine = jnp.sum(jnp.cross(axis, left) * right, axis=-1)
    return _unit(jnp.stack([cosine, sine], axis=-1))


def place_atom(
    a: Float[Array, "L 3"],
    b: Float[Array, "L 3"],
    c: Float[Array, "L 3"],
    length: float,
    angle_degrees: float,
    torsion: Float[Array, "L 2"],
) -> Float[Array, "L 3"]:
    """The atom at `length` from c, at the angle b-c-x and the torsion a-b-c-x (cosine, sine).

    Source: Parsons et al. 2005, "Practical conversion from torsion space to Cartesian space for in
    silico protein synthesis" (NeRF).
    """
    along = _unit(c - b)
    normal = _unit(jnp.cross(b - a, along))
    across = jnp.cross(normal, along)
    bend = np.deg2rad(180.0 - angle_degrees)
    sideways = torsion[:, :1] * across + torsion[:, 1:] * normal
    return c + length * (float(np.cos(bend)) * along + float(np.sin(bend)) * sideways)


def _compose(first, second):
    """The transform that applies `second` inside the frame of `first`."""
    rotation = jnp.einsum("...ij,...jk->...ik", first[0], second[0])
    translation = first[1] + jnp.einsum("...ij,...j->...i", first[0], second[1])
    return rotation, translation


def _unit(vector: Float[Array, "L N"]) -> Float[Array, "L N"]:
    return vector * jax.lax.rsqrt(jnp.sum(vector**2, axis=-1, keepdims=True) + 1e-12)
