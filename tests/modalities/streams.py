"""What the tests of all modalities share: streams by hand, and the laws of a tokenizer."""

from __future__ import annotations

import jax
import numpy as np
from flax import nnx

from multimed_jax.specs import ModalitySpec
from multimed_jax.types import Parts, Record, StreamBatch

D_MODEL = 24


def decode_one(spec: ModalitySpec, record: Record, rng=None) -> Parts:
    """The parts of the record's one stream, after checking them against `count` and the spec."""
    decoded = spec.decode(record, spec.options, rng)
    (name,) = decoded
    (stream,) = [stream for stream in spec.streams if stream.name == name]
    parts = decoded[name]
    assert spec.count(record, spec.options) == {stream.name: len(parts.parts)}
    assert parts.parts.shape[1:] == stream.patch_shape
    assert parts.parts.dtype == np.dtype(stream.dtype)
    assert parts.coords.shape == (len(parts.parts), stream.num_axes)
    assert parts.coords.dtype == np.float32
    assert parts.item.shape == (len(parts.parts),) and parts.item.dtype == np.int32
    return parts


def assert_missing(spec: ModalitySpec, record: Record) -> None:
    """The record lacks the modality: no parts, but features of the usual length."""
    assert spec.count(record, spec.options) == {}
    assert spec.decode(record, spec.options, None) == {}
    assert not spec.features(record, spec.options).any()
    spec.preview(record, spec.options)


def to_batch(samples: list[Parts], slots: int) -> StreamBatch:
    """One pack: the samples' parts after each other, then padding."""
    first = samples[0]
    parts = np.zeros((1, slots, *first.parts.shape[1:]), first.parts.dtype)
    coords = np.zeros((1, slots, first.coords.shape[1]), np.float32)
    segment = np.zeros((1, slots), np.int32)
    start = 0
    for number, sample in enumerate(samples, start=1):
        stop = start + len(sample.parts)
        parts[0, start:stop], coords[0, start:stop] = sample.parts, sample.coords
        segment[0, start:stop] = number
        start = stop
    return StreamBatch(parts, coords, segment, segment)


def run(module: nnx.Module, batch: StreamBatch) -> np.ndarray:
    """The module's tokens, compiled: one by one its operations compile far slower."""
    graph, params = nnx.split(module)
    return np.asarray(jax.jit(lambda p, b: nnx.merge(graph, p)(b))(params, batch))


def check_tokenizer(spec: ModalitySpec, first: Parts, second: Parts) -> nnx.Module:
    """Shape; finite; a sample's tokens depend neither on its neighbours nor on padding."""
    (stream,) = [s for s in spec.streams if s.patch_shape == first.parts.shape[1:]]
    module = spec.make_tokenizer(stream, D_MODEL, spec.options, nnx.Rngs(0))
    n, m = len(first.parts), len(second.parts)
    alone = run(module, to_batch([first], n))
    packed = run(module, to_batch([second, first], n + m + 3))
    assert packed.shape == (1, n + m + 3, D_MODEL) and packed.dtype == np.float32
    assert np.isfinite(packed).all()
    np.testing.assert_allclose(packed[0, m : m + n], alone[0], rtol=1e-4, atol=1e-4)
    if first.parts.shape == second.parts.shape:
        other = run(module, to_batch([second], m))
        assert np.abs(other - alone).max() > 1e-3, "tokens do not depend on the parts"
    return module
