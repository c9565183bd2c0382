"""The packed model against plain one-sample computations."""

from __future__ import annotations

import dataclasses
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from multimed_jax.config import ModelConfig
from multimed_jax.layers.sight import make_sight
from multimed_jax.model import Model, ModelSpec
from multimed_jax.specs import Namespace
from tests.toy import make_toy_modality, make_toy_task, pack

A, B = make_toy_modality("a", 91, axes=2), make_toy_modality("b", 92)
TASK = make_toy_task("toy")
SPACES = {"toy": (Namespace("toy_source", ("x", "y", "z"), (1, 1, 1)),)}
RNG = np.random.default_rng(0)


def sample(a: int, b: int) -> dict[str, np.ndarray]:
    """A sample with `a` parts of stream a.toy and `b` of b.toy."""
    return {
        "a.toy": RNG.normal(size=(a, 3)).astype(np.float32),
        "b.toy": RNG.normal(size=(b, 3)).astype(np.float32),
    }


ROWS = [[sample(3, 2), sample(4, 0), sample(0, 3)], [sample(2, 5), sample(1, 1)]]
LABELS = [0, 1, 2, 1, 0]
STREAMS = [*A.streams, *B.streams]


def make(fusion: Any = "early", **changes):
    """A jitted forward pass and its parameters."""
    config = ModelConfig(d_model=16, num_layers=2, num_heads=2, fusion=fusion, **changes)
    spec = ModelSpec(config, (A, B), (TASK,), SPACES)
    model = Model(spec, nnx.Rngs(1))
    graphdef, state = nnx.split(model)
    state = nnx.to_pure_dict(state)
    # Pre-norm residual branches start small; scale the weights up so that leaks would show.
    state = jax.tree.map(lambda x: x * 3 if x.ndim >= 2 else x, state)

    def outputs(state, batch):
        return nnx.merge(graphdef, state)(batch)["toy"]

    return jax.jit(outputs), state


def alone(sample_):
    """The batch that holds one sample in one row of its own."""
    return pack([[sample_]], STREAMS, 12, 24, [0], "toy")


FLAT = [s for row in ROWS for s in row]


@pytest.mark.parametrize("fusion", ["early", "late"])
@pytest.mark.parametrize("changes", [{}, {"scan_layers": True, "remat": "full"}])
def test_packed_equals_one_sample_per_row(fusion, changes):
    """Packing changes nothing: every sample's outputs equal those of the sample on its own."""
    forward, state = make(fusion, **changes)
    packed = forward(state, pack(ROWS, STREAMS, 12, 24, LABELS, "toy"))[0]
    for i, s in enumerate(FLAT):
        np.testing.assert_allclose(packed[i], forward(state, alone(s))[0, 0], atol=2e-5)


def test_no_sample_reaches_another():
    """Perturbing one sample of a pack leaves every other sample's outputs and gradients alone."""
    forward, state = make()
    batch = pack(ROWS, STREAMS, 12, 24, LABELS, "toy")
    before = np.asarray(forward(state, batch))[0]
    for target in range(5):
        changed = {
            name: dataclasses.replace(
                stream, parts=np.where((stream.segment == target + 1)[..., None], 9.0, stream.parts)
            )
            for name, stream in batch.streams.items()
        }
        after = np.asarray(forward(state, dataclasses.replace(batch, streams=changed)))[0]
        moved = np.abs(after - before).max(-1) > 1e-6
        assert moved.tolist() == [i == target for i in range(5)]


def test_gradient_of_one_sample_stays_in_its_parts():
    """d output[i] / d parts is zero outside sample i, and not zero inside it."""
    forward, state = make()
    batch = pack(ROWS, STREAMS, 12, 24, LABELS, "toy")

    def one(parts, i):
        streams = {k: dataclasses.replace(v, parts=parts[k]) for k, v in batch.streams.items()}
        return forward(state, dataclasses.replace(batch, streams=streams))[0, i, 0]

    parts = {k: jnp.asarray(v.parts) for k, v in batch.streams.items()}
    gradient = jax.jit(jax.grad(one))
    for i in range(5):
        for name, value in gradient(parts, i).items():
            inside = np.asarray(batch.streams[name].segment)[0] == i + 1
            size = np.abs(np.asarray(value)[0]).sum(-1)
            assert np.all(size[~inside] == 0)
            assert np.all(size[inside] > 0)


