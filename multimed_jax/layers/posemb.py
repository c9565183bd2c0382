"""Rotary positions over any number of axes (Su et al. 2021, RoFormer, eq. 34; axes interleaved).

The C/2 rotation planes of a head are dealt to the axes of a stream in turn: plane j turns with axis
j mod A. A text token has one axis, a patch two, a tubelet three; a set has none that moves.

    planes    0    1    2    3    4    5           axes of a patch: r, c
    turns by  r f0 c f0 r f1 c f1 r f2 c f2        f falls from 1 to 1/base
"""

from __future__ import annotations

import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

# Patches and words are tens to hundreds apart, so a base far under text models' 10,000 spreads
# the planes over useful wavelengths (6 to about 6,000 positions).
BASE = 1000.0


def axis_frequencies(num_axes: int, head_dim: int, base: float = BASE) -> Float[np.ndarray, "A F"]:
    """Angular frequency of each rotation plane for each axis; 0 where it is another's."""
    planes = head_dim // 2
    plane = np.arange(planes)
    rank = plane // num_axes
    ranks = -(-planes // num_axes)
    frequency = base ** (-rank / max(ranks, 1))
    out = np.zeros((num_axes, planes), np.float32)
    out[plane % num_axes, plane] = frequency
    return out


def rotary_angles(
    coords: Float[Array, "P N A"], head_dim: int, base: float = BASE
) -> Float[Array, "P N F"]:
    """Angle of every rotation plane (head_dim / 2 of them) for every part."""
    return coords.astype(jnp.float32) @ axis_frequencies(coords.shape[-1], head_dim, base)


def rotate(
    x_BHTC: Float[Array, "B H T C"], angles_BTF: Float[Array, "B T F"]
) -> Float[Array, "B H T C"]:
    """Turns each plane (c, c + C/2) of queries or keys by its angle."""
    cos = jnp.cos(angles_BTF)[:, None].astype(x_BHTC.dtype)
    sin = jnp.sin(angles_BTF)[:, None].astype(x_BHTC.dtype)
    first, second = jnp.split(x_BHTC, 2, axis=-1)
    return jnp.concatenate([first * cos - second * sin, second * cos + first * sin], axis=-1)
