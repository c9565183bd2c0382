from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from multimed_jax.layers.sequence_stem import ConvSequenceStem, MotifScan, WordBag, extended
from multimed_jax.types import StreamBatch

ITEM = np.array([[1, 1, 1, 2, 2, 0, 0]])


def codes(seed: int = 0, patch: int = 4) -> np.ndarray:
    out = np.random.default_rng(seed).integers(1, 6, (1, 7, patch))
    out[0, 5:] = 0
    out[0, 4, 2:] = 0  # the second sample ends inside its last patch
    return out.astype(np.int32)


def batch(parts: np.ndarray) -> StreamBatch:
    coords = np.arange(7, dtype=np.float32).reshape(1, 7, 1)
    return StreamBatch(parts, coords, ITEM, ITEM)


def one_hot(code: int) -> np.ndarray:
    if code == 0:
        return np.zeros(4)
    return np.full(4, 0.25) if code == 5 else np.eye(4)[code - 1]


def test_neighbours_are_those_of_the_same_item():
    parts = codes()
    got = np.asarray(extended(jnp.asarray(parts), jnp.asarray(ITEM), 2, 3))[0]
    rows, item = parts[0], ITEM[0]
    for n in range(7):
        left = rows[n - 1][-2:] if n > 0 and item[n - 1] == item[n] > 0 else [0, 0]
        right = rows[n + 1][:3] if n < 6 and item[n + 1] == item[n] > 0 else [0, 0, 0]
        assert got[n].tolist() == [*left, *rows[n], *right], n
    with pytest.raises(ValueError, match="past a patch of 4"):
        extended(jnp.asarray(parts), jnp.asarray(ITEM), 0, 5)


@pytest.mark.parametrize("both", [True, False])
def test_scores_are_the_better_of_both_strands(both):
    scan = MotifScan(3, 5, both, nnx.Rngs(0))
    scan.bias[...] = jnp.linspace(-0.2, 0.2, 5)
    parts = codes()[:, :2]
    got = np.asarray(scan(jnp.asarray(parts)))
    kernel, bias = np.asarray(scan.kernel[...], float), np.asarray(scan.bias[...])
    for n in range(2):
        for place in range(2):
            window = parts[0, n, place : place + 3]
            forward = sum(one_hot(c) @ kernel[i] for i, c in enumerate(window))
            other = [c if c in (0, 5) else 5 - c for c in window[::-1]]
            opposite = sum(one_hot(c) @ kernel[i] for i, c in enumerate(other))
            best = np.maximum(forward, opposite) if both else forward
            np.testing.assert_allclose(got[0, n, place], np.maximum(best + bias, 0), atol=1e-5)


def test_a_bag_holds_each_known_word_once():
    bag = WordBag(2, True, 6, nnx.Rngs(0))
    assert bag.words[...].shape == (10, 6)  # 4 words that are their own mirror, and 6 pairs
    # A C G | A with N: the words are AC, CG; GA with its base behind the patch; N ends all others.
    table = np.asarray(bag.words[...])
    rank = {"AA": 0, "TT": 0, "AC": 1, "GT": 1, "AG": 2, "CT": 2, "AT": 3, "CA": 4, "TG": 4}
    rank |= {"CC": 5, "GG": 5, "CG": 6, "GA": 7, "TC": 7, "GC": 8, "TA": 9}
    for text in ("ACGA", "TTNA", "GC.A", "CAGT"):
        row = np.array([[[".ACGTN".index(c) for c in text]]], np.int32)
        words = [text[i : i + 2] for i in range(3)]
        expected = sum((table[rank[w]] for w in words if w in rank), np.zeros(6))
        np.testing.assert_allclose(np.asarray(bag(jnp.asarray(row)))[0, 0], expected, atol=1e-6)


def test_the_map_of_a_patch_reads_each_base_in_its_place():
    plain, mapped = (ConvSequenceStem(4, 5, 6, 3, True, n, 4.0, 8, nnx.Rngs(0)) for n in (0, 5))
    for name in ("scan", "mix", "bag", "place"):
        nnx.update(getattr(plain, name), nnx.state(getattr(mapped, name)))
    added = np.asarray(mapped(batch(codes()))) - np.asarray(plain(batch(codes())))
    assert mapped.whole is not None
    first, second = (layer for layer in mapped.whole.layers if isinstance(layer, nnx.Linear))
    assert first.bias is not None and second.bias is not None
    bias = np.asarray(first.bias[...]), np.asarray(second.bias[...])
    table = np.vstack([np.zeros(4), np.eye(4), np.full(4, 0.25)])
    for row in range(added.shape[1]):
        bases = np.concatenate([table[code] for code in codes()[0, row]])
        x = bases @ np.asarray(first.kernel[...]) + bias[0]
        gelu = 0.5 * x * (1 + np.tanh(np.sqrt(2 / np.pi) * (x + 0.044715 * x**3)))
        expected = gelu @ np.asarray(second.kernel[...]) + bias[1]
        np.testing.assert_allclose(added[0, row], expected, atol=1e-5)


def test_no_output_and_no_gradient_crosses_a_sample():
    stem = ConvSequenceStem(4, 5, 6, 3, True, 5, 4.0, 8, nnx.Rngs(0))
    graph, params = nnx.split(stem)
    forward = jax.jit(lambda p, b: nnx.merge(graph, p)(b))
    first_only = jnp.asarray((ITEM == 1)[..., None], jnp.float32)
    gradient = jax.jit(jax.grad(lambda p, b: jnp.sum(jnp.sin(nnx.merge(graph, p)(b)) * first_only)))
    before, changed = codes(), codes()
    changed[0, 3:5] = codes(seed=9)[0, 3:5]
    one, two = (np.asarray(forward(params, batch(c)))[0] for c in (before, changed))
    np.testing.assert_array_equal(one[:3], two[:3])
    assert np.abs(one[3:5] - two[3:5]).max() > 1e-3
    for a, b in zip(
        jax.tree.leaves(gradient(params, batch(before))),
        jax.tree.leaves(gradient(params, batch(changed))),
        strict=True,
    ):
        np.testing.assert_array_equal(a, b)
    # Inside the sample the patch behind does reach in.
    changed = codes()
    changed[0, 1, 0] = 5 - changed[0, 1, 0] if changed[0, 1, 0] < 5 else 1
    assert np.abs(np.asarray(forward(params, batch(changed)))[0, 0] - one[0]).max() > 1e-5
