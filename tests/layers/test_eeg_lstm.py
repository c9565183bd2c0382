from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx

from multimed_jax.layers.eeg_lstm import LstmCell, LstmStem, run_items, run_steps
from multimed_jax.types import StreamBatch

ITEM = np.array([[1, 1, 1, 2, 3, 3, 0, 0], [4, 4, 5, 5, 5, 6, 7, 0]])
CHANNELS, LENGTH = 3, 20


def numpy_lstm(cell: LstmCell, inputs: np.ndarray) -> np.ndarray:
    """Outputs after each of the inputs [T, I], from the textbook equations."""
    inward, recurrent, bias = (
        np.asarray(p[...], float) for p in (cell.inward, cell.recurrent, cell.bias)
    )
    size = cell.num_hidden
    h, c, out = np.zeros(size), np.zeros(size), []
    for x in inputs.astype(float):
        gates = x @ inward + h @ recurrent + bias
        i, f, g, o = (gates[k * size : (k + 1) * size] for k in range(4))
        c = 1 / (1 + np.exp(-f)) * c + 1 / (1 + np.exp(-i)) * np.tanh(g)
        h = 1 / (1 + np.exp(-o)) * np.tanh(c)
        out.append(h)
    return np.array(out)


def test_steps_equal_a_hand_written_lstm():
    cell = LstmCell(5, 4, nnx.Rngs(0))
    inputs = np.random.default_rng(0).normal(size=(2, 3, 6, 5)).astype(np.float32)
    got = np.asarray(run_steps(cell, jnp.asarray(inputs)))
    for p, n in np.ndindex(2, 3):
        np.testing.assert_allclose(got[p, n], numpy_lstm(cell, inputs[p, n])[-1], atol=1e-5)


def test_memory_starts_anew_at_every_item():
    cell = LstmCell(5, 4, nnx.Rngs(1))
    x = np.random.default_rng(0).normal(size=(2, 8, 5)).astype(np.float32)
    got = np.asarray(run_items(cell, jnp.asarray(x), jnp.asarray(ITEM), 3))
    for p in range(2):
        for item in set(ITEM[p].tolist()) - {0}:
            own = ITEM[p] == item
            np.testing.assert_allclose(got[p, own], numpy_lstm(cell, x[p, own]), atol=1e-5)


def make_stem() -> LstmStem:
    return LstmStem(40.0, LENGTH, 3, 4, 6, 10, nnx.Rngs(0))


def make_batch(seed: int = 0) -> StreamBatch:
    rng = np.random.default_rng(seed)
    parts = rng.normal(size=(2, 8, CHANNELS, LENGTH + 4)).astype(np.float32)
    parts[..., -1] = 1.0
    parts[ITEM == 0] = 0.0
    coords = rng.integers(0, 3, (2, 8, 1)).astype(np.float32)
    return StreamBatch(parts, coords, ITEM, ITEM)


def test_no_token_and_no_gradient_hears_of_another_sample():
    graph, params = nnx.split(make_stem())

    def loss(params, parts, coords, chosen):
        tokens = nnx.merge(graph, params)(StreamBatch(parts, coords, ITEM, ITEM))
        return jnp.sum(jnp.sin(tokens) * chosen[..., None]), tokens

    both = jax.jit(jax.value_and_grad(loss, argnums=(0, 1), has_aux=True))
    batch = make_batch()
    for item in (2, 5):
        chosen = (ITEM == item).astype(np.float32)
        (_, tokens), (gradient, to_parts) = both(params, batch.parts, batch.coords, chosen)
        changed = make_batch(seed=9).parts.copy()
        changed[ITEM == item] = batch.parts[ITEM == item]
        (_, other), (second, _) = both(params, changed, batch.coords, chosen)
        np.testing.assert_array_equal(tokens[ITEM == item], other[ITEM == item])
        assert np.abs(np.asarray(tokens - other))[(ITEM > 0) & (ITEM != item)].max() > 1e-2
        for a, b in zip(jax.tree.leaves(gradient), jax.tree.leaves(second), strict=True):
            np.testing.assert_allclose(a, b, atol=1e-6)
            assert np.isfinite(a).all()
        assert not np.asarray(to_parts)[ITEM != item].any()
        assert np.asarray(to_parts)[ITEM == item].any()


def test_a_patch_hears_of_those_before_it_alone():
    stem, batch = make_stem(), make_batch()
    graph, params = nnx.split(stem)
    forward = jax.jit(lambda p, b: nnx.merge(graph, p)(b))
    before = np.asarray(forward(params, batch))
    batch.parts[1, 3] += 1.0  # the second of three patches of item 5
    after = np.asarray(forward(params, batch))
    moved = np.abs(after - before).max(-1)
    assert (moved[1, 3:5] > 1e-4).all()
    moved[1, 3:5] = 0
    assert moved.max() == 0
