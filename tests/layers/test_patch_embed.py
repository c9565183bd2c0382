from __future__ import annotations

import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from multimed_jax.layers.patch_embed import PatchEmbed
from multimed_jax.types import StreamBatch
from tests.modalities.streams import run


def batch(parts: np.ndarray, coords: np.ndarray) -> StreamBatch:
    segment = np.ones(parts.shape[:2], np.int32)
    return StreamBatch(parts, coords.astype(np.float32), segment, segment)


@pytest.mark.parametrize(("shape", "num_axes"), [((3, 2), 2), ((2, 2, 3), 2), ((2, 2, 2, 2), 3)])
def test_a_token_knows_its_values_and_its_place_on_every_axis(shape, num_axes):
    rng = np.random.default_rng(0)
    module = PatchEmbed(shape, 5.0, 8, nnx.Rngs(0), num_axes)
    # One part at the origin, then at 1 on each axis, then another part at the origin.
    same, other = rng.normal(size=(2, *shape)).astype(np.float32)
    parts = np.stack([*[same] * (num_axes + 1), other])[None]
    coords = np.concatenate([np.zeros((1, num_axes)), np.eye(num_axes), np.zeros((1, num_axes))])
    tokens = run(module, batch(parts, coords[None]))[0]
    assert tokens.shape == (num_axes + 2, 8) and np.isfinite(tokens).all()
    distance = np.abs(tokens[:, None] - tokens[None]).max(axis=-1)
    assert (distance[~np.eye(len(tokens), dtype=bool)] > 1e-3).all()


def test_the_linear_branch_sees_every_value_of_a_part():
    module = PatchEmbed((2, 2, 2), 5.0, 8, nnx.Rngs(0), 3)
    kernel = jnp.asarray(module.linear.kernel[...])
    assert kernel.shape == (8, 8)
    weights = np.asarray(kernel)
    module.out.kernel[...] = jnp.zeros_like(module.out.kernel[...])
    coords = np.zeros((1, 9, 3))
    parts = np.concatenate([np.zeros((1, 8)), np.eye(8)]).reshape(1, 9, 2, 2, 2)
    tokens = run(module, batch(parts.astype(np.float32), coords))[0]
    np.testing.assert_allclose(tokens[1:] - tokens[0], weights, atol=1e-5)
