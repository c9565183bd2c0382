"""Every path of packed attention against one softmax per sample, written out in NumPy."""

from __future__ import annotations

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from absl import logging
from jax.sharding import NamedSharding, PartitionSpec
from scipy.special import softmax

from multimed_jax.config import MeshConfig
from multimed_jax.layers import attention
from multimed_jax.layers.attention import choose, dense_attention, packed_attention, refusal
from multimed_jax.layers.attention_blocks import block_attention, visits
from multimed_jax.layers.attention_kernels import pallas_attention, runs
from multimed_jax.layers.sight import Sight, make_sight
from multimed_jax.sharding import MeshPlacement, make_mesh
from multimed_jax.types import UserError

RNG = np.random.default_rng(0)
# Samples that end inside blocks of 4, padding in the middle and behind, one that lies apart (6).
SEGMENT = np.array(
    [
        [1, 1, 1, 1, 1, 2, 2, 0, 3, 3, 3, 3, 3, 3, 0, 0],
        [6, 6, 5, 5, 6, 6, 6, 6, 6, 6, 6, 6, 6, 4, 4, 4],
        [0] * 16,
    ]
)
MODALITY = np.array(
    [
        [1, 1, 2, 2, 2, 1, 1, 0, 1, 2, 2, 1, 3, 3, 0, 0],
        [1, 2, 1, 2, 2, 1, 1, 1, 3, 3, 3, 1, 1, 3, 3, 3],
        [0] * 16,
    ]
)
ORDER = np.array(
    [
        [0, 0, 0, 1, 2, 0, 1, 0, 0, 0, 1, 2, 3, 4, 0, 0],
        [0, 0, 0, 1, 0, 0, 1, 2, 3, 4, 5, 6, 7, 0, 1, 2],
        [0] * 16,
    ]
)
SHAPE = (3, 2, 16, 8)  # B, H, T, C
PATHS = {
    "dense": dense_attention,
    "cpu": functools.partial(block_attention, block=4),
    # 16 is no multiple of 6.
    "cpu_padded": functools.partial(block_attention, block=6),
    "pallas": functools.partial(pallas_attention, interpret=True),
}


def sight_of(within: bool, order: bool) -> Sight:
    return make_sight(
        jnp.asarray(SEGMENT),
        jnp.asarray(MODALITY) if within else None,
        jnp.asarray(ORDER) if order else None,
        modalities=4,
    )


def seen(within: bool, order: bool) -> np.ndarray:
    """[b, i, j]: whether token i sees token j, by the words of the file's head."""
    out = np.zeros((*SEGMENT.shape, SEGMENT.shape[1]), bool)
    for b, i, j in np.ndindex(out.shape):
        same = not within or MODALITY[b, i] == MODALITY[b, j] or (order and ORDER[b, i] > 0)
        later = order and ORDER[b, j] > ORDER[b, i]
        out[b, i, j] = SEGMENT[b, i] == SEGMENT[b, j] and same and not later
    return out


def by_hand(q, k, v, see: np.ndarray) -> np.ndarray:
    out = np.zeros(q.shape)
    for b, h, i in np.ndindex(q.shape[:3]):
        weights = softmax(k[b, h, see[b, i]] @ q[b, h, i] / np.sqrt(q.shape[-1]))
        out[b, h, i] = weights @ v[b, h, see[b, i]]
    return out


CASES = [
    (path, within, order)
    for path in PATHS
    for within in (False, True)
    for order in (False, True)
    if not (order and path == "pallas")
]


@pytest.mark.parametrize(("path", "within", "order"), CASES)
def test_values_and_gradients(path, within, order):
    q, k, v, g = RNG.normal(size=(4, *SHAPE)).astype(np.float32) * 2
    see, real = seen(within, order), SEGMENT > 0
    g *= real[:, None, :, None]  # nothing flows back from padding

    def run(q, k, v):
        return PATHS[path](q, k, v, sight_of(within, order))

    out, back = jax.vjp(jax.jit(run), *map(jnp.asarray, (q, k, v)))
    out = np.asarray(out)
    assert np.isfinite(out).all()
    rows = np.broadcast_to(real[:, None], SHAPE[:3])
    np.testing.assert_allclose(out[rows], by_hand(q, k, v, see)[rows], atol=2e-6, rtol=1e-5)

    # Derivatives of softmax attention, sample by sample in float64.
    scale = SHAPE[-1] ** -0.5
    expected = [np.zeros(SHAPE) for _ in range(3)]
    for b, h in np.ndindex(SHAPE[:2]):
        scores = np.where(see[b], q[b, h].astype(float) @ k[b, h].T * scale, -np.inf)
        p = softmax(scores, axis=-1)
        dp = g[b, h] @ v[b, h].T
        ds = p * (dp - (p * dp).sum(-1, keepdims=True)) * scale
        expected[0][b, h], expected[1][b, h] = ds @ k[b, h], ds.T @ q[b, h]
        expected[2][b, h] = p.T @ g[b, h]
    for got, want in zip(back(jnp.asarray(g)), expected, strict=True):
        np.testing.assert_allclose(got, want, atol=1e-5, rtol=1e-4)