def test_late_fusion_equals_the_modalities_apart():
    """Late fusion of a sample is the mean of the outputs of its modalities on their own."""
    forward, state = make("late")
    packed = forward(state, pack(ROWS, STREAMS, 12, 24, LABELS, "toy"))[0]
    for i, s in enumerate(FLAT):
        each = [forward(state, alone({name: s[name]}))[0, 0] for name in s if len(s[name])]
        np.testing.assert_allclose(packed[i], np.mean(each, axis=0), atol=1e-5)


def test_early_fusion_equals_one_segment_without_a_mask(monkeypatch):
    """A sample that fills its row, run with attention that masks nothing at all."""
    whole = sample(7, 5)
    batch = pack([[whole]], STREAMS, 12, 12, [0], "toy")
    masked, state = make("early")
    pair = pack([[sample(3, 3), sample(4, 2)]], STREAMS, 12, 12, [0, 1], "toy")
    expected, packed = masked(state, batch), masked(state, pair)
    everything = lambda segment, *_, **__: make_sight(jnp.zeros_like(segment))  # noqa: E731
    monkeypatch.setattr("multimed_jax.model.make_sight", everything)
    unmasked, _ = make("early")
    np.testing.assert_allclose(unmasked(state, batch), expected, atol=1e-6)
    # The same bare model on two samples in one row is not what packing gives.
    assert np.abs(np.asarray(unmasked(state, pair) - packed)).max() > 1e-3


@pytest.mark.parametrize(("fusion", "scan"), [("late", False), ("intermediate", True)])
def test_attention_by_blocks_is_the_same_model(fusion, scan):
    batch = pack(ROWS, STREAMS, 12, 24, LABELS, "toy")
    dense, state = make(fusion, fusion_layers=1, scan_layers=scan, attention="dense")
    blocks, _ = make(fusion, fusion_layers=1, scan_layers=scan, attention="cpu")
    np.testing.assert_allclose(blocks(state, batch), dense(state, batch), atol=1e-5)


def test_intermediate_fusion_lies_between():
    """With fusion_layers = all it equals late-masked attention; with 0 it equals early."""
    batch = pack(ROWS, STREAMS, 12, 24, LABELS, "toy")
    early, state = make("early")
    none, _ = make("intermediate", fusion_layers=0)
    some, _ = make("intermediate", fusion_layers=1)
    np.testing.assert_array_equal(early(state, batch), none(state, batch))
    difference = np.abs(np.asarray(early(state, batch) - some(state, batch)))[0].max(-1)
    # Samples 1 and 2 have one modality: a mask by modality cannot change them.
    assert np.all(difference[[1, 2]] < 1e-6)
    assert np.all(difference[[0, 3, 4]] > 1e-4)


def test_padding_parts_do_not_matter():
    """Garbage in unused part slots changes no output (segment 0 marks them)."""
    forward, state = make()
    batch = pack(ROWS, STREAMS, 12, 24, LABELS, "toy")
    noisy = {
        name: dataclasses.replace(
            stream, parts=np.where((stream.segment == 0)[..., None], 1e3, stream.parts)
        )
        for name, stream in batch.streams.items()
    }
    np.testing.assert_array_equal(
        forward(state, batch), forward(state, dataclasses.replace(batch, streams=noisy))
    )


@pytest.mark.parametrize("vote", ["mean", "weighted", "vote"])
def test_late_votes_of_one_modality_agree(vote):
    """Where a sample has one modality, every kind of vote gives that modality's prediction."""
    forward, state = make("late", late_vote=vote)
    reference, plain = make("late")
    batch = alone(sample(4, 0))
    logits = jax.nn.log_softmax(forward(state, batch)[0, 0])
    expected = jax.nn.log_softmax(reference(plain, batch)[0, 0])
    np.testing.assert_allclose(logits, expected, atol=1e-4)


def test_bfloat16_computes_near_float32_and_keeps_float32_parameters():
    batch = pack(ROWS, STREAMS, 12, 24, LABELS, "toy")
    full, state = make()
    half, half_state = make(dtype="bfloat16")
    assert {leaf.dtype for leaf in jax.tree.leaves(half_state)} == {jnp.dtype("float32")}
    np.testing.assert_allclose(half(half_state, batch), full(state, batch), atol=0.15)
    assert np.any(np.asarray(half(half_state, batch)) != np.asarray(full(state, batch)))
