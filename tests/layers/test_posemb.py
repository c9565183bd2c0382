"""Rotary positions against complex multiplication, and what they must and must not tell."""

from __future__ import annotations

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from multimed_jax.config import ModelConfig
from multimed_jax.layers.posemb import BASE, axis_frequencies, rotary_angles, rotate
from multimed_jax.model import Model, ModelSpec
from multimed_jax.specs import Namespace
from tests.toy import make_toy_modality, make_toy_task, pack

RNG = np.random.default_rng(0)


def test_frequencies_by_hand():
    """Six planes, two axes: r c r c r c, with f = 1, base^(-1/3), base^(-2/3) for either."""
    f = BASE ** (-np.arange(3) / 3)
    expected = [[f[0], 0, f[1], 0, f[2], 0], [0, f[0], 0, f[1], 0, f[2]]]
    np.testing.assert_allclose(axis_frequencies(2, 12), expected, rtol=1e-6)
    np.testing.assert_allclose(axis_frequencies(1, 4), [[1, BASE**-0.5]], rtol=1e-6)


@pytest.mark.parametrize("axes", [1, 2, 3])
def test_rotation_is_complex_multiplication(axes):
    """Plane j, (x[j], x[j + C/2]) as a complex number, is multiplied by exp(i angle)."""
    coords = RNG.normal(size=(2, 5, axes)).astype(np.float32) * 4
    x = RNG.normal(size=(2, 3, 5, 12)).astype(np.float32)
    angles = np.zeros((2, 5, 6))
    for plane in range(6):
        ranks = -(-6 // axes)
        angles[..., plane] = coords[..., plane % axes] * BASE ** (-(plane // axes) / ranks)
    turned = (x[..., :6] + 1j * x[..., 6:]) * np.exp(1j * angles)[:, None]
    expected = np.concatenate([turned.real, turned.imag], axis=-1)
    found = rotate(jnp.asarray(x), rotary_angles(jnp.asarray(coords), 12))
    np.testing.assert_allclose(found, expected, atol=2e-5)


def test_scores_know_the_offset_along_each_axis_only():
    """q.k depends on the difference of two places, and on its row and its column alike."""
    q, k = jnp.asarray(RNG.normal(size=(2, 1, 1, 1, 16)), jnp.float32)

    def score(a, b):
        qa = rotate(q, rotary_angles(jnp.array([[a]], jnp.float32), 16))
        kb = rotate(k, rotary_angles(jnp.array([[b]], jnp.float32), 16))
        return float((qa * kb).sum())

    assert score((1, 2), (4, 8)) == pytest.approx(score((11, 32), (14, 38)), abs=1e-4)
    assert score((1, 2), (4, 8)) != pytest.approx(score((1, 2), (8, 4)), abs=1e-2)
    assert score((1, 2), (4, 8)) != pytest.approx(score((1, 2), (4, 2)), abs=1e-2)
    assert score((1, 2), (4, 8)) != pytest.approx(score((1, 2), (1, 8)), abs=1e-2)


def test_the_model_gives_every_token_the_place_of_its_own_part():
    """Moving all parts of a sample along an axis changes nothing; moving one part does."""
    modality = make_toy_modality("a", 91, axes=2)
    config = ModelConfig(d_model=24, num_layers=2, num_heads=2)
    spaces = {"toy": (Namespace("s", ("x", "y", "z"), (1, 1, 1)),)}
    spec = ModelSpec(config, (modality,), (make_toy_task("toy"),), spaces)
    graphdef, state = nnx.split(Model(spec, nnx.Rngs(1)))
    state = jax.tree.map(lambda x: x * 4 if x.ndim >= 2 else x, nnx.to_pure_dict(state))
    rows = [[{"a.toy": RNG.normal(size=(n, 3))} for n in (4, 5)]]
    batch = pack(rows, list(modality.streams), 10, 16, [0, 1], "toy")
    forward = jax.jit(lambda b: nnx.merge(graphdef, state)(b)["toy"][0])

    def with_coords(coords):
        stream = dataclasses.replace(batch.streams["a.toy"], coords=coords)
        return np.asarray(forward(dataclasses.replace(batch, streams={"a.toy": stream})))

    coords = batch.streams["a.toy"].coords.copy()
    coords[0, :9] = RNG.integers(0, 8, size=(9, 2))
    base = with_coords(coords)
    np.testing.assert_allclose(with_coords(coords + np.array([3, 5], np.float32)), base, atol=1e-4)
    assert np.abs(with_coords(coords[..., ::-1].copy()) - base).max() > 1e-3
    one = coords.copy()
    one[0, 4, 1] += 3  # a part of the second sample
    moved = np.abs(with_coords(one) - base).max(-1)
    assert moved[0] < 1e-6 < 1e-3 < moved[1]