@pytest.mark.parametrize("path", ["cpu", "pallas"])
def test_sixteen_bits(path):
    """In bfloat16 a path is as near to the exact figures as the dense one is."""
    q, k, v, g = RNG.normal(size=(4, *SHAPE)).astype(np.float32)
    g *= (SEGMENT > 0)[:, None, :, None]
    half = [jnp.asarray(a, jnp.bfloat16) for a in (q, k, v)]
    sight = sight_of(True, False)

    def error(function):
        out, back = jax.vjp(lambda *a: function(*a, sight), *half)
        exact, exact_back = jax.vjp(
            lambda q, k, v: dense_attention(q, k, v, sight), *[a.astype(jnp.float32) for a in half]
        )
        assert out.dtype == jnp.bfloat16
        real = (SEGMENT > 0)[:, None, :, None]
        pairs = [(out, exact)]
        pairs += zip(
            back(jnp.asarray(g, jnp.bfloat16)),
            exact_back(jnp.asarray(g, jnp.bfloat16).astype(jnp.float32)),
            strict=True,
        )
        return [
            float(np.abs((np.asarray(a, np.float32) - np.asarray(b)) * real).max())
            for a, b in pairs
        ]

    for mine, reference in zip(error(PATHS[path]), error(dense_attention), strict=True):
        assert mine <= 1.5 * reference + 2**-8


def test_visits_are_those_of_the_samples():
    """Blocks of 4: the first and last block in which a sample of the block has a token."""
    first, stop = visits(jnp.asarray(SEGMENT), 4)
    # Row 0: samples 1 | 1, 2 | 3 | 3; row 1: 6, 5 | 6 | 6 | 6, 4; row 2: nothing.
    np.testing.assert_array_equal(stop[2], 0)
    np.testing.assert_array_equal(first[:2], [[0, 0, 2, 2], [0, 0, 0, 0]])
    np.testing.assert_array_equal(stop[:2], [[2, 2, 4, 4], [4, 4, 4, 4]])


def test_other_samples_are_not_computed():
    """Not a number in another sample reaches nothing, unless its block is shared."""
    q, k, v = (jnp.asarray(a) for a in RNG.normal(size=(3, *SHAPE)).astype(np.float32))
    spoilt = k.at[0, :, 8:].set(jnp.nan)
    out = block_attention(q, spoilt, v, sight_of(False, False), block=4)
    assert jnp.isfinite(out[0, :, :7]).all() and not jnp.isfinite(out[0, :, 8:14]).any()
    # The dense path multiplies every pair: it is no better than its finite inputs.
    assert not jnp.isfinite(dense_attention(q, spoilt, v * spoilt, sight_of(False, False))[0]).all()


def test_a_row_of_padding_is_finite():
    q = jnp.ones((1, 1, 3, 2))
    sight = make_sight(jnp.zeros((1, 3), int))
    for path in ("dense", "cpu"):
        assert jnp.isfinite(packed_attention(q, q, q, sight, path)).all()


def test_runs_are_starts_and_lengths():
    starts, lengths = runs(sight_of(False, False).groups(), 6)
    np.testing.assert_array_equal(starts[0], [0, 5, 7, 8, 14, -1, -1])
    np.testing.assert_array_equal(lengths[0], [5, 2, 1, 6, 2, -1])
    np.testing.assert_array_equal(starts[2], [0, -1, -1, -1, -1, -1, -1])
    np.testing.assert_array_equal(lengths[2], [16, -1, -1, -1, -1, -1])
    full, ones = runs(jnp.asarray([[1, 2, 3]]), 3)
    np.testing.assert_array_equal(full, [[0, 1, 2, -1]])
    np.testing.assert_array_equal(ones, [[1, 1, 1]])


def wide(width: int, *, order: bool = False, contiguous: bool = True) -> Sight:
    segment = jnp.ones((1, width), int)
    return make_sight(segment, order=segment if order else None, contiguous=contiguous)


@pytest.mark.parametrize(
    ("path", "sight", "dtype", "backend", "taken"),
    [
        ("auto", wide(128), "float32", "cpu", "dense"),
        ("auto", wide(512), "float32", "cpu", "cpu"),
        ("auto", wide(512, order=True), "float32", "cpu", "cpu"),
        ("auto", wide(512), "float32", "gpu", "pallas"),
        ("auto", wide(512), "float32", "tpu", "dense"),
        ("auto", wide(512, order=True), "float32", "gpu", "dense"),
        ("pallas", wide(200), "float32", "gpu", "dense"),
        ("cudnn", wide(200), "bfloat16", "gpu", "cudnn"),
        ("cudnn", wide(200), "float32", "gpu", "dense"),
        ("cudnn", wide(200, order=True), "bfloat16", "gpu", "dense"),
        ("cudnn", wide(200, contiguous=False), "bfloat16", "gpu", "dense"),
        ("cpu", wide(16), "float32", "gpu", "cpu"),
        ("dense", wide(1024), "float32", "gpu", "dense"),
    ],
)
def test_the_path_that_is_taken(path, sight, dtype, backend, taken):
    assert choose(path, sight, 64, dtype, backend) == taken


def test_a_fallback_is_said_once(monkeypatch):
    said: list[str] = []
    monkeypatch.setattr(logging, "warning", lambda form, *args: said.append(form % args))
    attention._say.cache_clear()
    for _ in range(2):
        choose("pallas", wide(256, order=True), 64, "float32", "gpu")
    assert said == [
        "attention runs dense instead of pallas on rows of 256: its mask has no order of answers"
    ]
    assert refusal("cudnn", wide(256), 12, jnp.dtype("bfloat16")).endswith("and these 12")


@pytest.mark.parametrize("path", ["pallas", "cudnn"])
def test_a_kernel_of_other_devices_is_refused(path):
    q = jnp.ones((1, 1, 128, 8))
    with pytest.raises(UserError, match=f"'{path}'.*accepted here: auto, dense, cpu"):
        packed_attention(q, q, q, wide(128), path)


@pytest.mark.gpu
@pytest.mark.skipif(jax.default_backend() != "gpu", reason="needs an NVIDIA GPU")
@pytest.mark.parametrize("path", ["pallas", "cudnn"])
@pytest.mark.parametrize("within", [False, True])
def test_gpu_kernels_equal_the_reference(path, within):
    rng = np.random.default_rng(1)
    lengths = rng.integers(20, 90, (2, 6))
    rows = [np.repeat(np.arange(6) + 1, n)[:256] for n in lengths]
    segment = np.stack([np.pad(row, (0, 256 - len(row))) for row in rows])
    kind = np.sort(rng.integers(0, 2, segment.shape)) if within else None
    sight = make_sight(
        jnp.asarray(segment),
        None if kind is None else jnp.asarray(kind),
        modalities=2,
        contiguous=True,
    )
    real = (segment > 0)[:, None, :, None]
    q, k, v, g = (jnp.asarray(a, jnp.bfloat16) for a in rng.normal(size=(4, 2, 4, 256, 64)))
    results = []
    for name in (path, "dense"):
        out, back = jax.vjp(lambda q, k, v, n=name: packed_attention(q, k, v, sight, n), q, k, v)
        results.append([out * real, *back(g * real)])
    for mine, reference in zip(*results, strict=True):
        np.testing.assert_allclose(
            mine.astype(jnp.float32), reference.astype(jnp.float32), atol=3e-2, rtol=3e-2
        )


@pytest.mark.parametrize("heads", [2, 3], ids=["heads cut", "heads whole"])
def test_devices_attend_to_their_own_rows(heads):
    """On a mesh each device runs the loop over what it holds: the same figures, and no traffic.

    Heads that the tensor axis does not divide are the same on its devices, whose gradients are
    brought together.
    """
    mesh = make_mesh(MeshConfig(data=2, fsdp=2, tensor=2))
    rng = np.random.default_rng(2)
    rows = 8
    segment = jnp.asarray(np.sort(rng.integers(0, 4, (rows, 16))))
    qkv = [jnp.asarray(a, jnp.float32) for a in rng.normal(size=(3, rows, heads, 16, 4))]

    def loss(q, k, v, segment, path):
        sight = make_sight(segment)
        y = packed_attention(q, k, v, sight, path, MeshPlacement().on_each)
        return (jnp.sin(y) * (segment > 0)[:, None, :, None]).sum()

    def gradients(path):
        return jax.grad(functools.partial(loss, path=path), argnums=(0, 1, 2))

    alone = gradients("dense")(*qkv, segment)
    tensor = "tensor" if heads == 2 else None
    cut = NamedSharding(mesh, PartitionSpec(("data", "fsdp"), tensor))
    packs = NamedSharding(mesh, PartitionSpec(("data", "fsdp")))
    with jax.set_mesh(mesh):
        step = jax.jit(
            gradients("cpu"), in_shardings=(cut, cut, cut, packs), out_shardings=(cut, cut, cut)
        )
        compiled = step.lower(*qkv, segment).compile()
        found = step(*qkv, segment)
    kinds = {"all-gather", "all-reduce", "all-to-all", "collective-permute"}
    for kind in kinds - (set() if tensor else {"all-reduce"}):
        assert kind not in str(compiled.as_text())
    for mine, reference in zip(found, alone, strict=True):
        np.testing.assert_allclose(mine, reference, atol=1e-5)
